#include <random>
#include <string>
#include <string_view>
#include <vector>

#include <gtest/gtest.h>

#include "http/message.hpp"

namespace penstock::http {
namespace {

struct Decoded {
  std::string payload;
  std::string rest;  ///< what follows the body
  std::string trailers;
  bool done = false;
  bool failed = false;
  std::string what;
  friend bool operator==(const Decoded&, const Decoded&) = default;
  friend std::ostream& operator<<(std::ostream& out, const Decoded& d) {
    return out << ::testing::PrintToString(d.payload) << " done " << d.done << " failed " << d.failed << " "
               << d.what << " trailers " << ::testing::PrintToString(d.trailers) << " rest "
               << ::testing::PrintToString(d.rest);
  }
};

/// Feeds pieces that end at `cuts`.
Decoded decode(std::string_view text, const std::vector<std::size_t>& cuts = {}) {
  ChunkDecoder decoder;
  Decoded result;
  std::size_t at = 0;
  for (std::size_t i = 0; i <= cuts.size(); ++i) {
    const std::size_t end = i < cuts.size() ? cuts[i] : text.size();
    std::vector<char> piece(text.begin() + static_cast<std::ptrdiff_t>(at),
                            text.begin() + static_cast<std::ptrdiff_t>(end));
    const ChunkDecoder::Step step = decoder.decode(piece.data(), piece.size());
    EXPECT_LE(step.payload, step.consumed);
    EXPECT_LE(step.consumed, piece.size());
    EXPECT_TRUE(step.done || step.failed || step.consumed == piece.size());
    result.payload.append(piece.data(), step.payload);
    result.done = step.done;
    result.failed = step.failed;
    result.what = step.what;
    if (step.done || step.failed) {
      if (step.done) result.rest = text.substr(at + step.consumed);
      break;
    }
    at = end;
  }
  result.trailers = decoder.trailers();
  return result;
}

TEST(ChunkDecoder, PayloadIsMovedTogether) {
  const Decoded d = decode("5\r\nhello\r\n00000000000000A;x=\"y\"\r\n, world!!!\r\n0\r\n\r\nGET /");
  EXPECT_TRUE(d.done);
  EXPECT_EQ(d.payload, "hello, world!!!");
  EXPECT_EQ(d.rest, "GET /");
  EXPECT_EQ(d.trailers, "");
}

TEST(ChunkDecoder, EverySplittingGivesTheSame) {
  for (const std::string_view text :
       {"5;a=b\r\nhello\r\nb\r\n, worldly..\r\n0;z\r\nX-A: b \r\nHost: c\r\nX-D:e\r\n\r\nrest", "5\r\nhelloX",
        "3\r\nabc\r\n+1\r\na", "1\r\na\r\n0\r\nX: a\n\r\n", "2\r\nab\r\n0\r\nA: b\r\n C: d\r\n\r\n",
        "ffffffffffffffffff\r\n"}) {
    const Decoded whole = decode(text);
    for (std::size_t a = 0; a <= text.size(); ++a) {
      for (std::size_t b = a; b <= text.size(); ++b) ASSERT_EQ(decode(text, {a, b}), whole) << a << " " << b;
    }
    std::vector<std::size_t> each;
    for (std::size_t i = 1; i < text.size(); ++i) each.push_back(i);
    ASSERT_EQ(decode(text, each), whole);
  }
}

TEST(ChunkDecoder, RandomBodiesSurviveRandomCuts) {
  const auto seed = std::random_device{}();
  SCOPED_TRACE(::testing::Message() << "seed " << seed);
  std::mt19937 random(seed);
  for (int round = 0; round < 500; ++round) {
    std::string text;
    std::string payload;
    for (std::size_t i = random() % 8; i > 0; --i) {
      const std::size_t size = 1 + random() % 300;
      char header[18];
      text.append(header, write_chunk_header(size, header));
      for (std::size_t k = 0; k < size; ++k) text += static_cast<char>(random());
      payload += text.substr(text.size() - size);
      text += "\r\n";
    }
    text += "0\r\nX-Sum: 1\r\n\r\n";
    std::vector<std::size_t> cuts;
    for (std::size_t at = random() % 40; at < text.size(); at += 1 + random() % 90) cuts.push_back(at);
    const Decoded d = decode(text, cuts);
    ASSERT_TRUE(d.done) << d;
    ASSERT_EQ(d.payload, payload);
    ASSERT_EQ(d.trailers, "X-Sum: 1\r\n");
  }
}

TEST(ChunkDecoder, SizesAreHexDigitsAndNothingElse) {
  for (const char* text : {"+5\r\nhello",
                           "-5\r\nhello",
                           "0x5\r\nhello",
                           "5_\r\nhello",
                           "0_2e\r\nh",
                           " 5\r\nhello",
                           "5 \r\nhello",
                           "5 ;a\r\nhello",
                           "5\t\r\nhello",
                           "\r\n5\r\nhello",
                           ";a\r\n",
                           "5\nhello",
                           "5\r\rhello",
                           "5\rhello",
                           "5;a\nhello",
                           "5;a\rb\r\nhello",
                           "5;a\x01\r\nhello",
                           "g\r\n",
                           "5\x0b\r\n",
                           "8000000000000000\r\n",
                           "ffffffffffffffff\r\n",
                           "10000000000000000\r\n",
                           "00000000000000005\r\nhello",
                           "\xb2\r\n",
                           "5\r\nhello5\r\n",
                           "5\r\nhello\n",
                           "5\r\nhello\r5",
                           "5\r\nhello \r\n"}) {
    const Decoded d = decode(text);
    EXPECT_TRUE(d.failed) << ::testing::PrintToString(text);
    EXPECT_FALSE(d.what.empty());
  }
  EXPECT_FALSE(decode("7fffffffffffffff\r\nabc").failed);
  using namespace std::string_literals;
  EXPECT_TRUE(decode("5;a\0\r\nhello"s).failed);
  EXPECT_TRUE(decode("5\0\r\nhello"s).failed);
}

TEST(ChunkDecoder, ExtensionsAreBoundedPerLineAndInSum) {
  EXPECT_TRUE(decode("1;" + std::string(1020, 'x') + "\r\na\r\n0\r\n\r\n").done);
  EXPECT_TRUE(decode("1;" + std::string(1021, 'x') + "\r\na\r\n0\r\n\r\n").failed);
  std::string text;
  for (int i = 0; i < 100; ++i) text += "1;" + std::string(1000, 'x') + "\r\na\r\n";
  EXPECT_TRUE(decode(text).failed);
  text.clear();
  for (int i = 0; i < 100'000; ++i) text += "1;x=y\r\na\r\n";  // small chunks are fine, however many
  EXPECT_TRUE(decode(text + "0\r\n\r\n").done);
}

TEST(ChunkDecoder, TrailersAreKeptButThoseThatComeTooLate) {
  const Decoded d = decode(
      "0\r\nX-Sum:\t1 \r\nContent-Length: 5\r\ntransfer-encoding: chunked\r\nHost: a\r\nAuthorization: "
      "b\r\nCookie: c\r\nSet-Cookie: d\r\nTE: e\r\n"
      "Connection: close\r\nContent-Type: f\r\nTrailer: g\r\nX-Penstock-Key: pk_h\r\nPenstock-Cost: "
      "0\r\nX-Api-Key: i\r\nCache-Control: j\r\n"
      "Server-Timing: k\r\nX-Empty:\r\n\r\n");
  EXPECT_TRUE(d.done) << d;
  EXPECT_EQ(d.trailers, "X-Sum: 1\r\nServer-Timing: k\r\nX-Empty: \r\n");
}

TEST(ChunkDecoder, TrailersFollowTheFieldRules) {
  for (const char* lines : {"X : a\r\n", " X: a\r\n", "X: a\r\n b\r\n", "X: a\n", "X: a\rb\r\n", "X\r\n",
                            ": a\r\n", "X: \x01\r\n", "X: a\r\r\n", "\n", "\r\r\n", "Y\xe9: a\r\n"}) {
    EXPECT_TRUE(decode("0\r\n" + std::string(lines) + "\r\n").failed) << ::testing::PrintToString(lines);
  }
}

TEST(ChunkDecoder, TheTrailerSectionIsBoundedAlsoWhereLinesAreDropped) {
  EXPECT_TRUE(decode("0\r\nX: " + std::string(8185, 'a') + "\r\n\r\n").done);
  EXPECT_TRUE(decode("0\r\nX: " + std::string(8186, 'a') + "\r\n\r\n").failed);
  EXPECT_TRUE(decode("0\r\nX: " + std::string(9000, 'a')).failed);
  std::string dropped = "0\r\n";
  for (int i = 0; i < 2000; ++i) dropped += "Host: a\r\n";
  EXPECT_TRUE(decode(dropped).failed);
}

TEST(ChunkDecoder, AfterItsEndItReadsNothingUntilReset) {
  ChunkDecoder decoder;
  std::string text = "1\r\na\r\n0\r\nX: y\r\n\r\n1\r\n";
  EXPECT_EQ(decoder.decode(text.data(), text.size()).consumed, text.size() - 3);
  const auto again = decoder.decode(text.data(), text.size());
  EXPECT_TRUE(again.done);
  EXPECT_EQ(again.consumed, 0U);
  decoder.reset();
  EXPECT_EQ(decoder.trailers(), "");
  std::string next = "1\r\nb\r\n0\r\n\r\n";
  const auto step = decoder.decode(next.data(), next.size());
  EXPECT_TRUE(step.done);
  EXPECT_EQ(next.substr(0, step.payload), "b");
}

}  // namespace
}  // namespace penstock::http
