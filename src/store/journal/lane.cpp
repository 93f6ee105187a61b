#include "store/journal/lane.hpp"

#include <algorithm>
#include <cerrno>

namespace penstock::store {
namespace {

constexpr seconds kSpareWait{1};  // for a spare that is being made right now

}  // namespace

Result<File> Lane::make(std::uint64_t segment) const {
  return create_segment(
      shared_.disk, shared_.directory,
      {.replica = shared_.replica, .epoch = shared_.epoch, .segment = segment, .lane = number_},
      shared_.segment_bytes);
}

Result<void> Lane::start(LanePoint before, std::uint64_t next, WallTime now) {
  auto first = make(next);
  if (!first) return std::unexpected(first.error());
  const std::scoped_lock lock(mutex_);
  buffer_.resize(kBufferBytes);
  segment_ = next - 1;
  begin_segment(std::move(*first), before, now);
  synced_ = {.segment = segment_, .offset = written_};
  noted_ = synced_;
  if (!write_out()) return refuse(Reason::gateway_error, "the journal cannot be written");
  return {};
}

bool Lane::has_room(Room room) const noexcept {
  if (spare_.is_open() || room == Room::closing) return true;
  const std::uint64_t kept = shared_.segment_bytes / (room == Room::opening ? 4 : 8);
  return written_ + size_ + kept <= shared_.segment_bytes;
}

void Lane::note_synced() {
  constexpr std::size_t kSize = 64;
  if (noted_ == synced_ || written_ + size_ + kSize > shared_.segment_bytes) return;
  noted_ = synced_;
  (void)frame(RecordType::synced, [&](ByteWriter& out) { encode(out, SyncedRecord{.safe = noted_}); });
}

void Lane::back_to(const Mark& mark) {
  size_ = mark.size;
  sequence_ = mark.sequence;
  next_ref_ = mark.refs;
  boost::unordered::erase_if(refs_, [&](const auto& entry) { return entry.second >= mark.refs; });
}

std::optional<std::uint32_t> Lane::ref(const void* key, std::uint8_t kind, std::string_view text) {
  if (text.empty()) return 0;
  const auto found = refs_.find(key);
  if (found != refs_.end()) return found->second;
  if (next_ref_ > kMaxRefs ||
      !frame(RecordType::define, [&](ByteWriter& out) { encode(out, next_ref_, kind, text); }))
    return std::nullopt;
  refs_.emplace(key, next_ref_);
  return next_ref_++;
}

bool Lane::write_out() {
  std::span<const std::byte> rest = std::span(buffer_).first(size_);
  while (!rest.empty()) {
    const std::int64_t done = shared_.disk.write_at(current_.fd(), rest, written_);
    if (done < 0 && errno == EINTR) continue;
    if (done <= 0) {
      const auto failed = disk_error("cannot write the journal");
      shared_.fail(failed.error());
      return false;
    }
    rest = rest.subspan(static_cast<std::size_t>(done));
    written_ += static_cast<std::uint64_t>(done);
  }
  size_ = 0;
  return true;
}

bool Lane::flush() {
  const std::scoped_lock lock(mutex_);
  return current_.is_open() && !shared_.failed.load(std::memory_order_relaxed) && write_out();
}

bool Lane::roll(Room room, std::unique_lock<std::mutex>& lock) {
  if (!write_out()) return false;
  if (!spare_.is_open() && making_spare_) {
    const std::uint64_t full = segment_;
    spare_made_.wait_for(lock, kSpareWait, [&] { return !making_spare_; });
    if (segment_ != full) return true;  // another thread went on already
  }
  File next = std::move(spare_);
  if (!next.is_open()) {
    if (room != Room::closing || making_spare_) return false;
    // The last resort: this may take a while, but the alternative is to lose how an attempt ended.
    auto made = make(segment_ + 1);
    if (!made) return false;
    next = std::move(*made);
  }
  closing_.push_back(std::move(current_));
  begin_segment(std::move(next), {.segment = segment_, .offset = written_}, read_clocks().wall);
  return true;
}

void Lane::begin_segment(File file, LanePoint before, WallTime now) {
  current_ = std::move(file);
  ++segment_;
  written_ = kHeaderSize;
  size_ = 0;
  refs_.clear();
  next_ref_ = 1;
  seed_ =
      frame_seed({.replica = shared_.replica, .epoch = shared_.epoch, .segment = segment_, .lane = number_});
  const EpochRecord begin{.epoch = shared_.epoch, .at = now, .before = before};
  (void)frame(RecordType::epoch, [&](ByteWriter& out) { encode(out, begin); });
  needs_spare_.store(true, std::memory_order_relaxed);
}

Result<void> Lane::make_spare() {
  std::unique_lock lock(mutex_);
  if (spare_.is_open() || !current_.is_open()) return {};
  making_spare_ = true;  // nobody rolls meanwhile, so the number stands
  const std::uint64_t next = segment_ + 1;
  lock.unlock();
  auto made = make(next);
  lock.lock();
  making_spare_ = false;
  spare_made_.notify_all();
  if (!made) return std::unexpected(made.error());
  spare_ = std::move(*made);
  needs_spare_.store(false, std::memory_order_relaxed);
  return {};
}

Result<bool> Lane::sync() {
  std::vector<File> full;
  int fd = -1;
  LanePoint target;
  {
    const std::scoped_lock lock(mutex_);
    if (!current_.is_open()) return false;
    if (!write_out()) return refuse(Reason::gateway_error, "the journal cannot be written");
    target = {.segment = segment_, .offset = written_};
    if (target == synced_) return false;
    full.swap(closing_);
    fd = current_.fd();  // stays open: only this thread closes what was current
  }
  for (const File& file : full)
    if (shared_.disk.sync(file.fd()) != 0) return disk_error("cannot sync the journal");
  if (shared_.disk.sync(fd) != 0) return disk_error("cannot sync the journal");
  const std::scoped_lock lock(mutex_);
  synced_ = target;
  return true;
}

LanePoint Lane::synced() const {
  const std::scoped_lock lock(mutex_);
  return synced_;
}

}  // namespace penstock::store
