#include "store/journal/ledger_writer.hpp"

#include <algorithm>

namespace penstock::store {
namespace {

MonotonicTime monotonic_now() { return std::chrono::steady_clock::now(); }

/// How long before its settlement an attempt may have been reserved, at most: leases are minutes.
constexpr std::chrono::hours kLongestAttempt{48};

bool is_unreachable(const Error& error) { return error.reason == Reason::policy_state_unavailable; }

}  // namespace

LedgerWriter::LedgerWriter(Journal& journal, LedgerDatabase& database, LedgerWriterOptions options)
    : journal_(journal), database_(database), options_(std::move(options)), tail_(journal) {
  options_.max_batch = std::max<std::size_t>(options_.max_batch, 1);
}

LedgerWriter::~LedgerWriter() { stop(nanoseconds{0}); }

// ---- Start

Result<void> LedgerWriter::open_database() {
  const MonotonicTime deadline = monotonic_now() + options_.start_wait;
  milliseconds wait = options_.retry_first;
  for (;;) {
    const Result<void> opened = database_.open();
    note(opened);
    if (opened || !is_unreachable(opened.error()) || monotonic_now() + wait > deadline) return opened;
    std::unique_lock lock(mutex_);
    wake_.wait_for(lock, wait, [this] { return is_stopping_; });
    if (is_stopping_) return opened;
    wait = std::min(wait * 2, options_.retry_most);
  }
}

Result<void> LedgerWriter::recover(WallTime now) {
  if (auto opened = open_database(); !opened) return opened;
  const auto applied = database_.positions();
  if (!applied) return std::unexpected(applied.error());
  if (auto started = tail_.start_at(*applied); !started) return started;
  auto open = database_.open_attempts();
  if (!open) return std::unexpected(open.error());
  fold_.set_open(std::move(*open));
  std::vector<Journal::End> ends;
  for (const auto& [lane, found] : journal_.recovered().lanes)
    ends.push_back({.lane = lane, .at = {.segment = found.last, .offset = found.end}});
  if (auto found = find_expired(ends, *applied); !found) return found;
  if (auto done = apply_until(ends, Pass::once); !done) return done;

  // Their process is dead, so nobody will tell what became of them: charged, since they may have been billed.
  const std::size_t expired = fold_.expire_others(journal_.epoch(), now);
  if (expired != 0)
    if (auto done = apply(fold_.take(), Pass::once); !done) return done;
  {
    const std::scoped_lock lock(mutex_);
    status_.recovered_expired = expired;
    status_.cut_bytes = journal_.recovered().cut_bytes;
    status_.dropped_records = journal_.recovered().dropped_records;
  }
  return journal_.start(tail_.positions(), now);
}

Result<void> LedgerWriter::find_expired(std::span<const Journal::End> ends,
                                        std::span<const JournalPosition> applied) {
  JournalTail ahead(journal_);
  if (auto started = ahead.start_at(applied); !started) return started;
  std::set<AttemptId> reserved;
  std::map<AttemptId, WallTime> settled;
  std::uint64_t records = 0;
  const auto all = ahead.read(ends, std::numeric_limits<std::size_t>::max(), [&](const Record& record) {
    ++records;
    if (const auto* const begin = std::get_if<ReserveRecord>(&record)) reserved.insert(begin->id);
    const auto* const end = std::get_if<SettleRecord>(&record);
    if (end == nullptr || fold_.is_open(end->id) || reserved.erase(end->id) != 0) return;
    settled.emplace(end->id, end->at);
  });
  if (!all) return std::unexpected(all.error());
  {
    const std::scoped_lock lock(mutex_);
    status_.recovered_records = records;
  }
  if (settled.empty()) return {};
  const auto by_time = [](const auto& a, const auto& b) { return a.second < b.second; };
  const WallTime first = std::ranges::min_element(settled, by_time)->second;
  const WallTime last = std::ranges::max_element(settled, by_time)->second;
  std::vector<AttemptEntry> expired;
  const auto looked = database_.for_each_attempt(
      first - kLongestAttempt, last + kLongestAttempt, [&](const AttemptEntry& entry) {
        if (entry.end && entry.end->expired && settled.contains(entry.id)) expired.push_back(entry);
        return expired.size() < settled.size();
      });
  if (!looked) return std::unexpected(looked.error());
  fold_.set_expired(std::move(expired));
  return {};
}

void LedgerWriter::start() {
  {
    const std::scoped_lock lock(mutex_);
    if (is_running_) return;
    is_running_ = true;
  }
  journal_.on_records([this] {
    {
      const std::scoped_lock lock(mutex_);
      if (has_records_) return;
      has_records_ = true;
      if (!behind_since_) behind_since_ = monotonic_now();
    }
    wake_.notify_one();
  });
  thread_ = std::thread([this] { run(); });
}

// ---- Its thread

void LedgerWriter::run() {
  std::unique_lock lock(mutex_);
  for (;;) {
    const auto is_asked = [this] { return is_stopping_ || wanted_ > done_; };
    wake_.wait(lock, [&] { return is_asked() || has_records_; });
    wake_.wait_for(lock, options_.batch_delay, is_asked);  // others may come
    has_records_ = false;
    const std::uint64_t goal = wanted_;
    const bool is_last = is_stopping_;
    lock.unlock();
    const auto done = apply_until(journal_.cut(), Pass::until_stopped);
    lock.lock();
    if (done) {
      done_ = goal;
      if (!has_records_ || is_last) behind_since_.reset();
    } else if (!is_stopping_) {
      // Not the database: what the journal wrote cannot be read. Nothing that follows would be right.
      lock.unlock();
      journal_.fail(done.error());
      lock.lock();
    }
    if (!done || is_last) {
      is_running_ = false;
      if (!done) behind_since_ = behind_since_.value_or(monotonic_now());
    }
    answered_.notify_all();
    if (!is_running_) return;
  }
}

Result<void> LedgerWriter::apply_until(std::span<const Journal::End> ends, Pass pass) {
  for (bool is_all = false; !is_all;) {
    const auto read =
        tail_.read(ends, options_.max_batch, [this](Record record) { fold_.add(std::move(record)); });
    if (!read) return std::unexpected(read.error());
    is_all = *read;
    LedgerBatch batch = fold_.take();
    batch.positions = tail_.positions();
    bool is_worth_it = !batch.attempts.empty() || !batch.calls.empty() || !batch.budget_changes.empty();
    // Without records a new place matters only when it is in another file: the old one is about to be
    // deleted.
    for (const JournalPosition& position : batch.positions)
      is_worth_it |= std::exchange(applied_segments_[position.lane], position.segment) != position.segment;
    if (is_worth_it)
      if (auto done = apply(batch, pass); !done) return done;
    journal_.applied(batch.positions);
    const std::scoped_lock lock(mutex_);
    status_.ignored = fold_.ignored();
  }
  return {};
}

Result<void> LedgerWriter::apply(const LedgerBatch& batch, Pass pass) {
  milliseconds wait = options_.retry_first;
  for (bool is_first = true;; is_first = false) {
    Result<void> done = is_first ? Result<void>{} : database_.open();
    if (done) done = database_.apply(batch);
    note(done);
    if (done || pass == Pass::once) return done;
    std::unique_lock lock(mutex_);
    if (is_stopping_)
      wake_.wait_until(lock, std::min(stop_at_, monotonic_now() + options_.retry_first));
    else
      wake_.wait_for(lock, wait, [this] { return is_stopping_; });
    if (is_stopping_ && monotonic_now() >= stop_at_) return done;
    wait = std::min(wait * 2, options_.retry_most);
  }
}

void LedgerWriter::note(const Result<void>& done) {
  bool is_new = false;
  {
    const std::scoped_lock lock(mutex_);
    is_new = !done && status_.database_ok;
    status_.database_ok = done.has_value();
    status_.database_error = done ? std::string() : done.error().detail;
    if (done) ++status_.applied;
  }
  if (is_new && options_.on_error) options_.on_error(done.error());
}

// ---- Others

bool LedgerWriter::catch_up(nanoseconds bound) {
  std::unique_lock lock(mutex_);
  const std::uint64_t goal = ++wanted_;
  wake_.notify_one();
  answered_.wait_for(lock, bound, [&] { return done_ >= goal || !is_running_; });
  return done_ >= goal;
}

bool LedgerWriter::stop(nanoseconds bound) {
  {
    const std::scoped_lock lock(mutex_);
    if (!is_stopping_) ++wanted_;
    is_stopping_ = true;
    stop_at_ = monotonic_now() + bound;
  }
  wake_.notify_all();
  if (!thread_.joinable()) return true;
  thread_.join();
  journal_.on_records({});
  const std::scoped_lock lock(mutex_);
  return done_ >= wanted_;
}

LedgerStatus LedgerWriter::status(MonotonicTime now) const {
  LedgerStatus told;
  {
    const std::scoped_lock lock(mutex_);
    told = status_;
    if (behind_since_) told.behind = std::max(nanoseconds{0}, now - *behind_since_);
  }
  told.unapplied_bytes = journal_.unapplied_bytes();
  told.journal_failed = journal_.has_failed();
  told.space_error = journal_.space_error();
  told.lost_records = journal_.lost();
  return told;
}

}  // namespace penstock::store
