#include <boost/asio/redirect_error.hpp>
#include <boost/asio/use_awaitable.hpp>

#include "gateway/client_address.hpp"
#include "gateway/phases/phases.hpp"

namespace penstock::gateway {
namespace {

/// Where bytes of the client are unread (a next request, TLS), the kernel does not tell of its end by itself:
/// it is asked this often.
constexpr seconds kAskForClient{1};

/// Who waits for a fair share: the consumer, or the client's address where there is none.
std::uint64_t consumer_of(const Call& call) {
  return std::hash<std::string_view>{}(call.key
                                           ? call.key->consumer.view()
                                           : client_address(call.exchange.peer, call.exchange.request.fields,
                                                            call.snapshot->config.trusted_proxies));
}

/// Notices that the client hangs up while nobody reads from it: cuts the sleep short.
class ClientWatch {
 public:
  ClientWatch(http::Transport& transport, std::shared_ptr<http::Timer*> timer) : transport_(transport) {
    transport.socket().async_wait(http::Socket::wait_read,
                                  [timer = std::move(timer), seen = seen_](http::error_code error) {
                                    *seen = true;
                                    if (!error && *timer != nullptr) (*timer)->cancel();
                                  });
  }
  ~ClientWatch() {
    if (!*seen_) transport_.cancel();
  }
  ClientWatch(const ClientWatch&) = delete;
  ClientWatch& operator=(const ClientWatch&) = delete;

  /// Something has come: bytes, or the end.
  [[nodiscard]] bool saw_something() const noexcept { return *seen_; }

 private:
  http::Transport& transport_;
  std::shared_ptr<bool> seen_ = std::make_shared<bool>(false);
};

/// Adds to the call's waiting time, however the wait ends.
class WaitClock {
 public:
  WaitClock(Call& call, MonotonicTime began) : call_(call), began_(began) {}
  ~WaitClock() { call_.waited += std::chrono::steady_clock::now() - began_; }
  WaitClock(const WaitClock&) = delete;
  WaitClock& operator=(const WaitClock&) = delete;

 private:
  Call& call_;
  MonotonicTime began_;
};

void count_wait(Call& call, const ProviderPlan& provider) {
  const Reason reason = call.refusal ? call.refusal->reason : Reason::policy_rate_limited;
  provider.waited
      .get(static_cast<std::uint32_t>(reason),
           [&]() -> observe::Counter& {
             return call.services.metrics.admissions.with({provider.config->name, "wait", info(reason).name});
           })
      .add();
}

/// Whether another try, later, may have another answer.
bool is_worth_waiting(const Call& call, const ProviderPlan& provider, const store::Refusal& refusal) {
  return (refusal.reason == Reason::policy_rate_limited || refusal.reason == Reason::policy_circuit_open) &&
         refusal.retry_after != nanoseconds::max() &&
         time_to_wait(call, provider, refusal.reason) > nanoseconds{};
}

}  // namespace

nanoseconds time_to_wait(const Call& call, const ProviderPlan& provider, Reason reason) {
  const config::Wait& wait = provider.config->wait;
  // A sick provider is waited for only on request: a caller who says nothing wants to know at once.
  if (wait.max_waiting == 0 || (reason == Reason::policy_circuit_open && !call.wait_asked)) return {};
  milliseconds most = wait.max;
  milliseconds usual = wait.usual;
  if (call.route != nullptr) {
    most = call.route->config->wait.max.value_or(most);
    usual = call.route->config->wait.usual.value_or(usual);
  }
  return std::max(nanoseconds{}, nanoseconds{std::min(call.wait_asked.value_or(usual), most)} - call.waited);
}

ProviderLine::Arrival arrival_of(const Call& call, const Attempt& attempt,
                                 std::span<const store::SubjectId> own, MonotonicTime now) {
  policy::WaitLane lane = attempt.provider->config->wait.lane;
  if (call.route != nullptr) lane = call.route->config->wait.lane.value_or(lane);
  return {.lane = call.lane_asked.value_or(lane),
          .consumer = consumer_of(call),
          .own = own,
          .deadline = now + time_to_wait(call, *attempt.provider, Reason::policy_rate_limited),
          .bytes = call.body.size(),
          .tokens = attempt.bound.input_tokens + attempt.bound.output_tokens,
          .waits_for_circuit = call.wait_asked.has_value()};
}

Awaitable<std::expected<void, store::Refusal>> wait_turn(Call& call, const Attempt& attempt,
                                                         store::ReservationRequest request) {
  const ProviderPlan& provider = *attempt.provider;
  http::Transport& client = call.exchange.transport();
  http::Timer timer(call.worker.io);
  ProviderLine::Place place(provider.line,
                            arrival_of(call, attempt, request.subjects.subspan(1), call.now.mono),
                            call.worker.io.get_executor(), timer);
  if (auto entered = place.enter(call.now.mono); !entered) co_return entered;
  const WaitClock clock(call, call.now.mono);
  count_wait(call, provider);
  const ClientWatch watch(client, place.timer());
  for (;;) {
    call.now = call.services.clock.now();
    const ProviderLine::Place::Look look = place.look(call.now.mono);
    if (const auto* refusal = std::get_if<store::Refusal>(&look)) co_return std::unexpected(*refusal);
    if (const auto* sleep = std::get_if<ProviderLine::Place::Sleep>(&look)) {
      const bool asks = watch.saw_something();
      timer.expires_at(asks ? std::min(sleep->until, call.now.mono + kAskForClient) : sleep->until);
      http::error_code ignored;
      co_await timer.async_wait(asio::redirect_error(asio::use_awaitable_t<Executor>{}, ignored));
      if (watch.saw_something() && client.peer_has_left()) {
        call.exchange.close_after();
        co_return std::unexpected(store::Refusal{
            .reason = Reason::caller_cancelled, .subject = 0, .retry_after = {}, .opens_early = false});
      }
      continue;
    }
    request.now = call.now;
    const auto held = co_await call.services.state.reserve(request);
    if (held) {
      place.started(call.now.mono);
      co_return held;
    }
    if (!is_worth_waiting(call, provider, held.error())) co_return held;
    place.refused(held.error(), call.now.mono);
  }
}

}  // namespace penstock::gateway
