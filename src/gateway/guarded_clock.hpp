#pragma once

#include <atomic>
#include <chrono>
#include <functional>
#include <mutex>

#include "policy/clock_guard.hpp"

namespace penstock::gateway {

/// The machine's clocks, one right after the other.
[[nodiscard]] policy::ClockReading read_machine_clocks() noexcept;

/// The process's one clock for what names windows: policy::ClockGuard, told to all threads.
///
/// A reading is one look at the monotonic clock and three loads; the wall clock itself is looked at once a
/// second by `tick`. Thread-safe.
class GuardedClock {
 public:
  using Read = std::function<policy::ClockReading()>;
  explicit GuardedClock(Read read = read_machine_clocks);

  [[nodiscard]] Now now() const noexcept { return at(std::chrono::steady_clock::now()); }
  /// Of a moment that was measured already.
  [[nodiscard]] Now at(MonotonicTime mono) const noexcept {
    // In this order: whoever sees a jump believed sees also the time that it led to.
    const nanoseconds doubtful{doubtful_offset_.load(std::memory_order_acquire)};
    const nanoseconds offset{offset_.load(std::memory_order_acquire)};
    policy::ClockGuard::Terms terms{
        .offset = offset,
        .not_before = WallTime{nanoseconds{not_before_.load(std::memory_order_relaxed)}},
        .doubtful_offset = {}};
    if (doubtful != kNone) [[unlikely]]
      terms.doubtful_offset = doubtful;
    return policy::ClockGuard::at(mono, terms);
  }
  /// Whether a source's word is wanted: not while the clock is trusted.
  [[nodiscard]] bool wants_sources() const noexcept { return wants_sources_.load(std::memory_order_relaxed); }

  /// What a source outside this machine said at `mono`, in Unix seconds.
  void confirm(policy::ClockSource source, std::int64_t said, MonotonicTime mono);
  /// Looks at the clocks; about once a second.
  void tick();

  [[nodiscard]] policy::ClockGuard::Trust trust() const;

 private:
  static constexpr nanoseconds kNone = nanoseconds::min();
  void tell() noexcept;

  const Read read_;
  mutable std::mutex mutex_;  // of guard_
  policy::ClockGuard guard_;
  std::atomic<std::int64_t> doubtful_offset_{kNone.count()};
  std::atomic<std::int64_t> offset_{0};
  std::atomic<std::int64_t> not_before_{0};
  std::atomic<bool> wants_sources_{false};
};

}  // namespace penstock::gateway
