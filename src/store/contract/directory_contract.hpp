#pragma once

#include <functional>
#include <memory>
#include <utility>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "store/directory.hpp"

/// What every backend of Directory must do.
namespace penstock::store::contract {

struct DirectoryBackend {
  std::string name;
  std::function<std::unique_ptr<Directory>(std::vector<std::pair<KeyHash, KeyEntry>>)> make;
};
inline void PrintTo(const DirectoryBackend& backend, std::ostream* out) { *out << backend.name; }

class DirectoryContract : public testing::TestWithParam<DirectoryBackend> {
 protected:
  static KeyHash hash(std::uint8_t first, std::uint8_t last = 0) {
    KeyHash made{};
    made.front() = first;
    made.back() = last;
    return made;
  }
  static KeyEntry entry(std::string name) {
    KeyEntry made;
    made.key = Name(name);
    return made;
  }
};
GTEST_ALLOW_UNINSTANTIATED_PARAMETERIZED_TEST(DirectoryContract);

TEST_P(DirectoryContract, FindsAKeyByItsWholeHash) {
  // The second differs from the first in its last byte only.
  const auto directory = GetParam().make({{hash(1), entry("a")}, {hash(1, 1), entry("b")}});
  ASSERT_NE(directory->find_key(hash(1)), nullptr);
  EXPECT_EQ(directory->find_key(hash(1))->key.view(), "a");
  ASSERT_NE(directory->find_key(hash(1, 1)), nullptr);
  EXPECT_EQ(directory->find_key(hash(1, 1))->key.view(), "b");
  EXPECT_EQ(directory->find_key(hash(1, 2)), nullptr);
  EXPECT_EQ(directory->find_key(hash(0)), nullptr);
  EXPECT_EQ(GetParam().make({})->find_key(hash(1)), nullptr);
}

// Whether it may be used is for the caller to decide: the reason for a refusal stands in its log.
TEST_P(DirectoryContract, TellsAllThatItKnowsOfAKeyRevokedOrNot) {
  KeyEntry made = entry("a");
  made.consumer = Name("app");
  made.team = Name("search");
  made.expires = WallTime{std::chrono::hours{1}};
  made.revoked = true;
  made.allow = {"provider:p", "route:r"};
  made.caller = 42;
  made.subjects = {3, 1, 2};
  const auto directory = GetParam().make({{hash(1), made}});
  const auto found = directory->find_key(hash(1));
  ASSERT_NE(found, nullptr);
  EXPECT_EQ(std::tie(found->key, found->consumer, found->team, found->expires, found->revoked, found->caller),
            std::tie(made.key, made.consumer, made.team, made.expires, made.revoked, made.caller));
  EXPECT_EQ(found->allow, made.allow);
  EXPECT_EQ(found->subjects, made.subjects);
}

// A call keeps the entry that it began with while a reload replaces the directory.
TEST_P(DirectoryContract, AnEntryOutlivesItsDirectory) {
  auto directory = GetParam().make({{hash(1), entry("a")}});
  const auto found = directory->find_key(hash(1));
  directory.reset();
  EXPECT_EQ(found->key.view(), "a");
}

}  // namespace penstock::store::contract
