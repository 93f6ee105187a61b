// Small pieces of text work: JSON output into a growing buffer, numbers, percent-decoding, checksums.
#pragma once

#include <charconv>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace penstock::mock {

inline void append_number(std::string& out, std::integral auto number) {
  char digits[24];
  const auto end = std::to_chars(digits, digits + sizeof digits, number).ptr;
  out.append(digits, end);
}

/// Appends text pieces and integers in turn; what the answers are written with.
inline void append_one(std::string& out, std::string_view text) { out += text; }
inline void append_one(std::string& out, std::integral auto number) { append_number(out, number); }
template <class... Parts>
void append(std::string& out, const Parts&... parts) {
  (append_one(out, parts), ...);
}

/// Appends `text` quoted and escaped. Bytes that are not UTF-8 are taken as Latin-1, so the result is always
/// JSON.
void append_json_string(std::string& out, std::string_view text);

[[nodiscard]] bool is_utf8(std::string_view text);
[[nodiscard]] std::string base64(std::string_view bytes);
/// CRC-32 as in zlib, for tests that compare large bodies.
[[nodiscard]] std::uint32_t crc32(std::string_view bytes);
/// `%41+b` -> `A b`; a broken escape is left as it stands.
[[nodiscard]] std::string percent_decode(std::string_view text);
[[nodiscard]] bool equals_ignoring_case(std::string_view a, std::string_view lower_case);
[[nodiscard]] std::string_view trim(std::string_view text);
[[nodiscard]] std::optional<std::int64_t> to_int(std::string_view text);
[[nodiscard]] std::optional<double> to_double(std::string_view text);
/// The raw (still encoded) value of `key` in a query string.
[[nodiscard]] std::optional<std::string_view> query_value(std::string_view query, std::string_view key);

/// Takes the part up to `separator` off the front of `rest`.
[[nodiscard]] std::string_view take_until(std::string_view& rest, char separator);

/// What the model "says": `count` words from the word `first` on; one word is one token. All but word 0 begin
/// with their space, so that consecutive slices join to the whole.
[[nodiscard]] std::string_view words(std::size_t first, std::size_t count);

}  // namespace penstock::mock
