#pragma once

#include <chrono>
#include <cstdint>

namespace penstock {

using std::chrono::milliseconds;
using std::chrono::nanoseconds;
using std::chrono::seconds;

/// For everything that measures elapsed time. Never goes back, never jumps.
using MonotonicTime = std::chrono::time_point<std::chrono::steady_clock, nanoseconds>;

/// Only names calendar windows and stamps records; it can jump.
using WallTime = std::chrono::time_point<std::chrono::system_clock, nanoseconds>;

/// Both clocks, read once per decision and handed in as a value: pure code holds no clock.
struct Now {
  MonotonicTime mono;
  WallTime wall;
  /// How far ahead of `wall` a wall clock is that jumped and is not believed yet; zero: nothing to doubt.
  /// Only where `wall` comes from policy::ClockGuard, which then goes on with what was believed before.
  nanoseconds doubtful_ahead{};
};

/// Reads both clocks, unguarded: not for what names windows of budgets. Only owners of I/O call it.
[[nodiscard]] inline Now read_clocks() noexcept {
  return {.mono = std::chrono::steady_clock::now(), .wall = std::chrono::system_clock::now()};
}

}  // namespace penstock
