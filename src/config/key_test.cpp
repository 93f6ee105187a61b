#include "config/key.hpp"

#include <set>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace penstock::config {
namespace {

TEST(Key, IsPrefixAnd43CharactersOfBase64Url) {
  std::set<std::string> seen;
  for (int i = 0; i < 200; ++i) {
    const std::string key = make_key();
    EXPECT_THAT(key, ::testing::MatchesRegex("pk_[A-Za-z0-9_-]{43}"));
    EXPECT_TRUE(seen.insert(key).second) << "the same key twice";
  }
}

// FIPS 180-2, appendix B.1.
TEST(Key, HashIsSha256OfTheWholeText) {
  EXPECT_EQ(format_hash(hash_key("abc")),
            "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  EXPECT_NE(hash_key("pk_a"), hash_key("a"));
}

TEST(Key, HashSurvivesItsText) {
  const KeyHash hash = hash_key(make_key());
  EXPECT_EQ(parse_hash(format_hash(hash)), hash);
}

TEST(Key, HashTextIsStrict) {
  const std::string digits(64, 'a');
  EXPECT_TRUE(parse_hash("sha256:" + digits));
  EXPECT_TRUE(parse_hash("sha256:" + std::string(64, 'A')));
  for (const std::string& text :
       {digits, "sha256:" + digits.substr(1), "sha256:" + digits + "a", "sha1:" + digits,
        "sha256:" + std::string(64, 'g'), "SHA256:" + digits, std::string()}) {
    EXPECT_FALSE(parse_hash(text)) << text;
  }
}

}  // namespace
}  // namespace penstock::config
