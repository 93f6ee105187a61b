#include "base/money.hpp"

#include <algorithm>

namespace penstock {

std::optional<NanoUsd> parse_usd(std::string_view text) {
  // mantissa * 10^exponent, kept as an integer throughout: a double would not be exact.
  __int128 mantissa = 0;
  int exponent = 9;
  bool seen_digit = false;
  bool seen_point = false;
  std::size_t i = 0;
  for (; i < text.size(); ++i) {
    const char c = text[i];
    if (c == '.') {
      if (seen_point) return std::nullopt;
      seen_point = true;
    } else if (c >= '0' && c <= '9') {
      seen_digit = true;
      mantissa = mantissa * 10 + (c - '0');
      if (mantissa > static_cast<__int128>(1) << 100) return std::nullopt;
      if (seen_point) --exponent;
    } else {
      break;
    }
  }
  if (!seen_digit) return std::nullopt;
  if (i < text.size()) {
    if (text[i] != 'e' && text[i] != 'E') return std::nullopt;
    ++i;
    bool negative = false;
    if (i < text.size() && (text[i] == '-' || text[i] == '+')) negative = text[i++] == '-';
    if (i == text.size()) return std::nullopt;
    int power = 0;
    for (; i < text.size(); ++i) {
      if (text[i] < '0' || text[i] > '9' || power > 100) return std::nullopt;
      power = power * 10 + (text[i] - '0');
    }
    exponent += negative ? -power : power;
  }
  for (; exponent > 0 && mantissa != 0; --exponent) {
    mantissa *= 10;
    if (mantissa > kMaxNanoUsd.count) return std::nullopt;
  }
  for (; exponent < 0; ++exponent) {
    if (mantissa % 10 != 0) return std::nullopt;  // finer than a nano-dollar
    mantissa /= 10;
    if (mantissa == 0) break;
  }
  if (mantissa > kMaxNanoUsd.count) return std::nullopt;
  return NanoUsd{static_cast<std::int64_t>(mantissa)};
}

std::size_t format_usd_to(NanoUsd amount, char* out) noexcept {
  char* p = out;
  auto rest = static_cast<std::uint64_t>(amount.count);
  if (amount.count < 0) {
    *p++ = '-';
    rest = 0 - rest;
  }
  const std::uint64_t whole = rest / kNanoPerUsd;
  std::uint64_t fraction = rest % kNanoPerUsd;
  char digits[20];
  std::size_t n = 0;
  for (std::uint64_t w = whole; w != 0 || n == 0; w /= 10) digits[n++] = static_cast<char>('0' + w % 10);
  while (n > 0) *p++ = digits[--n];
  if (fraction != 0) {
    *p++ = '.';
    for (std::uint64_t unit = kNanoPerUsd / 10; fraction != 0; unit /= 10) {
      *p++ = static_cast<char>('0' + fraction / unit);
      fraction %= unit;
    }
  }
  return static_cast<std::size_t>(p - out);
}

std::string format_usd(NanoUsd amount) {
  char text[24];
  return {text, format_usd_to(amount, text)};
}

}  // namespace penstock
