#include "gateway/phases/phases.hpp"

namespace penstock::gateway {
namespace {

constexpr std::int64_t kMaxRetryAfterSeconds = 86'400;

Error cannot_price(std::string message) {
  return {.reason = Reason::caller_invalid,
          .status = 400,
          .message = std::move(message),
          .detail = {},
          .retry_after = {}};
}

/// Finds what the attempt may use at most and what that costs.
std::optional<Error> price(Call& call, Attempt& attempt) {
  const policy::PriceList& prices = *attempt.endpoint->prices;
  if (attempt.endpoint->reads_request) {
    const CallKind kind = call_kind(attempt.provider->config->api, call.path);
    if (call.facts_kind != kind) {
      call.facts = read_request(kind, call.path, call.body);
      call.facts_kind = kind;
    }
    // A request without a body asks for nothing that is billed by tokens; one whose model cannot be read
    // might.
    if (!call.facts.model.empty() || !call.body.empty()) {
      const policy::ModelPrice* const model = call.facts.model.empty() && prices.default_model
                                                  ? &*prices.default_model
                                                  : prices.find_model(call.facts.model);
      if (model == nullptr)
        return cannot_price(
            call.facts.model.empty()
                ? "This request names no model that can be read, so its cost has no bound; the operator can "
                  "set prices.default_model or give this path an endpoint with prices of its own."
                : "This model has no price here; the operator can add it to prices.models or set "
                  "prices.default_model.");
      attempt.model = attempt.provider->model_of(model);
      if (call.facts.has_unbounded_input && model->max_input_tokens == 0)
        return cannot_price(
            "The tokens of images, audio, files or earlier answers have no bound here; the operator can "
            "set max_input_tokens for this model.");
      attempt.bound = bound_of(call.facts, model, attempt.provider->config->default_max_output_tokens);
    }
  }
  const auto estimate =
      policy::estimate_cost(prices, attempt.model == nullptr ? nullptr : attempt.model->price, attempt.bound);
  if (!estimate) return cannot_price("This call could cost more than any budget can hold.");
  attempt.estimate = *estimate;
  return std::nullopt;
}

Error refusal_error(const Call& call, const Attempt& attempt, const store::Refusal& refusal) {
  Error error{.reason = refusal.reason, .status = 0, .message = {}, .detail = {}, .retry_after = {}};
  if (refusal.retry_after != nanoseconds::max())
    error.retry_after = std::clamp(std::chrono::ceil<seconds>(refusal.retry_after), seconds{1},
                                   seconds{kMaxRetryAfterSeconds});
  const std::string& provider = attempt.provider->config->name;
  switch (refusal.reason) {
    case Reason::policy_budget_exceeded:
      if (call.snapshot->config.budget_status_402) error.status = 402;
      error.message = refusal.retry_after == nanoseconds::max()
                          ? "This call could cost more than the whole budget."
                          : "The budget has no room for what this call could cost until its window ends.";
      break;
    case Reason::policy_circuit_open:
      error.message = "Provider " + provider + " is failing; its circuit is open.";
      break;
    case Reason::policy_rate_limited:
      error.message = refusal.retry_after == nanoseconds::max()
                          ? "This call is larger than the whole limit."
                          : "A limit for provider " + provider + " is used up.";
      break;
    case Reason::policy_queue_full:
      error.message = "Too many calls wait for provider " + provider + " already.";
      break;
    case Reason::policy_deadline_exceeded:
      error.message =
          "This call could not start at provider " + provider + " within the time that it may wait.";
      break;
    default: error.message = info(refusal.reason).title; break;
  }
  if (refusal.reason != Reason::policy_queue_full && refusal.reason != Reason::policy_deadline_exceeded)
    error.detail = "subject " + std::to_string(refusal.subject);
  return error;
}

/// What a call is told that arrives while others wait for what it needs too; nothing: it may ask at once.
std::optional<store::Refusal> refusal_of_line(const Call& call, const Attempt& attempt,
                                              std::span<const store::SubjectId> subjects) {
  const ProviderPlan& provider = *attempt.provider;
  const auto held_back =
      provider.line->holds_back(arrival_of(call, attempt, subjects.subspan(1), call.now.mono), call.now.mono);
  if (!held_back) return std::nullopt;
  store::Refusal refusal{.reason = held_back->reason,
                         .subject = provider.subject,
                         .retry_after = held_back->estimate,
                         .opens_early = false};
  const nanoseconds time = time_to_wait(call, provider, held_back->reason);
  if (time > nanoseconds{} && held_back->gate < time && held_back->estimate >= time)
    refusal.reason = Reason::policy_deadline_exceeded;  // not the limit, but those ahead
  return refusal;
}

/// Whether it may start within the call's time.
bool may_wait(const Call& call, const ProviderPlan& provider, const store::Refusal& refusal) {
  if (refusal.reason != Reason::policy_rate_limited && refusal.reason != Reason::policy_circuit_open)
    return false;
  if (refusal.retry_after == nanoseconds::max()) return false;
  const nanoseconds time = time_to_wait(call, provider, refusal.reason);
  return time > nanoseconds{} && (refusal.opens_early || refusal.retry_after < time);
}

void count_refusal(Call& call, const ProviderPlan& provider, Reason reason) {
  provider.refused
      .get(static_cast<std::uint32_t>(reason),
           [&]() -> observe::Counter& {
             return call.services.metrics.admissions.with(
                 {provider.config->name, "refuse", info(reason).name});
           })
      .add();
}

}  // namespace

Subjects subjects_of(const Call& call, const Attempt& attempt) {
  Subjects subjects;
  subjects.push_back(attempt.provider->subject);
  if (attempt.endpoint->subject) subjects.push_back(*attempt.endpoint->subject);
  if (call.route != nullptr && call.route->subject) subjects.push_back(*call.route->subject);
  if (call.key)
    for (const store::SubjectId subject : call.key->subjects) subjects.push_back(subject);
  return subjects;
}

Awaitable<Step> admit(Call& call, Attempt& attempt, Admission how) {
  if (auto error = price(call, attempt)) co_return refuse_call(call, std::move(*error));
  const Subjects subjects = subjects_of(call, attempt);
  attempt.id = {call.services.epoch, call.worker.sequence()};
  const store::ReservationRequest request{
      .id = attempt.id,
      .subjects = subjects,
      .estimate = attempt.estimate,
      .tokens = attempt.bound.input_tokens + attempt.bound.output_tokens,
      .lease = attempt.provider->lease,
      .is_retry = how.is_retry,
      .now = call.now,
      .limit_class = attempt.model != nullptr ? attempt.model->limit_class : attempt.endpoint->limit_class,
      .input_tokens = attempt.bound.input_tokens};
  const std::shared_ptr<ProviderLine>& line = attempt.provider->line;
  std::expected<void, store::Refusal> held;
  if (how.patience == Patience::line) {
    held = co_await wait_turn(call, attempt, request);
  } else if (line->empty()) {
    held = co_await call.services.state.reserve(request);
  } else if (auto behind = refusal_of_line(call, attempt, subjects)) {
    held = std::unexpected(*behind);
  } else {
    held = co_await call.services.state.reserve(request);
    if (held) line->passed(arrival_of(call, attempt, {}, call.now.mono).lane);
  }
  attempt.began = call.now.mono;
  if (held) {
    attempt.provider->admitted->add();
    co_return Step::next;
  }
  const store::Refusal& refusal = held.error();
  const bool waits = how.patience == Patience::none && may_wait(call, *attempt.provider, refusal);
  // A call that will wait is not refused, but for the target that another may replace.
  if (!waits || call.targets.size() > 1) count_refusal(call, *attempt.provider, refusal.reason);
  attempt.reason = refusal.reason;
  call.refusal = refusal_error(call, attempt, refusal);
  co_return waits ? Step::wait : Step::refuse;
}

}  // namespace penstock::gateway
