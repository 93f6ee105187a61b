#include "http/address.hpp"

#include <array>

namespace penstock::http {
namespace {

struct Block4 {
  std::uint32_t network;
  int length;
};

constexpr std::array kNotPublic4{
    Block4{0x00000000, 8},   // "this network"
    Block4{0x0A000000, 8},   // private
    Block4{0x64400000, 10},  // carrier-grade NAT
    Block4{0x7F000000, 8},   // loopback
    Block4{0xA9FE0000, 16},  // link-local, cloud metadata
    Block4{0xAC100000, 12},  // private
    Block4{0xC0000000, 24},  // IETF protocol assignments
    Block4{0xC0000200, 24},  // documentation
    Block4{0xC0586300, 24},  // 6to4 relay anycast
    Block4{0xC0A80000, 16},  // private
    Block4{0xC6120000, 15},  // benchmarking
    Block4{0xC6336400, 24},  // documentation
    Block4{0xCB007100, 24},  // documentation
    Block4{0xE0000000, 4},   // multicast
    Block4{0xF0000000, 4},   // reserved, broadcast
};

bool is_public4(std::uint32_t address) noexcept {
  for (const Block4 block : kNotPublic4)
    if (((address ^ block.network) >> (32 - block.length)) == 0) return false;
  return true;
}

}  // namespace

bool is_public(const boost::asio::ip::address& address) noexcept {
  if (address.is_v4()) return is_public4(address.to_v4().to_uint());
  const auto bytes = address.to_v6().to_bytes();
  // Only 2000::/3 is global unicast; the rest (loopback, mapped, NAT64, ULA, link-local, multicast) is not.
  if ((bytes[0] & 0xE0) != 0x20) return false;
  const auto starts_with = [&](std::initializer_list<std::uint8_t> prefix) {
    return std::equal(prefix.begin(), prefix.end(), bytes.begin());
  };
  if (starts_with({0x20, 0x01, 0x00}) || starts_with({0x20, 0x01, 0x01}))
    return false;                                                         // 2001::/23: Teredo and others
  if (starts_with({0x20, 0x01, 0x0D, 0xB8})) return false;                // documentation
  if (starts_with({0x3F, 0xFF}) && (bytes[2] & 0xF0) == 0) return false;  // documentation
  return !starts_with({0x20, 0x02});                                      // 6to4
}

}  // namespace penstock::http
