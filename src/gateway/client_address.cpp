#include "gateway/client_address.hpp"

#include <boost/asio/ip/address.hpp>

namespace penstock::gateway {
namespace {

std::string_view trim(std::string_view text) {
  while (text.starts_with(' ') || text.starts_with('\t')) text.remove_prefix(1);
  while (text.ends_with(' ') || text.ends_with('\t')) text.remove_suffix(1);
  return text;
}

}  // namespace

bool is_in(std::string_view address, const std::vector<config::Network>& networks) {
  boost::system::error_code error;
  const auto parsed = boost::asio::ip::make_address(address, error);
  if (error) return false;
  const auto bytes =
      parsed.is_v4() ? boost::asio::ip::make_address_v6(boost::asio::ip::v4_mapped, parsed.to_v4()).to_bytes()
                     : parsed.to_v6().to_bytes();
  for (const config::Network& network : networks) {
    bool same = true;
    for (int bit = 0; same && bit < network.prefix_length; bit += 8) {
      const int left = std::min(8, network.prefix_length - bit);
      const auto mask = static_cast<std::uint8_t>(0xFF << (8 - left));
      const auto i = static_cast<std::size_t>(bit / 8);
      same = ((bytes[i] ^ network.address[i]) & mask) == 0;
    }
    if (same) return true;
  }
  return false;
}

std::string_view client_address(std::string_view peer, const http::FieldList& fields,
                                const std::vector<config::Network>& trusted_proxies) {
  if (trusted_proxies.empty() || !is_in(peer, trusted_proxies)) return peer;
  // Fields in the order of the hops: read from the end, past our own proxies.
  std::string_view address = peer;
  for (auto field = fields.rbegin(); field != fields.rend(); ++field) {
    if (field->id != http::FieldId::x_forwarded_for) continue;
    std::string_view list = field->value;
    while (!list.empty()) {
      const std::size_t comma = list.rfind(',');
      const std::string_view hop = trim(comma == std::string_view::npos ? list : list.substr(comma + 1));
      list = comma == std::string_view::npos ? std::string_view{} : list.substr(0, comma);
      boost::system::error_code error;
      boost::asio::ip::make_address(hop, error);
      if (error) return address;  // what stands further left is hearsay
      address = hop;
      if (!is_in(hop, trusted_proxies)) return address;
    }
  }
  return address;
}

}  // namespace penstock::gateway
