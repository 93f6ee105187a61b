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
/// starts only while the current bucket and the kBuckets before it hold less than the limit. Never above the
/// limit in any window of its length; below it by at most one bucket's worth for smooth traffic.
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

  /// How long until `cost` (>= 0) fits: zero: now; nanoseconds::max(): never (cost > amount). Tight, if
  /// nothing else comes.
  [[nodiscard]] nanoseconds wait_for(std::int64_t cost, MonotonicTime now) noexcept;
  /// Counts `cost`. Pre: wait_for(cost, now) == 0.
  Ticket take(std::int64_t cost, MonotonicTime now) noexcept;
  /// Counts what began before this limit was made: `at` <= now, in ascending order, before the first `take`.
  /// The sum may go over the amount, which then only delays later attempts.
  void count_past(std::int64_t cost, MonotonicTime at) noexcept;
  /// Changes what was counted by `delta` (a settlement of estimated tokens; -cost gives all back). More than
  /// was estimated counts too (debt): it may push the sum over the amount, which then only delays later
  /// attempts. What has left the window is not changed, and a bucket never falls below zero.
  void correct(Ticket ticket, std::int64_t delta, MonotonicTime now) noexcept;

  [[nodiscard]] std::int64_t used(MonotonicTime now) noexcept;
  [[nodiscard]] std::int64_t remaining(MonotonicTime now) noexcept;  ///< never below 0
  /// Time until all that is counted now has left the window; zero when nothing is.
  [[nodiscard]] nanoseconds reset_after(MonotonicTime now) noexcept;
  [[nodiscard]] const LimitSpec& spec() const noexcept { return spec_; }
  /// A changed amount keeps the counts; a changed period keeps the sum, counted as if all came now (safe
  /// side), and tickets from before still find it. A changed unit starts from nothing: the counts were of
  /// something else.
  void reconfigure(LimitSpec spec, MonotonicTime now);

 private:
  /// The oldest bucket of the window is so many before the current one.
  static constexpr std::int64_t kAge = kBuckets;
  static constexpr std::size_t kRing = kBuckets + 1;

  void advance(MonotonicTime now) noexcept;
  void start_at(std::int64_t bucket) noexcept;
  [[nodiscard]] std::int64_t& at(std::int64_t bucket) noexcept;
  /// When a bucket's counts leave the window.
  [[nodiscard]] MonotonicTime expiry_of(std::int64_t bucket) const noexcept;

  LimitSpec spec_;
  nanoseconds bucket_length_{};  ///< rounded up, so that kBuckets of them are never shorter than the period
  std::int64_t current_ = 0;     ///< number of the current bucket since the clock's epoch
  MonotonicTime current_end_{};
  std::int64_t sum_ = 0;  ///< of all buckets
  std::vector<std::int64_t> buckets_;
  /// Tickets number buckets on through changes of the period: a ticket's number less this is the bucket's.
  std::int64_t ticket_offset_ = 0;
  /// Tickets from before the last change of the period whose counts were carried over; they are in the bucket
  /// after them.
  std::int64_t carried_from_ = 0;
  std::int64_t carried_to_ = -1;
};

}  // namespace penstock::policy
