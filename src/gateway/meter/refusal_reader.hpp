#pragma once

#include <optional>
#include <string_view>

#include "base/time.hpp"

namespace penstock::gateway {

/// What the body of a provider's 429 says beyond its head.
struct RefusalFacts {
  bool is_quota_exhausted = false;  ///< the account's money is used up: no waiting mends it
  bool is_daily = false;            ///< the limit of a day is used up, not that of a minute
  std::optional<nanoseconds> retry_after;
};

/// OpenAI's and Anthropic's error codes, Gemini's RetryInfo and QuotaFailure. Anything else tells nothing.
[[nodiscard]] RefusalFacts read_refusal(std::string_view body);

/// More of a body is not looked at.
inline constexpr std::size_t kMaxRefusalBody = 16 * 1024;

}  // namespace penstock::gateway
