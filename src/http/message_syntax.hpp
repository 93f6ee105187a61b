#pragma once

#include <array>
#include <cstdint>
#include <limits>
#include <string_view>

#include "http/message.hpp"

/// Grammar shared by heads and trailers. Internal to message_*.cpp.
namespace penstock::http::syntax {

enum class Class : std::uint8_t {
  token = 1,   ///< tchar, RFC 9110 5.6.2
  target = 2,  ///< visible ASCII but '#'; wider than RFC 3986, because callers do send '|' and braces
  host = 4,    ///< reg-name without '%' (checked apart) and without ',', which would make a list of hosts
  digit = 8,
};

inline constexpr auto kClasses = [] {
  std::array<std::uint8_t, 256> classes{};
  const auto add = [&](std::string_view characters, std::initializer_list<Class> bits) {
    for (const char c : characters) {
      auto& slot = classes[static_cast<unsigned char>(c)];
      for (const Class bit : bits) slot = static_cast<std::uint8_t>(slot | static_cast<std::uint8_t>(bit));
    }
  };
  for (int c = 0x21; c < 0x7f; ++c) {
    if (c != '#') classes[static_cast<std::size_t>(c)] = static_cast<std::uint8_t>(Class::target);
  }
  add("0123456789", {Class::token, Class::host, Class::digit});
  add("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ", {Class::token, Class::host});
  add("!#$%&'*+-.^_`|~", {Class::token});
  add("-._~!$&'()*+;=", {Class::host});
  return classes;
}();

[[nodiscard]] constexpr bool is(char c, Class bit) noexcept {
  return (kClasses[static_cast<unsigned char>(c)] & static_cast<std::uint8_t>(bit)) != 0;
}

[[nodiscard]] constexpr char to_lower(char c) noexcept {
  return c >= 'A' && c <= 'Z' ? static_cast<char>(c | 0x20) : c;
}

[[nodiscard]] constexpr int hex_value(char c) noexcept {
  if (c >= '0' && c <= '9') return c - '0';
  const char lower = to_lower(c);
  return lower >= 'a' && lower <= 'f' ? lower - 'a' + 10 : -1;
}

[[nodiscard]] constexpr bool is_blank(char c) noexcept { return c == ' ' || c == '\t'; }

/// What no line may hold: controls other than tab, and DEL (RFC 9110 5.5).
[[nodiscard]] constexpr bool is_control(char c) noexcept {
  const auto u = static_cast<unsigned char>(c);
  return (u < 0x20 && u != '\t') || u == 0x7f;
}

[[nodiscard]] constexpr bool is_token(std::string_view text) noexcept {
  for (const char c : text) {
    if (!is(c, Class::token)) return false;
  }
  return !text.empty();
}

[[nodiscard]] constexpr std::string_view trim(std::string_view text) noexcept {
  while (!text.empty() && is_blank(text.front())) text.remove_prefix(1);
  while (!text.empty() && is_blank(text.back())) text.remove_suffix(1);
  return text;
}

/// Calls `visit` for each element of a comma list; empty elements are passed over (RFC 9110 5.6.1.2).
template <class Visit>
void for_each_element(std::string_view list, Visit&& visit) {
  while (!list.empty()) {
    const std::size_t comma = list.find(',');
    const std::string_view element = trim(list.substr(0, comma));
    if (!element.empty()) visit(element);
    if (comma == std::string_view::npos) return;
    list.remove_prefix(comma + 1);
  }
}

/// 1*DIGIT up to the largest signed number, so that sums of two lengths cannot wrap.
[[nodiscard]] constexpr bool parse_length(std::string_view digits, std::uint64_t& length) noexcept {
  constexpr std::uint64_t kMost = std::numeric_limits<std::int64_t>::max();
  if (digits.empty()) return false;
  std::uint64_t value = 0;
  for (const char c : digits) {
    if (!is(c, Class::digit)) return false;
    const auto digit = static_cast<std::uint64_t>(c - '0');
    if (value > (kMost - digit) / 10) return false;
    value = value * 10 + digit;
  }
  length = value;
  return true;
}

/// Splits a line (without its end, free of control characters) into name and value. Returns what is wrong, or
/// nullptr.
[[nodiscard]] const char* split_field_line(std::string_view line, Field& field) noexcept;

/// uri-host [":" port], RFC 9110 7.2; an empty host is refused.
[[nodiscard]] bool is_host_and_port(std::string_view text) noexcept;

/// Hop-by-hop whatever Connection says; Trailer depends on the message and is not among them.
[[nodiscard]] constexpr bool is_hop_by_hop(FieldId id) noexcept {
  switch (id) {
    case FieldId::connection:
    case FieldId::keep_alive:
    case FieldId::proxy_authenticate:
    case FieldId::proxy_authorization:
    case FieldId::proxy_connection:
    case FieldId::te:
    case FieldId::transfer_encoding:
    case FieldId::upgrade: return true;
    default: return false;
  }
}

}  // namespace penstock::http::syntax
