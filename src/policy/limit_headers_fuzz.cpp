// Limit fields of a hostile provider: no crash, and what is believed is sound.

#include <cstdint>
#include <cstdlib>
#include <string_view>
#include <vector>

#include "policy/limit_headers.hpp"
#include "policy/provider_gate.hpp"

namespace {

using namespace penstock;
using namespace penstock::policy;

void demand(bool holds) {
  if (!holds) std::abort();
}

}  // namespace

/// Lines "name: value"; the numbers are then heeded, and some attempt must still be let through in time.
extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::vector<char> copy(data, data + size);  // of exact size: reading past it is seen
  std::string_view text{copy.data(), copy.size()};
  LimitHeaders headers;
  while (!text.empty()) {
    const std::string_view line = text.substr(0, text.find('\n'));
    const std::size_t colon = line.find(':');
    if (colon != std::string_view::npos) headers.add(line.substr(0, colon), line.substr(colon + 1));
    text.remove_prefix(std::min(text.size(), line.size() + 1));
  }
  LimitSigns signs;
  signs.readings = headers.readings(WallTime{std::chrono::hours{24 * 20'000}});
  for (const auto& reading : signs.readings) {
    if (!reading) continue;
    demand(reading->remaining >= 0 && reading->limit >= 0);
    demand(reading->limit == 0 || reading->remaining <= reading->limit);
    demand(reading->reset >= nanoseconds{0} && reading->reset <= std::chrono::hours{24});
  }
  ProviderGate gate;
  gate.reconfigure({.learns_limits = true});
  const MonotonicTime now{std::chrono::hours{1'000}};
  const ProviderGate::Ask ask{.tokens = 10};
  gate.learn(gate.take(ask, now), signs, now);
  demand(gate.wait_for(ask, now) <= LearnedLimit::kMaxHold);
  demand(gate.wait_for(ask, now + LearnedLimit::kMaxHold) == nanoseconds{0});
  return 0;
}
