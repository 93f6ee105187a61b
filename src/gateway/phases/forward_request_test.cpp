#include "gateway/phases/forward_request.hpp"

#include <sodium.h>

#include "gateway/testing.hpp"

namespace penstock::gateway {
namespace {

using testing::Gateway;
using ::testing::HasSubstr;
using ::testing::Not;
using ::testing::StartsWith;

constexpr std::string_view kConfig = R"(
anonymous: true
providers:
  bare: {base_url: "https://api.example.com:8443/base"}
  header: {base_url: https://api.example.com, credential: {value: sk-ours}}
  own: {base_url: https://api.example.com, credential: {header: x-api-key, value: sk-ours}}
  query: {base_url: "http://api.example.com", allow_private: true, credential: {query: key, value: sk-ours}}
  priced:
    base_url: https://api.example.com
    api: openai
    prices: {models: {m: {input_usd_per_million: 1, output_usd_per_million: 1}}}
)";

class ForwardRequestTest : public ::testing::Test {
 protected:
  Gateway gateway_{kConfig};

  /// The head that goes to `provider` for this request (a path from /p/ on).
  std::string sent(const std::string& provider, const std::string& target, const std::string& fields = {},
                   std::optional<std::size_t> body_size = 0, const std::string& method = "GET") {
    Call& call = gateway_.call(method + " /p/" + provider + target + " HTTP/1.1\nHost: gateway\n" + fields);
    EXPECT_EQ(authenticate(call), Step::next);
    EXPECT_EQ(match_route(call), Step::next);
    Attempt attempt;
    attempt.provider = call.targets.front();
    attempt.endpoint = &attempt.provider->endpoint_of(method, call.path);
    std::string out;
    build_request_head(call, attempt, body_size, out);
    return out;
  }
  void know(std::string_view text) {
    store::KeyHash hash;
    crypto_hash_sha256(hash.data(), reinterpret_cast<const unsigned char*>(text.data()), text.size());
    gateway_.directory->keys[hash] = std::make_shared<const store::KeyEntry>();
  }
};

TEST_F(ForwardRequestTest, TheTargetGoesOnUnderTheBaseUrl) {
  EXPECT_THAT(sent("bare", "/v1/x%20y?a=1&b=%2F"),
              StartsWith("GET /base/v1/x%20y?a=1&b=%2F HTTP/1.1\r\nHost: api.example.com:8443\r\n"));
  EXPECT_THAT(sent("header", "/v1?"), StartsWith("GET /v1? HTTP/1.1\r\nHost: api.example.com\r\n"));
  EXPECT_THAT(sent("header", ""), StartsWith("GET / HTTP/1.1\r\n"));
}

TEST_F(ForwardRequestTest, OrdinaryFieldsGoOnAsTheyAre) {
  const std::string head = sent(
      "header", "/x", "Accept: text/html\nX-Custom: a, b\nX-Custom: c\nUser-Agent: u\nAccept-Encoding: br\n");
  for (const char* field :
       {"\r\nAccept: text/html\r\n", "\r\nX-Custom: a, b\r\nX-Custom: c\r\n", "\r\nUser-Agent: u\r\n",
        "\r\nAccept-Encoding: br\r\n", "\r\nVia: 1.1 penstock\r\n"})
    EXPECT_THAT(head, HasSubstr(field));
  EXPECT_TRUE(head.ends_with("\r\n\r\n"));
  EXPECT_EQ(head.find("\r\n\r\n"), head.size() - 4);
}

TEST_F(ForwardRequestTest, WhatEndsHereStaysHere) {
  const std::string head = sent(
      "bare", "/x",
      "Connection: keep-alive, X-Hop\nX-Hop: canary\nKeep-Alive: canary\nProxy-Connection: canary\n"
      "Proxy-Authorization: canary\nUpgrade: canary\nForwarded: for=canary\nX-Forwarded-For: 192.0.2.77\n"
      "Penstock-Lane: batch\nPenstock-Wait: 1s\nPenstock-Cache: bypass\nPenstock-Tag: canary\n");
  EXPECT_THAT(head, Not(HasSubstr("canary")));
  EXPECT_THAT(head, Not(HasSubstr("192.0.2.77")));
  EXPECT_THAT(head, Not(HasSubstr("enstock-")));
  EXPECT_THAT(head, Not(HasSubstr("gateway")));  // the caller's Host
}

TEST_F(ForwardRequestTest, OurCredentialTakesTheCallersPlace) {
  const std::string callers =
      "Authorization: Bearer own-canary\nX-Api-Key: own-canary\nX-Goog-Api-Key: own-canary\nCookie: "
      "own-canary\n";
  const std::string in_header = sent("header", "/x", callers);
  EXPECT_THAT(in_header, HasSubstr("\r\nAuthorization: Bearer sk-ours\r\n"));
  EXPECT_THAT(in_header, Not(HasSubstr("canary")));
  const std::string in_own = sent("own", "/x", callers);
  EXPECT_THAT(in_own, HasSubstr("\r\nx-api-key: sk-ours\r\n"));
  EXPECT_THAT(in_own, Not(HasSubstr("canary")));
  EXPECT_THAT(sent("query", "/x", callers), StartsWith("GET /x?key=sk-ours HTTP/1.1\r\n"));
  EXPECT_THAT(sent("query", "/x?a=1", callers), StartsWith("GET /x?a=1&key=sk-ours HTTP/1.1\r\n"));
  // A provider may take the first of two.
  EXPECT_THAT(sent("query", "/x?key=theirs&a=1&keys=2&key", callers),
              StartsWith("GET /x?a=1&keys=2&key=sk-ours HTTP/1.1\r\n"));
  EXPECT_THAT(sent("query", "/x", callers), Not(HasSubstr("canary")));
}

// Where the operator has put none, the caller's own is what the provider gets.
TEST_F(ForwardRequestTest, WithoutOneOfOursTheCallersOwnCredentialGoesOn) {
  const std::string head = sent("bare", "/x", "Authorization: Bearer own\nCookie: c=1\n");
  EXPECT_THAT(head, HasSubstr("\r\nAuthorization: Bearer own\r\n"));
  EXPECT_THAT(head, HasSubstr("\r\nCookie: c=1\r\n"));
}

TEST_F(ForwardRequestTest, TheConsumersKeyNeverLeaves) {
  know("pk_canary");
  for (const char* provider : {"bare", "header", "own", "query", "priced"})
    for (const std::string field :
         {"Authorization: Bearer pk_canary\n", "authorization: BEARER   pk_canary\n",
          "X-Penstock-Key: pk_canary\n", "X-Api-Key: pk_canary\n", "x-goog-api-key: pk_canary\n"}) {
      EXPECT_THAT(sent(provider, "/x", field), Not(HasSubstr("canary"))) << provider << ": " << field;
      // Beside another key, whichever of them is taken.
      EXPECT_THAT(sent(provider, "/x", "X-Penstock-Key: pk_canary\n" + field), Not(HasSubstr("canary")))
          << provider << field;
      EXPECT_THAT(sent(provider, "/x", "Authorization: Bearer pk_canary\n" + field), Not(HasSubstr("canary")))
          << provider << field;
    }
}

TEST_F(ForwardRequestTest, AnswersThatAreReadMustNotComeCompressed) {
  const std::string head = sent("priced", "/v1/chat/completions", "Accept-Encoding: gzip, br\n", 2, "POST");
  EXPECT_THAT(head, HasSubstr("\r\nAccept-Encoding: identity\r\n"));
  EXPECT_THAT(head, Not(HasSubstr("gzip")));
}

TEST_F(ForwardRequestTest, TheBodyIsFramedAnew) {
  EXPECT_THAT(sent("bare", "/x"), Not(HasSubstr("Content-Length")));
  EXPECT_THAT(sent("bare", "/x"), Not(HasSubstr("Transfer-Encoding")));
  EXPECT_THAT(sent("bare", "/x", "Content-Length: 0\n", 0, "POST"), Not(HasSubstr("Transfer-Encoding")));
  // Changed on its way: the length is that of what goes out.
  const std::string whole = sent("bare", "/x", "Content-Length: 7\n", 31, "POST");
  EXPECT_THAT(whole, HasSubstr("\r\nContent-Length: 31\r\n"));
  EXPECT_THAT(whole, Not(HasSubstr("Content-Length: 7")));
  EXPECT_THAT(sent("bare", "/x", "Transfer-Encoding: chunked\n", 31, "POST"),
              HasSubstr("\r\nContent-Length: 31\r\n"));
  EXPECT_THAT(sent("bare", "/x", "Transfer-Encoding: chunked\n", 31, "POST"), Not(HasSubstr("chunked")));
  // Streamed: as the caller framed it.
  EXPECT_THAT(sent("bare", "/x", "Content-Length: 700000\n", std::nullopt, "POST"),
              HasSubstr("\r\nContent-Length: 700000\r\n"));
  EXPECT_THAT(sent("bare", "/x", "Transfer-Encoding: chunked\n", std::nullopt, "POST"),
              HasSubstr("\r\nTransfer-Encoding: chunked\r\n"));
  EXPECT_THAT(sent("bare", "/x", "Expect: 100-continue\nContent-Length: 7\n", 7, "POST"),
              Not(HasSubstr("Expect")));
}

TEST_F(ForwardRequestTest, TrailersAreAskedForOnlyIfTheCallerTakesThem) {
  EXPECT_THAT(sent("bare", "/x", "TE: trailers\nConnection: TE\n"),
              HasSubstr("TE: trailers\r\nConnection: TE\r\n"));
  EXPECT_THAT(sent("bare", "/x"), Not(HasSubstr("TE:")));
}

}  // namespace
}  // namespace penstock::gateway
