#pragma once

#include <compare>
#include <cstdint>
#include <limits>
#include <optional>
#include <string>
#include <string_view>

namespace penstock {

/// Money in billionths of a US dollar: 1 USD == 1'000'000'000. An integer, so that a ledger sums exactly;
/// int64 holds about 9.2 billion USD. Nano, because one token of a cheap model costs about 50 of them.
struct NanoUsd {
  std::int64_t count = 0;

  friend constexpr auto operator<=>(NanoUsd, NanoUsd) = default;
  friend constexpr NanoUsd operator+(NanoUsd a, NanoUsd b) { return {a.count + b.count}; }
  friend constexpr NanoUsd operator-(NanoUsd a, NanoUsd b) { return {a.count - b.count}; }
  constexpr NanoUsd& operator+=(NanoUsd other) { return *this = *this + other; }
  constexpr NanoUsd& operator-=(NanoUsd other) { return *this = *this - other; }
};

inline constexpr std::int64_t kNanoPerUsd = 1'000'000'000;

/// The most that one budget or one attempt may be: 2^53 - 1, so that every backend (Lua's doubles too) is
/// exact.
inline constexpr NanoUsd kMaxNanoUsd{(std::int64_t{1} << 53) - 1};

/// a + b, stopping at kMaxNanoUsd. For amounts >= 0.
[[nodiscard]] constexpr NanoUsd add_saturating(NanoUsd a, NanoUsd b) noexcept {
  const auto sum = static_cast<__int128>(a.count) + b.count;
  return sum > kMaxNanoUsd.count ? kMaxNanoUsd : NanoUsd{static_cast<std::int64_t>(sum)};
}

/// Reads a plain decimal number of dollars ("20", "0.25", "1e-6"), exactly; digits finer than a nano-dollar,
/// signs, other characters and amounts above kMaxNanoUsd give nothing.
[[nodiscard]] std::optional<NanoUsd> parse_usd(std::string_view text);

/// The shortest exact decimal: "0.25", "20", "0.000000001", "-1.5".
[[nodiscard]] std::string format_usd(NanoUsd amount);

/// The same into `out` (at least 24 bytes); returns the length. For the call's way: no allocation.
std::size_t format_usd_to(NanoUsd amount, char* out) noexcept;

}  // namespace penstock
