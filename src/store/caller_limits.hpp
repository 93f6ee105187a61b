#pragma once

#include <cstdint>
#include <string_view>

#include "base/time.hpp"
#include "policy/limit.hpp"

namespace penstock::store {

/// Inbound limits: how often one caller may come. Local and cheap, so that they shed load before any other
/// work. Thread-safe.
class CallerLimits {
 public:
  struct Answer {
    bool allowed = true;
    std::int64_t remaining = 0;
    nanoseconds reset_after{};  ///< until the whole limit is free again
    nanoseconds retry_after{};  ///< when not allowed
  };
  CallerLimits() = default;
  CallerLimits(const CallerLimits&) = delete;
  CallerLimits& operator=(const CallerLimits&) = delete;
  virtual ~CallerLimits() = default;

  /// Counts one call of `caller` (a stable 64-bit identity of key or address, mixed with the rule that
  /// applies) if it is within `limit`. The number of callers remembered is bounded; the one that was idle
  /// longest is forgotten first.
  [[nodiscard]] virtual Answer count(std::uint64_t caller, const policy::LimitSpec& limit,
                                     MonotonicTime now) = 0;
};

}  // namespace penstock::store
