#pragma once

#include <deque>
#include <list>
#include <mutex>

#include <boost/unordered/unordered_flat_map.hpp>

#include "store/caller_limits.hpp"
#include "store/directory.hpp"
#include "store/ledger.hpp"

namespace penstock::store {

/// Inbound limits in this process, in stripes so that workers seldom meet. A stripe remembers a bounded
/// number of callers and forgets the one that was idle longest.
class MemoryCallerLimits final : public CallerLimits {
 public:
  explicit MemoryCallerLimits(std::size_t max_callers = 100'000);
  [[nodiscard]] Answer count(std::uint64_t caller, const policy::LimitSpec& limit,
                             MonotonicTime now) override;
  [[nodiscard]] std::size_t callers() const;

 private:
  struct Entry {
    std::uint64_t caller;
    policy::WindowLimit limit;
  };
  struct Stripe {
    mutable std::mutex mutex;
    std::list<Entry> recent;  // most recent first
    boost::unordered_flat_map<std::uint64_t, std::list<Entry>::iterator> index;
  };
  static constexpr std::size_t kStripes = 16;
  std::size_t max_in_stripe_;
  std::array<Stripe, kStripes> stripes_;
};

/// The newest calls only, and the sum of all.
class MemoryLedger final : public Ledger {
 public:
  explicit MemoryLedger(std::size_t max_calls = 10'000) : max_calls_(max_calls) {}
  void record(CallRecord call) override;
  [[nodiscard]] std::vector<CallRecord> recent(std::size_t count) const override;
  [[nodiscard]] NanoUsd total_cost() const override;

 private:
  std::size_t max_calls_;
  mutable std::mutex mutex_;
  std::vector<CallRecord> calls_;  // a ring, once it is full
  std::size_t next_ = 0;           // the oldest, then
  NanoUsd total_{};
};

/// Keys of a configuration; replaced as a whole at a reload.
class MemoryDirectory final : public Directory {
 public:
  explicit MemoryDirectory(std::vector<std::pair<KeyHash, KeyEntry>> keys);
  [[nodiscard]] std::shared_ptr<const KeyEntry> find_key(const KeyHash& hash) const override;

 private:
  struct Hash {
    std::size_t operator()(const KeyHash& hash) const noexcept;
  };
  boost::unordered_flat_map<KeyHash, std::shared_ptr<const KeyEntry>, Hash> keys_;
};

}  // namespace penstock::store
