#include <charconv>

#include "gateway/phases/phases.hpp"

namespace penstock::gateway {
namespace {

Error invalid(int status, std::string message) {
  return {.reason = Reason::caller_invalid,
          .status = status,
          .message = std::move(message),
          .detail = {},
          .retry_after = {}};
}

/// Whether `text` begins with a percent-encoded octet; `low` in lower case, if it is a letter.
bool is_encoded(std::string_view text, char high, char low) noexcept {
  return text.size() >= 3 && text[0] == '%' && text[1] == high && (text[2] | 0x20) == low;
}

/// "." and ".." segments, percent-encoded or not: a server behind us could take them for another path than
/// the one that was matched and priced, or climb out of the base URL's path. Some servers split at "\\", at
/// encoded slashes, or drop what follows ";" in a segment, so these end one too.
bool has_dot_segment(std::string_view path) noexcept {
  if (path.find('.') == std::string_view::npos && path.find('%') == std::string_view::npos) return false;
  std::size_t dots = 0;  // that the segment consists of so far
  bool other = false;    // ... and something else
  while (!path.empty()) {
    const bool encoded_end =
        is_encoded(path, '2', 'f') || is_encoded(path, '5', 'c') || is_encoded(path, '3', 'b');
    if (encoded_end || path.front() == '/' || path.front() == '\\' || path.front() == ';') {
      if (dots > 0 && dots <= 2 && !other) return true;
      dots = 0;
      // What follows ";" belongs to the segment's parameters.
      other = path.front() == ';' || is_encoded(path, '3', 'b');
      path.remove_prefix(encoded_end ? 3 : 1);
    } else if (path.front() == '.' || is_encoded(path, '2', 'e')) {
      ++dots;
      path.remove_prefix(path.front() == '.' ? 1 : 3);
    } else {
      other = true;
      path.remove_prefix(1);
    }
  }
  return dots > 0 && dots <= 2 && !other;
}

int hex_value(char c) noexcept {
  if (c >= '0' && c <= '9') return c - '0';
  c = static_cast<char>(c | 0x20);
  return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/// Whether the path is another spelling of a simpler one that a server behind us may take it for: encoded
/// letters or digits, empty segments. Where a path decides the price, one call must not have two.
bool has_second_spelling(std::string_view path) noexcept {
  if (path.find("//") != std::string_view::npos) return true;
  for (std::size_t i = path.find('%'); i != std::string_view::npos; i = path.find('%', i + 1)) {
    if (i + 2 >= path.size()) return true;
    const int high = hex_value(path[i + 1]);
    const int low = hex_value(path[i + 2]);
    if (high < 0 || low < 0) return true;
    const int c = high * 16 + low;
    if ((c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z')) return true;
  }
  return false;
}

/// Whether some target prices or limits its paths one by one.
bool path_decides(const Call& call) noexcept {
  return std::ranges::any_of(call.targets, [](const ProviderPlan* provider) {
    return provider->endpoints.size() > 1 || provider->config->api != config::Api::generic;
  });
}

bool may_use(const Call& call, std::string_view kind, std::string_view name) noexcept {
  if (!call.key || call.key->allow.empty()) return true;
  return std::ranges::any_of(call.key->allow, [&](std::string_view allowed) {
    return allowed.size() == kind.size() + 1 + name.size() && allowed.starts_with(kind) &&
           allowed[kind.size()] == ':' && allowed.ends_with(name);
  });
}

/// The order in which a route's targets are tried: as listed, or by weight without repetition.
void order_targets(Call& call) {
  const RoutePlan& route = *call.route;
  call.targets.assign(route.targets.begin(), route.targets.end());
  if (route.config->strategy == config::Strategy::weighted && route.targets.size() > 1) {
    boost::container::small_vector<std::uint32_t, 8> weights(route.weights.begin(), route.weights.end());
    std::uint64_t total = route.total_weight;
    for (std::size_t i = 0; i + 1 < call.targets.size() && total > 0; ++i) {
      std::uint64_t pick = call.worker.random() % total;
      std::size_t chosen = i;
      while (pick >= weights[chosen]) pick -= weights[chosen++];
      total -= weights[chosen];
      std::swap(weights[i], weights[chosen]);
      std::swap(call.targets[i], call.targets[chosen]);
    }
  }
  if (!route.config->fallback) call.targets.resize(1);
}

bool is_one_of(std::string_view value, std::initializer_list<std::string_view> allowed) noexcept {
  return std::ranges::any_of(allowed,
                             [&](std::string_view each) { return http::equals_ignoring_case(each, value); });
}

/// "2s", "500ms", "1m", "0". At most a day: more is meant as "as long as it takes".
std::optional<milliseconds> parse_wait(std::string_view value) noexcept {
  constexpr std::int64_t kMost = 86'400'000;
  if (value.size() > 12) return std::nullopt;
  std::int64_t number = 0;
  const auto [end, error] = std::from_chars(value.data(), value.data() + value.size(), number);
  if (error != std::errc{} || number < 0 || value.front() == '-') return std::nullopt;
  const std::string_view unit = value.substr(static_cast<std::size_t>(end - value.data()));
  std::int64_t scale = 1'000;
  if (http::equals_ignoring_case(unit, "ms"))
    scale = 1;
  else if (http::equals_ignoring_case(unit, "m"))
    scale = 60'000;
  else if (!http::equals_ignoring_case(unit, "s") && !(unit.empty() && number == 0))
    return std::nullopt;
  return milliseconds{std::min(number, kMost / scale) * scale};
}

std::optional<policy::WaitLane> parse_lane(std::string_view value) noexcept {
  for (const policy::WaitLane lane : policy::kAllWaitLanes)
    if (http::equals_ignoring_case(value, to_string(lane))) return lane;
  return std::nullopt;
}

bool is_tag(std::string_view value) noexcept {
  return !value.empty() && value.size() <= 64 && std::ranges::all_of(value, [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' ||
           c == '.' || c == ':' || c == '-';
  });
}

std::optional<Error> check_steering(Call& call) {
  for (const http::Field& field : call.exchange.request.fields) {
    switch (field.id) {
      case http::FieldId::penstock_lane:
        call.lane_asked = parse_lane(field.value);
        if (!call.lane_asked) return invalid(400, "Penstock-Lane must be interactive, standard or batch.");
        break;
      case http::FieldId::penstock_wait:
        call.wait_asked = parse_wait(field.value);
        if (!call.wait_asked)
          return invalid(400, "Penstock-Wait must be a duration such as 500ms, 2s or 1m.");
        break;
      case http::FieldId::penstock_cache:
        if (!is_one_of(field.value, {"bypass", "only", "refresh"}))
          return invalid(400, "Penstock-Cache must be bypass, only or refresh.");
        if (is_one_of(field.value, {"only"}))
          return invalid(400, "Penstock-Cache: only has no cache to answer from here.");
        break;
      case http::FieldId::penstock_tag:
        if (!is_tag(field.value)) return invalid(400, "Penstock-Tag must be 1 to 64 of A-Z a-z 0-9 _ . : -");
        call.tag = field.value;
        break;
      default: break;
    }
  }
  return std::nullopt;
}

}  // namespace

Step match_route(Call& call) {
  const http::RequestHead& request = call.exchange.request;
  const std::string_view path = request.path;
  const std::string_view kind = path.starts_with("/p/") ? "provider" : "route";
  const std::size_t slash = path.find('/', 3);
  const std::string_view name = path.substr(3, slash == std::string_view::npos ? slash : slash - 3);
  call.path = slash == std::string_view::npos ? std::string_view{"/"} : path.substr(slash);

  if (kind == "provider") {
    const auto found = call.snapshot->provider_by_name.find(name);
    if (found == call.snapshot->provider_by_name.end())
      return refuse_call(call, invalid(404, "No provider of this name is configured."));
    call.targets.push_back(found->second);
  } else {
    const auto found = call.snapshot->route_by_name.find(name);
    if (found == call.snapshot->route_by_name.end())
      return refuse_call(call, invalid(404, "No route of this name is configured."));
    call.route = found->second;
    order_targets(call);
  }
  if (!may_use(call, kind, name))
    return refuse_call(call, {.reason = Reason::caller_forbidden,
                              .status = 0,
                              .message = "This consumer may not use that " + std::string(kind) + ".",
                              .detail = {},
                              .retry_after = {}});
  if (has_dot_segment(call.path)) return refuse_call(call, invalid(400, "The path has a . or .. segment."));
  if (path_decides(call) && has_second_spelling(call.path))
    return refuse_call(
        call, invalid(400, "The path has an empty segment or encodes letters or digits; write it plainly."));
  if (request.method == "CONNECT") return refuse_call(call, invalid(405, "CONNECT is not offered here."));
  if (auto error = check_steering(call)) return refuse_call(call, std::move(*error));
  return Step::next;
}

}  // namespace penstock::gateway
