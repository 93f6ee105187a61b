// Values that name places on a network or in HTTP: URLs, hosts, networks, path patterns, methods, header
// names.
#include <algorithm>
#include <array>
#include <charconv>
#include <cstring>

#include <arpa/inet.h>
#include <fmt/format.h>

#include "config/values.hpp"

namespace penstock::config {

namespace {

using Address = std::array<std::uint8_t, 16>;

bool is_digit(char c) { return c >= '0' && c <= '9'; }
bool is_alphanumeric(char c) { return is_digit(c) || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'); }
bool is_hex(char c) { return is_digit(c) || (c >= 'a' && c <= 'f') || (c >= 'A' && c <= 'F'); }

std::unexpected<Complaint> refuse(std::string text, std::string hint = {}) {
  return std::unexpected(Complaint{.text = std::move(text), .hint = std::move(hint)});
}
std::string suggest(std::string_view text) { return fmt::format("did you mean {}?", shown(text)); }

std::string lower(std::string_view text) {
  std::string out(text);
  std::ranges::transform(out, out.begin(),
                         [](char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c; });
  return out;
}

struct Ip {
  Address address{};  ///< IPv4 as IPv4-mapped IPv6
  bool is_v4 = false;
};

std::optional<Ip> parse_ip(std::string_view text) {
  const std::string copy(text.substr(0, INET6_ADDRSTRLEN));
  if (copy.size() != text.size() || copy.find('\0') != std::string::npos) return std::nullopt;
  Ip ip;
  std::array<std::uint8_t, 4> v4{};
  if (inet_pton(AF_INET, copy.c_str(), v4.data()) == 1) {
    ip.is_v4 = true;
    ip.address[10] = ip.address[11] = 0xFF;
    std::ranges::copy(v4, ip.address.begin() + 12);
    return ip;
  }
  if (inet_pton(AF_INET6, copy.c_str(), ip.address.data()) == 1) return ip;
  return std::nullopt;
}

std::string format_ip(const Ip& ip) {
  std::array<char, INET6_ADDRSTRLEN> out{};
  inet_ntop(ip.is_v4 ? AF_INET : AF_INET6, ip.address.data() + (ip.is_v4 ? 12 : 0), out.data(), out.size());
  return out.data();
}

void clear_after(Address& address, int prefix_length) {
  for (int bit = prefix_length; bit < 128; ++bit) {
    address[static_cast<std::size_t>(bit / 8)] &=
        static_cast<std::uint8_t>(~(0x80U >> static_cast<unsigned>(bit % 8)));
  }
}

bool contains(const Network& network, Address address) {
  clear_after(address, network.prefix_length);
  return address == network.address;
}

std::optional<int> small_number(std::string_view text, int most) {
  int value = 0;
  if (text.empty() || text.size() > 5 || !std::ranges::all_of(text, is_digit)) return std::nullopt;
  std::from_chars(text.data(), text.data() + text.size(), value);
  return value <= most ? std::optional(value) : std::nullopt;
}

/// "host:port", "[v6]:port", "host" or "[v6]".
struct HostAndPort {
  std::string_view host;
  std::optional<std::string_view> port;
  bool is_bracketed = false;
};
std::optional<HostAndPort> split_port(std::string_view text) {
  HostAndPort parts;
  std::string_view rest;
  if (text.starts_with('[')) {
    const std::size_t end = text.find(']');
    if (end == std::string_view::npos) return std::nullopt;
    parts = {.host = text.substr(1, end - 1), .port = {}, .is_bracketed = true};
    rest = text.substr(end + 1);
  } else {
    const std::size_t end = std::min(text.find(':'), text.size());
    parts = {.host = text.substr(0, end), .port = {}, .is_bracketed = false};
    rest = text.substr(end);
  }
  if (rest.empty()) return parts;
  if (!rest.starts_with(':')) return std::nullopt;
  parts.port = rest.substr(1);
  return parts;
}

bool is_host_name(std::string_view text) {
  if (text.empty() || text.size() > 253) return false;
  std::size_t length = 0;
  bool is_numeric = true;  // a last label of digits would be taken for an IPv4 address by some resolvers
  for (std::size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    if (c == '.') {
      if (length == 0 || text[i - 1] == '-' || i + 1 == text.size()) return false;
      length = 0;
      is_numeric = true;
      continue;
    }
    if (!is_alphanumeric(c) && c != '_' && (c != '-' || length == 0)) return false;
    is_numeric = is_numeric && is_digit(c);
    if (++length > 63) return false;
  }
  return text.back() != '-' && !is_numeric;
}

/// A character of a path as it stands in a request (RFC 3986 3.3), the slash included.
bool is_path_character(char c) {
  return is_alphanumeric(c) || (c != '\0' && std::strchr("/-._~!$&'()*+,;=:@%", c) != nullptr);
}

bool has_bad_escape(std::string_view text) {
  for (std::size_t i = text.find('%'); i != std::string_view::npos; i = text.find('%', i + 1)) {
    if (i + 2 >= text.size() || !is_hex(text[i + 1]) || !is_hex(text[i + 2])) return true;
  }
  return false;
}

bool is_token(std::string_view text) {
  return !text.empty() && std::ranges::all_of(text, [](char c) {
    return is_alphanumeric(c) || (c != '\0' && std::strchr("!#$%&'*+-.^_`|~", c) != nullptr);
  });
}

}  // namespace

Parsed<std::string> parse_path_pattern(std::string_view text) {
  if (!text.starts_with('/')) {
    return refuse("is not a path pattern; it must begin with \"/\"",
                  !text.empty() && is_path_character(text.front()) ? suggest(fmt::format("/{}", text)) : "");
  }
  if (text.size() > 1024) return refuse("is longer than 1024 bytes");
  if (text.find_first_of("?#") != std::string_view::npos) {
    return refuse("is not a path pattern; query and fragment take no part in the match",
                  suggest(text.substr(0, text.find_first_of("?#"))));
  }
  if (!std::ranges::all_of(text, is_path_character) || has_bad_escape(text)) {
    return refuse("holds a character that no path can hold", "write it percent-encoded");
  }
  for (std::size_t start = 1; start <= text.size();) {
    const std::size_t end = std::min(text.find('/', start), text.size());
    const std::string_view segment = text.substr(start, end - start);
    const bool is_last = end == text.size();
    if (segment.empty() && !is_last) return refuse("is not a path pattern; it has an empty segment (//)");
    if (segment == "." || segment == "..")
      return refuse("is not a path pattern; \".\" and \"..\" never arrive");
    if (segment == "**" && !is_last)
      return refuse("is not a path pattern; \"**\" may only stand at the end",
                    "\"*\" stands for one segment");
    if (segment != "*" && segment != "**" && segment.find('*') != std::string_view::npos) {
      return refuse("is not a path pattern; \"*\" stands for a whole segment",
                    "use \"*\" for one segment, \"**\" at the end for all that follow");
    }
    start = end + 1;
  }
  return std::string(text);
}

Parsed<std::string> parse_method(std::string_view text) {
  constexpr std::array<std::string_view, 7> kMethods{"GET",   "HEAD",   "POST",   "PUT",
                                                     "PATCH", "DELETE", "OPTIONS"};
  if (std::ranges::find(kMethods, text) != kMethods.end()) return std::string(text);
  return refuse(fmt::format("is not a method; expected {}", list_of(kMethods)), near_miss(text, kMethods));
}

Parsed<std::string> parse_header_name(std::string_view text) {
  if (!is_token(text) || text.size() > 128)
    return refuse("is not the name of a header field",
                  text.ends_with(':') ? suggest(text.substr(0, text.size() - 1)) : "");
  // Framing and routing belong to the gateway: a configured value would break the message.
  constexpr std::array<std::string_view, 11> kOwn{
      "host",    "content-length", "transfer-encoding", "connection",         "keep-alive", "te", "trailer",
      "upgrade", "expect",         "proxy-connection",  "proxy-authorization"};
  if (std::ranges::find(kOwn, lower(text)) != kOwn.end())
    return refuse("is a header field that the gateway itself sets");
  return std::string(text);
}

Parsed<std::string> parse_json_pointer(std::string_view text) {
  bool is_pointer = text.starts_with('/') && text.size() <= 512;
  for (std::size_t i = text.find('~'); i != std::string_view::npos; i = text.find('~', i + 1)) {
    is_pointer = is_pointer && i + 1 < text.size() && (text[i + 1] == '0' || text[i + 1] == '1');
  }
  if (is_pointer) return std::string(text);
  std::string repaired = "/" + std::string(text.substr(text.starts_with("$.") ? 2 : 0));
  std::ranges::replace(repaired, '.', '/');
  const bool may_repair = !text.empty() && !text.starts_with('/') && text.size() < 100 &&
                          text.find('~') == std::string_view::npos;
  return refuse("is not a JSON pointer; expected one like /usage/credits",
                may_repair ? suggest(repaired) : "");
}

Parsed<std::string> parse_host(std::string_view text) {
  if (is_host_name(text)) return lower(text);
  if (const auto ip = parse_ip(text)) return format_ip(*ip);
  return refuse("is not a host name or IP address");
}

Parsed<SocketAddress> parse_socket_address(std::string_view text) {
  constexpr std::string_view kExpected =
      "is not an address to listen on; expected an IP address and a port, like 127.0.0.1:8080 or [::]:8080";
  const auto parts = split_port(text);
  const auto ip = parts ? parse_ip(parts->host) : std::nullopt;
  const auto port = parts && parts->port ? small_number(*parts->port, 65'535) : std::nullopt;
  if (ip && port && ip->is_v4 != parts->is_bracketed) {
    return SocketAddress{.address = format_ip(*ip), .port = static_cast<std::uint16_t>(*port)};
  }
  std::string hint;
  if (port && parts->host.empty()) hint = suggest(fmt::format("0.0.0.0:{}", *port));
  if (port && parts->host == "localhost") hint = suggest(fmt::format("127.0.0.1:{}", *port));
  if (const auto number = small_number(text, 65'535)) hint = suggest(fmt::format("127.0.0.1:{}", *number));
  if (const auto bare = parse_ip(text))
    hint = suggest(bare->is_v4 ? fmt::format("{}:8080", text) : fmt::format("[{}]:8080", text));
  return refuse(std::string(kExpected), hint);
}

Parsed<Network> parse_network(std::string_view text) {
  const std::size_t slash = text.find('/');
  const auto ip = parse_ip(text.substr(0, slash));
  const int most = ip && ip->is_v4 ? 32 : 128;
  const auto length =
      slash == std::string_view::npos ? std::optional(most) : small_number(text.substr(slash + 1), most);
  if (!ip || !length)
    return refuse("is not an address or block of addresses; expected one like 10.0.0.0/8 or ::1");
  Network network{.address = ip->address, .prefix_length = *length + (ip->is_v4 ? 96 : 0)};
  clear_after(network.address, network.prefix_length);
  if (network.address != ip->address) {
    return refuse(
        "has bits set after its prefix",
        suggest(fmt::format("{}/{}", format_ip({.address = network.address, .is_v4 = ip->is_v4}), *length)));
  }
  return network;
}

bool is_private_host(std::string_view host) {
  if (host == "localhost" || host.ends_with(".localhost")) return true;
  auto ip = parse_ip(host);
  if (!ip) return false;
  constexpr std::array<std::string_view, 12> kBlocks{
      "0.0.0.0/8",      "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12",
      "192.168.0.0/16", "::/128",     "::1/128",       "fc00::/7",    "fe80::/10",      "fec0::/10"};
  return std::ranges::any_of(
      kBlocks, [&](std::string_view block) { return contains(*parse_network(block), ip->address); });
}

std::string url_without_secrets(std::string_view text) {
  text = text.substr(0, text.find_first_of("?#"));
  const std::size_t scheme_end = text.find("://");
  const std::size_t start = scheme_end == std::string_view::npos ? 0 : scheme_end + 3;
  const std::size_t at = text.rfind('@');
  if (at == std::string_view::npos || at < start) return std::string(text);
  return fmt::format("{}…@{}", text.substr(0, start), text.substr(at + 1));
}

Parsed<BaseUrl> parse_base_url(std::string_view text) {
  constexpr std::string_view kExpected =
      "is not a base URL; expected one like https://api.example.com or https://api.example.com/v1";
  BaseUrl url;
  std::string_view rest;
  const std::string scheme = lower(text.substr(0, text.find("://")));
  if (text.find("://") == std::string_view::npos) {
    return refuse(std::string(kExpected), is_host_name(text.substr(0, text.find_first_of(":/")))
                                              ? suggest(fmt::format("https://{}", url_without_secrets(text)))
                                              : "");
  }
  if (scheme != "https" && scheme != "http") {
    constexpr std::array<std::string_view, 2> kSchemes{"https", "http"};
    return refuse("is not a base URL; its scheme must be https or http", near_miss(scheme, kSchemes));
  }
  url.tls = scheme == "https";
  rest = text.substr(text.find("://") + 3);
  if (rest.find_first_of("?#") != std::string_view::npos)
    return refuse("is not a base URL; it may have no query and no fragment");
  const std::string_view authority = rest.substr(0, rest.find('/'));
  std::string_view path = rest.substr(authority.size());
  if (authority.find('@') != std::string_view::npos) {
    return refuse("is not a base URL; it may hold no user name or password", "put them under credential");
  }
  const auto parts = split_port(authority);
  if (!parts) return refuse(std::string(kExpected));
  auto host = parse_host(parts->host);
  if (!host || parts->is_bracketed != (host->find(':') != std::string::npos))
    return refuse("is not a base URL; its host is not a host name or IP address");
  url.host = std::move(*host);
  const auto port = parts->port ? small_number(*parts->port, 65'535) : std::optional(url.tls ? 443 : 80);
  if (!port || *port == 0) return refuse("is not a base URL; its port must be 1 to 65535");
  url.port = static_cast<std::uint16_t>(*port);
  while (path.ends_with('/')) path.remove_suffix(1);
  if (path.size() > 1024 || !std::ranges::all_of(path, is_path_character) || has_bad_escape(path))
    return refuse("is not a base URL; its path holds a character that no path can hold");
  const std::string framed = fmt::format("{}/", path);
  for (const std::string_view bad : {"//", "/./", "/../"}) {
    if (framed.find(bad) != std::string::npos)
      return refuse(fmt::format("is not a base URL; its path may not hold {}", bad));
  }
  url.path = path;
  return url;
}

}  // namespace penstock::config
