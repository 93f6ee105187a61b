#pragma once

#include <map>
#include <mutex>

#include "store/journal/journal_testing.hpp"
#include "store/ledger_database.hpp"

namespace penstock::store {

/// A LedgerDatabase in memory that insists on what the writer promises, and fails when a test says so.
class FakeDatabase final : public LedgerDatabase {
 public:
  enum class Fault : std::uint8_t {
    none,
    refused,  ///< nothing is applied
    lost,     ///< applied, but the answer does not come
  };

  mutable std::mutex mutex;
  std::map<AttemptId, AttemptEntry> attempts;
  std::vector<CallRecord> calls;
  std::vector<BudgetChange> budget_changes;
  std::map<std::uint32_t, JournalPosition> known;
  std::vector<std::string> mistakes;  ///< of the writer
  std::size_t batches = 0;
  std::function<Fault(std::size_t step)> fault;  ///< of the nth call of open() or apply(), from 1
  bool is_gone = false;

  Result<void> open() override {
    const std::scoped_lock lock(mutex);
    if (next_fault() != Fault::none) return gone();
    return {};
  }
  Result<std::vector<JournalPosition>> positions() override {
    const std::scoped_lock lock(mutex);
    if (is_gone) return std::unexpected(gone().error());
    std::vector<JournalPosition> all;
    for (const auto& [lane, position] : known) all.push_back(position);
    return all;
  }
  Result<std::vector<AttemptEntry>> open_attempts() override {
    const std::scoped_lock lock(mutex);
    std::vector<AttemptEntry> all;
    for (const auto& [id, entry] : attempts)
      if (!entry.end) all.push_back(entry);
    return all;
  }
  Result<void> apply(const LedgerBatch& batch) override {
    const std::scoped_lock lock(mutex);
    const Fault fault_now = next_fault();
    if (fault_now == Fault::refused) return gone();
    if (!is_repeated(batch)) take(batch);
    if (fault_now == Fault::lost) return gone();
    return {};
  }
  Result<std::vector<CallRecord>> recent_calls(std::size_t count) override {
    const std::scoped_lock lock(mutex);
    if (is_gone) return std::unexpected(gone().error());
    std::vector<CallRecord> newest(
        calls.rbegin(), calls.rbegin() + static_cast<std::ptrdiff_t>(std::min(count, calls.size())));
    return newest;
  }
  Result<NanoUsd> total_cost() override {
    const std::scoped_lock lock(mutex);
    NanoUsd total;
    for (const CallRecord& call : calls) total += call.cost;
    return total;
  }
  Result<void> for_each_call(WallTime, WallTime, const std::function<bool(const CallRecord&)>&) override {
    return {};
  }
  Result<void> for_each_attempt(WallTime from, WallTime to,
                                const std::function<bool(const AttemptEntry&)>& visit) override {
    const std::scoped_lock lock(mutex);
    for (const auto& [id, entry] : attempts)
      if (entry.reserved_at >= from && entry.reserved_at < to && !visit(entry)) break;
    return {};
  }
  Result<std::vector<Balance>> balances(WallTime, WallTime) override { return std::vector<Balance>{}; }
  Result<LedgerAudit> audit() override { return LedgerAudit{}; }
  Result<std::int64_t> forget_before(WallTime) override { return 0; }

  Spent spent(SubjectKind kind, std::string_view name, policy::WindowSpan span) const override {
    const std::scoped_lock lock(mutex);
    Spent sum;
    for (const auto& [id, entry] : attempts)
      if (entry.reserved_at >= span.start && entry.reserved_at < span.end &&
          std::ranges::find(entry.subjects, SubjectRef{kind, std::string(name)}) != entry.subjects.end())
        sum.settled += entry.end ? entry.end->cost : entry.estimate;
    return sum;
  }
  std::vector<Started> started(SubjectKind, std::string_view, WallTime, nanoseconds) const override {
    return {};
  }

  void set_gone(bool gone_now) {
    const std::scoped_lock lock(mutex);
    is_gone = gone_now;
  }
  std::int64_t total_of_attempts() const {
    const std::scoped_lock lock(mutex);
    std::int64_t total = 0;
    for (const auto& [id, entry] : attempts) total += (entry.end ? entry.end->cost : entry.estimate).count;
    return total;
  }
  /// Each attempt as "sequence:open" or "sequence:cost", with "!" when it expired.
  std::vector<std::string> lines() const {
    const std::scoped_lock lock(mutex);
    std::vector<std::string> all;
    for (const auto& [id, entry] : attempts)
      all.push_back(
          std::to_string(id.sequence) + ":" +
          (entry.end ? std::to_string(entry.end->cost.count) + (entry.end->expired ? "!" : "") : "open"));
    return all;
  }

 private:
  static std::unexpected<Error> gone() {
    return refuse(Reason::policy_state_unavailable, "the ledger's database cannot be reached",
                  "no route to it");
  }
  Fault next_fault() {
    ++step_;
    if (is_gone) return Fault::refused;
    return fault ? fault(step_) : Fault::none;
  }
  bool is_repeated(const LedgerBatch& batch) const {
    if (batch.positions.empty()) return false;
    return std::ranges::all_of(batch.positions, [&](const JournalPosition& position) {
      const auto found = known.find(position.lane);
      return found != known.end() && found->second == position;
    });
  }
  void take(const LedgerBatch& batch) {
    ++batches;
    for (const AttemptChange& change : batch.attempts) {
      const auto found = attempts.find(change.now.id);
      const std::string name = "attempt " + std::to_string(change.now.id.sequence);
      if (change.is_new ? found != attempts.end() : found == attempts.end())
        mistakes.push_back(name + (change.is_new ? " is there already" : " is not there"));
      else if (!change.is_new && found->second.end != change.before)
        mistakes.push_back(name + " ended otherwise before");
      if (change.before && !change.before->expired) mistakes.push_back(name + " is corrected twice");
      attempts[change.now.id] = change.now;
    }
    calls.insert(calls.end(), batch.calls.begin(), batch.calls.end());
    budget_changes.insert(budget_changes.end(), batch.budget_changes.begin(), batch.budget_changes.end());
    for (const JournalPosition& position : batch.positions) {
      const auto found = known.find(position.lane);
      if (found != known.end() && std::pair(position.segment, position.offset) <
                                      std::pair(found->second.segment, found->second.offset))
        mistakes.push_back("lane " + std::to_string(position.lane) + " goes back");
      known[position.lane] = position;
    }
  }

  std::size_t step_ = 0;
};

}  // namespace penstock::store
