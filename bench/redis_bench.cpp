// What the shared state in Redis admits: two connections, each with many calls under way, that reserve and
// settle a provider's, a consumer's and a key's attempt against two budgets and two limits. Needs a server:
//   redis-server --port 6399 --save '' --appendonly yes & PENSTOCK_BENCH_REDIS=redis://127.0.0.1:6399/1 ...
// The goal is 20 000 reservations a second, their settlements beside them.

#include <array>
#include <atomic>
#include <cstdlib>
#include <string>
#include <vector>

#include <benchmark/benchmark.h>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>

#include "store/redis/redis_state.hpp"

namespace penstock::store {
namespace {

constexpr int kReplicas = 2;
constexpr std::int64_t kUnderWay = 100;     // calls of each replica
constexpr std::int64_t kPerRound = 20'000;  // reservations of both

SubjectSpec named(SubjectKind kind, std::vector<policy::LimitSpec> limits,
                  std::vector<policy::BudgetSpec> budgets) {
  return {.kind = kind,
          .name = "bench",
          .limits = std::move(limits),
          .concurrency = std::nullopt,
          .budgets = std::move(budgets),
          .circuit = std::nullopt,
          .retry = std::nullopt};
}

Awaitable<void> caller(RedisState& state, std::vector<SubjectId> ids, std::uint64_t epoch,
                       std::atomic<std::int64_t>& left, std::atomic<std::int64_t>& refused) {
  std::uint64_t sequence = 0;
  while (left-- > 0) {
    const AttemptId id{.epoch = epoch, .sequence = ++sequence};
    ReservationRequest request{.id = id,
                               .subjects = ids,
                               .estimate = {200'000},
                               .tokens = 400,
                               .lease = std::chrono::minutes{10},
                               .is_retry = false,
                               .now = read_clocks()};
    const auto held = co_await state.reserve(request);
    if (!held) {
      ++refused;
      continue;
    }
    state.settle({.id = id,
                  .ending = Ending::actual,
                  .cost = {50'000},
                  .tokens = 120,
                  .outcome = policy::CircuitBreaker::Outcome::success,
                  .first_byte = milliseconds{1},
                  .now = read_clocks()});
  }
}

void redis_reserve_and_settle(benchmark::State& bench) {
  const char* const text = std::getenv("PENSTOCK_BENCH_REDIS");
  const auto url = parse_redis_url(text == nullptr ? "" : text);
  if (!url) {
    bench.SkipWithError("PENSTOCK_BENCH_REDIS names no server");
    return;
  }
  const std::vector specs{
      named(SubjectKind::provider, {{1'000'000'000, std::chrono::minutes{1}, policy::LimitUnit::calls}},
            {{.window = policy::BudgetWindow::daily, .limit = kMaxNanoUsd}}),
      named(SubjectKind::consumer, {}, {{.window = policy::BudgetWindow::monthly, .limit = kMaxNanoUsd}}),
      named(SubjectKind::key, {{1'000'000'000'000, std::chrono::minutes{1}, policy::LimitUnit::tokens}}, {})};
  std::vector<std::unique_ptr<RedisState>> states;
  std::vector<SubjectId> ids;
  for (int i = 0; i < kReplicas; ++i) {
    RedisOptions options;
    options.url = *url;
    options.domain = "bench";
    options.replica = "bench-" + std::to_string(i);
    options.command_timeout = milliseconds{2'000};
    options.grace = milliseconds{0};
    options.allow_volatile = true;
    states.push_back(std::make_unique<RedisState>(options));
    if (!states.back()->start()) {
      bench.SkipWithError("the server does not answer");
      return;
    }
    ids = states.back()->declare(specs, read_clocks());
  }
  std::uint64_t epoch = random_epoch();
  std::atomic<std::int64_t> refused{0};
  for (auto _ : bench) {
    std::atomic<std::int64_t> left{kPerRound};
    boost::asio::io_context io{1};
    for (auto& state : states)
      for (std::int64_t i = 0; i < kUnderWay; ++i)
        boost::asio::co_spawn(io, caller(*state, ids, ++epoch, left, refused), boost::asio::detached);
    io.run();
    for (auto& state : states)  // to the last settlement
      while (state->status().unsettled > 0) (void)state->view(read_clocks(), ids);
  }
  bench.SetItemsProcessed(bench.iterations() * kPerRound);
  bench.counters["refused"] = static_cast<double>(refused);
}
BENCHMARK(redis_reserve_and_settle)->UseRealTime()->Unit(benchmark::kMillisecond);

}  // namespace
}  // namespace penstock::store
