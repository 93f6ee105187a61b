#pragma once

#include <cstdint>
#include <expected>
#include <string>
#include <string_view>

namespace penstock::store {

/// Where a server is and who we are to it.
struct RedisUrl {
  bool tls = false;
  std::string user;      ///< empty: the default user
  std::string password;  ///< empty: none. A secret
  std::string host = "127.0.0.1";
  std::uint16_t port = 6380;
  std::uint32_t database = 1;
};

/// `redis://[[user]:password@]host[:port][/db]`; rediss:// for TLS. User and password may be percent-encoded.
/// Errors: a sentence that says what was expected and shows nothing of the text, which may hold a password.
[[nodiscard]] std::expected<RedisUrl, std::string> parse_redis_url(std::string_view text);

/// For people and logs: without user and password.
[[nodiscard]] std::string to_string(const RedisUrl& url);

}  // namespace penstock::store
