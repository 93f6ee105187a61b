#include "gateway/pipeline.hpp"

#include <boost/asio/redirect_error.hpp>
#include <boost/asio/use_awaitable.hpp>

#include "gateway/phases/phases.hpp"

namespace penstock::gateway {
namespace {

using Phase = Step (*)(Call&);

/// What a call passes before its body is read, top to bottom. Change the order only together with the reason
/// beside it.
constexpr Phase kBeforeTheBody[] = {
    authenticate,  // first: every later limit is per key
    limit_caller,  // local memory only: sheds load before any other work
    match_route,   // after the limit: probing for names is limited too
};

Awaitable<void> pause(Call& call, nanoseconds wait) {
  http::Timer timer(call.worker.io);
  timer.expires_after(wait);
  http::error_code ignored;
  co_await timer.async_wait(asio::redirect_error(asio::use_awaitable_t<Executor>{}, ignored));
  call.waited += wait;
}

/// Tries the targets in their order, each as often as its retry policy allows; each attempt has its own
/// reservation. Nobody waits for one while another can take the call now; then it waits for the first that it
/// may wait for. True: the caller has an answer.
Awaitable<bool> make_attempts(Call& call) {
  std::optional<Error> provider_failure;  // more telling than the refusal of what would have followed
  boost::container::small_vector<std::uint32_t, 4> waits(call.targets.size(), 0);  // 1 + attempts made there
  for (const Patience patience : {Patience::none, Patience::line}) {
    bool any_waits = false;
    for (std::size_t target = 0; target < call.targets.size(); ++target) {
      if (patience == Patience::line && waits[target] == 0) continue;
      const ProviderPlan& provider = *call.targets[target];
      const bool has_fallback = target + 1 < call.targets.size();
      for (std::uint32_t number = std::max(1U, waits[target]);; ++number) {
        Attempt attempt;
        attempt.provider = &provider;
        attempt.endpoint = &provider.endpoint_of(call.exchange.request.method, call.path);
        if (number > 1 || target > 0 || patience == Patience::line)
          call.now = call.services.clock.now();  // else next to nothing has passed since the last reading
        const Step admitted_or_not =
            co_await admit(call, attempt, {.is_retry = number > 1, .patience = patience});
        if (admitted_or_not == Step::wait) {
          waits[target] = number;
          any_waits = true;
        }
        if (admitted_or_not != Step::next) break;
        call.refusal.reset();
        Attempt& admitted = call.attempts.emplace_back(std::move(attempt));
        RetryDecision decision(call, admitted, number, has_fallback);
        if (co_await forward(call, admitted, decision) == Outcome::replied) co_return true;
        provider_failure = call.refusal;
        if (decision.next() == RetryDecision::Next::none) co_return false;
        if (decision.next() == RetryDecision::Next::next_target) break;
        co_await pause(call, decision.wait());
      }
      if (call.refusal && call.refusal->reason == Reason::caller_cancelled) co_return false;
    }
    if (!any_waits) break;
  }
  if (provider_failure) call.refusal = std::move(provider_failure);
  co_return false;
}

/// What needs no waiting; a call that is refused here costs next to nothing.
Step begin(Call& call) {
  for (const Phase phase : kBeforeTheBody)
    if (phase(call) == Step::refuse) return Step::refuse;
  return Step::next;
}

}  // namespace

Awaitable<void> run_unmatched(http::Exchange& exchange, Worker& worker) {
  Call call(exchange, worker);
  call.id = {worker.services.epoch, worker.sequence()};
  call.now = worker.services.clock.at(exchange.arrived.mono);
  if (limit_caller(call) == Step::next)
    call.refusal = Error{.reason = Reason::caller_invalid,
                         .status = 404,
                         .message = "Nothing is here: calls go to /p/{provider}/... or /r/{route}/...",
                         .detail = {},
                         .retry_after = {}};
  co_await respond(call);
  record(call);
}

Awaitable<void> run_call(http::Exchange& exchange, Worker& worker) {
  Call call(exchange, worker);
  call.id = {worker.services.epoch, worker.sequence()};
  call.now = worker.services.clock.at(exchange.arrived.mono);
  bool answered = false;
  if (begin(call) == Step::next) {
    // Before admission: the body bounds the cost. After authentication: strangers send us nothing.
    Step read = Step::next;
    if (!take_request_body(call)) {
      read = co_await read_request_body(call);
      call.now = call.services.clock.now();
    }
    if (read == Step::next) answered = co_await make_attempts(call);
  }
  if (!answered) co_await respond(call);
  record(call);  // after the answer: it never delays one
}

}  // namespace penstock::gateway
