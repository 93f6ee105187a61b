#include "store/redis/redis_url.hpp"

#include <algorithm>
#include <charconv>
#include <optional>

namespace penstock::store {
namespace {

std::unexpected<std::string> not_a_url(std::string_view problem) {
  return std::unexpected(std::string(problem) +
                         "; expected redis://host:port/database or rediss://… for TLS");
}

template <class Number>
std::optional<Number> number(std::string_view text) {
  Number value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (text.empty() || error != std::errc{} || end != text.data() + text.size()) return std::nullopt;
  return value;
}

std::optional<std::string> percent_decoded(std::string_view text) {
  std::string out;
  for (std::size_t i = 0; i < text.size(); ++i) {
    if (text[i] != '%') {
      out += text[i];
      continue;
    }
    if (i + 2 >= text.size()) return std::nullopt;
    unsigned value = 0;
    const char* const end = text.data() + i + 3;
    const auto [stop, error] = std::from_chars(text.data() + i + 1, end, value, 16);
    if (error != std::errc{} || stop != end) return std::nullopt;
    out += static_cast<char>(value);
    i += 2;
  }
  return out;
}

}  // namespace

std::expected<RedisUrl, std::string> parse_redis_url(std::string_view text) {
  RedisUrl url;
  if (text.starts_with("rediss://"))
    url.tls = true;
  else if (!text.starts_with("redis://"))
    return not_a_url("the address of Redis begins with redis:// or rediss://");
  text.remove_prefix(url.tls ? 9 : 8);

  if (const std::size_t at = text.rfind('@'); at != std::string_view::npos) {
    const std::string_view who = text.substr(0, at);
    text.remove_prefix(at + 1);
    const std::size_t colon = who.find(':');
    if (colon == std::string_view::npos) return not_a_url("before the @ stands user:password or :password");
    const auto user = percent_decoded(who.substr(0, colon));
    const auto password = percent_decoded(who.substr(colon + 1));
    if (!user || !password || password->empty())
      return not_a_url("the user or password before the @ cannot be read");
    url.user = *user;
    url.password = *password;
  }
  if (const std::size_t slash = text.find('/'); slash != std::string_view::npos) {
    const std::string_view database = text.substr(slash + 1);
    text = text.substr(0, slash);
    const auto index = number<std::uint32_t>(database);
    if (!database.empty() && (!index || *index > 1023))
      return not_a_url("a database is a number from 0 to 1023");
    if (index) url.database = *index;
  }
  std::string_view port;
  if (text.starts_with('[')) {
    const std::size_t end = text.find(']');
    if (end == std::string_view::npos) return not_a_url("an IPv6 address ends with ]");
    url.host = text.substr(1, end - 1);
    text.remove_prefix(end + 1);
    if (!text.empty() && !text.starts_with(':')) return not_a_url("after the address comes : and a port");
    port = text.empty() ? text : text.substr(1);
  } else {
    const std::size_t colon = text.find(':');
    url.host = text.substr(0, colon);
    if (colon != std::string_view::npos) port = text.substr(colon + 1);
  }
  const auto is_ok = [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '.' ||
           c == '-' || c == '_' || c == ':';
  };
  if (url.host.empty() || !std::ranges::all_of(url.host, is_ok))
    return not_a_url("the address of Redis names no host");
  if (!port.empty()) {
    const auto value = number<std::uint16_t>(port);
    if (!value || *value == 0) return not_a_url("a port is a number from 1 to 65535");
    url.port = *value;
  }
  return url;
}

std::string to_string(const RedisUrl& url) {
  const bool is_v6 = url.host.find(':') != std::string::npos;
  return std::string(url.tls ? "rediss://" : "redis://") + (is_v6 ? "[" + url.host + "]" : url.host) + ":" +
         std::to_string(url.port) + "/" + std::to_string(url.database);
}

}  // namespace penstock::store
