#pragma once

#include <deque>

#include <boost/unordered/unordered_flat_map.hpp>

#include "store/journal/record.hpp"

namespace penstock::store {

/// Makes changes of the ledger from the records of the journal, in their order: a pure fold.
///
/// An attempt that is reserved and ends within one batch is one change. One that is open when the batch is
/// taken is inserted open and ended by a later one. A settlement after an expiry corrects it, once. Whatever
/// else names an attempt that is not open changes nothing. Memory: the attempts that are open, and those that
/// expired within kKept.
class Fold {
 public:
  static constexpr std::chrono::minutes kKept{60};  ///< as the shared state remembers expired leases
  static constexpr std::size_t kMaxExpired = 100'000;

  /// What the database has as open.
  void set_open(std::vector<AttemptEntry> open);
  /// What it has as expired and what may still be corrected.
  void set_expired(std::vector<AttemptEntry> expired);
  void add(Record record);
  /// Charges every open attempt whose process is not `epoch` at its estimate. Returns how many.
  std::size_t expire_others(std::uint64_t epoch, WallTime now);

  /// What was added since the last take(), without positions.
  [[nodiscard]] LedgerBatch take();
  [[nodiscard]] std::size_t size() const noexcept {
    return batch_.attempts.size() + batch_.calls.size() + batch_.budget_changes.size();
  }
  [[nodiscard]] std::size_t open() const noexcept { return open_.size(); }
  [[nodiscard]] bool is_open(const AttemptId& id) const noexcept { return open_.contains(id); }
  [[nodiscard]] std::uint64_t ignored() const noexcept { return ignored_; }  ///< endings of what was not open

 private:
  struct IdHash {
    std::size_t operator()(const AttemptId& id) const noexcept {
      return static_cast<std::size_t>(id.sequence * 0x9E3779B97F4A7C15ULL ^ id.epoch);
    }
  };
  using Attempts = boost::unordered_flat_map<AttemptId, AttemptEntry, IdHash>;

  void reserve(ReserveRecord record);
  void end(const AttemptId& id, AttemptEnd end);
  void settle(const SettleRecord& record);
  /// The change of this attempt in the batch; made from `entry` where there is none.
  AttemptChange& change_of(const AttemptEntry& entry);
  void forget_expired(WallTime now);

  Attempts open_;
  Attempts expired_;
  std::deque<std::pair<WallTime, AttemptId>> expired_order_;
  LedgerBatch batch_;
  boost::unordered_flat_map<AttemptId, std::size_t, IdHash> in_batch_;
  std::uint64_t ignored_ = 0;
};

}  // namespace penstock::store
