// What the journal adds to a call: a record appended with one write, and a reservation with its settlement.

#include <cstdlib>
#include <filesystem>
#include <memory>
#include <string>

#include <benchmark/benchmark.h>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/io_context.hpp>

#include "store/journal/journaled_state.hpp"
#include "store/memory/memory_state.hpp"

namespace penstock::store {
namespace {

/// A journal in a directory of its own, whose records count as applied at once: no database takes part.
struct Bench {
  Bench() {
    std::string pattern = (std::filesystem::temp_directory_path() / "penstock-bench-XXXXXX").string();
    path = ::mkdtemp(pattern.data());
    directory = DataDirectory::open(path);
    auto opened = Journal::open(*directory, {.epoch = 1, .on_failed = {}}, disk);
    if (!opened) return;
    journal = std::move(*opened);
    if (!journal->start({}, WallTime{})) return;
    journal->on_records([this] {
      std::vector<JournalPosition> applied;
      for (const Journal::End& end : journal->cut())
        applied.push_back({end.lane, end.at.segment, end.at.offset});
      journal->applied(applied);
    });
    is_ready = true;
  }
  ~Bench() {
    journal.reset();
    std::error_code ignored;
    std::filesystem::remove_all(path, ignored);
  }
  std::filesystem::path path;
  Disk disk;
  Result<DataDirectory> directory = refuse(Reason::gateway_error, "not opened");
  std::unique_ptr<Journal> journal;
  bool is_ready = false;
};

const SubjectRef kProvider{SubjectKind::provider, "provider"};
const SubjectRef kTeam{SubjectKind::team, "team"};
const SubjectRef kConsumer{SubjectKind::consumer, "consumer-1"};
const std::array kSubjects{&kProvider, &kTeam, &kConsumer};

// An append is about 100 bytes; at the end of a segment it may find no spare one for a moment.
void journal_append(benchmark::State& state) {
  const Bench bench;
  if (!bench.is_ready) return state.SkipWithError("no journal");
  std::uint64_t sequence = 0;
  std::int64_t refused = 0;
  for (auto _ : state) {
    const auto done = bench.journal->reserve({.order = 0,
                                              .id = {1, ++sequence},
                                              .at = WallTime{nanoseconds{1}},
                                              .estimate = {200'000},
                                              .tokens = 400,
                                              .subjects = {}},
                                             kSubjects);
    if (!done) ++refused;
  }
  state.counters["refused"] = static_cast<double>(refused);
}
BENCHMARK(journal_append);

// A call's record stays in memory until the next write of its lane.
void journal_append_call(benchmark::State& state) {
  const Bench bench;
  if (!bench.is_ready) return state.SkipWithError("no journal");
  CallRecord call;
  call.id = {1, 1};
  call.route = Name("chat");
  call.consumer = Name("consumer-1");
  call.team = Name("team");
  call.key = Name("key-1");
  call.cost = {50'000};
  call.attempts.emplace_back().provider = Name("provider");
  std::int64_t refused = 0;
  for (auto _ : state)
    if (!bench.journal->call(call)) ++refused;
  state.counters["refused"] = static_cast<double>(refused);
}
BENCHMARK(journal_append_call);

SubjectSpec named(SubjectKind kind, const std::string& name) {
  return {.kind = kind,
          .name = name,
          .limits = {},
          .concurrency = 1'000'000,
          .budgets = {{.window = policy::BudgetWindow::daily, .limit = kMaxNanoUsd}},
          .circuit = std::nullopt,
          .retry = std::nullopt};
}

Awaitable<void> reserve_and_settle(JournaledState& state, benchmark::State& bench,
                                   std::span<const SubjectId> subjects) {
  Now now{.mono = MonotonicTime{std::chrono::hours{1'000}}, .wall = WallTime{std::chrono::days{20'000}}};
  std::uint64_t sequence = 0;
  std::int64_t refused = 0;
  for (auto _ : bench) {
    const AttemptId id{.epoch = 1, .sequence = ++sequence};
    const auto held = co_await state.reserve({.id = id,
                                              .subjects = subjects,
                                              .estimate = {200'000},
                                              .tokens = 400,
                                              .lease = std::chrono::minutes{10},
                                              .is_retry = false,
                                              .now = now});
    if (!held) ++refused;
    state.settle({.id = id,
                  .ending = Ending::released,
                  .cost = {},
                  .tokens = 120,
                  .outcome = policy::CircuitBreaker::Outcome::success,
                  .first_byte = milliseconds{1},
                  .now = now});
  }
  bench.counters["refused"] = static_cast<double>(refused);
}

void journaled_reserve_and_settle(benchmark::State& bench) {
  const Bench journal;
  if (!journal.is_ready) return bench.SkipWithError("no journal");
  MemoryState memory;
  JournaledState state(memory, *journal.journal,
                       [&](const ReservationRequest& request) { return memory.reserve_now(request); });
  const std::vector<SubjectSpec> specs{named(SubjectKind::provider, "provider"),
                                       named(SubjectKind::team, "team"),
                                       named(SubjectKind::consumer, "consumer-1")};
  const auto ids = state.declare(specs, {.mono = {}, .wall = WallTime{std::chrono::days{20'000}}});
  boost::asio::io_context io{1};
  boost::asio::co_spawn(io, reserve_and_settle(state, bench, ids), [](std::exception_ptr) {});
  io.run();
}
BENCHMARK(journaled_reserve_and_settle);

}  // namespace
}  // namespace penstock::store
