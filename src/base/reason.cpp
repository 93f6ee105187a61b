#include "base/reason.hpp"

namespace penstock {
namespace {

constexpr std::array<ReasonInfo, kReasonCount> kReasons{{
    {"caller_unauthenticated", 401, RetryAdvice::no, "Unknown, expired or missing key",
     "authentication_error"},
    {"caller_forbidden", 403, RetryAdvice::no, "This key may not call that", "permission_error"},
    {"caller_rate_limited", 429, RetryAdvice::after, "Too many requests from this caller",
     "rate_limit_error"},
    {"caller_invalid", 400, RetryAdvice::no, "The request is not valid", "invalid_request_error"},
    {"caller_cancelled", 499, RetryAdvice::no, "The caller hung up", "invalid_request_error"},
    {"policy_budget_exceeded", 429, RetryAdvice::no, "Budget exceeded", "insufficient_quota"},
    {"policy_rate_limited", 429, RetryAdvice::after,
     "Limit of a provider, route, team, consumer or key reached", "rate_limit_error"},
    {"policy_queue_full", 503, RetryAdvice::after, "The waiting line is full", "server_error"},
    {"policy_deadline_exceeded", 503, RetryAdvice::after, "The call could not start in time", "server_error"},
    {"policy_circuit_open", 503, RetryAdvice::after, "The provider's circuit is open", "server_error"},
    {"policy_state_unavailable", 503, RetryAdvice::after, "The shared state cannot be reached",
     "server_error"},
    {"provider_unreachable", 502, RetryAdvice::no, "The provider cannot be reached", "server_error"},
    {"provider_timeout", 504, RetryAdvice::no, "The provider did not answer in time", "server_error"},
    {"provider_rate_limited", 429, RetryAdvice::after, "The provider refused for its rate limit",
     "rate_limit_error"},
    {"provider_quota_exhausted", 429, RetryAdvice::no, "The account's quota at the provider is used up",
     "insufficient_quota"},
    {"provider_credential_rejected", 502, RetryAdvice::no, "The provider rejected the gateway's credential",
     "server_error"},
    {"provider_error", 502, RetryAdvice::no, "The provider failed", "server_error"},
    {"provider_invalid_response", 502, RetryAdvice::no, "The provider's answer is not valid HTTP",
     "server_error"},
    {"gateway_overloaded", 503, RetryAdvice::after, "The gateway is overloaded", "server_error"},
    {"gateway_error", 500, RetryAdvice::no, "The gateway failed", "server_error"},
}};

}  // namespace

const ReasonInfo& info(Reason reason) noexcept { return kReasons[static_cast<std::size_t>(reason)]; }

Fault fault_of(Reason reason) noexcept {
  if (reason <= Reason::caller_cancelled) return Fault::caller;
  if (reason <= Reason::policy_state_unavailable) return Fault::policy;
  if (reason <= Reason::provider_invalid_response) return Fault::provider;
  return Fault::gateway;
}

std::optional<Reason> reason_from_name(std::string_view name) noexcept {
  for (std::size_t i = 0; i < kReasonCount; ++i)
    if (kReasons[i].name == name) return static_cast<Reason>(i);
  return std::nullopt;
}

}  // namespace penstock
