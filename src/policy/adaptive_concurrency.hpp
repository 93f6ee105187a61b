#pragma once

#include <cstdint>
#include <optional>

#include "base/time.hpp"

namespace penstock::policy {

/// How many attempts a provider takes at once, where nobody configured it: additive increase, multiplicative
/// decrease (Netflix's AIMDLimit, with two differences). There is no limit until the provider drops
/// something, so that nobody waits for a guess; and a limit grows by one per round trip, not per answer, so
/// that it passes the provider's capacity by one, not by twice.
///
/// Pure; not thread-safe.
class AdaptiveConcurrency {
 public:
  static constexpr std::uint32_t kLeast = 1;
  /// A limit that would start below this starts here: one drop in quiet traffic must not put everybody behind
  /// a single call.
  static constexpr std::uint32_t kFirst = 10;
  /// Above this there is no limit.
  static constexpr std::uint32_t kMost = 10'000;
  /// So long after the last drop what was learned is forgotten.
  static constexpr std::chrono::minutes kForgetAfter{10};

  /// Counts a start and returns its number, which a drop is reported with.
  std::uint64_t start() noexcept {
    ++in_flight_;
    return ++started_;
  }
  [[nodiscard]] bool may_start(MonotonicTime now) noexcept;
  /// An attempt that ended well: the limit grows if at least half of it was in use.
  void succeeded() noexcept;
  /// One that the provider had no room for (529, 429 for capacity, timeout). Those that started before the
  /// last decrease had no chance to heed it and change nothing.
  void dropped(std::uint64_t number, MonotonicTime now) noexcept;
  /// Ends a start, after `succeeded` or `dropped`.
  void end() noexcept { --in_flight_; }

  /// Nothing: no limit.
  [[nodiscard]] std::optional<std::uint32_t> limit() const noexcept;
  [[nodiscard]] std::uint32_t in_flight() const noexcept { return in_flight_; }
  void forget() noexcept { limit_ = 0; }

 private:
  double limit_ = 0;  ///< 0: none
  std::uint32_t in_flight_ = 0;
  std::uint64_t started_ = 0;
  std::uint64_t decreased_at_ = 0;  ///< the last start before the last decrease
  MonotonicTime last_drop_{};
};

}  // namespace penstock::policy
