#include "observe/text.hpp"

#include <algorithm>
#include <array>
#include <charconv>

namespace penstock::observe {
namespace {

constexpr std::string_view kEllipsis = "\xE2\x80\xA6";

/// What a byte is in a JSON string: itself, or more than that.
enum class Byte : std::uint8_t { plain, special };

constexpr auto kBytes = [] {
  std::array<Byte, 256> table{};
  for (std::size_t c = 0; c < table.size(); ++c)
    table[c] = c < 0x20 || c == '"' || c == '\\' || c >= 0x7F ? Byte::special : Byte::plain;
  return table;
}();

/// The escape of one byte or of a C1 character, in `out` (6 bytes); returns its length.
std::size_t escape(unsigned code, char* out) noexcept {
  constexpr char kDigits[] = "0123456789abcdef";
  out[0] = '\\';
  switch (code) {
    case '"': out[1] = '"'; return 2;
    case '\\': out[1] = '\\'; return 2;
    case '\n': out[1] = 'n'; return 2;
    case '\r': out[1] = 'r'; return 2;
    case '\t': out[1] = 't'; return 2;
    default: break;
  }
  out[1] = 'u';
  out[2] = '0';
  out[3] = '0';
  out[4] = kDigits[code >> 4];
  out[5] = kDigits[code & 0xF];
  return 6;
}

}  // namespace

char* write_decimal(std::int64_t value, int decimals, char* out) noexcept {
  auto rest = static_cast<std::uint64_t>(value);
  if (value < 0) {
    *out++ = '-';
    rest = 0 - rest;
  }
  std::uint64_t unit = 1;
  for (int i = 0; i < decimals; ++i) unit *= 10;
  out = std::to_chars(out, out + 20, rest / unit).ptr;
  const std::uint64_t fraction = rest % unit;
  if (fraction == 0) return out;
  *out++ = '.';
  // unit + fraction has a leading 1 that stands for the zeros that a fraction may begin with.
  char digits[20];
  const char* end = std::to_chars(digits, digits + sizeof digits, unit + fraction).ptr;
  while (end[-1] == '0') --end;
  return put({digits + 1, end}, out);
}

std::size_t utf8_sequence(std::string_view text) noexcept {
  const auto at = [&](std::size_t i) { return i < text.size() ? static_cast<unsigned char>(text[i]) : 0U; };
  const auto tail = [&](std::size_t i) { return (at(i) & 0xC0U) == 0x80U; };
  const unsigned lead = at(0);
  if (lead < 0x80) return text.empty() ? 0 : 1;
  if (lead < 0xC2 || lead > 0xF4) return 0;
  if (lead < 0xE0) return tail(1) ? 2 : 0;
  // Overlong forms, surrogates and what lies above U+10FFFF show in the second byte.
  const unsigned low = lead == 0xE0 ? 0xA0U : lead == 0xF0 ? 0x90U : 0x80U;
  const unsigned high = lead == 0xED ? 0x9FU : lead == 0xF4 ? 0x8FU : 0xBFU;
  if (at(1) < low || at(1) > high || !tail(2)) return 0;
  if (lead < 0xF0) return 3;
  return tail(3) ? 4 : 0;
}

char* write_json_text(std::string_view text, std::size_t bound, char* out) noexcept {
  const bool all_plain = text.size() <= bound && std::all_of(text.begin(), text.end(), [](char c) {
                           return kBytes[static_cast<unsigned char>(c)] == Byte::plain;
                         });
  if (all_plain) return put(text, out);  // nearly always

  const char* const start = out;
  const auto room = [&] { return bound - static_cast<std::size_t>(out - start); };
  char* fits = out;  // the last border after which the ellipsis still has room
  while (!text.empty()) {
    if (room() >= kEllipsis.size()) fits = out;
    const auto byte = static_cast<unsigned char>(text.front());
    char piece[6];
    std::string_view next{piece, 1};
    std::size_t used = 1;
    if (kBytes[byte] == Byte::plain) {
      piece[0] = text.front();
    } else if (byte < 0x80) {
      next = {piece, escape(byte, piece)};
    } else if (used = utf8_sequence(text); used == 0) {
      next = kReplacement;
      used = 1;
    } else if (byte == 0xC2 && static_cast<unsigned char>(text[1]) < 0xA0) {
      next = {piece, escape(static_cast<unsigned char>(text[1]), piece)};
    } else {
      next = text.substr(0, used);
    }
    if (next.size() > room()) return put(kEllipsis, fits);
    out = put(next, out);
    text.remove_prefix(used);
  }
  return out;
}

}  // namespace penstock::observe
