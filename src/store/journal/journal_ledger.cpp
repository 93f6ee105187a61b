#include "store/journal/journal_ledger.hpp"

namespace penstock::store {

std::vector<CallRecord> JournalLedger::recent(std::size_t count) const {
  (void)writer_.catch_up(wait_);
  auto calls = database_.recent_calls(count);
  return calls ? std::move(*calls) : std::vector<CallRecord>{};
}

NanoUsd JournalLedger::total_cost() const {
  (void)writer_.catch_up(wait_);
  return database_.total_cost().value_or(NanoUsd{});
}

bool LedgerHistory::is_whole() const {
  const std::scoped_lock lock(mutex_);
  const std::uint64_t reserves = journal_.reserves();
  if (reserves == known_reserves_) return was_whole_;
  was_whole_ = writer_.catch_up(wait_);
  known_reserves_ = reserves;  // in any case: with the database gone, one wait must do
  return was_whole_;
}

Spent LedgerHistory::spent(SubjectKind kind, std::string_view name, policy::WindowSpan span) const {
  if (!is_whole()) return {.settled = kMaxNanoUsd};  // what is missing could be anything
  return database_.spent(kind, name, span);
}

std::vector<Started> LedgerHistory::started(SubjectKind kind, std::string_view name, WallTime since,
                                            nanoseconds step) const {
  (void)is_whole();
  return database_.started(kind, name, since, step);
}

}  // namespace penstock::store
