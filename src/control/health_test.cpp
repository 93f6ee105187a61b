#include "control/health.hpp"

#include <array>
#include <functional>
#include <limits>
#include <mutex>
#include <set>
#include <thread>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <simdjson.h>

#include "observe/text.hpp"
#include "policy/property_testing.hpp"

namespace penstock::control {
namespace {

using namespace std::chrono_literals;
using policy::BudgetMode;
using policy::BudgetWindow;
using policy::CircuitBreaker;
using policy::LimitUnit;
using store::SubjectView;

constexpr store::SubjectId kOpenAi = 7;
constexpr store::SubjectId kGeocoder = 9;
constexpr WallTime kNewYear{std::chrono::sys_days{std::chrono::year{2026} / 1 / 1}};

/// Answers what the test put in. `view` holds a lock, as a real backend does.
class FakeState final : public store::SharedState {
 public:
  std::mutex mutex;
  std::vector<SubjectView> views;
  std::function<void()> while_viewed;

  std::vector<SubjectView> view(Now, std::span<const store::SubjectId> only) override {
    const std::scoped_lock lock(mutex);
    if (while_viewed) while_viewed();
    EXPECT_FALSE(only.empty()) << "health needs its providers, not every consumer";
    std::vector<SubjectView> found;
    for (const SubjectView& view : views)
      if (std::ranges::find(only, view.id) != only.end()) found.push_back(view);
    return found;
  }

  void listen(Listener) override { unexpected(); }
  void set_history(const store::History*) override { unexpected(); }
  std::vector<store::SubjectId> declare(std::span<const store::SubjectSpec>, Now) override {
    return unexpected(), std::vector<store::SubjectId>{};
  }
  Awaitable<std::expected<void, store::Refusal>> reserve(store::ReservationRequest) override {
    unexpected();
    co_return std::expected<void, store::Refusal>{};
  }
  void settle(const store::Settlement&) noexcept override { unexpected(); }
  void pause(store::SubjectId, MonotonicTime) noexcept override { unexpected(); }
  bool try_retry(store::SubjectId, MonotonicTime) noexcept override { return unexpected(), false; }
  void reap(Now) override { unexpected(); }

 private:
  static void unexpected() { ADD_FAILURE() << "health only looks"; }
};

store::BudgetView budget(BudgetWindow window, std::int64_t limit, std::int64_t settled, std::int64_t held,
                         std::int64_t overrun = 0, BudgetMode mode = BudgetMode::hard) {
  return {.spec = {.window = window, .limit = {limit}, .mode = mode, .time_zone = "UTC"},
          .settled = {settled},
          .held = {held},
          .overrun = {overrun},
          .span = {}};
}

store::LimitView limit(std::int64_t amount, nanoseconds period, LimitUnit unit, std::int64_t used) {
  return {
      .spec = {.amount = amount, .period = period, .unit = unit}, .used = used, .remaining = amount - used};
}

SubjectView provider_view(store::SubjectId id, std::string name) {
  SubjectView view;
  view.id = id;
  view.kind = store::SubjectKind::provider;
  view.name = std::move(name);
  return view;
}

class HealthTest : public testing::Test {
 protected:
  FakeState state_;
  observe::Metrics metrics_;
  Health health_{state_, metrics_, "1.2.3"};
  const MonotonicTime start_ = read_clocks().mono;
  Now now_{start_, kNewYear};

  void SetUp() override {
    state_.views = {provider_view(kOpenAi, "openai")};
    health_.set_providers({{"openai", kOpenAi, {"chat", "other"}}});
  }
  SubjectView& openai() { return state_.views.front(); }

  void advance(nanoseconds time) { now_ = {now_.mono + time, now_.wall + time}; }
  std::string body(std::string_view path) { return health_.answer(path, now_).value_or(Answer{}).body; }
  void count_calls(std::string_view status, std::int64_t count, std::string_view endpoint = "chat") {
    metrics_.calls.with({"openai", endpoint, status}).add(count);
  }
  void observe(nanoseconds duration, int count = 1, std::string_view endpoint = "chat") {
    for (int i = 0; i < count; ++i) metrics_.duration.with({"openai", endpoint}).observe(duration);
  }
  std::int64_t circuit_gauge() { return metrics_.circuit_state.with({"openai"}).value(); }

  simdjson::dom::element parsed(std::string_view path) {
    const simdjson::padded_string text(body(path));
    return parser_.parse(text).value();  // throws where it is not JSON
  }
  simdjson::dom::element of_openai() { return parsed("/health/providers")["providers"]["openai"].value(); }
  std::string status() { return std::string(std::string_view(of_openai()["status"])); }
  bool is_null(std::string_view pointer) { return of_openai().at_pointer(pointer).value().is_null(); }
  double number(std::string_view pointer) { return double(of_openai().at_pointer(pointer)); }

 private:
  simdjson::dom::parser parser_;
};

TEST_F(HealthTest, TellsWhenTheClockIsNotBelieved) {
  EXPECT_EQ(std::string_view(parsed("/health")["clock"]), "trusted");
  EXPECT_EQ(metrics_.clock_suspect.with({}).value(), 0);
  for (const auto trust : {policy::ClockGuard::Trust::suspect, policy::ClockGuard::Trust::refuted}) {
    health_.clock_changed(trust);
    EXPECT_EQ(std::string_view(parsed("/health")["clock"]), policy::ClockGuard::to_string(trust));
    EXPECT_EQ(metrics_.clock_suspect.with({}).value(), 1);
  }
  health_.clock_changed(policy::ClockGuard::Trust::trusted);
  EXPECT_EQ(metrics_.clock_suspect.with({}).value(), 0);
}

// The limit in force is the view's; until when, and why, while it holds.
TEST_F(HealthTest, TellsAnOverrideWhileItHolds) {
  openai().budgets = {budget(BudgetWindow::daily, 50'000'000'000, 0, 0)};
  openai().budgets[0].spec.temporary = {
      .limit = {50'000'000'000}, .until = kNewYear + 1h, .reason = "the \"launch\""};
  EXPECT_EQ(number("/budget/daily_limit_usd"), 50);
  EXPECT_EQ(std::string_view(of_openai().at_pointer("/budget/daily_override/until")), "2026-01-01T01:00:00Z");
  EXPECT_EQ(std::string_view(of_openai().at_pointer("/budget/daily_override/reason")), "the \"launch\"");
  advance(1h);
  EXPECT_NE(of_openai().at_pointer("/budget/daily_override").error(), simdjson::SUCCESS);
}

// Probes are written against these bodies.
TEST_F(HealthTest, AnswersProbes) {
  advance(90s);
  const simdjson::dom::element health = parsed("/health");
  EXPECT_EQ(std::string_view(health["status"]), "healthy");
  EXPECT_EQ(std::string_view(health["version"]), "1.2.3");
  EXPECT_THAT(std::int64_t(health["uptime_seconds"]), testing::AllOf(testing::Ge(90), testing::Lt(150)));
  EXPECT_EQ(std::string_view(health["timestamp"]), "2026-01-01T00:01:30Z");
  EXPECT_EQ(body("/health/live"), R"({"status":"alive"})");
  EXPECT_EQ(body("/health/ready"), R"({"status":"ready"})");
  EXPECT_EQ(body("/health/redis"), R"({"status":"not_configured"})");
  EXPECT_EQ(body("/health/database"), R"({"status":"not_configured"})");
  for (const std::string_view path : {"", "/live", "/ready", "/providers", "/redis", "/database"}) {
    const auto answer = health_.answer("/health" + std::string(path), now_);
    ASSERT_TRUE(answer) << path;
    EXPECT_EQ(answer->status, 200) << path;
    EXPECT_EQ(answer->content_type, "application/json") << path;
    EXPECT_EQ(health_.answer("/api/v1/health" + std::string(path), now_)->body, answer->body) << path;
  }
}

TEST_F(HealthTest, AnswersNothingElse) {
  for (const std::string_view path :
       {"", "/", "/healthy", "/health/", "/health/live/", "/health/nothing", "/Health", "health", "/metricsx",
        "/metrics/", "/api/v1", "/api/v1/metrics", "/api/v1/api/v1/health", "/api/v1x/health",
        "/api/v2/health", "/x/health"})
    EXPECT_FALSE(health_.answer(path, now_)) << path;
}

// A load balancer must stop sending, an orchestrator must not kill.
TEST_F(HealthTest, DrainingIsAliveButNotReady) {
  health_.set_draining();
  EXPECT_EQ(health_.answer("/health/ready", now_)->status, 503);
  EXPECT_EQ(health_.answer("/api/v1/health/ready", now_)->status, 503);
  EXPECT_EQ(health_.answer("/health/live", now_)->status, 200);
  EXPECT_EQ(health_.answer("/health", now_)->status, 200);
}

TEST_F(HealthTest, StoresAreToldAndOnlyAClosedOneStopsNewCallers) {
  using State = StoreStatus::State;
  StoreStatus redis{.state = State::ok, .problem = {}, .numbers = {{"replicas", 4}}, .texts = {}};
  StoreStatus ledger{
      .state = State::ok, .problem = {}, .numbers = {{"unapplied_bytes", 0}}, .texts = {{"kind", "sqlite"}}};
  health_.set_stores([&] { return redis; }, [&] { return ledger; });
  EXPECT_EQ(body("/health/redis"), R"({"status":"ok","replicas":4})");
  EXPECT_EQ(body("/health/database"), R"({"status":"ok","kind":"sqlite","unapplied_bytes":0})");
  redis = {.state = State::degraded, .problem = "connection \"refused\"", .numbers = {}, .texts = {}};
  EXPECT_EQ(body("/health/redis"), R"({"status":"degraded","problem":"connection \"refused\""})");
  EXPECT_EQ(health_.answer("/health/redis", now_)->status, 503);
  EXPECT_EQ(health_.answer("/health/ready", now_)->status, 200);
  EXPECT_EQ(body("/health/ready"), R"({"status":"ready","stores":"degraded"})");
  ledger.state = State::closed;
  EXPECT_EQ(health_.answer("/health/ready", now_)->status, 503);
  EXPECT_EQ(body("/health/ready"), R"({"status":"closed"})");
  EXPECT_EQ(health_.answer("/health/live", now_)->status, 200);
}

TEST_F(HealthTest, MetricsAreTheExposition) {
  const auto answer = health_.answer("/metrics", now_);
  ASSERT_TRUE(answer);
  EXPECT_EQ(answer->content_type, "text/plain; version=0.0.4; charset=utf-8");
  EXPECT_EQ(answer->body, metrics_.exposition());
  EXPECT_THAT(answer->body,
              testing::HasSubstr("external_api_circuit_breaker_state{provider=\"openai\"} 0\n"));
}

// The whole answer, byte for byte: keys, units and order are a contract with dashboards.
TEST_F(HealthTest, ProvidersInFull) {
  openai().budgets = {budget(BudgetWindow::daily, 20'000'000'000, 1'050'000'000, 20'000'000, 1),
                      budget(BudgetWindow::monthly, 300'000'000'000, 31'400'000'000, 20'000'000, 5)};
  openai().limits = {limit(60, 60s, LimitUnit::calls, 12), limit(10'000, 24h, LimitUnit::calls, 480),
                     limit(90'000, 60s, LimitUnit::tokens, 1'000)};
  openai().in_flight = 3;
  openai().learned = {{policy::LimitDimension::requests, 60, 12}, {policy::LimitDimension::tokens, 0, 5}};
  openai().concurrency = 40;
  openai().learned_concurrency = 32;
  openai().starts_this_minute = 12;
  openai().starts_today = 480;
  openai().circuit_failures = 2;
  state_.views.push_back(provider_view(kGeocoder, "geocoder"));
  // What has the number of a provider but is something else, or is not asked for, does not show.
  state_.views.push_back({.id = 11,
                          .kind = store::SubjectKind::endpoint,
                          .name = "openai/chat",
                          .budgets = {},
                          .limits = {},
                          .concurrency = {}});
  health_.set_providers({{"openai", kOpenAi, {"chat", "other"}}, {"geocoder", kGeocoder, {"other"}}});
  count_calls("200", 499);
  count_calls("503", 1, "other");
  metrics_.queue_depth.with({"openai", "interactive"}).set(2);
  metrics_.queue_depth.with({"openai", "batch"}).set(5);
  observe(310ms, 10);  // in (250 ms, 500 ms]
  EXPECT_EQ(
      body("/health/providers"),
      R"({"providers":{"openai":{"provider_id":"openai","status":"healthy",)"
      R"("budget":{"daily_spent_usd":1.050000001,"daily_held_usd":0.02,"daily_limit_usd":20,)"
      R"("monthly_spent_usd":31.400000005,"monthly_held_usd":0.02,"monthly_limit_usd":300},)"
      R"("requests":{"requests_this_minute":12,"minute_limit":60,"daily_count":480,"daily_limit":10000},)"
      R"("circuit_breaker":{"state":"closed","failure_count":2,"can_request":true},)"
      R"("latency":{"p50_ms":375,"p95_ms":487.5},"error_ratio":0.002,"waiting":7,)"
      R"("limits":[{"limit":"60/minute","used":12,"remaining":48},)"
      R"({"limit":"10000/day","used":480,"remaining":9520},)"
      R"({"limit":"90000 tokens/minute","used":1000,"remaining":89000}],)"
      R"("learned_limits":{"requests":{"limit":60,"remaining":12},"tokens":{"limit":null,"remaining":5}},)"
      R"("in_flight":3,"concurrency_limit":32,"overrun_usd":0.000000005},)"
      R"("geocoder":{"provider_id":"geocoder","status":"healthy",)"
      R"("budget":{"daily_spent_usd":null,"daily_held_usd":null,"daily_limit_usd":null,)"
      R"("monthly_spent_usd":null,"monthly_held_usd":null,"monthly_limit_usd":null},)"
      R"("requests":{"requests_this_minute":0,"minute_limit":null,"daily_count":0,"daily_limit":null},)"
      R"("circuit_breaker":{"state":"closed","failure_count":0,"can_request":true},)"
      R"("latency":{"p50_ms":null,"p95_ms":null},"error_ratio":null,"waiting":0,)"
      R"("limits":[],"learned_limits":{},"in_flight":0,"concurrency_limit":null,"overrun_usd":null}},)"
      R"("status":"healthy","timestamp":"2026-01-01T00:00:00Z"})");
}

TEST_F(HealthTest, NoProvidersIsAnEmptyObject) {
  health_.set_providers({});
  EXPECT_EQ(body("/health/providers"),
            R"({"providers":{},"status":"healthy","timestamp":"2026-01-01T00:00:00Z"})");
}

// Between declaring new subjects and telling health of them, a provider may have no view.
TEST_F(HealthTest, ProviderUnknownToTheStateIsAnsweredForAndGetsNoGauges) {
  state_.views.clear();
  health_.circuit_changed(kOpenAi, CircuitBreaker::State::open);
  health_.update(now_);
  EXPECT_EQ(circuit_gauge(), 2);
  EXPECT_EQ(metrics_.budget_ratio.size(), 0U);
  EXPECT_TRUE(is_null("/budget/daily_spent_usd"));
}

// The minute's limit is the one on calls, whatever else has the same period.
TEST_F(HealthTest, MinuteAndDailyLimitsAreOfCalls) {
  openai().limits = {limit(90'000, 60s, LimitUnit::tokens, 0), limit(5, 10s, LimitUnit::calls, 0)};
  EXPECT_TRUE(is_null("/requests/minute_limit"));
  EXPECT_TRUE(is_null("/requests/daily_limit"));
  openai().limits.push_back(limit(42, 1min, LimitUnit::calls, 0));
  EXPECT_EQ(number("/requests/minute_limit"), 42);
}

TEST_F(HealthTest, CircuitDecidesTheStatus) {
  openai().circuit = CircuitBreaker::State::half_open;
  EXPECT_EQ(status(), "degraded");
  EXPECT_TRUE(bool(of_openai()["circuit_breaker"]["can_request"]));
  openai().circuit = CircuitBreaker::State::open;
  EXPECT_EQ(status(), "unhealthy");
  EXPECT_FALSE(bool(of_openai()["circuit_breaker"]["can_request"]));
  EXPECT_EQ(std::string_view(of_openai()["circuit_breaker"]["state"]), "open");
  EXPECT_EQ(std::string_view(parsed("/health/providers")["status"]), "degraded");
}

// To the nano-dollar: nine tenths, held and overrun included, of a budget that can refuse.
TEST_F(HealthTest, NearlySpentHardBudgetDegrades) {
  openai().budgets = {budget(BudgetWindow::daily, 1'000, 800, 99)};
  EXPECT_EQ(status(), "healthy");
  openai().budgets = {budget(BudgetWindow::daily, 1'000, 800, 100)};
  EXPECT_EQ(status(), "degraded");
  openai().budgets = {budget(BudgetWindow::daily, 1'000, 800, 99, 1)};
  EXPECT_EQ(status(), "degraded");
  openai().budgets = {budget(BudgetWindow::daily, 1'000, 2'000, 0, 0, BudgetMode::warn)};
  EXPECT_EQ(status(), "healthy");
  openai().budgets = {budget(BudgetWindow::daily, 1'000, 0, 0), budget(BudgetWindow::monthly, 1'000, 900, 0)};
  EXPECT_EQ(status(), "degraded");
}

TEST_F(HealthTest, ErrorsDegradeFromTenCallsOn) {
  count_calls("200", 7);
  count_calls("500", 2);
  EXPECT_EQ(status(), "healthy");  // 2 of 9
  count_calls("200", 1);
  EXPECT_EQ(status(), "degraded");  // 2 of 10
  count_calls("200", 10);
  EXPECT_EQ(number("/error_ratio"), 0.1);
  EXPECT_EQ(status(), "healthy");  // a tenth is not above a tenth
  count_calls("provider_timeout", 1);
  EXPECT_EQ(status(), "degraded");
}

// Who counts as an error: the provider's 5xx and no whole answer; not the caller's faults, nor the caller who
// left.
TEST_F(HealthTest, ErrorRatioCountsWhatTheProviderDid) {
  for (const std::string_view good : {"200", "301", "404", "429"}) count_calls(good, 1);
  for (const std::string_view bad : {"500", "529", "provider_unreachable", "provider_error"})
    count_calls(bad, 1);
  count_calls("caller_cancelled", 100);
  count_calls("other", 100);
  metrics_.calls.with({"geocoder", "chat", "500"}).add(100);
  EXPECT_EQ(number("/error_ratio"), 0.5);
}

// One that left the window is forgotten; one that is in it is not. `update` comes every 15 s.
TEST_F(HealthTest, WindowSlides) {
  count_calls("500", 20);
  observe(80ms, 20);
  for (int i = 0; i < 20; ++i) {  // at 0 s, 15 s, …, 285 s
    health_.update(now_);
    EXPECT_EQ(number("/error_ratio"), 1.0) << i;
    EXPECT_FALSE(is_null("/latency/p50_ms")) << i;
    advance(15s);
  }
  count_calls("200", 5);
  observe(5s, 5);
  health_.update(now_);  // at 300 s: the window begins with what was counted at 0 s
  EXPECT_EQ(number("/error_ratio"), 0.0);
  EXPECT_GT(number("/latency/p50_ms"), 2'500);
  EXPECT_EQ(status(), "healthy");
  for (int i = 0; i < 21; ++i) {
    advance(15s);
    health_.update(now_);
  }
  EXPECT_TRUE(is_null("/error_ratio"));
  EXPECT_TRUE(is_null("/latency/p50_ms"));
  EXPECT_TRUE(is_null("/latency/p95_ms"));
}

// The snapshots are compared at the time of the question, not of the last update.
TEST_F(HealthTest, WindowSlidesBetweenUpdatesToo) {
  count_calls("500", 20);
  health_.update(now_);
  advance(4min + 59s);
  EXPECT_EQ(number("/error_ratio"), 1.0);
  advance(1s);
  EXPECT_TRUE(is_null("/error_ratio"));
}

// Memory stays bounded however often it is called: snapshots are 10 s apart, which shows in the window's
// grain.
TEST_F(HealthTest, FrequentUpdatesMakeNoMoreSnapshots) {
  const auto run = [&](nanoseconds time) {
    for (nanoseconds passed{}; passed < time; passed += 100ms) {
      health_.update(now_);
      advance(100ms);
    }
  };
  run(5s);
  count_calls("500", 20);
  run(304s);
  EXPECT_EQ(number("/error_ratio"), 1.0);  // at 309 s: it begins with what was counted at 0 s, not at 9 s
  run(1s);
  EXPECT_TRUE(is_null("/error_ratio"));  // at 310 s
}

TEST_F(HealthTest, SlowestBucketCountsAsItsBound) {
  observe(10min, 3);
  EXPECT_EQ(number("/latency/p95_ms"), 120'000);
}

TEST_F(HealthTest, LatencyIsOfAllEndpoints) {
  observe(3ms, 19, "chat");
  observe(50s, 1, "other");
  EXPECT_LE(number("/latency/p50_ms"), 5);
  EXPECT_LE(number("/latency/p95_ms"), 5);
  observe(50s, 1, "other");
  EXPECT_GE(number("/latency/p95_ms"), 30'000);
}

// A reload says nothing about how well a provider is; a name that comes back is a new provider.
TEST_F(HealthTest, ReloadKeepsTheWindowOfWhatStays) {
  count_calls("500", 20);
  observe(80ms, 20);
  health_.set_providers({{"openai", kOpenAi, {"embeddings", "other"}}});
  EXPECT_EQ(number("/error_ratio"), 1.0);
  EXPECT_FALSE(is_null("/latency/p50_ms"));
  observe(50s, 100, "embeddings");
  EXPECT_GE(number("/latency/p50_ms"), 30'000);
  health_.set_providers({});
  health_.set_providers({{"openai", kOpenAi, {"chat", "other"}}});
  EXPECT_TRUE(is_null("/error_ratio"));
  EXPECT_TRUE(is_null("/latency/p50_ms"));
}

// What a reload removed must not keep an alarm going.
TEST_F(HealthTest, GaugesOfWhatIsGoneAreSetToRest) {
  openai().budgets = {budget(BudgetWindow::daily, 100, 100, 0), budget(BudgetWindow::monthly, 100, 95, 0)};
  openai().limits = {limit(60, 60s, LimitUnit::calls, 60), limit(5, 10s, LimitUnit::calls, 4)};
  openai().circuit = CircuitBreaker::State::open;
  health_.update(now_);
  observe::Gauge& daily = metrics_.budget_ratio.with({"openai", "daily"});
  observe::Gauge& monthly = metrics_.budget_ratio.with({"openai", "monthly"});
  observe::Gauge& per_minute = metrics_.rate_limit_remaining.with({"openai", "calls/minute"});
  observe::Gauge& per_10s = metrics_.rate_limit_remaining.with({"openai", "calls/10s"});
  ASSERT_EQ(daily.value(), 1'000'000);

  // A budget and a limit of a provider that stays.
  openai().budgets.erase(openai().budgets.begin());
  openai().limits.erase(openai().limits.begin());
  health_.set_providers({{"openai", kOpenAi, {"other"}}});
  health_.update(now_);
  EXPECT_EQ(daily.value(), 0);
  EXPECT_EQ(per_minute.value(), 60);
  EXPECT_EQ(monthly.value(), 950'000);
  EXPECT_EQ(per_10s.value(), 1);
  EXPECT_EQ(circuit_gauge(), 2);

  // The whole provider, while another one stays.
  state_.views.push_back(provider_view(kGeocoder, "geocoder"));
  state_.views.back().circuit = CircuitBreaker::State::open;
  health_.set_providers({{"geocoder", kGeocoder, {"other"}}});
  health_.circuit_changed(kOpenAi, CircuitBreaker::State::open);
  health_.update(now_);
  EXPECT_EQ(monthly.value(), 0);
  EXPECT_EQ(per_10s.value(), 5);
  EXPECT_EQ(circuit_gauge(), 0);
  EXPECT_EQ(metrics_.circuit_state.with({"geocoder"}).value(), 2);
}

// What was learned and is forgotten must not go on being shown.
TEST_F(HealthTest, GaugesOfWhatIsLearnedFollowAndRestAtZero) {
  openai().learned = {{policy::LimitDimension::tokens, 9000, 5}};
  openai().learned_concurrency = 7;
  health_.update(now_);
  EXPECT_EQ(metrics_.learned_limit.with({"openai", "tokens"}).value(), 9000);
  EXPECT_EQ(metrics_.concurrency_limit.with({"openai"}).value(), 7);
  openai().learned.clear();
  openai().learned_concurrency.reset();
  health_.update(now_);
  EXPECT_EQ(metrics_.learned_limit.with({"openai", "tokens"}).value(), 0);
  EXPECT_EQ(metrics_.concurrency_limit.with({"openai"}).value(), 0);
}

TEST_F(HealthTest, UpdateSetsGaugesOfProvidersOnly) {
  openai().budgets = {budget(BudgetWindow::daily, 3, 1, 1), budget(BudgetWindow::monthly, 100, 25, 0)};
  openai().limits = {limit(60, 60s, LimitUnit::calls, 12), limit(90'000, 60s, LimitUnit::tokens, 1),
                     limit(5, 10s, LimitUnit::calls, 5)};
  openai().circuit = CircuitBreaker::State::half_open;
  state_.views.push_back(provider_view(20, "alice"));
  state_.views.back().kind = store::SubjectKind::consumer;
  state_.views.back().budgets = {budget(BudgetWindow::daily, 100, 100, 0)};
  health_.update(now_);
  EXPECT_EQ(circuit_gauge(), 1);
  std::string text;
  metrics_.budget_ratio.write(text);
  metrics_.rate_limit_remaining.write(text);
  std::vector<std::string> samples;
  for (std::size_t at = 0; at < text.size();) {
    const std::size_t end = text.find('\n', at);
    if (text[at] != '#') samples.push_back(text.substr(at, end - at));
    at = end + 1;
  }
  EXPECT_THAT(samples,
              testing::UnorderedElementsAre(
                  R"(external_api_budget_ratio{provider="openai",budget_type="daily"} 0.666666)",
                  R"(external_api_budget_ratio{provider="openai",budget_type="monthly"} 0.25)",
                  R"(external_api_rate_limit_remaining{provider="openai",limit_type="calls/minute"} 48)",
                  R"(external_api_rate_limit_remaining{provider="openai",limit_type="tokens/minute"} 89999)",
                  R"(external_api_rate_limit_remaining{provider="openai",limit_type="calls/10s"} 0)"));
}

// The largest amounts of the ledger overflow no product, and a budget of nothing divides by nothing.
TEST_F(HealthTest, RatiosHoldAtTheEdges) {
  openai().budgets = {budget(BudgetWindow::daily, kMaxNanoUsd.count, kMaxNanoUsd.count - 1, 0),
                      budget(BudgetWindow::monthly, 0, 0, 0)};
  health_.update(now_);
  EXPECT_EQ(metrics_.budget_ratio.with({"openai", "daily"}).value(), 999'999);
  EXPECT_EQ(metrics_.budget_ratio.with({"openai", "monthly"}).value(), 1'000'000);
  EXPECT_EQ(status(), "degraded");
  EXPECT_EQ(body("/health/providers").find("daily_limit_usd\":9007199.254740991"),
            body("/health/providers").find("daily_limit_usd"));
}

TEST_F(HealthTest, ChangedCircuitShowsAtOnce) {
  health_.circuit_changed(kOpenAi, CircuitBreaker::State::open);
  EXPECT_EQ(circuit_gauge(), 2);
  health_.circuit_changed(kOpenAi, CircuitBreaker::State::half_open);
  EXPECT_EQ(circuit_gauge(), 1);
  health_.circuit_changed(kOpenAi + 1, CircuitBreaker::State::open);  // an endpoint's: no gauge
  EXPECT_EQ(circuit_gauge(), 1);
  EXPECT_EQ(metrics_.circuit_state.size(), 1U);
  health_.set_providers({{"openai", kOpenAi, {"chat"}}});  // a reload changes no circuit
  EXPECT_EQ(circuit_gauge(), 1);
}

// The state calls back under its own lock: while it is viewed no lock of ours may be held, and the view,
// older than the change, must not undo it.
TEST_F(HealthTest, ChangeDuringUpdateWins) {
  state_.while_viewed = [&] { health_.circuit_changed(kOpenAi, CircuitBreaker::State::open); };
  health_.update(now_);
  EXPECT_EQ(circuit_gauge(), 2);
  state_.while_viewed = nullptr;
  health_.update(now_);  // the view is newer now
  EXPECT_EQ(circuit_gauge(), 0);
}

TEST_F(HealthTest, ReloadDuringUpdateDoesNotDropAChange) {
  state_.while_viewed = [&] {
    health_.circuit_changed(kOpenAi, CircuitBreaker::State::open);
    health_.set_providers({{"openai", kOpenAi, {"chat"}}});
  };
  health_.update(now_);
  EXPECT_EQ(circuit_gauge(), 2);
}

// All at once, for the thread sanitizer and for the order of the locks: a wrong one ends in a deadlock.
TEST_F(HealthTest, ManyThreads) {
  std::vector<std::jthread> threads;
  threads.emplace_back([&] {
    for (int i = 0; i < 300; ++i) {
      const std::scoped_lock lock(state_.mutex);
      health_.circuit_changed(kOpenAi,
                              i % 2 == 0 ? CircuitBreaker::State::open : CircuitBreaker::State::closed);
    }
  });
  threads.emplace_back([&] {
    for (int i = 0; i < 300; ++i) health_.update({start_ + i * 15s, kNewYear});
  });
  threads.emplace_back([&] {
    for (int i = 0; i < 300; ++i)
      health_.set_providers({{"openai", kOpenAi, {i % 2 == 0 ? "chat" : "other"}}});
  });
  threads.emplace_back([&] {
    for (int i = 0; i < 300; ++i) {
      count_calls("500", 1);
      observe(80ms);
    }
  });
  for (int i = 0; i < 300; ++i) EXPECT_FALSE(health_.answer("/health/providers", now_)->body.empty());
  threads.clear();
  health_.update({start_ + 24h, kNewYear});
  EXPECT_EQ(circuit_gauge(), 0);
}

TEST_F(HealthTest, TimestampsAreCalendarDates) {
  now_.wall = WallTime{std::chrono::sys_days{std::chrono::year{2024} / 2 / 29}} + 23h + 59min + 59s + 999ms;
  EXPECT_EQ(std::string_view(parsed("/health")["timestamp"]), "2024-02-29T23:59:59Z");
  now_.wall = WallTime{std::chrono::sys_days{std::chrono::year{1969} / 12 / 31}} + 1ns;  // a broken clock
  EXPECT_EQ(std::string_view(parsed("/health")["timestamp"]), "1969-12-31T00:00:00Z");
}

/// What a reader gets for `text`: bytes that are not UTF-8 are replaced.
std::string as_unicode(std::string_view text) {
  std::string out;
  while (!text.empty()) {
    const std::size_t used = observe::utf8_sequence(text);
    out += used == 0 ? observe::kReplacement : text.substr(0, used);
    text.remove_prefix(std::max<std::size_t>(used, 1));
  }
  return out;
}

std::string hostile_name(policy::Random& random) {
  constexpr std::array<std::string_view, 13> kPieces = {"\"",
                                                        "\\",
                                                        "},{",
                                                        "\":[",
                                                        "\n",
                                                        "\r\n",
                                                        std::string_view("\0", 1),
                                                        "\x7F",
                                                        "\xC2\x85",
                                                        "\xFF",
                                                        "\xED\xA0\x80",
                                                        "\xE2\x80\xA8",
                                                        "\xF0\x9F\x92\xB8"};
  std::string name;
  for (std::int64_t left = random.between(0, 12); left > 0; --left) {
    if (random.chance(70)) {
      name += kPieces[static_cast<std::size_t>(random.between(0, kPieces.size() - 1))];
    } else {
      name += static_cast<char>(random.between(0, 255));
    }
  }
  return name;
}

// Whatever the names and numbers: the answer is JSON, and the names and numbers are read back from it.
TEST(HealthProperty, AnswersAreJsonForHostileNames) {
  policy::for_each_seed(40, [](policy::Random& random) {
    FakeState state;
    observe::Metrics metrics;
    const std::string version = hostile_name(random);
    Health health(state, metrics, version);
    std::vector<ProviderInfo> infos;
    std::set<std::string> names;  // as read: two that differ only in broken bytes look the same
    const auto any = [&] {
      return random.chance(10) ? kMaxNanoUsd.count : random.between(0, kMaxNanoUsd.count);
    };
    for (std::int64_t left = random.between(0, 6); left > 0; --left) {
      const std::string name = hostile_name(random);
      if (!names.insert(as_unicode(name)).second) continue;
      const auto id = static_cast<store::SubjectId>(infos.size());
      infos.push_back({name, id, {hostile_name(random), "other"}});
      if (random.chance(10)) continue;
      SubjectView view = provider_view(id, name);
      if (random.chance(70)) view.budgets.push_back(budget(BudgetWindow::daily, any(), any(), any(), any()));
      if (random.chance(70))
        view.budgets.push_back(budget(BudgetWindow::monthly, any(), any(), any(), any()));
      for (std::int64_t limits = random.between(0, 4); limits > 0; --limits)
        view.limits.push_back(limit(random.between(1, INT64_MAX), seconds{random.between(1, 2'678'400)},
                                    random.chance(50) ? LimitUnit::calls : LimitUnit::tokens, 0));
      view.circuit = static_cast<CircuitBreaker::State>(random.between(0, 2));
      view.starts_today = random.between(0, INT64_MAX);
      state.views.push_back(std::move(view));
    }
    health.set_providers(infos);
    const Now now{MonotonicTime{seconds{random.between(0, 1'000'000)}},
                  WallTime{nanoseconds{random.between(0, INT64_MAX)}}};
    for (const ProviderInfo& info : infos) {
      metrics.calls.with({info.name, info.endpoints[0], hostile_name(random)}).add(random.between(0, 20));
      metrics.duration.with({info.name, info.endpoints[0]})
          .observe(nanoseconds{random.between(0, INT64_MAX)});
    }
    health.update(now);

    simdjson::dom::parser parser;
    const simdjson::padded_string health_text(health.answer("/health", now)->body);
    const simdjson::dom::element about = parser.parse(health_text).value();
    EXPECT_EQ(std::string_view(about["version"]), as_unicode(version));

    const simdjson::padded_string text(health.answer("/health/providers", now)->body);
    const simdjson::dom::object providers = parser.parse(text).value()["providers"].value();
    ASSERT_EQ(providers.size(), infos.size());
    std::size_t i = 0;
    for (const auto [name, provider] : providers) {
      const ProviderInfo& info = infos[i++];
      EXPECT_EQ(name, as_unicode(info.name));
      EXPECT_EQ(std::string_view(provider["provider_id"]), as_unicode(info.name));
      const auto view = std::ranges::find(state.views, info.subject, &SubjectView::id);
      if (view == state.views.end()) continue;
      EXPECT_EQ(std::int64_t(provider["requests"]["daily_count"]), view->starts_today);
      EXPECT_EQ(provider["limits"].value().get_array().value().size(), view->limits.size());
      for (const store::BudgetView& one : view->budgets) {
        const std::string key = std::string(to_string(one.spec.window)) + "_held_usd";
        EXPECT_EQ(double(provider["budget"][key]), static_cast<double>(one.held.count) / 1e9);
      }
    }
  });
}

}  // namespace
}  // namespace penstock::control
