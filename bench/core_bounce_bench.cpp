// Round trip of a cache line between two cores. Not ours to improve: on a virtual machine it tells where the
// host has put the two of them (under 100 ns within one cache, several hundred across two), and what a proxy
// costs moves with it. The side-by-side run takes it before and after, and distrusts figures between which it
// changed.

#include <atomic>
#include <cstdint>
#include <thread>

#include <benchmark/benchmark.h>
#include <sched.h>

namespace {

void pin(std::size_t core) {
  cpu_set_t set;
  CPU_ZERO(&set);
  CPU_SET(core, &set);
  sched_setaffinity(0, sizeof set, &set);
}

void core_bounce(benchmark::State& state) {
  constexpr std::uint64_t kStop = 1, kFirst = 2;
  if (std::thread::hardware_concurrency() < 2) return state.SkipWithError("needs two cores");
  cpu_set_t before;
  sched_getaffinity(0, sizeof before, &before);
  alignas(128) std::atomic<std::uint64_t> line{0};
  std::thread other([&line] {
    pin(0);
    for (;;) {
      const std::uint64_t seen = line.load(std::memory_order_acquire);
      if (seen == kStop) return;
      if (seen >= kFirst && seen % 2 == 0) line.store(seen + 1, std::memory_order_release);  // even: our turn
    }
  });
  pin(1);
  std::uint64_t turn = kFirst;
  for (auto _ : state) {
    line.store(turn, std::memory_order_release);
    while (line.load(std::memory_order_acquire) != turn + 1) {
    }
    turn += 2;
  }
  line.store(kStop, std::memory_order_release);
  other.join();
  sched_setaffinity(0, sizeof before, &before);
}
// The least of many short runs counts: while somebody else has one of the cores, a round trip takes
// milliseconds.
BENCHMARK(core_bounce)->UseRealTime()->Iterations(2'000)->Repetitions(20);

}  // namespace
