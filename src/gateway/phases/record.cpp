#include "gateway/phases/phases.hpp"

namespace penstock::gateway {
namespace {

constexpr std::array<std::string_view, 8> kMethods{"GET",    "POST", "PUT",     "PATCH",
                                                   "DELETE", "HEAD", "OPTIONS", "TRACE"};

std::uint32_t method_number(std::string_view method) noexcept {
  const auto found = std::ranges::find(kMethods, method);
  return static_cast<std::uint32_t>(found - kMethods.begin());
}

void observe_http(Call& call, const EndpointPlan* endpoint, nanoseconds total) {
  const http::Exchange& exchange = call.exchange;
  const std::uint32_t method = method_number(exchange.request.method);
  const std::string_view method_name = method < kMethods.size() ? kMethods[method] : "other";
  if (endpoint == nullptr) {
    // Refused before it was matched; rare enough for a look-up.
    call.services.metrics.http_duration.with({method_name, "unmatched", std::to_string(exchange.status())})
        .observe(total);
    return;
  }
  endpoint->http_durations
      .get(method * 1000 + static_cast<std::uint32_t>(exchange.status()),
           [&](std::optional<std::uint32_t> number) -> observe::Histogram& {
             if (!number)
               return call.services.metrics.http_duration.with({"other", endpoint->label, "other"});
             return call.services.metrics.http_duration.with(
                 {method_name, endpoint->label, std::to_string(exchange.status())});
           })
      .observe(total);
}

store::CallRecord make_record(const Call& call, nanoseconds total) {
  store::CallRecord made{.id = call.id,
                         .at = call.exchange.arrived.wall,
                         .route = call.route == nullptr ? Name() : call.route->name,
                         .consumer = call.key ? call.key->consumer : Name(),
                         .team = call.key ? call.key->team : Name(),
                         .key = call.key ? call.key->key : Name(),
                         .model = {},
                         .tag = std::string(call.tag),
                         .status = call.exchange.status(),
                         .reason = {},
                         .cost = call.cost(),
                         .cost_estimated = false,
                         .total = total,
                         .attempts = {}};
  if (call.refusal) made.reason = call.refusal->reason;
  for (const Attempt& attempt : call.attempts) {
    if (attempt.model != nullptr) made.model = attempt.model->name;
    if (!made.reason && attempt.reason) made.reason = attempt.reason;
    made.cost_estimated |= attempt.cost_estimated;
    made.attempts.push_back({.id = attempt.id,
                             .provider = attempt.provider->name,
                             .endpoint = attempt.endpoint->name,
                             .estimate = attempt.estimate,
                             .cost = attempt.cost,
                             .ending = attempt.ending,
                             .status = attempt.status,
                             .reason = attempt.reason});
  }
  return made;
}

void log_call(const Call& call, const store::CallRecord& made, nanoseconds upstream) {
  const config::CallLog wanted = call.snapshot->config.log.calls;
  if (wanted == config::CallLog::none || (wanted == config::CallLog::refused && !made.reason)) return;
  observe::CallLine line;
  line.call = call.id;
  line.at = made.at;
  line.method =
      method_number(call.exchange.request.method) < kMethods.size() ? call.exchange.request.method : "other";
  if (!call.attempts.empty()) {
    const Attempt& last = call.attempts.back();
    line.provider = last.provider->config->name;
    line.endpoint = last.endpoint->name.view();
    line.first_byte = last.first_byte;
    line.input_tokens =
        last.usage.input_tokens + last.usage.cached_input_tokens + last.usage.cache_write_tokens;
    line.output_tokens = last.usage.output_tokens;
  } else if (call.targets.size() == 1) {
    line.provider = call.targets.front()->config->name;
  }
  line.route = made.route.view();
  line.consumer = made.consumer.view();
  line.team = made.team.view();
  line.key = made.key.view();
  line.model = made.model.view();
  line.tag = made.tag;
  line.status = made.status;
  if (made.reason) line.reason = info(*made.reason).name;
  if (call.refusal) line.detail = call.refusal->detail;
  line.attempts = static_cast<std::uint32_t>(made.attempts.size());
  line.cost = made.cost;
  line.cost_estimated = made.cost_estimated;
  line.total = made.total;
  line.upstream = upstream;
  line.waited = call.waited;
  line.bytes_in = call.exchange.body_bytes();
  line.bytes_out = call.exchange.bytes_sent();
  call.services.log.call(line);
}

}  // namespace

void record(Call& call) {
  const MonotonicTime end = std::chrono::steady_clock::now();
  const nanoseconds total = end - call.exchange.arrived.mono;
  nanoseconds upstream{};
  for (const Attempt& attempt : call.attempts) upstream += attempt.duration;
  const EndpointPlan* const endpoint =
      call.attempts.empty()
          ? (call.targets.empty()
                 ? nullptr
                 : &call.targets.front()->endpoint_of(call.exchange.request.method, call.path))
          : call.attempts.back().endpoint;
  observe_http(call, endpoint, total);
  call.services.overhead.observe(std::max(nanoseconds::zero(), total - upstream - call.waited));
  store::CallRecord made = make_record(call, total);
  log_call(call, made, upstream);
  call.services.ledger.record(std::move(made));
}

}  // namespace penstock::gateway
