#pragma once

#include <memory>
#include <string>

#include <boost/asio/ssl/context.hpp>

#include "base/result.hpp"

namespace penstock::http {

/// For connections to providers: TLS 1.2 or later, the peer verified against `ca_file` (empty: the system's).
/// Errors name the file.
[[nodiscard]] Result<std::shared_ptr<boost::asio::ssl::context>> make_client_tls(const std::string& ca_file);

/// For the listener: a PEM chain and its key. Errors name the file.
[[nodiscard]] Result<std::shared_ptr<boost::asio::ssl::context>> make_server_tls(
    const std::string& certificate_file, const std::string& key_file);

}  // namespace penstock::http
