#pragma once

#include <cstdint>
#include <expected>
#include <string>
#include <string_view>
#include <vector>

#include "base/time.hpp"

namespace penstock::policy {

enum class LimitUnit : std::uint8_t { calls, tokens };

/// "100/minute", "5/10s", "90000 tokens/minute": at most `amount` in any window of `period`.
struct LimitSpec {
  std::int64_t amount = 0;  ///< > 0
  nanoseconds period{};     ///< 1 s to 31 d
  LimitUnit unit = LimitUnit::calls;
  friend bool operator==(const LimitSpec&, const LimitSpec&) = default;
};

/// Errors: a sentence that says what was expected ("… like 100/minute, 5/10s or 90000 tokens/minute").
[[nodiscard]] std::expected<LimitSpec, std::string> parse_limit(std::string_view text);
[[nodiscard]] std::string to_string(const LimitSpec& spec);

/// Exact in every window, not only in calendar buckets: kBuckets buckets of period / kBuckets, and an attempt
/// starts only while the current bucket and the kBuckets before it hold less than the limit. Never above the limit in any window
/// of its length; below it by at most one bucket's worth for smooth traffic.
///
/// Pure: the caller passes `now`. Not thread-safe: its owner serialises. A denial changes nothing.
class WindowLimit {
 public:
  static constexpr std::size_t kBuckets = 60;

  /// Where a cost was counted, so that a later correction finds it.
  struct Ticket {
    std::int64_t bucket = 0;
  };

  explicit WindowLimit(LimitSpec spec);

  /// How long until `cost` (>= 0) fits: zero: now; nanoseconds::max(): never (cost > amount). Tight, if nothing else comes.
  [[nodiscard]] nanoseconds wait_for(std::int64_t cost, MonotonicTime now) noexcept;
  /// Counts `cost`. Pre: wait_for(cost, now) == 0.
  Ticket take(std::int64_t cost, MonotonicTime now) noexcept;
  /// Changes what was counted by `delta` (a settlement of estimated tokens; -cost gives all back). More than was estimated
  /// counts too (debt): it may push the sum over the amount, which then only delays later attempts.
  void correct(Ticket ticket, std::int64_t delta, MonotonicTime now) noexcept;

  [[nodiscard]] std::int64_t used(MonotonicTime now) noexcept;
  [[nodiscard]] std::int64_t remaining(MonotonicTime now) noexcept;  ///< never below 0
  /// Time until all that is counted now has left the window; zero when nothing is.
  [[nodiscard]] nanoseconds reset_after(MonotonicTime now) noexcept;
  [[nodiscard]] const LimitSpec& spec() const noexcept { return spec_; }
  /// A changed amount keeps the counts; a changed period keeps the sum, counted as if all came now (safe side).
  void reconfigure(LimitSpec spec, MonotonicTime now);

 private:
  void advance(MonotonicTime now) noexcept;

  LimitSpec spec_;
  nanoseconds bucket_length_{};
  std::int64_t current_ = 0;  ///< number of the current bucket since the clock's epoch
  std::int64_t sum_ = 0;
  std::vector<std::int64_t> buckets_;
};

}  // namespace penstock::policy
