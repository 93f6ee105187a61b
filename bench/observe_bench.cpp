// What seeing costs on a call's way: counters, histograms and the call's line.

#include <chrono>

#include <benchmark/benchmark.h>
#include <fcntl.h>
#include <unistd.h>

#include "observe/log.hpp"
#include "observe/metrics.hpp"

namespace penstock::observe {
namespace {

void counter_add(benchmark::State& state) {
  static Counter counter;
  for (auto _ : state) counter.add();
}
BENCHMARK(counter_add);
BENCHMARK(counter_add)->Threads(2)->Name("counter_add_shared");

void histogram_observe(benchmark::State& state) {
  static Metrics metrics;
  Histogram& histogram = metrics.duration.with({"openai", "chat"});
  std::int64_t ns = 1;
  for (auto _ : state) {
    histogram.observe(nanoseconds{ns});
    ns = (ns * 5) & 0x1FFFFFFFFF;  // up to 137 s, so that the bucket cannot be guessed
  }
}
BENCHMARK(histogram_observe);

void family_with(benchmark::State& state) {
  static Metrics metrics;
  for (auto _ : state) benchmark::DoNotOptimize(&metrics.calls.with({"openai", "chat", "200"}));
}
BENCHMARK(family_with);

CallLine usual_line() {
  return {.call = {.epoch = 0x0123456789abcdef, .sequence = 42},
          .at = std::chrono::system_clock::now(),
          .method = "POST",
          .provider = "openai",
          .endpoint = "chat",
          .route = "",
          .consumer = "billing",
          .team = "finance",
          .key = "ci",
          .model = "gpt-4o-mini",
          .status = 200,
          .attempts = 1,
          .cost = {5'123'450},
          .input_tokens = 1'000,
          .output_tokens = 20,
          .total = nanoseconds{311'234'567},
          .upstream = nanoseconds{311'000'000},
          .first_byte = nanoseconds{300'000'000},
          .bytes_in = 512,
          .bytes_out = 2'048};
}

/// The line and its place in the buffer, as the worker sees it; the writer's time counts as process time
/// only.
void call_line(benchmark::State& state) {
  const int fd = ::open("/dev/null", O_WRONLY | O_CLOEXEC);
  Counter dropped;
  {
    Log log(fd, Level::info, &dropped);
    const CallLine line = usual_line();
    for (auto _ : state) log.call(line);
  }
  state.counters["dropped"] = static_cast<double>(dropped.value());
  ::close(fd);
}
BENCHMARK(call_line);
BENCHMARK(call_line)->MeasureProcessCPUTime()->Name("call_line_with_writer");

void exposition(benchmark::State& state) {
  Metrics metrics;
  for (const char* provider : {"a", "b", "c", "d", "e", "f", "g", "h", "i", "j"})
    for (const char* endpoint : {"chat", "embeddings", "other"}) {
      metrics.duration.with({provider, endpoint}).observe(milliseconds{310});
      metrics.calls.with({provider, endpoint, "200"}).add();
    }
  std::size_t bytes = 0;
  for (auto _ : state) bytes = metrics.exposition().size();
  state.counters["bytes"] = static_cast<double>(bytes);
}
BENCHMARK(exposition)->Unit(benchmark::kMicrosecond);

}  // namespace
}  // namespace penstock::observe
