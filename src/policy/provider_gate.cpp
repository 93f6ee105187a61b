#include "policy/provider_gate.hpp"

#include <algorithm>

namespace penstock::policy {
namespace {

LearnedLimit::Costs costs_of(const ProviderGate::Ask& ask) noexcept {
  // What a call will write is not known before: its limit closes only when nothing is left.
  return {1, ask.tokens, ask.input_tokens, 1};
}

}  // namespace

std::size_t ProviderGate::find(std::uint32_t limit_class) const noexcept {
  std::size_t place = 0;
  while (place < limits_.size() && limits_[place].first != limit_class) ++place;
  return place == kMaxClasses ? 0 : place;
}

nanoseconds ProviderGate::wait_for(const Ask& ask, MonotonicTime now) noexcept {
  const nanoseconds room = spec_.adapts_concurrency && !concurrency_.may_start(now)
                               ? nanoseconds{kConcurrencyWait}
                               : nanoseconds{0};
  if (!spec_.learns_limits) return room;
  const std::size_t place = find(ask.limit_class);
  if (place == limits_.size()) return room;
  return std::max(room, limits_[place].second.wait_for(costs_of(ask), ask.attempt, now));
}

ProviderGate::Ticket ProviderGate::take(const Ask& ask, MonotonicTime now) {
  Ticket ticket{.number = concurrency_.start(), .limit = {}};
  if (!spec_.learns_limits) return ticket;
  const std::size_t place = find(ask.limit_class);
  if (place == limits_.size()) limits_.emplace_back(ask.limit_class, LearnedLimit{});
  ticket.place = static_cast<std::uint32_t>(place);
  ticket.limit = limits_[place].second.take(costs_of(ask), now);
  return ticket;
}

void ProviderGate::learn(const Ticket& ticket, const LimitSigns& signs, MonotonicTime now) noexcept {
  if (spec_.learns_limits && ticket.limit.sequence != 0)
    limits_[ticket.place].second.learn(ticket.limit, signs, spec_.share, now);
  if (!spec_.adapts_concurrency) return;
  using Answer = LimitSigns::Answer;
  // A refusal that tells neither a limit nor a time may be for either: both give way.
  const bool tells_nothing =
      !signs.retry_after && !signs.is_daily &&
      std::ranges::none_of(signs.readings, [](const auto& reading) { return reading.has_value(); });
  if (signs.answer == Answer::overloaded || (signs.answer == Answer::rate_limited && tells_nothing))
    concurrency_.dropped(ticket.number, now);
}

void ProviderGate::end(const Ticket& ticket, Ending ending) noexcept {
  if (ending == Ending::well) concurrency_.succeeded();
  concurrency_.end();
  if (ticket.limit.sequence != 0) limits_[ticket.place].second.end(ticket.limit, ending == Ending::well);
}

void ProviderGate::reconfigure(const GateSpec& spec) noexcept {
  spec_ = spec;
  if (!spec_.learns_limits)
    for (auto& [limit_class, limit] : limits_) limit.forget();
  if (!spec_.adapts_concurrency) concurrency_.forget();
}

std::optional<LearnedLimit::View> ProviderGate::limit(LimitDimension dimension, MonotonicTime now) noexcept {
  std::optional<LearnedLimit::View> lowest;
  for (auto& [limit_class, limit] : limits_) {
    const auto view = limit.view(dimension, now);
    if (view && (!lowest || (view->limit != 0 && (lowest->limit == 0 || view->limit < lowest->limit))))
      lowest = view;
  }
  return lowest;
}

}  // namespace penstock::policy
