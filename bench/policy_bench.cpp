// What the pure decisions of one call cost. The goal for all of them together is 2 microseconds a call.

#include <string>

#include <benchmark/benchmark.h>

#include "policy/budget.hpp"
#include "policy/circuit.hpp"
#include "policy/limit.hpp"
#include "policy/price.hpp"
#include "policy/retry.hpp"

namespace penstock::policy {
namespace {

/// 20 microseconds between calls: a core that is busy with 50 000 calls a second.
constexpr nanoseconds kStep{20'000};
constexpr MonotonicTime kStart{std::chrono::hours{1'000}};

void limit_take(benchmark::State& state) {
  WindowLimit limit({.amount = 1'000'000'000, .period = std::chrono::minutes{1}, .unit = LimitUnit::calls});
  MonotonicTime now = kStart;
  for (auto _ : state) {
    now += kStep;
    if (limit.wait_for(1, now) == nanoseconds{0}) benchmark::DoNotOptimize(limit.take(1, now));
  }
}
BENCHMARK(limit_take);

// Full: every call walks the ring to say how long to wait.
void limit_deny(benchmark::State& state) {
  WindowLimit limit({.amount = 60, .period = std::chrono::minutes{1}, .unit = LimitUnit::calls});
  for (int i = 0; i < 60; ++i) (void)limit.take(1, kStart + seconds{i});
  const MonotonicTime now = kStart + seconds{60};
  for (auto _ : state) benchmark::DoNotOptimize(limit.wait_for(60, now));
}
BENCHMARK(limit_deny);

void limit_take_and_correct(benchmark::State& state) {
  WindowLimit limit(
      {.amount = 1'000'000'000'000, .period = std::chrono::minutes{1}, .unit = LimitUnit::tokens});
  MonotonicTime now = kStart;
  for (auto _ : state) {
    now += kStep;
    const auto ticket = limit.take(1'000, now);
    limit.correct(ticket, -400, now);
    benchmark::DoNotOptimize(limit.remaining(now));
  }
}
BENCHMARK(limit_take_and_correct);

void budget_reserve_and_settle(benchmark::State& state) {
  Budget budget(
      {.window = BudgetWindow::daily, .limit = kMaxNanoUsd, .mode = BudgetMode::hard, .time_zone = "UTC"});
  WallTime now{std::chrono::days{20'000}};
  for (auto _ : state) {
    now += nanoseconds{1};
    budget.advance(now);
    if (!budget.may_reserve({5'000})) {
      state.SkipWithError("the budget is spent");
      break;
    }
    const auto pin = budget.reserve({5'000});
    benchmark::DoNotOptimize(budget.settle(pin, {5'000}, {1'000}));
  }
}
BENCHMARK(budget_reserve_and_settle);

// What a roll-over costs, once per window and budget.
void budget_window_at(benchmark::State& state, const char* zone) {
  const WallTime start{std::chrono::days{20'000}};
  std::int64_t step = 0;
  for (auto _ : state) {
    step = (step + 1) % 10'000;  // a year and some days, by hours
    benchmark::DoNotOptimize(window_at(BudgetWindow::monthly, zone, start + std::chrono::hours{step}));
  }
}
BENCHMARK_CAPTURE(budget_window_at, utc, "UTC");
BENCHMARK_CAPTURE(budget_window_at, new_york, "America/New_York");

void circuit_admit_and_report(benchmark::State& state) {
  CircuitBreaker breaker{CircuitSpec{}};
  MonotonicTime now = kStart;
  for (auto _ : state) {
    now += kStep;
    const auto permit = breaker.try_admit(now);
    breaker.report(*permit, CircuitBreaker::Outcome::success, milliseconds{20}, now);
  }
}
BENCHMARK(circuit_admit_and_report);

void retry_deposit_and_withdraw(benchmark::State& state) {
  RetryBudget budget(0.1, 1.0);
  MonotonicTime now = kStart;
  for (auto _ : state) {
    now += kStep;
    budget.deposit(now);
    benchmark::DoNotOptimize(budget.try_withdraw(now));
  }
}
BENCHMARK(retry_deposit_and_withdraw);

void price_estimate_and_actual(benchmark::State& state) {
  PriceList prices;
  for (int i = 0; i < 300; ++i)
    prices.models["model-" + std::to_string(i)] = {.input = 150'000'000, .output = 600'000'000};
  prices.models["gpt-4o-mini"] = {.input = 150'000'000, .output = 600'000'000, .cached_input = 75'000'000};
  const Usage usage{.known = true, .input_tokens = 900, .cached_input_tokens = 100, .output_tokens = 250};
  for (auto _ : state) {
    const ModelPrice* model = prices.find_model("gpt-4o-mini-2024-07-18");
    benchmark::DoNotOptimize(estimate_cost(prices, model, {4'000, 1'000}));
    benchmark::DoNotOptimize(actual_cost(prices, model, {4'000, 1'000}, usage));
  }
}
BENCHMARK(price_estimate_and_actual);

}  // namespace
}  // namespace penstock::policy
