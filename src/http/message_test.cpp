#include "http/message.hpp"

#include <string>
#include <vector>

#include <gtest/gtest.h>

namespace penstock::http {
namespace {

constexpr std::size_t kMaxHead = 64 * 1024;

ParseResult parse(std::string_view text, RequestHead& head) {
  return parse_request_head(text, kMaxHead, head);
}

/// 0 for a request that is taken, else the status it is refused with; -1: wants more bytes.
int refusal(std::string_view text) {
  RequestHead head;
  const ParseResult result = parse(text, head);
  if (result.state == ParseState::need_more) return -1;
  return result.state == ParseState::done ? 0 : result.error.status;
}

std::string with_line(std::string_view line) {
  return "POST / HTTP/1.1\r\nHost: a\r\n" + std::string(line) + "\r\n\r\n";
}

bool is_response_valid(std::string_view text) {
  ResponseHead head;
  const ParseResult result = parse_response_head(text, kMaxHead, false, head);
  EXPECT_NE(result.state, ParseState::need_more) << text;
  if (result.state == ParseState::failed) {
    EXPECT_EQ(result.error.status, 502);
    EXPECT_FALSE(result.error.what.empty());
  }
  return result.state == ParseState::done;
}

TEST(RequestHead, PartsAreViewsIntoTheBuffer) {
  const std::string text =
      "POST /p/openai/v1/chat?stream=1&a=b HTTP/1.1\r\nHost: gateway:8080\r\nContent-Length: "
      "12\r\nX-Thing:\t a b \t\r\n\r\nrest";
  RequestHead head;
  const ParseResult result = parse(text, head);
  ASSERT_EQ(result.state, ParseState::done) << result.error.what;
  EXPECT_EQ(result.consumed, text.size() - 4);
  EXPECT_EQ(head.method, "POST");
  EXPECT_EQ(head.target, "/p/openai/v1/chat?stream=1&a=b");
  EXPECT_EQ(head.path, "/p/openai/v1/chat");
  EXPECT_EQ(head.query, "stream=1&a=b");
  EXPECT_TRUE(head.has_query);
  EXPECT_EQ(head.minor_version, 1);
  EXPECT_EQ(head.body, BodyKind::length);
  EXPECT_EQ(head.content_length, 12U);
  EXPECT_TRUE(head.keep_alive);
  ASSERT_EQ(head.fields.size(), 3U);
  EXPECT_EQ(find(head.fields, "x-thing")->value, "a b");
  EXPECT_EQ(find(head.fields, FieldId::host)->value, "gateway:8080");
  EXPECT_EQ(find(head.fields, FieldId::cookie), nullptr);
  EXPECT_EQ(find(head.fields, "absent"), nullptr);
}

// The head is parsed from its start again whenever bytes come: no prefix may be refused, and none taken.
TEST(RequestHead, EveryPrefixOfAValidHeadNeedsMore) {
  const std::string text = "\r\nGET /a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nA: \r\n\r\n";
  RequestHead head;
  for (std::size_t size = 0; size < text.size(); ++size) {
    ASSERT_EQ(parse(std::string_view(text).substr(0, size), head).state, ParseState::need_more) << size;
  }
  EXPECT_EQ(parse(text, head).consumed, text.size());
}

TEST(RequestHead, AHeadIsFilledAnewEachTime) {
  RequestHead head;
  ASSERT_EQ(
      parse("POST /a?b HTTP/1.0\r\nExpect: 100-continue\r\nTE: trailers\r\nContent-Length: 3\r\n\r\n", head)
          .state,
      ParseState::done);
  ASSERT_EQ(parse("GET / HTTP/1.1\r\nHost: a\r\n\r\n", head).state, ParseState::done);
  EXPECT_EQ(head.fields.size(), 1U);
  EXPECT_EQ(head.query, "");
  EXPECT_FALSE(head.has_query);
  EXPECT_FALSE(head.accepts_trailers);
  EXPECT_EQ(head.body, BodyKind::none);
  EXPECT_EQ(head.content_length, 0U);
  EXPECT_EQ(head.minor_version, 1);
  EXPECT_TRUE(head.keep_alive);
}

TEST(RequestHead, AtMostOneEmptyLineMayComeFirst) {
  EXPECT_EQ(refusal("\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n"), 0);
  EXPECT_EQ(refusal("\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n"), 400);
  EXPECT_EQ(refusal("\nGET / HTTP/1.1\r\nHost: a\r\n\r\n"), 400);
  EXPECT_EQ(refusal("\rGET / HTTP/1.1\r\nHost: a\r\n\r\n"), 400);
}

TEST(RequestHead, WhatCannotBecomeARequestIsRefusedAtOnce) {
  EXPECT_EQ(refusal("\x16\x03\x01"), 400);  // a TLS client on a plain port
  EXPECT_EQ(refusal("GET / HTTP/1.1\n"), 400);
  EXPECT_EQ(refusal("GET / HTTP/1.1\r\nHost: a\n"), 400);
}

TEST(RequestHead, MethodsAreTokensOfAtMost32Bytes) {
  EXPECT_EQ(refusal("M-SEARCH / HTTP/1.1\r\nHost: a\r\n\r\n"), 0);
  EXPECT_EQ(refusal(std::string(32, 'A') + " / HTTP/1.1\r\nHost: a\r\n\r\n"), 0);
  EXPECT_EQ(refusal(std::string(33, 'A') + " / HTTP/1.1\r\nHost: a\r\n\r\n"), 501);
  for (const char* method : {"G(T", "G\xe9T", "GET\t", "G\tT", "G\x01T", "GET:", "\"GET\""}) {
    EXPECT_EQ(refusal(std::string(method) + " / HTTP/1.1\r\nHost: a\r\n\r\n"), 400) << method;
  }
}

TEST(RequestHead, TheRequestLineHasThreePartsAndSingleSpaces) {
  for (const char* line : {"GET  / HTTP/1.1", "GET /  HTTP/1.1", " GET / HTTP/1.1", "GET / HTTP/1.1 ",
                           "GET /\tHTTP/1.1", "GET /", "GET", "GET / ", "GET HTTP/1.1", "GET / a HTTP/1.1"}) {
    EXPECT_EQ(refusal(std::string(line) + "\r\nHost: a\r\n\r\n"), 400) << line;
  }
}

TEST(RequestHead, OnlyHttp10And11AreSpoken) {
  EXPECT_EQ(refusal("GET / HTTP/1.0\r\n\r\n"), 0);
  for (const char* version : {"HTTP/2.0", "HTTP/1.2", "HTTP/0.9", "HTTP/3.0"}) {
    EXPECT_EQ(refusal("GET / " + std::string(version) + "\r\nHost: a\r\n\r\n"), 505) << version;
  }
  EXPECT_EQ(refusal("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"), 505);
  for (const char* version :
       {"http/1.1", "HTTP/1", "HTTP/1.10", "HTTP/01.1", "HTTP/1,1", "HTTP /1.1", "HTTPS/1.1", "HTTP/1.x"}) {
    EXPECT_EQ(refusal("GET / " + std::string(version) + "\r\nHost: a\r\n\r\n"), 400) << version;
  }
}

struct Target {
  const char* method;
  const char* target;
  const char* path;
  const char* query;
};

TEST(RequestHead, TargetsGivePathAndQuery) {
  for (const Target& t : {Target{"GET", "/", "/", ""}, Target{"GET", "/a%2Fb;c=1?x?y", "/a%2Fb;c=1", "x?y"},
                          Target{"GET", "/a?", "/a", ""}, Target{"GET", "/a|{b}", "/a|{b}", ""},
                          Target{"GET", "http://h:1/a/b?c", "/a/b", "c"}, Target{"GET", "HTTPS://h", "/", ""},
                          Target{"GET", "http://[::1]:80?q", "/", "q"}, Target{"GET", "//h/a", "//h/a", ""},
                          Target{"OPTIONS", "*", "*", ""}, Target{"OPTIONS", "http://h", "*", ""}}) {
    const std::string text = std::string(t.method) + " " + t.target + " HTTP/1.1\r\nHost: a\r\n\r\n";
    RequestHead head;
    ASSERT_EQ(parse(text, head).state, ParseState::done) << t.target;
    EXPECT_EQ(head.target, t.target);
    EXPECT_EQ(head.path, t.path) << t.target;
    EXPECT_EQ(head.query, t.query) << t.target;
    EXPECT_EQ(head.has_query, std::string_view(t.target).find('?') != std::string_view::npos);
  }
}

TEST(RequestHead, OtherTargetsAreRefused) {
  for (const char* target :
       {"*", "a", "a:80", "host/path", "/a#b", "/\xc3\xa9", "/a\x7f", "/a\x01", "/a\tb", "ftp://h/",
        "http://", "http:///a", "http://u@h/", "http://h:x/", "http://h:65536/", "http:/a", "?a", "\\a"}) {
    EXPECT_EQ(refusal("GET " + std::string(target) + " HTTP/1.1\r\nHost: a\r\n\r\n"), 400) << target;
  }
  EXPECT_EQ(refusal("CONNECT a:443 HTTP/1.1\r\nHost: a\r\n\r\n"), 400);
  EXPECT_EQ(refusal("CONNECT / HTTP/1.1\r\nHost: a\r\n\r\n"), 400);
}

TEST(RequestHead, ExactlyOneValidHost) {
  for (const char* host :
       {"a", "a.b-c_d:80", "127.0.0.1:8080", "[::1]", "[::ffff:1.2.3.4]:9", "a:", "%41b"}) {
    EXPECT_EQ(refusal("GET / HTTP/1.1\r\nHost: " + std::string(host) + "\r\n\r\n"), 0) << host;
  }
  for (const char* host : {"", "a,b", "a b", "a/b", "u@a", "a:1:2", "a:x", "a:65536", ":80", "[::1", "[]",
                           "[a]", "[::1]a", "%4", "%zz", "a\xe9", "a\t b", "http://a"}) {
    EXPECT_EQ(refusal("GET / HTTP/1.1\r\nHost: " + std::string(host) + "\r\n\r\n"), 400) << host;
  }
  EXPECT_EQ(refusal("GET / HTTP/1.1\r\n\r\n"), 400);
  EXPECT_EQ(refusal("GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n"), 400);
  EXPECT_EQ(refusal("GET / HTTP/1.0\r\nHost: a\r\nhost: b\r\n\r\n"), 400);
  EXPECT_EQ(refusal("GET / HTTP/1.0\r\n\r\n"), 0);
}

// What http-garden and PortSwigger's papers found servers to disagree on. None of it may get through.
TEST(RequestHead, KnownSmugglingTricksAreRefused) {
  for (const char* line : {"Content-Length: +1",
                           "Content-Length: -1",
                           "Content-Length: 0x1",
                           "Content-Length: 0_2",
                           "Content-Length: 1_0",
                           "Content-Length:",
                           "Content-Length: ",
                           "Content-Length: 1,1",
                           "Content-Length: 1, 1",
                           "Content-Length: 1 1",
                           "Content-Length: 1;a",
                           "Content-Length: 1.0",
                           "Content-Length: 1e2",
                           "Content-Length: \"1\"",
                           "Content-Length: a",
                           "Content-Length: \xb2",
                           "Content-Length: 18446744073709551616",
                           "Content-Length: 18446744073709551615",
                           "Content-Length: 9223372036854775808",
                           "Content-Length: 99999999999999999999999999",
                           "Content-Length: 1\r\nContent-Length: 1",
                           "Content-Length: 1\r\nContent-Length: 2",
                           "Content-Length: 1\r\ncontent-length: 1",
                           "Content-Length : 34",
                           "Content-Length\t: 34",
                           "Content-Length 34",
                           "Content Length: 34",
                           "Content-Length\x0b: 1",
                           "Content-Length: 1\r\nTransfer-Encoding: chunked",
                           "Transfer-Encoding: chunked\r\nContent-Length: 1",
                           "Transfer-Encoding: identity\r\nContent-Length: 1",
                           "Content-Length:\v1",
                           "Content-Length: 1\x0c",
                           "Transfer-Encoding: ,chunked",
                           "Transfer-Encoding: chunked,",
                           "Transfer-Encoding: ",
                           "Transfer-Encoding:",
                           "Transfer-Encoding: ,",
                           "Transfer-Encoding: \240chunked",
                           "Transfer-Encoding: chunked\xa0",
                           "Transfer-Encoding:\vchunked",
                           "Transfer-Encoding: chunked\x0c",
                           "Transfer-Encoding: chunked\x7f",
                           "Transfer-Encoding: \"chunked\"",
                           "Transfer-Encoding: 'chunked'x y",
                           "Transfer-Encoding: chunked;a=b",
                           "Transfer-Encoding: chunked chunked",
                           "Transfer-Encoding: chunked, chunked",
                           "Transfer-Encoding: gzip",
                           "Transfer-Encoding: chunked, gzip",
                           "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
                           "Transfer-Encoding: chunked\r\nTransfer-Encoding: x",
                           "Transfer-Encoding : chunked",
                           "Transfer-Encoding\t:chunked",
                           " Transfer-Encoding: chunked",
                           "\tTransfer-Encoding: chunked",
                           "Transfer-Encoding:\r\n chunked",
                           "X: a\r\n b",
                           "X: a\r\n\tb",
                           "X: a\rb",
                           "X: a\r",
                           "\rX: a",
                           "\rContent-Length: 5",
                           "X: a\rContent-Length: 5",
                           "X\r: a",
                           ": a",
                           "X",
                           "X Y: a",
                           "X(: a",
                           "X@: a",
                           "X\xe9: a",
                           "X\x01: a",
                           "X: \x01",
                           "X: \x7f",
                           "X: a\x08",
                           "\"X\": a",
                           "X/Y: a",
                           "[X]: a"}) {
    EXPECT_EQ(refusal(with_line(line)), 400) << ::testing::PrintToString(line);
  }
  using namespace std::string_literals;
  for (const std::string& line :
       {"X: a\0b"s, "X\0: a"s, "Content-Length: 1\0"s, "Transfer-Encoding: chunked\0"s, "\0: a"s}) {
    EXPECT_EQ(refusal(with_line(line)), 400) << ::testing::PrintToString(line);
  }
  EXPECT_EQ(refusal("GET / HTTP/1.1\r\n Host: a\r\n\r\n"), 400);
  EXPECT_EQ(refusal("GET / HTTP/1.1\r\n\tX: a\r\nHost: a\r\n\r\n"), 400);
  EXPECT_EQ(refusal("GET / HTTP/1.1\r\nHost: a\r\nX: a\n\r\n"), 400);
  EXPECT_EQ(refusal("GET / HTTP/1.1\r\nHost: a\n\nGET /b HTTP/1.1\r\nHost: a\r\n\r\n"), 400);
  EXPECT_EQ(refusal("GET / HTTP/1.1\r\nHost: a\r\r\n\r\n"), 400);
  EXPECT_EQ(refusal("POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n"), 400);
}

TEST(RequestHead, UnknownTransferCodingsAreNotImplemented) {
  for (const char* line :
       {"Transfer-Encoding: xchunked", "Transfer-Encoding: identity", "Transfer-Encoding: gzip, chunked",
        "Transfer-Encoding: x, chunked", "Transfer-Encoding: chunked-x"}) {
    EXPECT_EQ(refusal(with_line(line)), 501) << line;
  }
}

TEST(RequestHead, BodyIsToldByTheLengthFields) {
  RequestHead head;
  ASSERT_EQ(parse(with_line("transfer-ENCODING:\tCHUNKED "), head).state, ParseState::done);
  EXPECT_EQ(head.body, BodyKind::chunked);
  ASSERT_EQ(parse(with_line("Content-Length: 0009223372036854775807"), head).state, ParseState::done);
  EXPECT_EQ(head.body, BodyKind::length);
  EXPECT_EQ(head.content_length, 9223372036854775807U);
  ASSERT_EQ(parse(with_line("Content-Length: 0"), head).state, ParseState::done);
  EXPECT_EQ(head.body, BodyKind::length);
  ASSERT_EQ(parse(with_line("X: y"), head).state, ParseState::done);
  EXPECT_EQ(head.body, BodyKind::none);
}

bool keeps_alive(int minor, std::string_view lines) {
  const std::string text =
      "GET / HTTP/1." + std::to_string(minor) + "\r\nHost: a\r\n" + std::string(lines) + "\r\n";
  RequestHead head;
  EXPECT_EQ(parse(text, head).state, ParseState::done) << lines;
  return head.keep_alive;
}

TEST(RequestHead, KeepAliveFollowsConnectionOverAllItsFields) {
  EXPECT_TRUE(keeps_alive(1, ""));
  EXPECT_TRUE(keeps_alive(1, "Connection: x, closed\r\n"));
  EXPECT_FALSE(keeps_alive(1, "Connection: x,, ,CLOSE \r\n"));
  EXPECT_FALSE(keeps_alive(1, "Connection: keep-alive\r\nX: y\r\nConnection: close\r\n"));
  EXPECT_FALSE(keeps_alive(1, "Connection: close;x\r\n"));  // not a token: no guessing
  EXPECT_FALSE(keeps_alive(0, ""));
  EXPECT_TRUE(keeps_alive(0, "Connection: Keep-Alive\r\n"));
  EXPECT_FALSE(keeps_alive(0, "Connection: keep-alive, close\r\n"));
}

TEST(RequestHead, HopByHopFieldsAreMarked) {
  RequestHead head;
  const std::string text = with_line(
      "Connection: x-a, Host\r\nX-A: 1\r\nX-B: 1\r\nx-a: 2\r\nTE: trailers\r\nKeep-Alive: 5\r\nUpgrade: "
      "h2c\r\nConnection: X-C, content-length\r\n"
      "X-C: 1\r\nProxy-Connection: close\r\nProxy-Authorization: a\r\nProxy-Authenticate: a\r\nTrailer: "
      "X\r\nContent-Length: 1");
  ASSERT_EQ(parse(text, head).state, ParseState::done);
  std::string kept;
  for (const Field& field : head.fields) {
    if (!field.hop_by_hop) kept += std::string(field.name) + " ";
  }
  EXPECT_EQ(kept, "Host X-B Content-Length ");  // Connection cannot take away what the message needs
  ASSERT_EQ(parse(with_line("Trailer: X\r\nTransfer-Encoding: chunked"), head).state, ParseState::done);
  EXPECT_FALSE(find(head.fields, FieldId::trailer)->hop_by_hop);
}

TEST(RequestHead, ConnectionOptionsAreBounded) {
  std::string options = "Connection: a";
  for (int i = 1; i < 32; ++i) options += ",a";
  EXPECT_EQ(refusal(with_line(options)), 0);
  EXPECT_EQ(refusal(with_line(options + ",a")), 400);
}

TEST(RequestHead, ExpectIsFor11WithABody) {
  const auto expects = [](const std::string& text) {
    RequestHead head;
    EXPECT_EQ(parse(text, head).state, ParseState::done) << text;
    return head.expects_continue;
  };
  EXPECT_TRUE(expects(with_line("Expect: 100-Continue\r\nContent-Length: 3")));
  EXPECT_TRUE(expects(with_line("Expect: 100-continue\r\nTransfer-Encoding: chunked")));
  EXPECT_FALSE(expects(with_line("Expect: 100-continue\r\nContent-Length: 0")));
  EXPECT_FALSE(expects(with_line("Expect: 100-continue")));
  EXPECT_FALSE(expects("POST / HTTP/1.0\r\nContent-Length: 3\r\nExpect: 100-continue\r\n\r\n"));
  for (const char* line :
       {"Expect: 200-ok", "Expect:", "Expect: 100-continue, x", "Expect: 100-continue\r\nExpect: y"}) {
    EXPECT_EQ(refusal(with_line(line)), 417) << line;
  }
}

TEST(RequestHead, TrailersAreAcceptedWhereTeSaysSo) {
  RequestHead head;
  ASSERT_EQ(parse(with_line("TE: deflate;q=0.5, Trailers"), head).state, ParseState::done);
  EXPECT_TRUE(head.accepts_trailers);
  ASSERT_EQ(parse(with_line("TE: deflate"), head).state, ParseState::done);
  EXPECT_FALSE(head.accepts_trailers);
}

TEST(RequestHead, SizeIsBoundedAlsoWhenIncomplete) {
  RequestHead head;
  const std::string text = "GET /abc HTTP/1.1\r\nHost: a\r\n\r\n";
  EXPECT_EQ(parse_request_head(text, text.size(), head).state, ParseState::done);
  EXPECT_EQ(parse_request_head(text + "more", text.size(), head).state, ParseState::done);
  EXPECT_EQ(parse_request_head(text, text.size() - 1, head).error.status, 431);
  EXPECT_EQ(parse_request_head(text.substr(0, 25), 25, head).state, ParseState::failed);
  EXPECT_EQ(parse_request_head(text.substr(0, 25), 25, head).error.status, 431);
  EXPECT_EQ(parse_request_head(text.substr(0, 25), 26, head).state, ParseState::need_more);
  EXPECT_EQ(parse_request_head(text.substr(0, 10), 10, head).error.status, 414);
  EXPECT_EQ(parse_request_head(text, 10, head).error.status, 414);
}

TEST(RequestHead, AtMost200Fields) {
  std::string text = "GET / HTTP/1.1\r\nHost: a\r\n";
  for (int i = 1; i < 200; ++i) text += "A: b\r\n";
  EXPECT_EQ(refusal(text + "\r\n"), 0);
  EXPECT_EQ(refusal(text + "A: b\r\n\r\n"), 431);
  EXPECT_EQ(refusal(text + "A: b\r\n"), 431);  // before its end is there
}

TEST(ResponseHead, StatusReasonAndFields) {
  ResponseHead head;
  const std::string text = "HTTP/1.1 404 Not Found\xe9\r\nServer: x\r\nContent-Length: 5\r\n\r\nhello";
  const ParseResult result = parse_response_head(text, kMaxHead, false, head);
  ASSERT_EQ(result.state, ParseState::done) << result.error.what;
  EXPECT_EQ(result.consumed, text.size() - 5);
  EXPECT_EQ(head.status, 404);
  EXPECT_EQ(head.reason, "Not Found\xe9");
  EXPECT_EQ(head.body, BodyKind::length);
  EXPECT_TRUE(head.has_content_length);
  EXPECT_EQ(head.content_length, 5U);
  EXPECT_TRUE(head.keep_alive);
  for (std::size_t size = 0; size + 5 < text.size(); ++size) {
    ASSERT_EQ(parse_response_head(std::string_view(text).substr(0, size), kMaxHead, false, head).state,
              ParseState::need_more);
  }
}

TEST(ResponseHead, TheReasonMayBeMissing) {
  for (const char* line : {"HTTP/1.1 200", "HTTP/1.1 200 ", "HTTP/1.0 599 \t"}) {
    EXPECT_TRUE(is_response_valid(std::string(line) + "\r\n\r\n")) << line;
  }
  for (const char* line :
       {"HTTP/1.1 200OK", "HTTP/1.1 20", "HTTP/1.1 2000", "HTTP/1.1 099 x", "HTTP/1.1 600 x",
        "HTTP/1.1 +20 x", "HTTP/1.1  200 x", "HTTP/1.1\t200 x", "HTTP/1.2 200 x", "HTTP/2.0 200 x",
        "http/1.1 200 x", "ICY 200 OK", " HTTP/1.1 200 OK", "HTTP/1.1 2 0 x", "HTTP/1.1 200 a\x01",
        "HTTP/1.1", "\r\nHTTP/1.1 200 OK"}) {
    EXPECT_FALSE(is_response_valid(std::string(line) + "\r\n\r\n")) << line;
  }
}

TEST(ResponseHead, AmbiguousFramingIsAnError) {
  for (const char* line :
       {"Content-Length: 1\r\nContent-Length: 1", "Content-Length: 1, 1", "Content-Length: +1",
        "Content-Length:", "Content-Length: 1\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: gzip, chunked", "Transfer-Encoding: gzip", "Transfer-Encoding: chunked, chunked",
        "Transfer-Encoding: identity", "Content-Length : 1", " X: a", "X: a\r\n b", "X: a\rb", "X: \x01",
        "X"}) {
    EXPECT_FALSE(is_response_valid("HTTP/1.1 200 OK\r\n" + std::string(line) + "\r\n\r\n")) << line;
  }
  EXPECT_FALSE(is_response_valid("HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"));
  EXPECT_FALSE(is_response_valid("HTTP/1.1 200 OK\nX: a\r\n\r\n"));
  EXPECT_FALSE(is_response_valid("HTTP/1.1 103 Early\r\nContent-Length: 1\r\n\r\n"));
  EXPECT_FALSE(is_response_valid("HTTP/1.1 100 Continue\r\nTransfer-Encoding: chunked\r\n\r\n"));
}

struct ResponseBody {
  const char* text;
  bool to_head;
  BodyKind body;
  bool keep_alive;
};

// RFC 9112 6.3
TEST(ResponseHead, BodyAndConnectionAreToldByStatusAndFields) {
  for (const ResponseBody& c :
       {ResponseBody{"HTTP/1.1 200 OK\r\n", false, BodyKind::until_close, false},
        ResponseBody{"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\n", false, BodyKind::until_close, false},
        ResponseBody{"HTTP/1.1 200 OK\r\n", true, BodyKind::none, true},
        ResponseBody{"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n", true, BodyKind::none, true},
        ResponseBody{"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n", false, BodyKind::chunked, true},
        ResponseBody{"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n", true, BodyKind::none, true},
        ResponseBody{"HTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\n", false, BodyKind::none, true},
        ResponseBody{"HTTP/1.1 204 No Content\r\n", false, BodyKind::none, true},
        ResponseBody{"HTTP/1.1 204 No Content\r\nContent-Length: 0\r\n", false, BodyKind::none, true},
        ResponseBody{"HTTP/1.1 204 No Content\r\nContent-Length: 9\r\n", false, BodyKind::none, false},
        ResponseBody{"HTTP/1.1 103 Early Hints\r\nLink: a\r\n", false, BodyKind::none, true},
        ResponseBody{"HTTP/1.0 200 OK\r\nContent-Length: 1\r\n", false, BodyKind::length, false},
        ResponseBody{"HTTP/1.0 200 OK\r\nContent-Length: 1\r\nConnection: Keep-Alive\r\n", false,
                     BodyKind::length, true},
        ResponseBody{"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nConnection: close\r\n", false, BodyKind::length,
                     false}}) {
    ResponseHead head;
    const std::string text = std::string(c.text) + "\r\n";
    ASSERT_EQ(parse_response_head(text, kMaxHead, c.to_head, head).state, ParseState::done) << text;
    EXPECT_EQ(head.body, c.body) << text;
    EXPECT_EQ(head.keep_alive, c.keep_alive) << text;
    if (text.find("Content-Length: 9") != std::string::npos) {
      EXPECT_TRUE(head.has_content_length);
      EXPECT_EQ(head.content_length, 9U);
    }
  }
}

TEST(ResponseHead, SizeIsBounded) {
  ResponseHead head;
  const std::string text = "HTTP/1.1 200 OK\r\nA: b\r\n\r\n";
  EXPECT_EQ(parse_response_head(text, text.size(), false, head).state, ParseState::done);
  EXPECT_EQ(parse_response_head(text, text.size() - 1, false, head).state, ParseState::failed);
  EXPECT_EQ(parse_response_head(text.substr(0, 20), 20, false, head).state, ParseState::failed);
}

}  // namespace
}  // namespace penstock::http
