#include <sodium.h>

#include "gateway/testing.hpp"

namespace penstock::gateway {
namespace {

using testing::Gateway;

constexpr WallTime kNow{std::chrono::hours{500'000}};  // when calls of these tests arrive

class AuthenticateTest : public ::testing::Test {
 protected:
  Gateway closed_{"providers: {p: {base_url: \"http://api.example.com\", allow_private: true}}\n"};
  Gateway open_{
      "anonymous: true\nproviders: {p: {base_url: \"http://api.example.com\", allow_private: true}}\n"};

  void SetUp() override {
    for (Gateway* gateway : {&closed_, &open_}) {
      add(*gateway, "pk_good", {});
      store::KeyEntry entry;
      entry.revoked = true;
      add(*gateway, "pk_revoked", entry);
      entry.revoked = false;
      entry.expires = kNow;
      add(*gateway, "pk_expired", entry);
      entry.expires = kNow + nanoseconds{1};
      add(*gateway, "pk_lasting", entry);
    }
  }
  static void add(Gateway& gateway, std::string_view text, store::KeyEntry entry) {
    store::KeyHash hash;
    crypto_hash_sha256(hash.data(), reinterpret_cast<const unsigned char*>(text.data()), text.size());
    entry.key = Name(text);
    gateway.directory->keys[hash] = std::make_shared<const store::KeyEntry>(entry);
  }
  /// The key's name, "anonymous", or the status of the refusal.
  static std::string who(Gateway& gateway, const std::string& fields) {
    Call& call = gateway.call("GET /p/p/x HTTP/1.1\nHost: x\n" + fields);
    const Step step = authenticate(call);
    if (step == Step::refuse) return testing::outcome(step, call);
    return call.key ? std::string(call.key->key.view()) : "anonymous";
  }
};

TEST_F(AuthenticateTest, TakesTheKeyFromAnyOfItsFields) {
  for (const char* field : {"Authorization: Bearer pk_good", "authorization: bearer   pk_good",
                            "X-Penstock-Key: pk_good", "x-api-key: pk_good", "X-Goog-Api-Key: pk_good"})
    EXPECT_EQ(who(closed_, std::string(field) + "\n"), "pk_good") << field;
}

TEST_F(AuthenticateTest, WhatIsNoKeyOfOursIsNone) {
  for (const char* field :
       {"Authorization: Bearer sk-own", "Authorization: Basic pk_good", "Authorization: pk_good",
        "X-Penstock-Key: PK_good", "X-Other: pk_good", "Cookie: pk_good"}) {
    EXPECT_EQ(who(closed_, std::string(field) + "\n"), "401") << field;
    EXPECT_EQ(who(open_, std::string(field) + "\n"), "anonymous") << field;
  }
}

// Where strangers may call, a key that is not good is still a mistake that its owner must hear of.
TEST_F(AuthenticateTest, KeysThatAreNotUsableAreRefusedAlike) {
  std::string message;
  for (const std::string key : {"pk_unknown", "pk_revoked", "pk_expired", "pk_"})
    for (Gateway* gateway : {&closed_, &open_}) {
      Call& call = gateway->call("GET /p/p/x HTTP/1.1\nHost: x\nX-Penstock-Key: " + key + "\n");
      EXPECT_EQ(authenticate(call), Step::refuse) << key;
      if (message.empty()) message = call.refusal->message;
      EXPECT_EQ(call.refusal->message, message);  // nobody learns which keys exist
      EXPECT_EQ(call.refusal->detail.find(key), std::string::npos);
    }
  EXPECT_EQ(who(closed_, "X-Penstock-Key: pk_lasting\n"), "pk_lasting");
  EXPECT_EQ(who(closed_, "X-Penstock-Key: pk_" + std::string(300, 'x') + "\n"), "401");
}

TEST_F(AuthenticateTest, OurOwnFieldWinsSoThatTheOthersCanBeTheCallers) {
  EXPECT_EQ(who(closed_, "Authorization: Bearer pk_revoked\nX-Penstock-Key: pk_good\n"), "pk_good");
  EXPECT_EQ(who(closed_, "X-Penstock-Key: pk_good\nAuthorization: Bearer pk_revoked\n"), "pk_good");
  EXPECT_EQ(who(closed_, "Authorization: Bearer sk-own\nX-Api-Key: pk_good\n"), "pk_good");
}

}  // namespace
}  // namespace penstock::gateway
