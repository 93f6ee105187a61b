#include "store/journal/crc32c.hpp"

#include <gtest/gtest.h>

#include "policy/property_testing.hpp"

namespace penstock::store {
namespace {

std::vector<std::byte> bytes_of(std::string_view text) {
  std::vector<std::byte> bytes(text.size());
  std::memcpy(bytes.data(), text.data(), text.size());
  return bytes;
}

// RFC 3720, appendix B.4, and the check value of every catalogue of CRCs.
TEST(Crc32cTest, GivesThePublishedSums) {
  std::vector<std::byte> rising(32);
  for (std::size_t i = 0; i < rising.size(); ++i) rising[i] = static_cast<std::byte>(i);
  const std::vector<std::byte> falling(rising.rbegin(), rising.rend());
  for (const auto sum : {&crc32c, &crc32c_by_table}) {
    EXPECT_EQ(sum(bytes_of("123456789"), 0), 0xE3069283U);
    EXPECT_EQ(sum(std::vector<std::byte>(32, std::byte{0}), 0), 0x8A9136AAU);
    EXPECT_EQ(sum(std::vector<std::byte>(32, std::byte{0xFF}), 0), 0x62A8AB43U);
    EXPECT_EQ(sum(rising, 0), 0x46DD794EU);
    EXPECT_EQ(sum(falling, 0), 0x113FDB5CU);
    EXPECT_EQ(sum({}, 0), 0U);
  }
}

// The instruction takes eight bytes at once: every length and every split must agree with the table.
TEST(Crc32cTest, PartsAndWaysAgree) {
  policy::for_each_seed(3, [](policy::Random& random) {
    std::vector<std::byte> bytes(static_cast<std::size_t>(random.between(0, 200)));
    for (std::byte& byte : bytes) byte = static_cast<std::byte>(random.between(0, 255));
    const std::span<const std::byte> all(bytes);
    const std::uint32_t whole = crc32c_by_table(all);
    for (std::size_t split = 0; split <= bytes.size(); ++split)
      EXPECT_EQ(crc32c(all.subspan(split), crc32c(all.first(split))), whole) << split;
  });
}

}  // namespace
}  // namespace penstock::store
