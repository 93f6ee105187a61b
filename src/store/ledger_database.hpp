#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "base/result.hpp"
#include "store/history.hpp"
#include "store/ledger.hpp"

/// The database behind the journal: what one writer applies in batches, and what is read for reports.
namespace penstock::store {

struct SubjectRef {
  SubjectKind kind = SubjectKind::provider;
  std::string name;
  friend auto operator<=>(const SubjectRef&, const SubjectRef&) = default;
};

/// How an attempt's reservation ended, as the journal told it.
struct AttemptEnd {
  WallTime at{};
  Ending ending = Ending::estimate;
  bool expired = false;     ///< nobody settled it: its lease ran out, or its process died
  NanoUsd cost{};           ///< what is charged: the estimate for Ending::estimate, 0 for released
  std::int64_t tokens = 0;  ///< used, or the estimate where nobody told
  friend bool operator==(const AttemptEnd&, const AttemptEnd&) = default;
};

/// An attempt as money: what was held for whom, and what became of it.
struct AttemptEntry {
  AttemptId id;
  WallTime reserved_at{};            ///< names the windows that it counts in, for good
  std::vector<SubjectRef> subjects;  ///< sorted; everything that it counts for
  NanoUsd estimate{};
  std::int64_t tokens = 0;
  std::optional<AttemptEnd> end;  ///< none: open
};

/// One step of one attempt. Balanced moves follow from it: available -> reserved -> spent, available,
/// overrun.
struct AttemptChange {
  AttemptEntry now;                  ///< after the change
  bool is_new = true;                ///< else the database has it already, as open or ended with `before`
  std::optional<AttemptEnd> before;  ///< a late settlement corrects this end, once
};

struct BudgetChange {
  WallTime at{};
  SubjectRef subject;
  std::string before;  ///< "20 USD daily hard UTC"; empty: there was none
  std::string after;   ///< empty: removed
  std::string who;     ///< "configuration file" or an operator
};

/// Everything of the lane before it is applied: segments below `segment`, and `offset` bytes of it.
struct JournalPosition {
  std::uint32_t lane = 0;
  std::uint64_t segment = 0;
  std::uint64_t offset = 0;
  friend bool operator==(const JournalPosition&, const JournalPosition&) = default;
};

/// What one transaction applies: all of it or nothing.
struct LedgerBatch {
  std::vector<AttemptChange> attempts;
  std::vector<CallRecord> calls;
  std::vector<BudgetChange> budget_changes;
  std::vector<JournalPosition> positions;
};

/// Of one subject in a quarter of an hour; totals as the entries add up.
struct Balance {
  SubjectRef subject;
  WallTime quarter{};
  NanoUsd reserved{};
  NanoUsd spent{};
  NanoUsd overrun{};
};

/// What a recomputation found.
struct LedgerAudit {
  std::int64_t attempts = 0;
  std::int64_t open_attempts = 0;
  std::int64_t calls = 0;
  std::int64_t entries = 0;
  NanoUsd reserved{};  ///< of each attempt once
  NanoUsd spent{};     ///< likewise, without overrun
  NanoUsd overrun{};
  std::vector<std::string> mistakes;  ///< a sentence each, with the place and both numbers; empty: it agrees
};

/// Calls, attempts, balanced entries and running totals, in SQLite or PostgreSQL. `apply` comes from one
/// writer; everything else from any thread. Errors carry the database's text as detail, never a password.
class LedgerDatabase : public History {
 public:
  /// Connects and brings the schema up to date. May be called again after an error, also while other threads
  /// read.
  /// Errors: policy_state_unavailable  unreachable: may be asked again
  ///         gateway_error             a schema that is newer than this program; another replica with the
  ///         same
  ///                                   name runs
  [[nodiscard]] virtual Result<void> open() = 0;

  /// Of this replica: how far its journal is applied, and the attempts that are open there.
  [[nodiscard]] virtual Result<std::vector<JournalPosition>> positions() = 0;
  [[nodiscard]] virtual Result<std::vector<AttemptEntry>> open_attempts() = 0;

  /// One transaction, safe on the disk when this returns: the journal behind it is deleted then. After an
  /// error nothing of it is applied, and the same batch may come again; a batch whose answer was lost is
  /// recognised by its positions, which no two batches share. A batch without positions ends attempts of a
  /// dead process; after an error open_attempts() is asked again.
  [[nodiscard]] virtual Result<void> apply(const LedgerBatch& batch) = 0;

  /// Newest first.
  [[nodiscard]] virtual Result<std::vector<CallRecord>> recent_calls(std::size_t count) = 0;
  [[nodiscard]] virtual Result<NanoUsd> total_cost() = 0;
  /// Oldest first, of [from, to), until `visit` says false; memory stays bounded.
  [[nodiscard]] virtual Result<void> for_each_call(WallTime from, WallTime to,
                                                   const std::function<bool(const CallRecord&)>& visit) = 0;
  [[nodiscard]] virtual Result<void> for_each_attempt(
      WallTime from, WallTime to, const std::function<bool(const AttemptEntry&)>& visit) = 0;
  /// Totals per subject and quarter of an hour, of quarters that begin in [from, to).
  [[nodiscard]] virtual Result<std::vector<Balance>> balances(WallTime from, WallTime to) = 0;

  /// Recomputes every balance: each batch of entries adds up to zero, totals are the sums of entries, entries
  /// are the sums of attempts, a call's cost is the sum of its attempts'.
  [[nodiscard]] virtual Result<LedgerAudit> audit() = 0;

  /// Deletes calls and attempts of days that ended before `oldest`; totals stay. Returns how many rows went.
  [[nodiscard]] virtual Result<std::int64_t> forget_before(WallTime oldest) = 0;
};

}  // namespace penstock::store
