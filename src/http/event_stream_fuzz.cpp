// Any bytes, any splitting, a small bound: the same events, never one above the bound.

#include <cstdint>
#include <cstdlib>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "http/event_stream.hpp"

namespace {

using penstock::http::EventStreamParser;
using Events = std::vector<std::pair<std::string, std::string>>;

void feed(EventStreamParser& parser, std::string_view bytes, Events& events) {
  const std::vector<char> copy(bytes.begin(), bytes.end());  // of exact size: reading past it is seen
  parser.feed({copy.data(), copy.size()},
              [&](const auto& event) { events.emplace_back(event.type, event.data); });
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size < 2) return 0;
  const std::size_t bound = data[0];
  const std::size_t step = 1 + data[1] % 16;
  const std::string_view stream(reinterpret_cast<const char*>(data) + 2, size - 2);
  EventStreamParser whole(bound);
  EventStreamParser split(bound);
  Events expected;
  Events events;
  feed(whole, stream, expected);
  for (std::size_t at = 0; at < stream.size(); at += step) feed(split, stream.substr(at, step), events);
  if (events != expected || whole.skipped() != split.skipped()) std::abort();
  for (const auto& [type, text] : events) {
    if (type.size() + text.size() > bound) std::abort();
  }
  return 0;
}
