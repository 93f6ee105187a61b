#pragma once

#include "store/journal/ledger_writer.hpp"

namespace penstock::store {

/// The Ledger of a gateway with a disk: a call goes to the journal, what is asked comes from the database,
/// after the writer has brought it up to date (for at most `wait`; then it is a little old).
class JournalLedger final : public Ledger {
 public:
  JournalLedger(Journal& journal, LedgerWriter& writer, LedgerDatabase& database,
                nanoseconds wait = seconds{1})
      : journal_(journal), writer_(writer), database_(database), wait_(wait) {}

  void record(CallRecord call) override { (void)journal_.call(call); }  // what is lost is counted there
  [[nodiscard]] std::vector<CallRecord> recent(std::size_t count) const override;
  [[nodiscard]] NanoUsd total_cost() const override;

 private:
  Journal& journal_;
  LedgerWriter& writer_;
  LedgerDatabase& database_;
  nanoseconds wait_;
};

/// What the database tells, brought up to date first: a budget that is new begins with all that was reserved
/// before; one that cannot be brought up to date in time counts as used up. Reads again only after new
/// reservations, so that a reload with many new budgets waits once.
class LedgerHistory final : public History {
 public:
  LedgerHistory(const Journal& journal, LedgerWriter& writer, const LedgerDatabase& database,
                nanoseconds wait = seconds{10})
      : journal_(journal), writer_(writer), database_(database), wait_(wait) {}

  [[nodiscard]] Spent spent(SubjectKind kind, std::string_view name, policy::WindowSpan span) const override;
  [[nodiscard]] std::vector<Started> started(SubjectKind kind, std::string_view name, WallTime since,
                                             nanoseconds step) const override;

 private:
  /// The database has all that was reserved.
  [[nodiscard]] bool is_whole() const;

  const Journal& journal_;
  LedgerWriter& writer_;
  const LedgerDatabase& database_;
  nanoseconds wait_;
  mutable std::mutex mutex_;
  mutable std::uint64_t known_reserves_ = 0;
  mutable bool was_whole_ = true;
};

}  // namespace penstock::store
