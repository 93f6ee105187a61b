#include "gateway/client_address.hpp"

#include <gtest/gtest.h>

#include "gateway/testing.hpp"

namespace penstock::gateway {
namespace {

/// The networks of a file's `trusted_proxies`, so that the test reads them as an operator writes them.
std::vector<config::Network> networks(const std::string& list) {
  return testing::config_of("providers: {p: {base_url: https://api.example.com}}\ntrusted_proxies: [" + list +
                            "]\n")
      .trusted_proxies;
}

std::string address(std::string_view peer, std::vector<std::string_view> forwarded,
                    const std::string& trusted) {
  http::FieldList fields;
  fields.push_back({"Host", "x", http::FieldId::host, false});
  for (const std::string_view value : forwarded)
    fields.push_back({"X-Forwarded-For", value, http::FieldId::x_forwarded_for, false});
  return std::string(client_address(peer, fields, networks(trusted)));
}

TEST(ClientAddressTest, IsThePeersWhereNobodyIsTrusted) {
  EXPECT_EQ(address("203.0.113.9", {"198.51.100.1"}, ""), "203.0.113.9");
  EXPECT_EQ(address("203.0.113.9", {}, "10.0.0.0/8"), "203.0.113.9");
}

// Anybody can send the field; only what our own proxies add to it counts.
TEST(ClientAddressTest, AStrangersFieldIsIgnored) {
  EXPECT_EQ(address("203.0.113.9", {"10.0.0.1"}, "10.0.0.0/8"), "203.0.113.9");
  EXPECT_EQ(address("203.0.113.9", {"198.51.100.1, 10.0.0.1"}, "10.0.0.0/8"), "203.0.113.9");
}

TEST(ClientAddressTest, ATrustedProxyTellsItsClient) {
  EXPECT_EQ(address("10.0.0.1", {"198.51.100.1"}, "10.0.0.0/8"), "198.51.100.1");
  EXPECT_EQ(address("10.0.0.1", {" 198.51.100.1\t"}, "10.0.0.0/8"), "198.51.100.1");
  EXPECT_EQ(address("10.0.0.1", {}, "10.0.0.0/8"), "10.0.0.1");
}

// What the client itself put there stands further left than what a trusted proxy saw.
TEST(ClientAddressTest, AForgedEntryStandsLeftAndIsNotReached) {
  EXPECT_EQ(address("10.0.0.1", {"1.2.3.4, 198.51.100.1"}, "10.0.0.0/8"), "198.51.100.1");
  EXPECT_EQ(address("10.0.0.1", {"1.2.3.4, 198.51.100.1, 10.9.9.9"}, "10.0.0.0/8"), "198.51.100.1");
  EXPECT_EQ(address("10.0.0.1", {"1.2.3.4", "198.51.100.1", "10.9.9.9, 10.8.8.8"}, "10.0.0.0/8"),
            "198.51.100.1");
  // Even one that looks like a proxy of ours.
  EXPECT_EQ(address("10.0.0.1", {"10.7.7.7, 198.51.100.1"}, "10.0.0.0/8"), "198.51.100.1");
}

TEST(ClientAddressTest, WhatIsNoAddressEndsTheSearch) {
  EXPECT_EQ(address("10.0.0.1", {"unknown"}, "10.0.0.0/8"), "10.0.0.1");
  EXPECT_EQ(address("10.0.0.1", {"198.51.100.1, evil, 10.9.9.9"}, "10.0.0.0/8"), "10.9.9.9");
  EXPECT_EQ(address("10.0.0.1", {"198.51.100.1,"}, "10.0.0.0/8"), "10.0.0.1");
  EXPECT_EQ(address("10.0.0.1", {","}, "10.0.0.0/8"), "10.0.0.1");
}

TEST(ClientAddressTest, AllOfOursGivesTheFarthest) {
  EXPECT_EQ(address("10.0.0.1", {"10.0.0.3, 10.0.0.2"}, "10.0.0.0/8"), "10.0.0.3");
}

TEST(ClientAddressTest, NetworksOfBothFamiliesMatchByPrefix) {
  const auto v4 = networks("\"10.1.2.0/23\"");
  EXPECT_TRUE(is_in("10.1.2.0", v4));
  EXPECT_TRUE(is_in("10.1.3.255", v4));
  EXPECT_FALSE(is_in("10.1.4.0", v4));
  EXPECT_FALSE(is_in("10.1.1.255", v4));
  EXPECT_TRUE(is_in("::ffff:10.1.2.7", v4));  // how a socket of both families names it
  EXPECT_FALSE(is_in("::10.1.2.7", v4));
  const auto v6 = networks("\"2001:db8::/33\", \"::1\"");
  EXPECT_TRUE(is_in("2001:db8:7fff::1", v6));
  EXPECT_FALSE(is_in("2001:db8:8000::1", v6));
  EXPECT_TRUE(is_in("::1", v6));
  EXPECT_FALSE(is_in("127.0.0.1", v6));
  EXPECT_FALSE(is_in("not an address", v6));
  EXPECT_FALSE(is_in("", v6));
  EXPECT_FALSE(is_in("10.0.0.1", {}));
}

}  // namespace
}  // namespace penstock::gateway
