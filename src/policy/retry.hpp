#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string_view>
#include <vector>

#include "base/time.hpp"

namespace penstock::policy {

/// How often and after what an attempt is made again.
struct RetrySpec {
  std::uint32_t max_attempts = 2;  ///< 1 to 5, the first included, per target
  bool unsafe_methods =
      false;  ///< also POST and other non-idempotent methods, once they may have been processed
  std::vector<int> statuses{429, 502, 503, 504, 529};
  milliseconds backoff{250};  ///< full jitter: random in [0, min(max_backoff, backoff * 2^k)]
  milliseconds max_backoff{4'000};
  double budget_ratio = 0.1;       ///< retries per first attempt
  double budget_per_second = 1.0;  ///< and so many more each second
  friend bool operator==(const RetrySpec&, const RetrySpec&) = default;
};

/// Retries are at most `ratio` of first attempts plus `per_second` a second, saved up for at most 10 s: a
/// provider that fails wholly is not hit harder than 1 + ratio. Starts with 10 s of `per_second`. Pure; not
/// thread-safe.
class RetryBudget {
 public:
  explicit RetryBudget(double ratio, double per_second);
  void deposit(MonotonicTime now) noexcept;                     ///< at each first attempt
  [[nodiscard]] bool try_withdraw(MonotonicTime now) noexcept;  ///< at each retry
  void reconfigure(double ratio, double per_second) noexcept;

 private:
  static constexpr std::size_t kSeconds = 10;

  void advance(MonotonicTime now) noexcept;

  /// Thousandths of a retry.
  std::int64_t per_first_attempt_ = 0;
  std::int64_t per_second_ = 0;
  /// What each of the last seconds has left; the oldest is spent first and then forgotten.
  std::array<std::int64_t, kSeconds> saved_{};
  std::int64_t balance_ = 0;  ///< their sum
  std::int64_t second_ = 0;   ///< the current one, since the clock's epoch
};

/// The wait before attempt number `attempt` (1: the first retry); `random` is uniform over all 64-bit values.
/// A provider's Retry-After is a lower bound: the jitter comes on top, so that those who were told the same
/// time do not come back together.
[[nodiscard]] nanoseconds backoff_before(std::uint32_t attempt, const RetrySpec& spec, std::uint64_t random,
                                         std::optional<nanoseconds> retry_after) noexcept;

/// GET, HEAD, OPTIONS, TRACE, PUT and DELETE (RFC 9110 9.2.2).
[[nodiscard]] bool is_idempotent(std::string_view method) noexcept;

}  // namespace penstock::policy
