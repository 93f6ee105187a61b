// Hostile requests and answers: no crash, and the rules hold. The first byte chooses the kind and the format,
// the second how the bytes are split; the rest is the body.

#include <cstdlib>
#include <string>
#include <string_view>

#include "gateway/meter/usage_reader.hpp"

namespace {

using namespace penstock;
using gateway::CallKind;
using gateway::UsageReader;

void require(bool holds) {
  if (!holds) std::abort();
}

bool is_same(const policy::Usage& a, const policy::Usage& b) {
  return a.known == b.known && a.input_tokens == b.input_tokens &&
         a.cached_input_tokens == b.cached_input_tokens && a.cache_write_tokens == b.cache_write_tokens &&
         a.output_tokens == b.output_tokens && a.nano_units == b.nano_units;
}

std::vector<policy::UnitPrice> units() {
  std::vector<policy::UnitPrice> list(2);
  list[0].pointer = "/usage/credits";
  list[1].pointer = "/a~1b/0";
  return list;
}

void check_usage(CallKind kind, UsageReader::Format format, std::size_t step, std::string_view body) {
  static const auto kUnits = units();
  constexpr std::size_t kMaxBytes = 4096;
  UsageReader at_once(kind, kUnits, format, kMaxBytes);
  at_once.feed(body);
  UsageReader in_pieces(kind, kUnits, format, kMaxBytes);
  std::int64_t bound = -1;
  bool is_bounded = true;
  for (std::size_t at = 0; at < body.size(); at += step) {
    in_pieces.feed(body.substr(at, step));
    const auto now = in_pieces.output_token_bound();
    is_bounded = is_bounded && now >= 0;
    require(now == -1 || (is_bounded && now >= bound));
    bound = now;
  }
  const auto usage = at_once.finish(true);
  require(is_same(usage, in_pieces.finish(true)));
  require(is_same(usage, at_once.finish(false)));
  require(usage.nano_units.size() == kUnits.size());
  for (const auto count :
       {usage.input_tokens, usage.cached_input_tokens, usage.cache_write_tokens, usage.output_tokens}) {
    require(count >= 0 && count <= 4'000'000'000'000);
  }
}

void check_request(CallKind kind, std::string_view body) {
  const auto facts = gateway::read_request(kind, "/v1/chat/completions", body);
  require(facts.input_token_bound >= static_cast<std::int64_t>(body.size()));
  require(facts.choices >= 1);
  require(!facts.max_output_tokens || *facts.max_output_tokens > 0);
  const policy::ModelPrice model{.input = 1, .output = 1, .cached_input = {}, .cache_write = {}};
  const auto limit = gateway::bound_of(facts, &model, 4096);
  require(limit.input_tokens >= static_cast<std::int64_t>(body.size()) && limit.output_tokens >= 0);

  const auto asking = gateway::with_stream_usage(body);
  if (!asking) return;
  const auto again = gateway::with_stream_usage(*asking);
  require(again && *again == *asking);  // done once, nothing is left to do
}

void check_filter(std::size_t step, std::string_view body) {
  std::string at_once;
  gateway::InjectedUsageFilter whole;
  whole.feed(body, at_once);
  whole.finish(at_once);
  std::string in_pieces;
  gateway::InjectedUsageFilter filter;
  for (std::size_t at = 0; at < body.size(); at += step) filter.feed(body.substr(at, step), in_pieces);
  filter.finish(in_pieces);
  require(at_once.size() <= body.size());
  require(at_once == in_pieces);
  if (body.find("usage") == std::string_view::npos) require(at_once == body);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size < 2) return 0;
  const auto kind = static_cast<CallKind>(data[0] % 8);
  const auto format = (data[0] & 8) != 0 ? UsageReader::Format::event_stream : UsageReader::Format::json;
  const std::size_t step = 1 + data[1] % 64;
  const std::string body(reinterpret_cast<const char*>(data) + 2, size - 2);
  check_usage(kind, format, step, body);
  check_request(kind, body);
  check_filter(step, body);
  return 0;
}
