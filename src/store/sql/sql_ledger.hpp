#pragma once

#include <memory>

#include "store/ledger_database.hpp"
#include "store/sql/batch_plan.hpp"
#include "store/sql/session_pool.hpp"

namespace penstock::store::sql {

/// How long one statement, or waiting for one, may take.
inline constexpr seconds kStatementTimeout{10};
/// Statements that read a whole table: the audit's.
inline constexpr std::chrono::minutes kAuditTimeout{10};

/// The database was written by a newer program: refused, since this one would not keep what it does not know.
[[nodiscard]] std::unexpected<Error> newer_schema(std::int64_t found, std::int64_t known);

/// The reading side of both ledgers; the same statements run on both, over tables of the same shape.
/// What a statement cannot read fails closed: `spent` then says kMaxNanoUsd, and `started` nothing.
class SqlLedger : public LedgerDatabase {
 public:
  [[nodiscard]] Spent spent(SubjectKind kind, std::string_view name, policy::WindowSpan span) const override;
  /// From attempts when it looks back two hours at most, seen from the subject's latest; else from the totals
  /// of quarters of an hour, with the latest attempt of each.
  [[nodiscard]] std::vector<Started> started(SubjectKind kind, std::string_view name, WallTime since,
                                             nanoseconds step) const override;
  [[nodiscard]] Result<std::vector<JournalPosition>> positions() override;
  [[nodiscard]] Result<std::vector<AttemptEntry>> open_attempts() override;
  [[nodiscard]] Result<std::vector<CallRecord>> recent_calls(std::size_t count) override;
  [[nodiscard]] Result<NanoUsd> total_cost() override;
  [[nodiscard]] Result<void> for_each_call(WallTime from, WallTime to,
                                           const std::function<bool(const CallRecord&)>& visit) override;
  [[nodiscard]] Result<void> for_each_attempt(WallTime from, WallTime to,
                                              const std::function<bool(const AttemptEntry&)>& visit) override;
  [[nodiscard]] Result<std::vector<Balance>> balances(WallTime from, WallTime to) override;
  [[nodiscard]] Result<LedgerAudit> audit() override;

 protected:
  SqlLedger(std::string replica, SessionPool::Make make_reader, nanoseconds timeout)
      : replica_(to_plain_utf8(replica)), timeout_(timeout), readers_(std::move(make_reader), timeout) {}

  /// Runs it on a reader; once more where the session turns out to be gone.
  [[nodiscard]] Result<void> read(std::string_view statement, std::initializer_list<Value> values,
                                  const RowVisitor& visit) const;

  /// The sets of the batch's attempts, by number. New ones are written in a transaction of their own, which
  /// `begin` starts such that one replica at a time does it; they stay whatever becomes of the batch.
  [[nodiscard]] static Result<std::vector<std::int64_t>> intern_sets(Session& writer, SetCache& cache,
                                                                     std::span<const AttemptChange> changes,
                                                                     std::span<const std::string_view> begin);
  /// This replica's number in the table `replicas`.
  [[nodiscard]] Result<std::int64_t> intern_replica(Session& writer) const;
  /// Of the batch: the horizon of retention, and whether the positions that are stored cover it.
  [[nodiscard]] static Result<void> read_horizon(Session& writer, const LedgerBatch& batch,
                                                 std::int64_t replica, BatchFacts& facts);

  /// Folds the entries of a few batches that ended before `day` into batch 0, the balance carried forward, in
  /// one transaction, which `begin` starts such that it sees one state. Returns whether there may be more.
  [[nodiscard]] static Result<bool> fold_entries(Session& writer, std::span<const std::string_view> begin,
                                                 WallTime day);

  const std::string replica_;
  const nanoseconds timeout_;
  mutable SessionPool readers_;

 private:
  using SubjectsOfSets = std::unordered_map<std::int64_t, std::vector<SubjectRef>>;
  /// Rows with their sets' subjects, appended to `out`; `known` is kept from page to page.
  [[nodiscard]] Result<void> add_subjects(std::span<const AttemptRow> rows, SubjectsOfSets& known,
                                          std::vector<AttemptEntry>& out) const;
};

/// Columns of `attempts` that hold an end, as numbers: state 0 open, 1 actual, 2 estimate, 3 released.
[[nodiscard]] std::int64_t state_of(Ending ending) noexcept;
[[nodiscard]] std::int64_t state_of(const std::optional<AttemptEnd>& end) noexcept;
/// The columns kAttemptColumns of a row, from `first` on.
[[nodiscard]] AttemptRow read_attempt(const Row& row, int first = 0);
inline constexpr std::string_view kAttemptColumns =
    "reserved_at, id, set_id, estimate, tokens, state, ended_at, expired, cost, used, corrected";

[[nodiscard]] inline std::int64_t to_nanos(WallTime at) noexcept { return at.time_since_epoch().count(); }
[[nodiscard]] inline WallTime from_nanos(std::int64_t at) noexcept { return WallTime{nanoseconds{at}}; }
[[nodiscard]] inline Value id_of(AttemptId id) noexcept { return RowId{id.epoch, id.sequence}; }
[[nodiscard]] inline Value id_of(CallId id) noexcept { return RowId{id.epoch, id.sequence}; }

}  // namespace penstock::store::sql
