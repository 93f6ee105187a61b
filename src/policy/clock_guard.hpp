#pragma once

#include <cstdint>
#include <optional>
#include <string_view>

#include "base/time.hpp"

namespace penstock::policy {

/// One look at the machine's clocks.
struct ClockReading {
  MonotonicTime mono;
  WallTime wall;
  /// How long the machine has slept since it booted (CLOCK_BOOTTIME less CLOCK_MONOTONIC). By this a laptop
  /// that wakes up is told from a clock that was set.
  nanoseconds asleep{};
};

/// Who tells the time from outside: one number per machine that is asked.
using ClockSource = std::uint32_t;

/// The wall time that names calendar windows: it never goes back, and it does not follow a jump of the wall
/// clock before the jump is believed.
///
///   trusted --more than 5 s from where it should be--> suspect --two sources: right; or 10 min--> trusted
///      ^                                                  | two sources: wrong
///      '------------- back where it should be ------------+--> refuted --two sources: right--> trusted
///
/// Time goes on by the monotonic clock, sleep included, and follows the wall clock's small corrections: steps
/// below 5 s, and 500 ppm for as long as they last (the most that NTP slews). While a jump is suspect,
/// `ahead` tells where the jumped clock is, so that budgets can insist on both windows (policy/budget.hpp). A
/// jump is believed once two sources that do not share this machine's clock agree with it; without any, after
/// it has stood for 10 minutes that no source contradicted. A jump back that is believed holds the time until
/// the wall clock has come there again: no window opens twice.
///
/// Pure; not thread-safe. The clock at the start is believed: there is nothing to compare it with.
class ClockGuard {
 public:
  enum class Trust : std::uint8_t { trusted, suspect, refuted };
  [[nodiscard]] static std::string_view to_string(Trust trust) noexcept;

  explicit ClockGuard(ClockReading first) noexcept;

  /// About once a second. Readings whose monotonic time goes back are ignored.
  void observe(ClockReading reading) noexcept;
  /// What a source outside says, give or take 5 s. Means something only while the clock is not trusted.
  void confirm(ClockSource source, WallTime said, MonotonicTime now) noexcept;

  [[nodiscard]] Now at(MonotonicTime now) const noexcept;
  [[nodiscard]] Trust trust() const noexcept;

  /// What `at` computes with, for an owner that hands it to other threads:
  /// wall = max(mono + offset, not_before); where the jumped clock is: mono + *doubtful_offset.
  struct Terms {
    nanoseconds offset{};
    WallTime not_before = WallTime::min();
    std::optional<nanoseconds> doubtful_offset;
  };
  [[nodiscard]] Terms terms() const noexcept;
  [[nodiscard]] static Now at(MonotonicTime now, const Terms& terms) noexcept;

  static constexpr nanoseconds kJump = seconds{5};
  static constexpr std::int64_t kSlewPerMillion = 500;
  static constexpr nanoseconds kPatience = std::chrono::minutes{10};

 private:
  struct Suspicion {
    nanoseconds offset{};  ///< wall less mono, of the jumped clock
    MonotonicTime since;   ///< of the jump, or the last contradiction
    std::optional<ClockSource> for_it;
    std::optional<ClockSource> against_it;
    bool is_refuted = false;
  };
  void follow(nanoseconds offset, MonotonicTime now) noexcept;
  void believe(MonotonicTime now) noexcept;

  MonotonicTime last_;
  nanoseconds asleep_{};
  nanoseconds offset_{};  ///< wall less mono, of the time that is told
  nanoseconds anchor_{};  ///< the same, less small steps that are not absorbed yet
  WallTime not_before_ = WallTime::min();
  std::optional<Suspicion> suspicion_;
};

}  // namespace penstock::policy
