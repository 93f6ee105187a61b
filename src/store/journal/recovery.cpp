#include "store/journal/recovery.hpp"

#include <algorithm>
#include <cerrno>
#include <optional>
#include <vector>

#include <fcntl.h>
#include <unistd.h>

#include "store/journal/segment_files.hpp"

namespace penstock::store {
namespace {

/// More than any setting allows; a file that is larger is none of ours.
constexpr std::uint64_t kMaxSegment = std::uint64_t{1} << 31;

struct Found {
  std::uint64_t frames = 0;
  LanePoint safe;          // the highest that a `synced` record among them tells
  std::uint64_t used = 0;  // where the last byte that is not zero ends; 0: none
};

void look_through(std::span<const std::byte> bytes, std::uint64_t at, std::uint32_t seed, Found& found) {
  for (std::size_t i = bytes.size(); i > 0; --i)
    if (bytes[i - 1] != std::byte{0}) {
      found.used = at + i;
      bytes = bytes.first(i);
      break;
    }
  while (!bytes.empty()) {
    const auto frame = parse_frame(bytes, seed);
    if (!frame) {
      bytes = bytes.subspan(1);
      continue;
    }
    ++found.frames;
    if (frame->type == RecordType::synced)
      if (const auto record = decode_record(frame->type, frame->payload, Dictionary()))
        found.safe = std::max(found.safe, std::get<SyncedRecord>(*record).safe);
    bytes = bytes.subspan(frame->size());
  }
}

/// Good frames anywhere in [from, end of the file): a hole has no frame that says where the next one begins.
/// What was never written is skipped: that is most of a segment.
Result<Found> look_behind(const OpenSegment& segment, std::uint64_t from, const std::filesystem::path& path) {
  Found found;
  const std::uint32_t seed = frame_seed(segment.header);
  const int fd = segment.file.fd();
  std::vector<std::byte> bytes;
  while (from < segment.size) {
    const off_t data = ::lseek(fd, static_cast<off_t>(from), SEEK_DATA);
    if (data < 0 && errno == ENXIO) break;
    const off_t hole = ::lseek(fd, data, SEEK_HOLE);
    if (data < 0 || hole < 0) return disk_error("cannot read " + path.string());
    bytes.resize(static_cast<std::size_t>(hole - data));
    std::size_t size = 0;
    while (size < bytes.size()) {
      const std::int64_t got =
          read_file(fd)(static_cast<std::uint64_t>(data) + size, std::span(bytes).subspan(size));
      if (got < 0) return disk_error("cannot read " + path.string());
      if (got == 0) break;
      size += static_cast<std::size_t>(got);
    }
    look_through(std::span(bytes).first(size), static_cast<std::uint64_t>(data), seed, found);
    from = static_cast<std::uint64_t>(hole);
  }
  return found;
}

class LaneRecovery {
 public:
  LaneRecovery(const std::filesystem::path& directory, std::uint64_t replica, std::uint32_t lane,
               std::vector<std::uint64_t> segments, RecoveredJournal& out)
      : directory_(directory), replica_(replica), lane_(lane), segments_(std::move(segments)), out_(out) {}

  Result<void> run();

 private:
  [[nodiscard]] std::filesystem::path path(std::size_t index) const {
    return segment_path(directory_, lane_, segments_[index]);
  }
  Result<OpenSegment> open(std::size_t index) const {
    return open_segment(path(index), replica_, lane_, segments_[index]);
  }
  /// Reads the frames of a segment up to the first that is none; returns whether the lane goes on behind it.
  Result<bool> read(std::size_t index);
  /// What is behind `end` of segment `index` is no part of the journal: cut it off, or say that it is damage.
  Result<void> cut(std::size_t index, std::uint64_t end);
  Result<void> remove_from(std::size_t index);

  const std::filesystem::path& directory_;
  std::uint64_t replica_;
  std::uint32_t lane_;
  std::vector<std::uint64_t> segments_;
  RecoveredJournal& out_;
  std::uint64_t epoch_ = 0;
  std::optional<std::uint64_t> next_sequence_;  // none: whatever comes
  std::uint64_t end_ = kHeaderSize;             // of the segment before
};

Result<void> LaneRecovery::run() {
  for (std::size_t i = 1; i < segments_.size(); ++i)
    if (segments_[i] != segments_[i - 1] + 1)
      return corrupt(segment_path(directory_, lane_, segments_[i - 1] + 1), 0, "this file is missing");
  for (std::size_t i = 0; i < segments_.size(); ++i) {
    const auto goes_on = read(i);
    if (!goes_on) return std::unexpected(goes_on.error());
    if (!*goes_on) break;
  }
  // Made ahead and never used.
  if (!segments_.empty() && end_ == kHeaderSize)
    if (auto removed = remove_from(segments_.size() - 1); !removed) return removed;
  if (!segments_.empty())
    out_.lanes[lane_] = {.first = segments_.front(), .last = segments_.back(), .end = end_};
  return {};
}

Result<bool> LaneRecovery::read(std::size_t index) {
  const auto segment = open(index);
  if (!segment) return std::unexpected(segment.error());
  if (segment->size > kMaxSegment)
    return corrupt(path(index), kMaxSegment, "it is larger than a segment may be");
  const bool is_first = index == 0;
  if (!is_first && segment->header.epoch != epoch_) next_sequence_ = 1;
  epoch_ = segment->header.epoch;

  FrameReader reader(read_file(segment->file.fd()), frame_seed(segment->header), kHeaderSize, segment->size);
  for (;;) {
    const std::uint64_t at = reader.offset();
    const auto frame = reader.peek();
    if (!frame) break;
    if (next_sequence_ && frame->sequence != *next_sequence_) {
      // At a segment's begin: the end of the one before may be what a power failure took.
      if (at == kHeaderSize && !is_first) {
        if (auto done = cut(index - 1, end_); !done) return std::unexpected(done.error());
        return false;
      }
      return corrupt(path(index), at,
                     "record " + std::to_string(frame->sequence) + " stands where " +
                         std::to_string(*next_sequence_) + " belongs");
    }
    next_sequence_ = frame->sequence + 1;
    ++out_.records;
    out_.bytes += frame->size();
    reader.skip(*frame);
  }
  end_ = reader.offset();
  if (index + 1 < segments_.size()) {
    const auto next = open(index + 1);
    if (!next) return std::unexpected(next.error());
    FrameReader behind(read_file(next->file.fd()), frame_seed(next->header), kHeaderSize, next->size);
    const auto first = behind.peek();
    if (next->header.epoch == epoch_) {
      if (first && first->sequence == next_sequence_) return true;
    } else {
      // A later process: it had this one mended first, and wrote down where it ended then.
      std::optional<Record> record;
      if (first) record = decode_record(first->type, first->payload, Dictionary());
      const auto* const begin = record ? std::get_if<EpochRecord>(&*record) : nullptr;
      const LanePoint here{.segment = segments_[index], .offset = end_};
      if (segment->size != end_ || (begin != nullptr && begin->before != here))
        return corrupt(path(index), end_, "there is no good record here, but a later process saw some");
      return true;
    }
  }
  if (auto done = cut(index, end_); !done) return std::unexpected(done.error());
  return false;
}

Result<void> LaneRecovery::cut(std::size_t index, std::uint64_t end) {
  const LanePoint hole{.segment = segments_[index], .offset = end};
  std::uint64_t frames = 0;
  for (std::size_t i = index; i < segments_.size(); ++i) {
    const auto segment = open(i);
    if (!segment) return std::unexpected(segment.error());
    const auto found = look_behind(*segment, i == index ? end : kHeaderSize, path(i));
    if (!found) return std::unexpected(found.error());
    const bool is_foreign = segment->header.epoch != epoch_ && found->frames != 0;
    if (found->safe > hole || is_foreign)
      return corrupt(path(index), end,
                     "there is no good record here, but later ones say that this was safe on the disk");
    frames += found->frames;
    if (i == index && found->used > end) out_.cut_bytes += found->used - end;
  }
  out_.dropped_records += frames;
  if (auto removed = remove_from(index + 1); !removed) return removed;
  const File file(::open(path(index).c_str(), O_RDWR | O_CLOEXEC));
  if (!file.is_open() || ::ftruncate(file.fd(), static_cast<off_t>(end)) != 0 || ::fdatasync(file.fd()) != 0)
    return disk_error("cannot cut off the end of " + path(index).string());
  end_ = end;
  return {};
}

Result<void> LaneRecovery::remove_from(std::size_t index) {
  if (index >= segments_.size()) return {};
  while (segments_.size() > index) {
    if (::unlink(path(segments_.size() - 1).c_str()) != 0)
      return disk_error("cannot delete " + path(segments_.size() - 1).string());
    segments_.pop_back();
  }
  return sync_directory(directory_);
}

}  // namespace

Result<RecoveredJournal> recover_journal(const std::filesystem::path& directory, std::uint64_t replica) {
  RecoveredJournal recovered;
  auto lanes = list_segments(directory);
  if (!lanes) return std::unexpected(lanes.error());
  for (auto& [lane, segments] : *lanes)
    if (auto done = LaneRecovery(directory, replica, lane, std::move(segments), recovered).run(); !done)
      return std::unexpected(done.error());
  return recovered;
}

}  // namespace penstock::store
