#include "store/journal/journal.hpp"

#include <algorithm>
#include <array>

#include <boost/container/small_vector.hpp>

namespace penstock::store {
namespace {

constexpr std::uint64_t kLeastSegment = 4 * 1024;
constexpr std::uint64_t kMostSegment = std::uint64_t{1} << 30;

std::size_t thread_number() noexcept {
  static std::atomic<std::size_t> next{0};
  thread_local const std::size_t number = next.fetch_add(1, std::memory_order_relaxed);
  return number;
}

}  // namespace

Result<std::unique_ptr<Journal>> Journal::open(const DataDirectory& directory, JournalOptions options,
                                               Disk& disk) {
  options.segment_bytes = std::clamp(options.segment_bytes, kLeastSegment, kMostSegment);
  options.lanes = std::max<std::size_t>(options.lanes, 1);
  auto recovered = recover_journal(directory.journal(), directory.replica());
  if (!recovered) return std::unexpected(recovered.error());
  return std::unique_ptr<Journal>(new Journal(directory, std::move(options), disk, std::move(*recovered)));
}

Journal::Journal(const DataDirectory& directory, JournalOptions options, Disk& disk,
                 RecoveredJournal recovered)
    : options_(std::move(options)),
      shared_{.disk = disk,
              .directory = directory.journal(),
              .replica = directory.replica(),
              .epoch = options_.epoch,
              .segment_bytes = options_.segment_bytes,
              .fail = [this](const Error& error) { fail(error); }},
      recovered_(std::move(recovered)) {
  for (const auto& [lane, found] : recovered_.lanes) oldest_[lane] = found.first;
  for (std::size_t i = 0; i < options_.lanes; ++i)
    lanes_.emplace_back(shared_, static_cast<std::uint32_t>(i));
}

Journal::~Journal() { close(); }

Result<void> Journal::start(std::span<const JournalPosition> applied, WallTime now) {
  for (Lane& lane : lanes_) {
    std::uint64_t last = 0;
    LanePoint before;
    if (const auto found = recovered_.lanes.find(lane.number()); found != recovered_.lanes.end()) {
      last = found->second.last;
      before = {.segment = last, .offset = found->second.end};
    }
    for (const JournalPosition& position : applied)
      if (position.lane == lane.number()) last = std::max(last, position.segment);
    if (auto begun = lane.start(before, last + 1, now); !begun) return begun;
    if (auto spare = lane.make_spare(); !spare) return spare;
    const std::scoped_lock lock(mutex_);
    oldest_.try_emplace(lane.number(), last + 1);
    applied_[lane.number()] = {.segment = last + 1, .offset = kHeaderSize};
  }
  started_ = true;
  accepts_ = true;
  thread_ = std::thread([this] { run(); });
  mark_dirty();  // the segments' first records
  return {};
}

void Journal::close() {
  if (!started_.exchange(false)) return;
  accepts_ = false;
  {
    const std::scoped_lock lock(mutex_);
    stopping_ = true;
  }
  wake_.notify_one();
  thread_.join();
}

Lane& Journal::lane_of_thread() noexcept { return lanes_[thread_number() % lanes_.size()]; }

template <class Body>
std::optional<Appended> Journal::append(Lane::Room room, Lane::Through through, Body&& body) noexcept {
  if (!started_.load(std::memory_order_relaxed)) return std::nullopt;
  Lane& lane = lane_of_thread();
  const std::optional<LanePoint> end = lane.append(room, through, body);
  mark_dirty();
  if (!end) return std::nullopt;
  return Appended{.lane = lane.number(), .end = *end};
}

std::optional<Appended> Journal::reserve(ReserveRecord record,
                                         std::span<const SubjectRef* const> subjects) noexcept {
  if (!accepts() || subjects.size() > kMaxSubjects) return std::nullopt;
  const auto done = append(Lane::Room::opening, Lane::Through::now, [&](Lane& lane) {
    std::array<std::uint32_t, kMaxSubjects> refs{};
    for (std::size_t i = 0; i < subjects.size(); ++i) {
      const auto ref = lane.ref(subjects[i], static_cast<std::uint8_t>(subjects[i]->kind), subjects[i]->name);
      if (!ref) return false;
      refs[i] = *ref;
    }
    record.order = shared_.order.fetch_add(1, std::memory_order_relaxed) + 1;
    return lane.frame(RecordType::reserve,
                      [&](ByteWriter& out) { encode(out, record, std::span(refs).first(subjects.size())); });
  });
  if (done) reserves_.fetch_add(1, std::memory_order_relaxed);
  return done;
}

bool Journal::settle(SettleRecord record) noexcept {
  const bool done = append(Lane::Room::closing, Lane::Through::now, [&](Lane& lane) {
                      record.order = shared_.order.fetch_add(1, std::memory_order_relaxed) + 1;
                      return lane.frame(RecordType::settle, [&](ByteWriter& out) { encode(out, record); });
                    }).has_value();
  if (!done) ++lost_;
  return done;
}

bool Journal::expire(ExpireRecord record) noexcept {
  const bool done = append(Lane::Room::closing, Lane::Through::now, [&](Lane& lane) {
                      record.order = shared_.order.fetch_add(1, std::memory_order_relaxed) + 1;
                      return lane.frame(RecordType::expire, [&](ByteWriter& out) { encode(out, record); });
                    }).has_value();
  if (!done) ++lost_;
  return done;
}

bool Journal::call(const CallRecord& call) noexcept {
  const bool done =
      call.attempts.size() <= kMaxAttempts &&
      append(Lane::Room::telling, Lane::Through::later, [&](Lane& lane) {
        boost::container::small_vector<std::uint32_t, 16> refs;
        bool is_complete = true;
        const auto add = [&](Name name) {
          const auto ref = lane.ref(name.view().data(), kNameText, name.view());
          is_complete &= ref.has_value();
          refs.push_back(ref.value_or(0));
        };
        for (const Name name : {call.route, call.consumer, call.team, call.key, call.model}) add(name);
        for (const AttemptRecord& attempt : call.attempts) {
          add(attempt.provider);
          add(attempt.endpoint);
        }
        return is_complete && lane.frame(RecordType::call, [&](ByteWriter& out) { encode(out, call, refs); });
      }).has_value();
  if (!done) ++lost_;
  return done;
}

bool Journal::budget(const BudgetChange& change) noexcept {
  return append(Lane::Room::telling, Lane::Through::now,
                [&](Lane& lane) {
                  return lane.frame(RecordType::budget, [&](ByteWriter& out) { encode(out, change); });
                })
      .has_value();
}

std::vector<Journal::End> Journal::cut() {
  for (Lane& lane : lanes_) lane.flush();
  std::vector<std::unique_lock<std::mutex>> locks;
  locks.reserve(lanes_.size());
  for (Lane& lane : lanes_) locks.emplace_back(lane.mutex());
  std::vector<End> ends;
  for (const Lane& lane : lanes_) ends.push_back({.lane = lane.number(), .at = lane.written_locked()});
  return ends;
}

void Journal::on_records(std::function<void()> wake) {
  const std::scoped_lock lock(mutex_);
  on_records_ = std::move(wake);
}

void Journal::applied(std::span<const JournalPosition> positions) {
  {
    const std::scoped_lock lock(mutex_);
    bool has_deleted = false;
    for (const JournalPosition& position : positions) {
      applied_[position.lane] = {.segment = position.segment, .offset = position.offset};
      const auto oldest = oldest_.find(position.lane);
      if (oldest == oldest_.end()) continue;
      std::uint64_t limit = position.segment;
      // The last segment of the process before gets no successor that tells that it is full.
      if (const auto old = recovered_.lanes.find(position.lane); old != recovered_.lanes.end() &&
                                                                 position.segment == old->second.last &&
                                                                 position.offset >= old->second.end)
        ++limit;
      for (; oldest->second < limit; ++oldest->second) {
        std::error_code error;
        std::filesystem::remove(segment_path(shared_.directory, position.lane, oldest->second), error);
        if (error) break;  // tried again with the next batch
        has_deleted = true;
      }
    }
    if (has_deleted) (void)sync_directory(shared_.directory);  // one that comes back is known to be applied
  }
  judge_backlog();
}

std::uint64_t Journal::unapplied_bytes() {
  std::uint64_t bytes = 0;
  const std::scoped_lock lock(mutex_);
  for (Lane& lane : lanes_) {
    const std::scoped_lock lane_lock(lane.mutex());
    const LanePoint end = lane.written_locked();
    const auto found = applied_.find(lane.number());
    if (found == applied_.end() || found->second >= end) continue;
    bytes +=
        (end.segment - found->second.segment) * shared_.segment_bytes + end.offset - found->second.offset;
  }
  return bytes;
}

void Journal::judge_backlog() {
  const bool has_room = unapplied_bytes() <= options_.max_bytes;
  accepts_ = has_room && started_ && !shared_.failed;
}

std::string Journal::space_error() const {
  const std::scoped_lock lock(mutex_);
  return space_error_;
}

void Journal::fail(const Error& error) {
  if (shared_.failed.exchange(true)) return;
  accepts_ = false;
  if (options_.on_failed) options_.on_failed(error);
}

}  // namespace penstock::store
