#include "http/event_stream.hpp"

#include <random>
#include <string>
#include <utility>
#include <vector>

#include <gtest/gtest.h>

namespace penstock::http {
namespace {

using Events = std::vector<std::pair<std::string, std::string>>;

void feed(EventStreamParser& parser, std::string_view bytes, Events& events) {
  // A copy that goes away at once, so that a view kept across feeds is a fault that the sanitizer sees.
  const std::vector<char> copy(bytes.begin(), bytes.end());
  parser.feed({copy.data(), copy.size()},
              [&](const auto& event) { events.emplace_back(event.type, event.data); });
}

Events read(std::string_view stream) {
  EventStreamParser parser;
  Events events;
  feed(parser, stream, events);
  return events;
}

TEST(EventStreamParser, DataLinesAreJoinedAndTheTypeIsTold) {
  EXPECT_EQ(read("event: delta\ndata: one\ndata: two\n\ndata:three\n\n"),
            (Events{{"delta", "one\ntwo"}, {"", "three"}}));
}

TEST(EventStreamParser, OneSpaceAfterTheColonIsNotPartOfTheValue) {
  EXPECT_EQ(read("data:  x \n\n"), (Events{{"", " x "}}));
}

TEST(EventStreamParser, CommentsAndOtherFieldsAreNoEvents) {
  EXPECT_EQ(read(": ping\n\nid: 7\nretry: 10\n\nevent: lonely\n\ndata: x\n\n"), (Events{{"", "x"}}));
}

// Anthropic's and OpenAI's streams never do it, but the standard does: an empty data line is an event with
// empty data.
TEST(EventStreamParser, AnEmptyDataLineIsAnEvent) {
  EXPECT_EQ(read("data\n\n"), (Events{{"", ""}}));
  EXPECT_EQ(read("data:\ndata\n\n"), (Events{{"", "\n"}}));
}

TEST(EventStreamParser, LineEndsMayBeLfCrOrCrLf) {
  EXPECT_EQ(read("data: a\r\rdata: b\r\n\r\ndata: c\n\ndata: d\r\n\rdata: e\n\r\n"),
            (Events{{"", "a"}, {"", "b"}, {"", "c"}, {"", "d"}, {"", "e"}}));
}

// CRLF is one line end: taken for two, it would end an event after each line.
TEST(EventStreamParser, CrLfDoesNotEndAnEventByItself) {
  EXPECT_EQ(read("event: t\r\ndata: a\r\ndata: b\r\n\r\n"), (Events{{"t", "a\nb"}}));
}

TEST(EventStreamParser, OnlyALeadingByteOrderMarkIsSkipped) {
  EXPECT_EQ(read("\xEF\xBB\xBF"
                 "data: a\n\n\xEF\xBB\xBF"
                 "data: b\n\ndata: c\n\n"),
            (Events{{"", "a"}, {"", "c"}}));
  EXPECT_EQ(read("\xEF\xBB"
                 "data: a\n\n"),
            Events{});  // half a mark belongs to the field's name
}

TEST(EventStreamParser, AnUnfinishedEventIsNotDelivered) {
  EventStreamParser parser;
  Events events;
  feed(parser, "data: [DONE]\n", events);
  EXPECT_TRUE(events.empty());
  feed(parser, "\n", events);
  EXPECT_EQ(events, (Events{{"", "[DONE]"}}));
}

TEST(EventStreamParser, TheTypeDoesNotOutliveItsEvent) {
  EXPECT_EQ(read("event: a\ndata: 1\n\ndata: 2\n\nevent: b\n\ndata: 3\n\n"),
            (Events{{"a", "1"}, {"", "2"}, {"", "3"}}));
}

// The bound is on what is held: a hostile provider must not make the gateway's memory grow.
TEST(EventStreamParser, AnEventAboveTheBoundIsSkippedAndCountedAndTheNextOneIsRead) {
  for (const std::size_t piece : {1UL, 7UL, 1000UL}) {
    EventStreamParser parser(20);
    Events events;
    const std::string stream = "data: 12345678901234\n\ndata: 123456789012345\ndata: x\n\ndata: after\n\n";
    for (std::size_t at = 0; at < stream.size(); at += piece)
      feed(parser, std::string_view(stream).substr(at, piece), events);
    EXPECT_EQ(events, (Events{{"", "12345678901234"}, {"", "after"}}));
    EXPECT_EQ(parser.skipped(), 1U);
  }
}

// Hours of keep-alive comments without an empty line are no large event.
TEST(EventStreamParser, CommentsDoNotCountTowardsTheBound) {
  EventStreamParser parser(20);
  Events events;
  for (int i = 0; i < 100; ++i) feed(parser, ": keep-alive\n", events);
  feed(parser, "data: x\n\n", events);
  EXPECT_EQ(events, (Events{{"", "x"}}));
  EXPECT_EQ(parser.skipped(), 0U);
}

/// The standard's text, word for word and slowly.
Events read_by_the_book(std::string text) {
  if (text.starts_with("\xEF\xBB\xBF")) text.erase(0, 3);
  std::string lines;
  for (std::size_t i = 0; i < text.size(); ++i) {
    if (text[i] == '\r' && i + 1 < text.size() && text[i + 1] == '\n') continue;
    lines += text[i] == '\r' ? '\n' : text[i];
  }
  Events events;
  std::string type;
  std::string data;
  for (std::size_t end; (end = lines.find('\n')) != std::string::npos; lines.erase(0, end + 1)) {
    const std::string line = lines.substr(0, end);
    if (line.empty()) {
      if (!data.empty()) events.emplace_back(type, data.substr(0, data.size() - 1));
      type.clear();
      data.clear();
      continue;
    }
    const std::size_t colon = line.find(':');
    const std::string name = line.substr(0, colon);
    std::string value = colon == std::string::npos ? "" : line.substr(colon + 1);
    if (value.starts_with(' ')) value.erase(0, 1);
    if (name == "event") type = value;
    if (name == "data") data += value + '\n';
  }
  return events;
}

TEST(EventStreamParser, AnySplittingGivesTheSameEvents) {
  const auto seed = std::random_device{}();
  SCOPED_TRACE(::testing::Message() << "seed " << seed);
  std::mt19937 random(seed);
  const std::vector<std::string> pieces = {"data",
                                           "event",
                                           ":",
                                           ": ",
                                           " ",
                                           "\n",
                                           "\r",
                                           "\r\n",
                                           "\n\n",
                                           "x",
                                           "\xEF\xBB\xBF",
                                           "\xEF",
                                           "data: {\"a\":1}\n\n",
                                           "id: 1\n",
                                           "event: message_delta\r\n"};
  for (int round = 0; round < 2000; ++round) {
    std::string stream;
    for (std::size_t i = random() % 30; i > 0; --i) stream += pieces[random() % pieces.size()];
    const std::size_t bound = round % 3 == 0 ? 24 : 1 << 20;
    EventStreamParser whole(bound);
    Events expected;
    feed(whole, stream, expected);
    if (bound > stream.size())
      ASSERT_EQ(expected, read_by_the_book(stream)) << ::testing::PrintToString(stream);
    EventStreamParser split(bound);
    Events events;
    for (std::size_t at = 0; at < stream.size();) {
      const std::size_t size = 1 + random() % (round % 2 == 0 ? 1 : 12);
      feed(split, std::string_view(stream).substr(at, size), events);
      at += size;
    }
    ASSERT_EQ(events, expected) << ::testing::PrintToString(stream);
    ASSERT_EQ(split.skipped(), whole.skipped()) << ::testing::PrintToString(stream);
  }
}

}  // namespace
}  // namespace penstock::http
