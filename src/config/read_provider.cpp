// Providers and what stands in them, prices apart.
#include <algorithm>
#include <array>

#include "config/fields.hpp"

namespace penstock::config {

using namespace std::chrono_literals;

namespace {

void read_upstream_tls(Reader& reader, const Node& node, const std::string& owner, UpstreamTls& out) {
  Fields fields(reader, node, kUpstreamTls, fmt::format("tls of {}", owner));
  fields.file("ca_file", out.ca_file);
  fields.value("server_name", out.server_name, parse_host);
}

void read_timeouts(Reader& reader, const Node& node, const std::string& owner, Timeouts& out) {
  Fields fields(reader, node, kTimeouts, fmt::format("timeouts of {}", owner));
  fields.duration("connect", out.connect, {.least = 1ms, .most = 5min});
  fields.duration("first_byte", out.first_byte, {.least = 1ms, .most = 1h});
  fields.duration("between_bytes", out.between_bytes, {.least = 1ms, .most = 1h});
  fields.duration("total", out.total, {.least = 1ms, .most = 24h});
}

/// `most` must not be below `first`; said at the place of `most`, or of `first` where only that was given.
void check_order(Fields& fields, std::string_view first, milliseconds first_value, std::string_view most,
                 milliseconds most_value) {
  if (first_value <= most_value) return;
  const Node* node = fields.find(most) != nullptr ? fields.find(most) : fields.find(first);
  fields.reader().mistakes.add(node == nullptr ? fields.mark() : node->mark,
                               fmt::format("{} ({}) is below {} ({})", fields.what(most),
                                           format_duration(most_value), first, format_duration(first_value)));
}

void read_circuit(Reader& reader, const Node& node, const std::string& owner, policy::CircuitSpec& out) {
  Fields fields(reader, node, kCircuit, fmt::format("circuit of {}", owner));
  fields.number("failure_ratio", out.failure_ratio, {.least = 0.001, .most = 1});
  fields.integer("min_calls", out.min_calls, {.least = 1, .most = 1'000'000});
  fields.duration("window", out.window, {.least = 1s, .most = 600s});
  fields.number("slow_ratio", out.slow_ratio, {.least = 0.001, .most = 1});
  fields.duration("slow_after", out.slow_after, {.least = 1ms, .most = 1h});
  fields.duration("cooldown", out.cooldown, {.least = 1ms, .most = 1h});
  fields.duration("max_cooldown", out.max_cooldown, {.least = 1ms, .most = 24h});
  fields.integer("half_open_trials", out.half_open_trials, {.least = 1, .most = 1'000});
  fields.duration("half_open_timeout", out.half_open_timeout, {.least = 1ms, .most = 24h});
  check_order(fields, "cooldown", out.cooldown, "max_cooldown", out.max_cooldown);
}

void read_retry(Reader& reader, const Node& node, const std::string& owner, policy::RetrySpec& out) {
  Fields fields(reader, node, kRetry, fmt::format("retry of {}", owner));
  fields.integer("max_attempts", out.max_attempts, {.least = 1, .most = 5});
  fields.boolean("unsafe_methods", out.unsafe_methods);
  if (const Node* list = fields.list("statuses")) {
    out.statuses.clear();
    for (const Node& item : list->children) {
      int status = 0;
      const auto parse = [](std::string_view text) {
        return Fields::integer_in<int>(text, {.least = 400, .most = 599});
      };
      if (!fields.expect(item, Node::Kind::scalar, "statuses")) continue;
      if (fields.parse_into(item, "statuses", status, parse)) out.statuses.push_back(status);
    }
  }
  fields.duration("backoff", out.backoff, {.least = 1ms, .most = 1min});
  fields.duration("max_backoff", out.max_backoff, {.least = 1ms, .most = 10min});
  fields.number("budget_ratio", out.budget_ratio, {.least = 0, .most = 1});
  fields.number("budget_per_second", out.budget_per_second, {.least = 0, .most = 1'000});
  check_order(fields, "backoff", out.backoff, "max_backoff", out.max_backoff);
}

void read_drain(Reader& reader, const Node& node, Provider& out) {
  Fields fields(reader, node, kDrain, fmt::format("drain of provider {}", shown(out.name)));
  fields.duration("timeout", out.drain_timeout, {.least = 0ms, .most = 10min});
  fields.size("bytes", out.drain_bytes, {.least = 0, .most = 1ULL << 30U});
}

bool may_meet(const Endpoint& a, const Endpoint& b) {
  const auto has = [&](const std::string& method) {
    return std::ranges::find(b.methods, method) != b.methods.end();
  };
  return a.path == b.path && (a.methods.empty() || b.methods.empty() || std::ranges::any_of(a.methods, has));
}

void read_endpoint(Reader& reader, const Node& node, const std::string& position,
                   std::vector<Endpoint>& out) {
  Endpoint endpoint;
  endpoint.place = reader.place(node.mark);
  Fields fields(reader, node, kEndpoint, position);
  const Node* name = nullptr;
  if (fields.require("name") != nullptr) name = fields.value("name", endpoint.name, parse_name);
  const Node* path = nullptr;
  if (fields.require("path") != nullptr) path = fields.value("path", endpoint.path, parse_path_pattern);
  fields.methods("methods", endpoint.methods);
  fields.limits("limits", endpoint.limits);
  if (const Node* prices = fields.find("prices")) {
    endpoint.prices.emplace();
    read_prices(reader, *prices, position, *endpoint.prices);
  }
  if (name != nullptr && endpoint.name == "other") {
    fields.complain(*name, "name",
                    {.text = "is reserved for what matches no endpoint", .hint = "choose another name"});
  }
  for (const Endpoint& earlier : out) {
    if (name != nullptr && earlier.name == endpoint.name) {
      fields.complain(
          *name, "name",
          {.text = fmt::format("is the name of an earlier endpoint in line {}", earlier.place.line),
           .hint = "choose another name"});
    } else if (path != nullptr && may_meet(earlier, endpoint)) {
      fields.complain(*path, "path",
                      {.text = fmt::format("never matches: endpoint {} takes it first", shown(earlier.name)),
                       .hint = "merge the two, or give each its own methods"});
    }
  }
  out.push_back(std::move(endpoint));
}

/// Plain HTTP and addresses inside the network are mistakes until someone says that they are meant: a
/// credential would travel in the clear, or a typing error would let callers reach what stands behind the
/// gateway.
void check_destination(Fields& fields, const Provider& provider) {
  const Node* node = fields.find("base_url");
  if (node == nullptr || provider.base_url.host.empty() || provider.allow_private) return;
  if (is_private_host(provider.base_url.host)) {
    fields.complain(*node, "base_url",
                    {.text = "is a private address", .hint = "set allow_private: true if it is meant"},
                    Show::url);
  } else if (!provider.base_url.tls) {
    fields.complain(*node, "base_url",
                    {.text = "is plain HTTP; expected https",
                     .hint = "set allow_private: true if the network is your own"},
                    Show::url);
  }
}

}  // namespace

void read_provider(Reader& reader, const Node& node, Provider& out) {
  const std::string owner = fmt::format("provider {}", shown(out.name));
  Fields fields(reader, node, kProvider, owner);
  if (fields.require("base_url", "expected one like https://api.example.com") != nullptr) {
    fields.value("base_url", out.base_url, parse_base_url, Show::url);
  }
  fields.boolean("allow_private", out.allow_private);
  check_destination(fields, out);
  if (const Node* child = fields.find("credential")) read_credential(reader, *child, owner, out.credential);
  if (const Node* child = fields.find("tls")) read_upstream_tls(reader, *child, owner, out.tls);
  if (const Node* child = fields.find("timeouts")) read_timeouts(reader, *child, owner, out.timeouts);
  fields.limits("limits", out.limits);
  fields.concurrency("concurrency", out.concurrency);
  fields.boolean("learn_limits", out.learn_limits);
  fields.choice("adaptive_concurrency", out.adaptive_concurrency,
                {{"auto", AdaptiveConcurrency::automatic},
                 {"always", AdaptiveConcurrency::always},
                 {"never", AdaptiveConcurrency::never}});
  if (const Node* child = fields.find("circuit")) read_circuit(reader, *child, owner, out.circuit);
  if (const Node* child = fields.find("retry")) read_retry(reader, *child, owner, out.retry);
  if (const Node* child = fields.find("wait")) read_wait(reader, *child, owner, out.wait);
  fields.budgets("budgets", out.budgets);
  fields.choice("api", out.api,
                {{"generic", Api::generic},
                 {"openai", Api::openai},
                 {"anthropic", Api::anthropic},
                 {"gemini", Api::gemini}});
  const Node* usage = fields.choice("stream_usage", out.stream_usage,
                                    {{"as_sent", StreamUsage::as_sent}, {"inject", StreamUsage::inject}});
  if (usage != nullptr && out.stream_usage == StreamUsage::inject && out.api != Api::openai) {
    fields.complain(*usage, "stream_usage",
                    {.text = "is only possible with api: openai", .hint = "the others always tell it"});
  }
  fields.choice("on_disconnect", out.on_disconnect,
                {{"drain", OnDisconnect::drain}, {"cancel", OnDisconnect::cancel}});
  if (const Node* child = fields.find("drain")) read_drain(reader, *child, out);
  fields.integer("default_max_output_tokens", out.default_max_output_tokens,
                 {.least = 1, .most = 10'000'000});
  fields.size("max_metered", out.max_metered_bytes, {.least = 1024, .most = 256ULL << 20U});
  fields.boolean("charge_unknown", out.charge_unknown);
  if (const Node* child = fields.find("prices")) read_prices(reader, *child, owner, out.prices);
  if (const Node* list = fields.list("endpoints")) {
    for (std::size_t i = 0; i < list->children.size(); ++i) {
      read_endpoint(reader, list->children[i], fmt::format("endpoints[{}] of {}", i, owner), out.endpoints);
    }
  }
}

}  // namespace penstock::config
