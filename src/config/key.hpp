#pragma once

#include <array>
#include <cstdint>
#include <expected>
#include <optional>
#include <string>
#include <string_view>

/// Consumers' keys: made here, handed out once, and kept only as a hash. A key has 256 random bits, so that a
/// plain SHA-256 is enough: there is nothing to guess, and a hash costs little on every call.
namespace penstock::config {

using KeyHash = std::array<std::uint8_t, 32>;

/// "pk_" and 43 characters of base64url from 32 random bytes.
[[nodiscard]] std::string make_key();
/// SHA-256 of the whole text.
[[nodiscard]] KeyHash hash_key(std::string_view key) noexcept;
/// "sha256:" and 64 hexadecimal digits, as in the configuration.
[[nodiscard]] std::string format_hash(const KeyHash& hash);
[[nodiscard]] std::optional<KeyHash> parse_hash(std::string_view text) noexcept;

}  // namespace penstock::config
