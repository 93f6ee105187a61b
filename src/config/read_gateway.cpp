// The gateway's own settings: listener, log, inbound limits.
#include <algorithm>

#include "config/fields.hpp"

namespace penstock::config {

using namespace std::chrono_literals;

void read_listen(Reader& reader, const Node& node, Listen& out) {
  Fields fields(reader, node, kListen, "listen");
  SocketAddress address{.address = out.address, .port = out.port};
  fields.value("address", address, parse_socket_address);
  out.address = address.address;
  out.port = address.port;
  if (const Node* child = fields.find("tls")) {
    Fields tls(reader, *child, kListenTls, "tls of listen");
    out.tls.emplace();
    (void)tls.require("certificate", "expected the path of a PEM file with the chain");
    (void)tls.require("key", "expected the path of a PEM file");
    tls.file("certificate", out.tls->certificate_file);
    tls.file("key", out.tls->key_file);
  }
  fields.integer("workers", out.workers, {.least = 0, .most = 256});
  fields.integer("max_connections", out.max_connections, {.least = 1, .most = 1'000'000});
  fields.size("max_header", out.max_header_bytes, {.least = 1024, .most = 1024 * 1024});
  fields.size("max_body", out.max_body_bytes, {.least = 0, .most = 4ULL << 30U});
  fields.duration("header_timeout", out.header_timeout, {.least = 100ms, .most = 10min});
  fields.duration("body_timeout", out.body_timeout, {.least = 100ms, .most = 1h});
  fields.duration("idle_timeout", out.idle_timeout, {.least = 100ms, .most = 24h});
  fields.duration("write_timeout", out.write_timeout, {.least = 100ms, .most = 1h});
  fields.duration("shutdown_timeout", out.shutdown_timeout, {.least = 0ms, .most = 1h});
}

void read_log(Reader& reader, const Node& node, Log& out) {
  Fields fields(reader, node, kLog, "log");
  fields.choice("level", out.level,
                {{"debug", LogLevel::debug},
                 {"info", LogLevel::info},
                 {"warn", LogLevel::warn},
                 {"error", LogLevel::error}});
  fields.choice("calls", out.calls,
                {{"all", CallLog::all}, {"refused", CallLog::refused}, {"none", CallLog::none}});
}

namespace {

/// No user or password: they would stand in every message that shows the address.
Parsed<std::string> parse_redis(std::string_view text) {
  const auto complain = [](std::string_view problem) {
    return std::unexpected(
        Complaint{std::string(problem), "expected redis://host:port/database, or rediss:// for TLS"});
  };
  std::string_view rest = text;
  if (rest.starts_with("redis://"))
    rest.remove_prefix(8);
  else if (rest.starts_with("rediss://"))
    rest.remove_prefix(9);
  else
    return complain("is not the address of a Redis server");
  if (rest.contains('@'))
    return std::unexpected(Complaint{"holds a user or password", "put them into user and password"});
  const std::size_t slash = rest.find('/');
  if (slash != std::string_view::npos && slash + 1 < rest.size()) {
    const auto database = parse_integer(rest.substr(slash + 1));
    if (!database || *database < 0 || *database > 1023) return complain("names no database from 0 to 1023");
  }
  rest = rest.substr(0, slash);
  const std::size_t colon = rest.rfind(':');
  if (colon != std::string_view::npos && !rest.ends_with(']')) {
    const auto port = parse_integer(rest.substr(colon + 1));
    if (!port || *port < 1 || *port > 65'535) return complain("names no port from 1 to 65535");
    rest = rest.substr(0, colon);
  }
  const auto is_ok = [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
           std::string_view(".-_:[]").contains(c);
  };
  if (rest.empty() || !std::ranges::all_of(rest, is_ok)) return complain("names no host");
  return std::string(text);
}

}  // namespace

void read_state(Reader& reader, const Node& node, State& out) {
  Fields fields(reader, node, kState, "state");
  fields.value("redis", out.redis, parse_redis, Show::nothing);
  fields.text("user", out.user);
  read_secret(fields, "password", "password_file", out.password);
  fields.value("domain", out.domain, parse_name);
  fields.value("replica", out.replica, parse_name);
  fields.choice("on_lost", out.on_lost, {{"share", OnLost::share}, {"closed", OnLost::closed}});
  fields.duration("timeout", out.timeout, {.least = 10ms, .most = 10s});
  fields.boolean("allow_volatile", out.allow_volatile);
}

namespace {

/// Inbound limits are taken before anything is known of a call's tokens.
Parsed<policy::LimitSpec> read_call_limit(std::string_view text) {
  auto limit = read_limit(text);
  if (limit && limit->unit != policy::LimitUnit::calls) {
    return std::unexpected(Complaint{"counts tokens; expected a limit of calls such as 100/minute",
                                     "limits of a consumer or key may count tokens"});
  }
  return limit;
}

}  // namespace

void read_inbound(Reader& reader, const Node& node, Inbound& out) {
  Fields fields(reader, node, kInbound, "inbound");
  fields.value("limit", out.limit, read_call_limit);
  if (const Node* list = fields.list("overrides")) {
    for (std::size_t i = 0; i < list->children.size(); ++i) {
      const Node& item = list->children[i];
      InboundOverride entry;
      entry.place = reader.place(item.mark);
      Fields inner(reader, item, kInboundOverride, fmt::format("overrides[{}] of inbound", i));
      if (inner.require("path") != nullptr) inner.value("path", entry.path, parse_path_pattern);
      inner.methods("methods", entry.methods);
      if (inner.require("limit") != nullptr) inner.value("limit", entry.limit, read_call_limit);
      out.overrides.push_back(std::move(entry));
    }
  }
  if (const Node* list = fields.list("exempt")) {
    out.exempt.clear();
    for (const Node& item : list->children) {
      std::string path;
      if (fields.expect(item, Node::Kind::scalar, "exempt") &&
          fields.parse_into(item, "exempt", path, parse_path_pattern)) {
        out.exempt.push_back(std::move(path));
      }
    }
  }
}

}  // namespace penstock::config
