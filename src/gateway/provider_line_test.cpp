#include "gateway/provider_line.hpp"

#include <list>
#include <thread>

#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/redirect_error.hpp>
#include <boost/asio/use_awaitable.hpp>

#include "gateway/testing.hpp"

namespace penstock::gateway {
namespace {

using Place = ProviderLine::Place;
using store::Refusal;

constexpr store::SubjectId kProvider = 100;
constexpr boost::asio::use_awaitable_t<Executor> kAwait{};

const Refusal kBusy{.reason = Reason::policy_rate_limited,
                    .subject = kProvider,
                    .retry_after = seconds{60},
                    .opens_early = true};

class ProviderLineTest : public ::testing::Test {
 protected:
  /// A call at rest in the line: what its coroutine would hold.
  struct Waiting {
    Waiting(ProviderLineTest& test, const ProviderLine::Arrival& arrival)
        : timer(test.io_), place(test.line_, arrival, test.io_.get_executor(), timer) {
      entered = place.enter(test.now_);
    }
    http::Timer timer;
    Place place;
    std::expected<void, Refusal> entered;
  };

  Waiting& arrive(nanoseconds patience = std::chrono::hours{1}) {
    return calls_.emplace_back(*this, ProviderLine::Arrival{.lane = policy::WaitLane::standard,
                                                            .consumer = 1,
                                                            .own = {},
                                                            .deadline = now_ + patience,
                                                            .bytes = 0,
                                                            .tokens = 0,
                                                            .waits_for_circuit = false});
  }
  [[nodiscard]] bool has_turn(Waiting& call) {
    return std::holds_alternative<Place::Turn>(call.place.look(now_));
  }
  [[nodiscard]] std::optional<Refusal> refusal_of(Waiting& call) {
    const Place::Look look = call.place.look(now_);
    const auto* refusal = std::get_if<Refusal>(&look);
    return refusal == nullptr ? std::nullopt : std::optional(*refusal);
  }
  [[nodiscard]] MonotonicTime sleeps_until(Waiting& call) {
    return std::get<Place::Sleep>(call.place.look(now_)).until;
  }

  asio::io_context io_{1};
  observe::Metrics metrics_;
  std::atomic<std::size_t> all_waiting_{0};
  std::shared_ptr<ProviderLine> line_ = std::make_shared<ProviderLine>(
      "p", policy::LineSpec{.max_calls = 100, .max_bytes = 100, .limits = {}}, metrics_, all_waiting_);
  MonotonicTime now_ = std::chrono::steady_clock::now();
  std::list<Waiting> calls_;
};

// No thundering herd: however many wait, one asks.
TEST_F(ProviderLineTest, OneAtATimeHasTheTurn) {
  Waiting& first = arrive();
  Waiting& second = arrive();
  Waiting& third = arrive();
  EXPECT_FALSE(has_turn(second));
  EXPECT_TRUE(has_turn(first));
  EXPECT_FALSE(has_turn(third));
  first.place.refused(kBusy, now_);
  EXPECT_FALSE(has_turn(first));
  EXPECT_FALSE(has_turn(second));
  line_->settled(std::array{kProvider}, now_);
  EXPECT_TRUE(has_turn(first));
  EXPECT_FALSE(has_turn(second));
  first.place.started(now_);
  EXPECT_TRUE(has_turn(second));
}

// ... also where one comes meanwhile that would be next.
TEST_F(ProviderLineTest, WhoComesWhileOneAsksDoesNotAskToo) {
  Waiting& first = arrive(std::chrono::hours{2});
  ASSERT_TRUE(has_turn(first));
  Waiting& urgent = arrive(std::chrono::minutes{1});
  EXPECT_FALSE(has_turn(urgent));
  first.place.started(now_);
  EXPECT_TRUE(has_turn(urgent));
}

// Whoever starts, leaves or makes room wakes the next: it sleeps until its deadline else.
TEST_F(ProviderLineTest, TheNextIsWokenFromItsSleep) {
  Waiting& first = arrive();
  Waiting& second = arrive();
  Waiting& third = arrive();
  ASSERT_TRUE(has_turn(first));
  int woken = 0;
  const auto sleep = [&](Waiting& call) {
    call.timer.expires_at(sleeps_until(call));
    call.timer.async_wait([&](http::error_code) { ++woken; });
  };
  const auto woken_so_far = [&] {
    io_.restart();
    io_.poll();
    return woken;
  };
  sleep(second);
  sleep(third);
  EXPECT_EQ(woken_so_far(), 0);
  calls_.pop_front();  // hangs up while it asks
  EXPECT_EQ(woken_so_far(), 1);
  ASSERT_TRUE(has_turn(second));
  second.place.refused(kBusy, now_);
  sleep(second);
  EXPECT_EQ(woken_so_far(), 1);
  line_->settled(std::array{kProvider}, now_);
  EXPECT_EQ(woken_so_far(), 2);
  ASSERT_TRUE(has_turn(second));
  second.place.started(now_);
  EXPECT_EQ(woken_so_far(), 3);
  EXPECT_TRUE(has_turn(third));
}

// The settlement that came between the state's answer and ours would else be lost, and the line asleep.
TEST_F(ProviderLineTest, RoomMadeWhileOneAsksIsNotMissed) {
  Waiting& call = arrive();
  ASSERT_TRUE(has_turn(call));
  line_->settled(std::array{kProvider}, now_);
  call.place.refused(kBusy, now_);
  EXPECT_TRUE(has_turn(call));
  call.place.refused(kBusy, now_);
  EXPECT_FALSE(has_turn(call));
}

// A gate needs exactly one timer: of one that waits, and of another when that one leaves.
TEST_F(ProviderLineTest, SomebodyAlwaysKeepsTheTimeOfTheNextGate) {
  Waiting& first = arrive();
  ASSERT_TRUE(has_turn(first));
  const Refusal limit{.reason = Reason::policy_rate_limited,
                      .subject = kProvider,
                      .retry_after = seconds{5},
                      .opens_early = false};
  first.place.refused(limit, now_);
  EXPECT_EQ(sleeps_until(first), now_ + seconds{5});
  Waiting& second = arrive();
  EXPECT_EQ(sleeps_until(second), now_ + std::chrono::hours{1});
  calls_.pop_front();  // hangs up
  EXPECT_EQ(sleeps_until(second), now_ + seconds{5});
  now_ += seconds{5};
  EXPECT_TRUE(has_turn(second));
}

// G5, and a destroyed coroutine must not take the turn with it.
TEST_F(ProviderLineTest, LeavingPassesTheTurnOn) {
  Waiting& first = arrive();
  Waiting& second = arrive();
  EXPECT_TRUE(has_turn(first));
  calls_.pop_front();
  EXPECT_TRUE(has_turn(second));
  calls_.pop_front();
  EXPECT_TRUE(line_->empty());
  EXPECT_EQ(all_waiting_, 0U);
  EXPECT_EQ(metrics_.queue_depth.with({"p", "standard"}).value(), 0);
  EXPECT_EQ(metrics_.queue_wait.with({"p", "standard"}).count(), 2);
}

TEST_F(ProviderLineTest, ADeadlineRefusesAndWhoIsBehindGoesOn) {
  Waiting& hurried = arrive(seconds{1});
  Waiting& patient = arrive();
  ASSERT_TRUE(has_turn(hurried));
  hurried.place.refused(kBusy, now_);
  now_ += seconds{1};
  EXPECT_EQ(refusal_of(hurried).value().reason, Reason::policy_deadline_exceeded);
  EXPECT_EQ(line_->empty(), false);
  line_->settled(std::array{kProvider}, now_);
  EXPECT_TRUE(has_turn(patient));
}

// To wait for what cannot come in time helps nobody.
TEST_F(ProviderLineTest, WhoCannotStartBeforeTheGateOpensIsToldAtOnce) {
  Waiting& patient = arrive();
  Waiting& hurried = arrive(seconds{20});
  ASSERT_TRUE(has_turn(hurried));  // the earlier deadline
  Refusal pause = kBusy;
  pause.opens_early = false;
  hurried.place.refused(pause, now_);
  const auto told = refusal_of(hurried);
  EXPECT_EQ(told.value().reason, Reason::policy_deadline_exceeded);
  EXPECT_EQ(told.value().retry_after, seconds{60});
  EXPECT_EQ(refusal_of(patient), std::nullopt);
}

// A sick provider is waited for on request only.
TEST_F(ProviderLineTest, AnOpenCircuitSendsAwayWhoDidNotAskToWait) {
  ProviderLine::Arrival asked{.lane = policy::WaitLane::standard,
                              .consumer = 1,
                              .own = {},
                              .deadline = now_ + std::chrono::hours{1},
                              .bytes = 0,
                              .tokens = 0,
                              .waits_for_circuit = true};
  Waiting& waits = calls_.emplace_back(*this, asked);
  Waiting& does_not = arrive(std::chrono::hours{2});
  ASSERT_TRUE(has_turn(waits));
  Refusal open = kBusy;
  open.reason = Reason::policy_circuit_open;
  waits.place.refused(open, now_);
  EXPECT_EQ(refusal_of(waits), std::nullopt);
  EXPECT_EQ(refusal_of(does_not).value().reason, Reason::policy_circuit_open);
}

TEST_F(ProviderLineTest, AClosedLineSendsEverybodyAway) {
  Waiting& call = arrive();
  line_->close();
  EXPECT_EQ(refusal_of(call).value().reason, Reason::policy_deadline_exceeded);
  EXPECT_EQ(arrive().entered.error().reason, Reason::policy_deadline_exceeded);
  EXPECT_TRUE(line_->empty());
}

/// A provider with three places, and what it saw.
struct Places {
  std::mutex mutex;
  int in_flight = 0;
  int most_in_flight = 0;
  int started = 0;
  int refused = 0;
  std::atomic<int> asking{0};
  std::atomic<int> most_asking{0};

  bool try_start() {
    const std::scoped_lock lock(mutex);
    if (in_flight == 3) {
      ++refused;
      return false;
    }
    ++started;
    most_in_flight = std::max(most_in_flight, ++in_flight);
    return true;
  }
  void finish() {
    const std::scoped_lock lock(mutex);
    --in_flight;
  }
};

Awaitable<void> wait_and_run(std::shared_ptr<ProviderLine> line, asio::io_context& io, Places& places,
                             std::uint64_t consumer, std::atomic<int>& left) {
  const MonotonicTime arrived = std::chrono::steady_clock::now();
  {
    http::Timer timer(io);
    Place place(line,
                {.lane = policy::kAllWaitLanes.at(consumer % policy::kWaitLanes),
                 .consumer = consumer,
                 .own = {},
                 .deadline = arrived + std::chrono::hours{1},
                 .bytes = 0,
                 .tokens = 0,
                 .waits_for_circuit = false},
                io.get_executor(), timer);
    const auto entered = place.enter(arrived);
    EXPECT_TRUE(entered.has_value());
    for (;;) {
      const MonotonicTime now = std::chrono::steady_clock::now();
      const Place::Look look = place.look(now);
      if (const auto* sleep = std::get_if<Place::Sleep>(&look)) {
        timer.expires_at(sleep->until);
        http::error_code ignored;
        co_await timer.async_wait(boost::asio::redirect_error(kAwait, ignored));
        continue;
      }
      EXPECT_TRUE(std::holds_alternative<Place::Turn>(look));
      const int asking = ++places.asking;
      places.most_asking = std::max(places.most_asking.load(), asking);
      co_await boost::asio::post(io, kAwait);  // as a state that is asked over a network
      const bool held = places.try_start();
      --places.asking;
      if (held) {
        place.started(now);
        break;
      }
      Refusal busy = kBusy;  // by time alone it would never open within the test
      busy.retry_after = std::chrono::minutes{30};
      place.refused(busy, now);
    }
  }
  co_await boost::asio::post(io, kAwait);
  places.finish();
  line->settled(std::array{kProvider}, std::chrono::steady_clock::now());
  if (--left == 0) io.stop();
}

// No wake-up is lost between four threads: by time alone nobody would come to an end.
TEST_F(ProviderLineTest, WorkersWakeEachOther) {
  constexpr int kThreads = 4;
  constexpr int kCalls = 150;
  line_->reconfigure({.max_calls = 10'000, .max_bytes = 100, .limits = {}}, now_);
  Places places;
  std::atomic<int> left{kThreads * kCalls};
  std::deque<asio::io_context> contexts;
  std::vector<std::thread> threads;
  for (int t = 0; t < kThreads; ++t) {
    asio::io_context& io = contexts.emplace_back(1);
    for (int i = 0; i < kCalls; ++i)
      boost::asio::co_spawn(io, wait_and_run(line_, io, places, static_cast<std::uint64_t>(i % 7), left),
                            boost::asio::detached);
  }
  for (asio::io_context& io : contexts) threads.emplace_back([&io] { io.run_for(seconds{60}); });
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(left, 0);
  EXPECT_EQ(places.started, kThreads * kCalls);
  EXPECT_LE(places.most_in_flight, 3);
  EXPECT_EQ(places.most_asking, 1);
  EXPECT_TRUE(line_->empty());
  EXPECT_EQ(all_waiting_, 0U);
}

/// The phases over a state that the test commands.
class WaitTurnTest : public ::testing::Test {
 protected:
  WaitTurnTest() {
    gateway_.state.on_reserve = [this](const store::ReservationRequest&) {
      ++asked_;
      return answer_;
    };
  }
  Call& call(std::string_view fields) {
    Call& made = gateway_.call("GET /p/p/x HTTP/1.1\nHost: x\n" + std::string(fields));
    EXPECT_EQ(match_route(made), Step::next);
    made.now = read_clocks();
    attempt_.provider = &gateway_.provider("p");
    attempt_.endpoint = &attempt_.provider->endpoints.back();
    return made;
  }
  Step admit_at_once(Call& made) { return run(made, Patience::none).value(); }
  /// What admission says so far.
  std::optional<Step> run(Call& made, Patience patience) {
    result_.reset();
    boost::asio::co_spawn(gateway_.io, admit(made, attempt_, {.is_retry = false, .patience = patience}),
                          [this](const std::exception_ptr&, Step step) { result_ = step; });
    return poll();
  }
  std::optional<Step> poll() {
    gateway_.io.restart();
    gateway_.io.poll();
    return result_;
  }
  [[nodiscard]] ProviderLine& line() const { return *attempt_.provider->line; }

  testing::Gateway gateway_{"providers: {p: {base_url: https://p.example.com}}\nanonymous: true"};
  std::expected<void, Refusal> answer_;
  int asked_ = 0;
  Attempt attempt_;
  std::optional<Step> result_;
};

TEST_F(WaitTurnTest, WithoutALineTheStateIsAskedOnce) {
  Call& made = call("");
  EXPECT_EQ(admit_at_once(made), Step::next);
  EXPECT_EQ(asked_, 1);
  EXPECT_EQ(gateway_.metrics.queue_wait.with({"p", "standard"}).count(), 0);
}

// Which refusals a call may wait for, and how long it may.
TEST_F(WaitTurnTest, WaitsForWhatMayComeWithinItsTime) {
  const struct {
    Reason reason;
    nanoseconds retry_after;
    bool opens_early;
    const char* field;
    Step step;
  } cases[] = {
      {Reason::policy_rate_limited, seconds{9}, false, "", Step::wait},
      {Reason::policy_rate_limited, seconds{11}, false, "", Step::refuse},
      {Reason::policy_rate_limited, seconds{11}, true, "", Step::wait},
      {Reason::policy_rate_limited, seconds{11}, false, "Penstock-Wait: 12s\n", Step::wait},
      {Reason::policy_rate_limited, milliseconds{1}, true, "Penstock-Wait: 0\n", Step::refuse},
      {Reason::policy_rate_limited, seconds{299}, false, "Penstock-Wait: 9m\n", Step::wait},
      {Reason::policy_rate_limited, seconds{301}, false, "Penstock-Wait: 9m\n", Step::refuse},
      {Reason::policy_rate_limited, nanoseconds::max(), false, "Penstock-Wait: 9m\n", Step::refuse},
      {Reason::policy_circuit_open, seconds{1}, false, "", Step::refuse},
      {Reason::policy_circuit_open, seconds{1}, false, "Penstock-Wait: 2s\n", Step::wait},
      {Reason::policy_budget_exceeded, seconds{1}, false, "Penstock-Wait: 2s\n", Step::refuse},
      {Reason::policy_state_unavailable, seconds{1}, false, "Penstock-Wait: 2s\n", Step::refuse},
  };
  for (const auto& each : cases) {
    answer_ =
        std::unexpected(Refusal{.reason = each.reason,
                                .subject = attempt_.provider == nullptr ? 0 : attempt_.provider->subject,
                                .retry_after = each.retry_after,
                                .opens_early = each.opens_early});
    Call& made = call(each.field);
    EXPECT_EQ(admit_at_once(made), each.step)
        << info(each.reason).name << " " << each.retry_after << " " << each.field;
    EXPECT_EQ(made.refusal.value().reason, each.reason);
  }
}

// No polling: between the refusal and the settlement the state hears nothing.
TEST_F(WaitTurnTest, StartsWhenASettlementMakesRoom) {
  Call& made = call("");
  Refusal busy = kBusy;
  busy.subject = attempt_.provider->subject;
  answer_ = std::unexpected(busy);
  EXPECT_EQ(run(made, Patience::line), std::nullopt);
  EXPECT_FALSE(line().empty());
  for (int i = 0; i < 10; ++i) EXPECT_EQ(poll(), std::nullopt);
  EXPECT_EQ(asked_, 1);
  answer_ = {};
  Attempt running;  // another call's, which ends now
  running.provider = attempt_.provider;
  running.endpoint = attempt_.endpoint;
  running.status = 200;
  settle(made, running, policy::CircuitBreaker::Outcome::success);
  EXPECT_EQ(poll(), Step::next);
  EXPECT_EQ(asked_, 2);
  EXPECT_TRUE(line().empty());
  EXPECT_GT(made.waited, nanoseconds{0});
  EXPECT_EQ(attempt_.began, made.now.mono);
}

// A budget that is used up while a call waits ends its wait at once: money is not waited for.
TEST_F(WaitTurnTest, ABudgetEndsTheWait) {
  Call& made = call("");
  Refusal busy = kBusy;
  busy.subject = attempt_.provider->subject;
  answer_ = std::unexpected(busy);
  EXPECT_EQ(run(made, Patience::line), std::nullopt);
  answer_ = std::unexpected(Refusal{
      .reason = Reason::policy_budget_exceeded, .subject = 0, .retry_after = seconds{9}, .opens_early = {}});
  line().settled(std::array{attempt_.provider->subject}, std::chrono::steady_clock::now());
  EXPECT_EQ(poll(), Step::refuse);
  EXPECT_EQ(made.refusal.value().reason, Reason::policy_budget_exceeded);
  EXPECT_TRUE(line().empty());
}

/// A connection's coroutine: it owns all that a call needs.
Awaitable<void> hold_a_call(asio::io_context& io, http::DeadlineWatch& watch, Worker& worker) {
  http::Transport transport(http::Socket(io), watch);
  http::InBuffer in;
  std::string out;
  const http::ServerOptions options;
  http::Exchange exchange(transport, in, out, options);
  const std::string head = "GET /p/p/x HTTP/1.1\r\nHost: x\r\n\r\n";
  EXPECT_EQ(http::parse_request_head(head, 1024, exchange.request).state, http::ParseState::done);
  Call call(exchange, worker);
  call.now = read_clocks();
  EXPECT_EQ(match_route(call), Step::next);
  Attempt attempt;
  attempt.provider = call.targets.front();
  attempt.endpoint = &attempt.provider->endpoints.back();
  co_await admit(call, attempt, {.is_retry = false, .patience = Patience::line});
  ADD_FAILURE() << "it must not come so far";
}

// What waits is in nobody's way once its coroutine is gone, whatever destroyed it; a wake that is on its way
// finds nothing.
TEST_F(WaitTurnTest, ADestroyedCoroutineLeavesTheLine) {
  call("");
  Refusal busy = kBusy;
  busy.subject = attempt_.provider->subject;
  answer_ = std::unexpected(busy);
  {
    asio::io_context io{1};
    http::DeadlineWatch watch{io};
    Worker worker(io, watch, gateway_.services, 1);
    worker.generation = gateway_.worker.generation;
    for (int i = 0; i < 3; ++i)
      boost::asio::co_spawn(io, hold_a_call(io, watch, worker), boost::asio::detached);
    io.poll();
    EXPECT_FALSE(line().empty());
    EXPECT_EQ(asked_, 1);
    line().settled(std::array{attempt_.provider->subject}, std::chrono::steady_clock::now());
  }
  EXPECT_TRUE(line().empty());
}

}  // namespace
}  // namespace penstock::gateway
