#pragma once

#include <string_view>
#include <vector>

#include "config/config.hpp"
#include "http/message.hpp"

namespace penstock::gateway {

/// The caller's address: the peer's, or, where the peer is a trusted proxy, the last address in
/// X-Forwarded-For that is not one. Never from strangers. The result views `peer` or the field.
[[nodiscard]] std::string_view client_address(std::string_view peer, const http::FieldList& fields,
                                              const std::vector<config::Network>& trusted_proxies);

/// Whether `address` (text) lies in one of the networks.
[[nodiscard]] bool is_in(std::string_view address, const std::vector<config::Network>& networks);

}  // namespace penstock::gateway
