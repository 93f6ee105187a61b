// How long calls may wait for their turn: of a provider's line, and what a route says instead.
#include "config/fields.hpp"

namespace penstock::config {

using namespace std::chrono_literals;

namespace {

/// Longer than this nobody keeps a connection open for.
constexpr Range<milliseconds> kWaits{.least = 0ms, .most = 10min};

template <class Lane>
void read_lane(Fields& fields, Lane& out) {
  using policy::WaitLane;
  fields.choice("lane", out,
                {Choice<Lane>{"interactive", WaitLane::interactive},
                 Choice<Lane>{"standard", WaitLane::standard}, Choice<Lane>{"batch", WaitLane::batch}});
}

void check_default(Fields& fields, milliseconds usual, milliseconds most) {
  if (usual <= most) return;
  if (const Node* node = fields.find("default"))
    fields.reader().mistakes.add(node->mark, fmt::format("{} ({}) is above max ({})", fields.what("default"),
                                                         format_duration(usual), format_duration(most)));
}

template <class T>
void read_optional(Fields& fields, std::string_view name, std::optional<T>& out) {
  T value{};
  if (fields.find(name) == nullptr) return;
  fields.duration(name, value, kWaits);
  out = value;
}

}  // namespace

void read_wait(Reader& reader, const Node& node, const std::string& owner, Wait& out) {
  Fields fields(reader, node, kWait, fmt::format("wait of {}", owner));
  fields.duration("max", out.max, kWaits);
  fields.duration("default", out.usual, kWaits);
  check_default(fields, out.usual, out.max);
  out.usual = std::min(out.usual, out.max);  // where only a short `max` was given
  read_lane(fields, out.lane);
  fields.integer("max_waiting", out.max_waiting, {.least = 0, .most = 100'000});
  fields.size("max_bytes", out.max_bytes, {.least = 0, .most = 64ULL << 30U});
}

void read_route_wait(Reader& reader, const Node& node, const std::string& owner, RouteWait& out) {
  Fields fields(reader, node, kRouteWait, fmt::format("wait of {}", owner));
  read_optional(fields, "max", out.max);
  read_optional(fields, "default", out.usual);
  if (out.max && out.usual) check_default(fields, *out.usual, *out.max);
  read_lane(fields, out.lane);
}

}  // namespace penstock::config
