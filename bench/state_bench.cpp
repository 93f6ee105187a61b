// What admission costs a call, without its I/O: hold an attempt against all its subjects, then settle it. The
// goal for everything that decides on a call is 2 microseconds, and the same with 100 000 consumers as
// with 10.

#include <array>
#include <string>
#include <vector>

#include <benchmark/benchmark.h>

#include "store/memory/memory_state.hpp"

namespace penstock::store {
namespace {

constexpr nanoseconds kStep{20'000};  // between calls: 50 000 a second
constexpr policy::LimitSpec kCalls{
    .amount = 1'000'000'000'000, .period = std::chrono::minutes{1}, .unit = policy::LimitUnit::calls};
constexpr policy::LimitSpec kTokens{
    .amount = 1'000'000'000'000'000, .period = std::chrono::minutes{1}, .unit = policy::LimitUnit::tokens};

std::vector<policy::BudgetSpec> budgets() {
  return {{.window = policy::BudgetWindow::daily, .limit = kMaxNanoUsd},
          {.window = policy::BudgetWindow::monthly, .limit = kMaxNanoUsd}};
}

SubjectSpec named(SubjectKind kind, const std::string& name) {
  return {.kind = kind,
          .name = name,
          .limits = {kCalls, kTokens},
          .concurrency = 1'000'000,
          .budgets = budgets(),
          .circuit = std::nullopt,
          .retry = std::nullopt};
}

// A provider with a circuit, a team and one of `consumers`; each with two limits, two budgets and
// concurrency.
void state_reserve_and_settle(benchmark::State& bench) {
  const auto consumers = static_cast<std::size_t>(bench.range(0));
  Now now{.mono = MonotonicTime{std::chrono::hours{1'000}}, .wall = WallTime{std::chrono::days{20'000}}};
  std::vector<SubjectSpec> specs{named(SubjectKind::provider, "provider"), named(SubjectKind::team, "team")};
  specs.front().circuit = policy::CircuitSpec{};
  specs.front().retry = policy::RetrySpec{};
  specs.front().gate = {.learns_limits = true, .adapts_concurrency = true};
  for (std::size_t i = 0; i < consumers; ++i)
    specs.push_back(named(SubjectKind::consumer, "consumer-" + std::to_string(i)));
  MemoryState state;
  const std::vector<SubjectId> ids = state.declare(specs, now);

  std::uint64_t sequence = 0;
  for (auto _ : bench) {
    now.mono += kStep;
    now.wall += kStep;
    ++sequence;
    // Multiplied by a large odd number, so that neighbours in time are none in memory.
    const std::size_t consumer = (sequence * 0x9E3779B97F4A7C15ULL >> 20) % consumers;
    const std::array subjects{ids[0], ids[1], ids[2 + consumer]};
    const AttemptId id{.epoch = 1, .sequence = sequence};
    const auto held = state.reserve_now({.id = id,
                                         .subjects = subjects,
                                         .estimate = {200'000},
                                         .tokens = 400,
                                         .lease = std::chrono::minutes{10},
                                         .is_retry = false,
                                         .now = now});
    if (!held) {
      bench.SkipWithError("an attempt was refused");
      break;
    }
    state.settle({.id = id,
                  .ending = Ending::actual,
                  .cost = {50'000},
                  .tokens = 120,
                  .outcome = policy::CircuitBreaker::Outcome::success,
                  .first_byte = milliseconds{1},
                  .now = now});
  }
}
BENCHMARK(state_reserve_and_settle)->ArgName("consumers")->Arg(10)->Arg(100'000);

}  // namespace
}  // namespace penstock::store
