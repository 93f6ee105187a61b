// What a batch costs in the ledger's databases: 5,000 calls, each with one attempt that begins and ends in
// it, of 50 consumers. PENSTOCK_BENCH_POSTGRES=postgresql://… adds PostgreSQL: an empty database of its own.
#include <cstdlib>
#include <filesystem>

#include <benchmark/benchmark.h>

#include "store/postgres/postgres_ledger.hpp"
#include "store/sqlite/sqlite_ledger.hpp"

namespace penstock::store {
namespace {

constexpr std::int64_t kCalls = 5'000;

LedgerBatch make_batch(std::uint64_t first, std::uint64_t epoch, WallTime start) {
  LedgerBatch batch;
  for (std::uint64_t i = first; i < first + kCalls; ++i) {
    const WallTime at = start + std::chrono::microseconds{100 * i};
    const std::string consumer = "consumer-" + std::to_string(i % 50);
    batch.attempts.push_back({.now = {.id = {epoch, i},
                                      .reserved_at = at,
                                      .subjects = {{SubjectKind::provider, "openai"},
                                                   {SubjectKind::route, "chat"},
                                                   {SubjectKind::team, "search"},
                                                   {SubjectKind::consumer, consumer}},
                                      .estimate = {1'000},
                                      .tokens = 500,
                                      .end = AttemptEnd{at, Ending::actual, false, {700}, 300}},
                              .is_new = true,
                              .before = {}});
    CallRecord call;
    call.id = {epoch, i};
    call.at = at;
    call.route = Name("chat");
    call.consumer = Name(consumer);
    call.team = Name("search");
    call.key = Name("key-1");
    call.model = Name("gpt-4o-mini");
    call.status = 200;
    call.cost = {700};
    call.attempts.push_back({.id = {epoch, i},
                             .provider = Name("openai"),
                             .endpoint = Name("chat"),
                             .estimate = {1'000},
                             .cost = {700},
                             .ending = Ending::actual,
                             .status = 200,
                             .reason = {}});
    batch.calls.push_back(std::move(call));
  }
  return batch;
}

void apply_batches(benchmark::State& state, LedgerDatabase& ledger) {
  if (const auto opened = ledger.open(); !opened) {
    state.SkipWithError(opened.error().detail.c_str());
    return;
  }
  const Now now = read_clocks();
  const auto epoch = static_cast<std::uint64_t>(now.wall.time_since_epoch().count());
  std::uint64_t first = 0;
  for (auto _ : state) {
    state.PauseTiming();
    const LedgerBatch batch = make_batch(first, epoch, now.wall);
    first += kCalls;
    state.ResumeTiming();
    if (const auto done = ledger.apply(batch); !done) {
      state.SkipWithError(done.error().detail.c_str());
      return;
    }
  }
  state.SetItemsProcessed(state.iterations() * kCalls);
}

void sqlite_apply(benchmark::State& state) {
  std::string folder = (std::filesystem::temp_directory_path() / "penstock-bench-XXXXXX").string();
  if (mkdtemp(folder.data()) == nullptr) return state.SkipWithError("no temporary folder");
  {
    SqliteLedger ledger(folder + "/ledger.sqlite");
    apply_batches(state, ledger);
  }
  std::filesystem::remove_all(folder);
}
BENCHMARK(sqlite_apply)
    ->Unit(benchmark::kMillisecond)
    ->Iterations(60)
    ->MeasureProcessCPUTime()
    ->UseRealTime();

void postgres_apply(benchmark::State& state) {
  const char* const url = std::getenv("PENSTOCK_BENCH_POSTGRES");
  if (url == nullptr) return state.SkipWithError("PENSTOCK_BENCH_POSTGRES is not set");
  PostgresLedger ledger(url, "bench");
  apply_batches(state, ledger);
}
BENCHMARK(postgres_apply)
    ->Unit(benchmark::kMillisecond)
    ->Iterations(60)
    ->MeasureProcessCPUTime()
    ->UseRealTime();

}  // namespace
}  // namespace penstock::store
