#pragma once

#include <set>

#include "store/journal/fold.hpp"
#include "store/journal/journal_tail.hpp"

namespace penstock::store {

/// For health and metrics.
struct LedgerStatus {
  std::uint64_t unapplied_bytes = 0;  ///< of the journal
  nanoseconds behind{};               ///< for how long there has been something that the database lacks
  bool database_ok = true;
  std::string database_error;  ///< of the last failure, while it lasts
  bool journal_failed = false;
  std::string space_error;         ///< why there is no spare segment
  std::uint64_t lost_records = 0;  ///< endings and calls that the journal could not take
  std::uint64_t ignored = 0;       ///< endings of attempts that were not open
  std::uint64_t applied = 0;       ///< batches
  // What recover() found.
  std::uint64_t recovered_records = 0;  ///< that the database lacked
  std::uint64_t recovered_expired = 0;  ///< attempts whose process died, charged at their estimates
  std::uint64_t cut_bytes = 0;
  std::uint64_t dropped_records = 0;
};

struct LedgerWriterOptions {
  std::size_t max_batch = 4'096;         ///< records
  milliseconds batch_delay{200};         ///< how long records wait for others
  milliseconds retry_first{50};          ///< after an error of the database; doubles ...
  milliseconds retry_most{5'000};        ///< ... up to this
  nanoseconds start_wait = seconds{30};  ///< for a database that cannot be reached when the process starts
  std::function<void(const Error&)> on_error{};  ///< an operator's line: the first of a row of failures
};

/// The journal's keeper: one thread that applies its records to the ledger's database in batches and lets the
/// journal delete what is applied. Each batch carries the places in the journal up to which it goes, so that
/// everything is applied exactly once, whatever dies in between. With the database gone it tries on; the
/// journal grows up to its bound and then refuses reservations.
class LedgerWriter {
 public:
  /// `journal` and `database` outlive it.
  LedgerWriter(Journal& journal, LedgerDatabase& database, LedgerWriterOptions options);
  ~LedgerWriter();
  LedgerWriter(const LedgerWriter&) = delete;
  LedgerWriter& operator=(const LedgerWriter&) = delete;

  /// Opens the database, applies what the last process left, charges the attempts that it left open at their
  /// estimates, and starts the journal. Nothing may be served before: budgets would begin too low.
  ///
  /// A database that is unreachable (policy_state_unavailable) is waited for as long as start_wait, then it
  /// is an error: a process that serves nothing is worth less to an operator than one that says so and is
  /// started again. Errors: the database's; damage; files that are missing.
  [[nodiscard]] Result<void> recover(WallTime now);
  void start();
  /// Applies what there is, for at most `bound`, and ends the thread. False: something is left to the next
  /// start.
  bool stop(nanoseconds bound);

  /// Waits until all that was appended before the call is applied; false: not within `bound`, or not running.
  [[nodiscard]] bool catch_up(nanoseconds bound);
  [[nodiscard]] LedgerStatus status(MonotonicTime now) const;

 private:
  enum class Pass : std::uint8_t { once, until_stopped };

  [[nodiscard]] Result<void> open_database();
  /// Settlements in the journal may correct attempts that the database has as expired.
  [[nodiscard]] Result<void> find_expired(std::span<const Journal::End> ends,
                                          std::span<const JournalPosition> applied);
  [[nodiscard]] Result<void> apply_until(std::span<const Journal::End> ends, Pass pass);
  [[nodiscard]] Result<void> apply(const LedgerBatch& batch, Pass pass);
  void note(const Result<void>& done);
  void run();

  Journal& journal_;
  LedgerDatabase& database_;
  LedgerWriterOptions options_;
  JournalTail tail_;  // these two: the thread's, before it runs recover()'s
  Fold fold_;
  std::map<std::uint32_t, std::uint64_t> applied_segments_;

  mutable std::mutex mutex_;  // all below
  std::condition_variable wake_;
  std::condition_variable answered_;
  bool has_records_ = false;
  bool is_running_ = false;
  bool is_stopping_ = false;
  MonotonicTime stop_at_{};
  std::uint64_t wanted_ = 0;  // of catch_up()
  std::uint64_t done_ = 0;
  std::optional<MonotonicTime> behind_since_;
  LedgerStatus status_;
  std::thread thread_;
};

}  // namespace penstock::store
