#include "config/key.hpp"

#include <stdexcept>

#include <sodium.h>

namespace penstock::config {

namespace {

constexpr std::string_view kHashPrefix = "sha256:";
constexpr std::size_t kKeyBytes = 32;

int hex_value(char c) noexcept {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  return -1;
}

}  // namespace

std::string make_key() {
  if (sodium_init() < 0) throw std::runtime_error("libsodium cannot start");
  std::array<std::uint8_t, kKeyBytes> random{};
  randombytes_buf(random.data(), random.size());
  constexpr int kVariant = sodium_base64_VARIANT_URLSAFE_NO_PADDING;
  std::array<char, sodium_base64_ENCODED_LEN(kKeyBytes, sodium_base64_VARIANT_URLSAFE_NO_PADDING)> text{};
  sodium_bin2base64(text.data(), text.size(), random.data(), random.size(), kVariant);
  sodium_memzero(random.data(), random.size());
  return std::string("pk_") + text.data();
}

KeyHash hash_key(std::string_view key) noexcept {
  static_assert(crypto_hash_sha256_BYTES == std::tuple_size_v<KeyHash>);
  KeyHash hash{};
  crypto_hash_sha256(hash.data(), reinterpret_cast<const unsigned char*>(key.data()), key.size());
  return hash;
}

std::string format_hash(const KeyHash& hash) {
  constexpr std::string_view kDigits = "0123456789abcdef";
  std::string text(kHashPrefix);
  for (const std::uint8_t byte : hash) {
    text += kDigits[byte >> 4U];
    text += kDigits[byte & 0x0FU];
  }
  return text;
}

std::optional<KeyHash> parse_hash(std::string_view text) noexcept {
  KeyHash hash{};
  if (!text.starts_with(kHashPrefix) || text.size() != kHashPrefix.size() + 2 * hash.size())
    return std::nullopt;
  text.remove_prefix(kHashPrefix.size());
  for (std::size_t i = 0; i < hash.size(); ++i) {
    const int high = hex_value(text[2 * i]);
    const int low = hex_value(text[2 * i + 1]);
    if (high < 0 || low < 0) return std::nullopt;
    hash[i] = static_cast<std::uint8_t>(high * 16 + low);
  }
  return hash;
}

}  // namespace penstock::config
