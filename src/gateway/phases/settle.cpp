#include "gateway/phases/phases.hpp"

namespace penstock::gateway {
namespace {

void count_tokens(Call& call, const Attempt& attempt) {
  const ModelPlan& model = *attempt.model;
  const auto add = [&](std::uint32_t number, std::string_view type, std::int64_t amount) {
    if (amount <= 0) return;
    model.tokens
        .get(number,
             [&]() -> observe::Counter& {
               return call.services.metrics.tokens.with(
                   {attempt.provider->config->name, model.name.view(), type});
             })
        .add(amount);
  };
  add(0, "input", attempt.usage.input_tokens);
  add(1, "output", attempt.usage.output_tokens);
  add(2, "cached_input", attempt.usage.cached_input_tokens);
  add(3, "cache_write", attempt.usage.cache_write_tokens);
}

}  // namespace

void settle(Call& call, Attempt& attempt, policy::CircuitBreaker::Outcome outcome) {
  // One clock is read and the other goes along: wall time only stamps the record.
  const MonotonicTime mono = std::chrono::steady_clock::now();
  const Now now{.mono = mono, .wall = call.now.wall + (mono - call.now.mono)};
  attempt.duration = mono - attempt.began;
  call.services.state.settle({.id = attempt.id,
                              .ending = attempt.ending,
                              .cost = attempt.cost,
                              .tokens = attempt.usage.known ? attempt.usage.total_tokens() : -1,
                              .outcome = outcome,
                              .first_byte = attempt.first_byte,
                              .now = now});
  // What it gave back may be what somebody waits for, here or at another provider (a team's concurrency).
  if (call.services.lines.anyone_waits()) {
    const Subjects subjects = subjects_of(call, attempt);
    for (const ProviderPlan& each : call.snapshot->providers) each.line->settled(subjects, mono);
  }
  const ProviderPlan& provider = *attempt.provider;
  if (attempt.cost > NanoUsd{})
    (attempt.cost_estimated ? provider.credit_estimated : provider.credit_actual)->add(attempt.cost.count);
  if (attempt.usage.known && attempt.model != nullptr) count_tokens(call, attempt);
  if (attempt.cost_estimated) attempt.endpoint->unmetered->add();
  // Status 0: there was no answer; the label is the reason then.
  attempt.endpoint->calls
      .get(attempt.status != 0
               ? static_cast<std::uint32_t>(attempt.status)
               : 1000U + static_cast<std::uint32_t>(attempt.reason.value_or(Reason::gateway_error)),
           [&](std::optional<std::uint32_t> number) -> observe::Counter& {
             // A provider can answer 500 different statuses; beyond the first two dozen they are one.
             const std::string status =
                 !number ? "other"
                 : attempt.status != 0
                     ? std::to_string(attempt.status)
                     : std::string(info(attempt.reason.value_or(Reason::gateway_error)).name);
             return call.services.metrics.calls.with(
                 {provider.config->name, attempt.endpoint->name.view(), status});
           })
      .add();
  attempt.endpoint->duration->observe(attempt.duration);
}

}  // namespace penstock::gateway
