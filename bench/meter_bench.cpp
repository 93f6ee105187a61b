// What metering adds to a call: reading a small chat request, and the usage of its answer.

#include <string>
#include <string_view>
#include <vector>

#include <benchmark/benchmark.h>

#include "gateway/meter/request_facts.hpp"
#include "gateway/meter/usage_reader.hpp"

namespace {

using namespace penstock;
using gateway::CallKind;
using gateway::UsageReader;

constexpr std::string_view kRequest =
    R"({"model":"gpt-4o-mini","messages":[{"role":"system","content":"You are a helpful assistant. Answer in one )"
    R"(short paragraph, in the language of the question, and do not repeat it."},{"role":"user","content":"Why is the )"
    R"(gate that controls the flow of water to a turbine called a penstock, and since when has the word been in use?"}],)"
    R"("temperature":0.7,"max_completion_tokens":256,"stream":false,"user":"demo-user-1"})";

constexpr std::string_view kAnswer =
    R"({"id":"chatcmpl-B9MBs8CjcvOU2jLn4n570S5qMJKcT","object":"chat.completion","created":1741569952,"model":)"
    R"("gpt-4o-mini-2024-07-18","choices":[{"index":0,"message":{"role":"assistant","content":"A stock is a trunk of )"
    R"(wood, and to pen is to shut in: a penstock pens up water.","refusal":null,"annotations":[]},"logprobs":null,)"
    R"("finish_reason":"stop"}],"usage":{"prompt_tokens":61,"completion_tokens":22,"total_tokens":83,)"
    R"("prompt_tokens_details":{"cached_tokens":0,"audio_tokens":0},"completion_tokens_details":{"reasoning_tokens":0,)"
    R"("audio_tokens":0}},"service_tier":"default","system_fingerprint":"fp_06737a9306"})";

constexpr std::string_view kEvent =
    "data: "
    "{\"id\":\"chatcmpl-B9MBs8CjcvOU2jLn4n570S5qMJKcT\",\"object\":\"chat.completion.chunk\",\"created\":"
    "1741569952,"
    "\"model\":\"gpt-4o-mini-2024-07-18\",\"system_fingerprint\":\"fp_06737a9306\",\"choices\":[{\"index\":0,"
    "\"delta\":"
    "{\"content\":\" water\"},\"logprobs\":null,\"finish_reason\":null}]}\n\n";

void read_request(benchmark::State& state) {
  for (auto _ : state) {
    auto facts = gateway::read_request(CallKind::openai_chat, "/v1/chat/completions", kRequest);
    benchmark::DoNotOptimize(facts);
  }
  state.counters["bytes"] = static_cast<double>(kRequest.size());
}
BENCHMARK(read_request);

void usage_of_answer(benchmark::State& state) {
  const std::vector<policy::UnitPrice> units;
  for (auto _ : state) {
    UsageReader reader(CallKind::openai_chat, units, UsageReader::Format::json, 1 << 20);
    reader.feed(kAnswer);
    auto usage = reader.finish(true);
    benchmark::DoNotOptimize(usage);
  }
  state.counters["bytes"] = static_cast<double>(kAnswer.size());
}
BENCHMARK(usage_of_answer);

void usage_of_no_format(benchmark::State& state) {
  const std::vector<policy::UnitPrice> units;
  for (auto _ : state) {
    UsageReader reader(CallKind::other, units, UsageReader::Format::none, 1 << 20);
    reader.feed(kAnswer);
    auto usage = reader.finish(true);
    benchmark::DoNotOptimize(usage);
  }
}
BENCHMARK(usage_of_no_format);

void event_of_stream(benchmark::State& state) {
  const std::vector<policy::UnitPrice> units;
  UsageReader reader(CallKind::openai_chat, units, UsageReader::Format::event_stream, 1 << 20);
  for (auto _ : state) reader.feed(kEvent);
  state.counters["bytes"] = static_cast<double>(kEvent.size());
}
BENCHMARK(event_of_stream);

void event_of_filtered_stream(benchmark::State& state) {
  gateway::InjectedUsageFilter filter;
  std::string out;
  for (auto _ : state) {
    out.clear();
    filter.feed(kEvent, out);
    benchmark::DoNotOptimize(out);
  }
}
BENCHMARK(event_of_filtered_stream);

void ask_for_stream_usage(benchmark::State& state) {
  for (auto _ : state) {
    auto body = gateway::with_stream_usage(kRequest);
    benchmark::DoNotOptimize(body);
  }
}
BENCHMARK(ask_for_stream_usage);

}  // namespace
