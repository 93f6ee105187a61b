#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <string_view>

/// Numbers and text as bytes, for lines and the exposition. Nothing here allocates.
namespace penstock::observe {

/// Copies `text` to `out` and returns the end.
inline char* put(std::string_view text, char* out) noexcept {
  return std::copy(text.begin(), text.end(), out);
}

/// Bytes that `write_decimal` needs at most: sign, 19 digits, leading zeros of a fraction and the point.
inline constexpr std::size_t kMaxDecimal = 24;

/// value / 10^decimals (0 to 18), exactly and without an exponent: 1'500'000'000 with 9 is "1.5". Returns the
/// end.
char* write_decimal(std::int64_t value, int decimals, char* out) noexcept;

/// Bytes of the well-formed UTF-8 sequence (RFC 3629) at the front of `text`; 0 where there is none.
[[nodiscard]] std::size_t utf8_sequence(std::string_view text) noexcept;

/// What stands in place of bytes that are not UTF-8: U+FFFD.
inline constexpr std::string_view kReplacement = "\xEF\xBF\xBD";

/// Writes `text` as the inside of a JSON string in at most `bound` (>= 3) bytes; what does not fit ends with
/// an ellipsis at a character's border. Control characters (C1 too, which terminals obey) are escaped, bytes
/// that are not UTF-8 replaced.
char* write_json_text(std::string_view text, std::size_t bound, char* out) noexcept;

}  // namespace penstock::observe
