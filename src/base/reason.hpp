#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string_view>

namespace penstock {

/// Why a call was refused or failed: one closed vocabulary for bodies, headers, metrics, spans and the
/// ledger. Source: contracts/reasons.yaml (a test compares). Append only: the numbers are stored.
enum class Reason : std::uint8_t {
  caller_unauthenticated,
  caller_forbidden,
  caller_rate_limited,
  caller_invalid,
  caller_cancelled,
  policy_budget_exceeded,
  policy_rate_limited,
  policy_queue_full,
  policy_deadline_exceeded,
  policy_circuit_open,
  policy_state_unavailable,
  provider_unreachable,
  provider_timeout,
  provider_rate_limited,
  provider_quota_exhausted,
  provider_credential_rejected,
  provider_error,
  provider_invalid_response,
  gateway_overloaded,
  gateway_error,
};
inline constexpr std::size_t kReasonCount = 20;

/// Whose fault it is.
enum class Fault : std::uint8_t { caller, policy, provider, gateway };

/// What a caller may do about a refusal.
enum class RetryAdvice : std::uint8_t { after, no };

struct ReasonInfo {
  std::string_view name;        ///< "policy_budget_exceeded"
  int status;                   ///< the usual HTTP status
  RetryAdvice retry;            ///< Retry-After, or x-should-retry: false
  std::string_view title;       ///< one plain sentence for people
  std::string_view error_type;  ///< `error.type` of the OpenAI-style body
};

[[nodiscard]] const ReasonInfo& info(Reason reason) noexcept;
[[nodiscard]] Fault fault_of(Reason reason) noexcept;
[[nodiscard]] std::optional<Reason> reason_from_name(std::string_view name) noexcept;

}  // namespace penstock
