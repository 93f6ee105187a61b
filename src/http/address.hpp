#pragma once

#include <boost/asio/ip/address.hpp>

namespace penstock::http {

/// Whether an address is a public unicast one, where a provider may live without `allow_private`. Loopback,
/// private (RFC 1918, ULA), link-local (cloud metadata included), carrier-grade NAT, documentation,
/// benchmark, multicast and reserved blocks are not; nor are IPv6 forms that embed IPv4 (mapped, NAT64, 6to4,
/// Teredo). Source: the IANA special-purpose address registries.
[[nodiscard]] bool is_public(const boost::asio::ip::address& address) noexcept;

}  // namespace penstock::http
