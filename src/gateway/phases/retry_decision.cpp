#include "gateway/phases/phases.hpp"

namespace penstock::gateway {

bool RetryDecision::may_follow(bool unsent, std::optional<nanoseconds> retry_after) {
  next_ = Next::none;
  // What was streamed is gone, and what the caller has begun to read cannot be taken back.
  if (!call_.body_is_whole || call_.exchange.response_begun() || call_.exchange.client_gone()) return false;
  const policy::RetrySpec& spec = attempt_.provider->config->retry;
  const bool safe = unsent || spec.unsafe_methods || policy::is_idempotent(call_.exchange.request.method);
  const bool in_time = !retry_after || *retry_after <= nanoseconds{spec.max_backoff};
  // The account is used up: no waiting mends that.
  const bool helps = attempt_.reason != Reason::provider_quota_exhausted;
  if (safe && in_time && helps && attempts_at_target_ < spec.max_attempts) {
    if (call_.services.state.try_retry(attempt_.provider->subject, std::chrono::steady_clock::now())) {
      attempt_.provider->retried->add();
      wait_ = policy::backoff_before(attempts_at_target_, spec, call_.worker.random(), retry_after);
      next_ = Next::same_target;
      return true;
    }
    attempt_.provider->retry_refused->add();
  }
  // Another provider is another story: the operator listed it for this.
  if (has_fallback_) next_ = Next::next_target;
  return has_fallback_;
}

bool RetryDecision::may_replace(int status, std::optional<nanoseconds> retry_after) {
  const auto& statuses = attempt_.provider->config->retry.statuses;
  if (std::ranges::find(statuses, status) == statuses.end()) return false;
  // 429 and 503 with a time to come back say that the request was not worked on (RFC 9110 15.6.4, RFC 6585
  // 4).
  const bool not_worked_on = retry_after.has_value() && (status == 429 || status == 503);
  return may_follow(not_worked_on, retry_after);
}

}  // namespace penstock::gateway
