#include "gateway/meter/usage_reader.hpp"

#include <algorithm>
#include <iostream>
#include <limits>
#include <random>
#include <string>
#include <string_view>
#include <utility>

#include <gtest/gtest.h>

namespace penstock::gateway {
namespace {

using Format = UsageReader::Format;
using policy::Usage;

const std::vector<policy::UnitPrice> kNoUnits;
constexpr std::size_t kMaxBytes = 1 << 20;

struct Tokens {
  std::int64_t input = 0;
  std::int64_t cached = 0;
  std::int64_t written = 0;
  std::int64_t output = 0;
  friend bool operator==(const Tokens&, const Tokens&) = default;
  friend std::ostream& operator<<(std::ostream& out, const Tokens& t) {
    return out << "in " << t.input << " cached " << t.cached << " written " << t.written << " out "
               << t.output;
  }
};

Tokens tokens_of(const Usage& usage) {
  return {usage.input_tokens, usage.cached_input_tokens, usage.cache_write_tokens, usage.output_tokens};
}

/// The usage of a whole JSON answer; nothing where it is not known.
std::optional<Tokens> answer(CallKind kind, std::string_view body) {
  UsageReader reader(kind, kNoUnits, Format::json, kMaxBytes);
  reader.feed(body);
  const auto usage = reader.finish(true);
  return usage.known ? std::optional(tokens_of(usage)) : std::nullopt;
}

std::optional<Tokens> stream(CallKind kind, std::string_view bytes, bool complete = true) {
  UsageReader reader(kind, kNoUnits, Format::event_stream, kMaxBytes);
  reader.feed(bytes);
  const auto usage = reader.finish(complete);
  return usage.known ? std::optional(tokens_of(usage)) : std::nullopt;
}

constexpr std::string_view kChatAnswer = R"({
  "id": "chatcmpl-B9MBs8CjcvOU2jLn4n570S5qMJKcT", "object": "chat.completion", "created": 1741569952,
  "model": "gpt-4.1-2025-04-14",
  "choices": [{"index": 0, "message": {"role": "assistant", "content": "Hello! \"usage\": {\"prompt_tokens\": 1}",
      "refusal": null, "annotations": []}, "logprobs": null, "finish_reason": "stop"}],
  "usage": {"prompt_tokens": 2019, "completion_tokens": 310, "total_tokens": 2329,
    "prompt_tokens_details": {"cached_tokens": 1920, "audio_tokens": 0},
    "completion_tokens_details": {"reasoning_tokens": 128, "audio_tokens": 0, "accepted_prediction_tokens": 0,
      "rejected_prediction_tokens": 0}},
  "service_tier": "default", "system_fingerprint": "fp_1"})";

constexpr std::string_view kResponsesAnswer =
    R"({"id":"resp_1","object":"response","status":"completed","error":null,
  "output":[{"type":"message","content":[{"type":"output_text","text":"Hi"}]}],
  "usage":{"input_tokens":36,"input_tokens_details":{"cached_tokens":16},"output_tokens":87,
    "output_tokens_details":{"reasoning_tokens":64},"total_tokens":123}})";

constexpr std::string_view kAnthropicAnswer = R"({"id":"msg_1","type":"message","role":"assistant",
  "model":"claude-sonnet-4-20250514","content":[{"type":"text","text":"Hi!"}],"stop_reason":"end_turn","stop_sequence":null,
  "usage":{"input_tokens":21,"cache_creation_input_tokens":188,"cache_read_input_tokens":2051,
    "cache_creation":{"ephemeral_5m_input_tokens":188,"ephemeral_1h_input_tokens":0},"output_tokens":393}})";

constexpr std::string_view kGeminiAnswer =
    R"({"candidates":[{"content":{"parts":[{"text":"Hi"}],"role":"model"},
  "finishReason":"STOP","index":0}],"usageMetadata":{"promptTokenCount":100,"cachedContentTokenCount":60,
  "candidatesTokenCount":12,"toolUsePromptTokenCount":9,"thoughtsTokenCount":30,"totalTokenCount":151,
  "promptTokensDetails":[{"modality":"TEXT","tokenCount":100}]},"modelVersion":"gemini-2.5-flash"})";

const std::string kChatStream =
    "data: "
    "{\"id\":\"c\",\"object\":\"chat.completion.chunk\",\"model\":\"gpt-4o-mini\",\"choices\":[{\"index\":0,"
    "\"delta\":"
    "{\"role\":\"assistant\",\"content\":\"\"},\"finish_reason\":null}],\"usage\":null}\n\n"
    "data: "
    "{\"id\":\"c\",\"choices\":[{\"index\":0,\"delta\":{\"content\":\"He\\\"usage\\\"\"},\"finish_reason\":"
    "null}],"
    "\"usage\":null}\n\n"
    "data: "
    "{\"id\":\"c\",\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"stop\"}],\"usage\":null}\n\n"
    "data: "
    "{\"id\":\"c\",\"choices\":[],\"usage\":{\"prompt_tokens\":19,\"completion_tokens\":10,\"total_tokens\":"
    "29,"
    "\"prompt_tokens_details\":{\"cached_tokens\":8}}}\n\n"
    "data: [DONE]\n\n";

const std::string kResponsesStream =
    "event: response.created\ndata: "
    "{\"type\":\"response.created\",\"response\":{\"id\":\"r\",\"status\":\"in_progress\","
    "\"error\":null,\"reasoning\":{\"effort\":null},\"usage\":null}}\n\n"
    "event: response.output_text.delta\ndata: {\"type\":\"response.output_text.delta\",\"delta\":\"Hi\"}\n\n"
    "event: response.completed\ndata: "
    "{\"type\":\"response.completed\",\"response\":{\"id\":\"r\",\"status\":\"completed\","
    "\"error\":null,\"usage\":{\"input_tokens\":37,\"input_tokens_details\":{\"cached_tokens\":30},\"output_"
    "tokens\":11,"
    "\"output_tokens_details\":{\"reasoning_tokens\":0},\"total_tokens\":48}}}\n\n";

const std::string kAnthropicStream =
    "event: message_start\r\ndata: "
    "{\"type\":\"message_start\",\"message\":{\"id\":\"m\",\"type\":\"message\",\"content\":[],"
    "\"stop_reason\":null,\"usage\":{\"input_tokens\":25,\"cache_creation_input_tokens\":3,\"cache_read_"
    "input_tokens\":7,"
    "\"output_tokens\":1}}}\r\n\r\n"
    "event: content_block_start\r\ndata: "
    "{\"type\":\"content_block_start\",\"index\":0,\"content_block\":{\"type\":\"text\","
    "\"text\":\"\"}}\r\n\r\n"
    "event: ping\r\ndata: {\"type\": \"ping\"}\r\n\r\n"
    "event: content_block_delta\r\ndata: "
    "{\"type\":\"content_block_delta\",\"index\":0,\"delta\":{\"type\":\"text_delta\","
    "\"text\":\"Hello\"}}\r\n\r\n"
    "event: message_delta\r\ndata: {\"type\":\"message_delta\",\"delta\":{\"stop_reason\":null},\"usage\":"
    "{\"output_tokens\":12}}\r\n\r\n"
    "event: message_delta\r\ndata: "
    "{\"type\":\"message_delta\",\"delta\":{\"stop_reason\":\"end_turn\",\"stop_sequence\":null},"
    "\"usage\":{\"output_tokens\":15}}\r\n\r\n"
    "event: message_stop\r\ndata: {\"type\":\"message_stop\"}\r\n\r\n";

const std::string kGeminiStream =
    "data: "
    "{\"candidates\":[{\"content\":{\"parts\":[{\"text\":\"He\"}]}}],\"usageMetadata\":{\"promptTokenCount\":"
    "10,"
    "\"totalTokenCount\":10}}\n\n"
    "data: "
    "{\"candidates\":[{\"content\":{\"parts\":[{\"text\":\"llo\"}]}}],\"usageMetadata\":{\"trafficType\":"
    "\"ON_DEMAND\"}}\n\n"
    "data: "
    "{\"candidates\":[{\"content\":{\"parts\":[{\"text\":\"!\"}]},\"finishReason\":\"STOP\"}],"
    "\"usageMetadata\":"
    "{\"promptTokenCount\":10,\"candidatesTokenCount\":5,\"thoughtsTokenCount\":20,"
    "\"cachedContentTokenCount\":4,"
    "\"totalTokenCount\":35}}\n\n";

struct Recorded {
  CallKind kind;
  const std::string* bytes;
  Tokens tokens;
};
const std::vector<Recorded> kStreams{
    {CallKind::openai_chat, &kChatStream, {.input = 11, .cached = 8, .output = 10}},
    {CallKind::openai_responses, &kResponsesStream, {.input = 7, .cached = 30, .output = 11}},
    {CallKind::anthropic_messages, &kAnthropicStream, {.input = 25, .cached = 7, .written = 3, .output = 15}},
    {CallKind::gemini_stream, &kGeminiStream, {.input = 6, .cached = 4, .output = 25}},
};

TEST(UsageReaderTest, JsonAnswersOfEachProvider) {
  EXPECT_EQ(answer(CallKind::openai_chat, kChatAnswer), (Tokens{.input = 99, .cached = 1920, .output = 310}));
  EXPECT_EQ(answer(CallKind::openai_responses, kResponsesAnswer),
            (Tokens{.input = 20, .cached = 16, .output = 87}));
  EXPECT_EQ(answer(CallKind::anthropic_messages, kAnthropicAnswer),
            (Tokens{.input = 21, .cached = 2051, .written = 188, .output = 393}));
  EXPECT_EQ(answer(CallKind::gemini_generate, kGeminiAnswer),
            (Tokens{.input = 49, .cached = 60, .output = 42}));
  EXPECT_EQ(
      answer(CallKind::openai_embeddings, R"({"data":[],"usage":{"prompt_tokens":8,"total_tokens":8}})"),
      (Tokens{.input = 8}));
}

// A provider that nobody knows, but of the usual shape.
TEST(UsageReaderTest, OtherKindsAreReadInTheOpenAiShape) {
  EXPECT_EQ(answer(CallKind::other, R"({"usage":{"prompt_tokens":3,"completion_tokens":4}})"),
            (Tokens{.input = 3, .output = 4}));
  EXPECT_EQ(answer(CallKind::other,
                   R"({"usage":{"input_tokens":3,"output_tokens":4,"cache_read_input_tokens":5}})"),
            (Tokens{.input = 3, .cached = 5, .output = 4}));
  // Proxies repeat Anthropic's members beside prompt_tokens, which holds them already.
  EXPECT_EQ(answer(CallKind::other,
                   R"({"usage":{"prompt_tokens":9,"completion_tokens":4,"cache_read_input_tokens":5}})"),
            (Tokens{.input = 9, .output = 4}));
  EXPECT_EQ(answer(CallKind::other, R"({"ok":true})"), std::nullopt);
}

// Some count reasoning in the total only; what is billed is the larger.
TEST(UsageReaderTest, TokensThatOnlyTheTotalHoldsAreOutput) {
  EXPECT_EQ(answer(CallKind::openai_chat,
                   R"({"usage":{"prompt_tokens":10,"completion_tokens":5,"total_tokens":40}})"),
            (Tokens{.input = 10, .output = 30}));
  EXPECT_EQ(
      answer(CallKind::gemini_generate, R"({"usageMetadata":{"promptTokenCount":10,"totalTokenCount":17}})"),
      (Tokens{.input = 10, .output = 7}));
}

TEST(UsageReaderTest, CountsThatMakeNoSenseMakeItUnknown) {
  for (const char* bad : {"-1", "1.5", "null", "\"12\"", "1000000000001", "1e400", "true", "[]", "{}", "12x",
                          "99999999999999999999"}) {
    const auto text = std::string(R"({"usage":{"prompt_tokens":)") + bad + R"(,"completion_tokens":4}})";
    EXPECT_EQ(answer(CallKind::openai_chat, text), std::nullopt) << bad;
    const auto output = std::string(R"({"usage":{"prompt_tokens":4,"completion_tokens":)") + bad + "}}";
    EXPECT_EQ(answer(CallKind::openai_chat, output), std::nullopt) << bad;
  }
  EXPECT_EQ(
      answer(CallKind::openai_chat, R"({"usage":{"prompt_tokens":4,"completion_tokens":1000000000000}})"),
      (Tokens{.input = 4, .output = 1'000'000'000'000}));
  EXPECT_EQ(answer(CallKind::openai_chat, R"({"usage":{"prompt_tokens":4}})"), std::nullopt);
  EXPECT_EQ(answer(CallKind::openai_chat, R"({"usage":{"prompt_tokens":4,"completion_tokens":1,
      "prompt_tokens_details":{"cached_tokens":5}}})"),
            std::nullopt);
  EXPECT_EQ(answer(CallKind::openai_chat, R"({"usage":{"prompt_tokens":4,"completion_tokens":1,
      "prompt_tokens_details":{"cached_tokens":-5}}})"),
            std::nullopt);
  EXPECT_EQ(answer(CallKind::openai_chat, R"({"usage":{"prompt_tokens":4,"completion_tokens":1,
      "prompt_tokens_details":null}})"),
            (Tokens{.input = 4, .output = 1}));
  EXPECT_EQ(answer(CallKind::openai_responses, R"({"status":"queued","usage":null})"), std::nullopt);
}

TEST(UsageReaderTest, AnswersAboveTheBoundAreUnknown) {
  const auto known = [](std::size_t max_bytes) {
    UsageReader reader(CallKind::openai_chat, kNoUnits, Format::json, max_bytes);
    for (const char c : kChatAnswer) reader.feed({&c, 1});
    return reader.finish(true).known;
  };
  EXPECT_TRUE(known(kChatAnswer.size()));
  EXPECT_FALSE(known(kChatAnswer.size() - 1));
}

// Truncated JSON never tells a usage, whatever the framing said.
TEST(UsageReaderTest, NoPrefixOfAJsonAnswerTellsUsage) {
  const auto check = [](CallKind kind, std::string_view body) {
    for (std::size_t size = 0; size < body.size(); ++size) {
      EXPECT_EQ(answer(kind, body.substr(0, size)), std::nullopt) << body.substr(0, size);
    }
  };
  check(CallKind::openai_chat, kChatAnswer);
  check(CallKind::openai_responses, kResponsesAnswer);
  check(CallKind::anthropic_messages, kAnthropicAnswer);
  check(CallKind::gemini_generate, kGeminiAnswer);
}

TEST(UsageReaderTest, StreamsOfEachProvider) {
  for (const auto& [kind, bytes, tokens] : kStreams) {
    EXPECT_EQ(stream(kind, *bytes), tokens);
    EXPECT_EQ(stream(kind, *bytes, false), tokens);  // the end was told, whatever the framing says
  }
}

// A stream of Gemini without alt=sse is one JSON array.
TEST(UsageReaderTest, GeminiArraysAreStreamsToo) {
  EXPECT_EQ(
      answer(CallKind::gemini_stream, R"([{"usageMetadata":{"promptTokenCount":10,"totalTokenCount":10}},
      {"candidates":[{"finishReason":"STOP"}],"usageMetadata":{"promptTokenCount":10,"candidatesTokenCount":5}}])"),
      (Tokens{.input = 10, .output = 5}));
}

// C2: chunks are where the network put them.
TEST(UsageReaderTest, AnySplitGivesTheSameUsage) {
  for (const auto& [kind, bytes, tokens] : kStreams) {
    const std::string_view all = *bytes;
    for (std::size_t at = 0; at <= all.size(); ++at) {
      UsageReader reader(kind, kNoUnits, Format::event_stream, kMaxBytes);
      reader.feed(all.substr(0, at));
      reader.feed(all.substr(at));
      const auto usage = reader.finish(true);
      ASSERT_TRUE(usage.known) << at;
      ASSERT_EQ(tokens_of(usage), tokens) << at;
      ASSERT_EQ(reader.output_token_bound() >= 0 ? reader.output_token_bound() : 1'000'000,
                kind == CallKind::gemini_stream ? 1'000'000 : static_cast<std::int64_t>(all.size()));
    }
  }
}

// C3, C4: a stream cut at any byte tells all of its usage or none, and its bound never falls.
TEST(UsageReaderTest, ACutStreamNeverTellsLessThanItWas) {
  for (const auto& [kind, bytes, tokens] : kStreams) {
    std::int64_t last_bound = 0;
    bool was_known = false;
    for (std::size_t size = 0; size <= bytes->size(); ++size) {
      UsageReader reader(kind, kNoUnits, Format::event_stream, kMaxBytes);
      reader.feed(std::string_view(*bytes).substr(0, size));
      const auto bound = reader.output_token_bound();
      const auto usage = reader.finish(false);
      if (usage.known) {
        ASSERT_EQ(tokens_of(usage), tokens) << size;
      }
      ASSERT_GE(usage.known, was_known) << size;
      if (bound >= 0) {
        ASSERT_GE(bound, last_bound) << size;
        ASSERT_GE(bound, usage.output_tokens) << size;
        last_bound = bound;
      }
      was_known = usage.known;
    }
    EXPECT_TRUE(was_known);
  }
}

// The same at random: several cuts, random chunk sizes, noise between the events.
TEST(UsageReaderTest, RandomStreamsKeepTheRules) {
  const auto seed = std::random_device{}();
  RecordProperty("seed", std::to_string(seed));
  SCOPED_TRACE("seed " + std::to_string(seed));
  std::mt19937 random(seed);
  const auto below = [&](std::size_t n) {
    return std::uniform_int_distribution<std::size_t>(0, n - 1)(random);
  };
  for (int round = 0; round < 300; ++round) {
    const auto& [kind, bytes, tokens] = kStreams[below(kStreams.size())];
    // Noise between events: comments, unknown events, bare data.
    const std::string end = kind == CallKind::anthropic_messages ? "\r\n\r\n" : "\n\n";
    std::string noisy;
    std::string_view rest = *bytes;
    while (!rest.empty()) {
      const auto size = rest.find(end) + end.size();
      constexpr const char* kNoise[] = {"",
                                        ": comment\n",
                                        "id: 7\n",
                                        "data: {\"text\":\"x\"}\n\n",
                                        "data: not json\n\n",
                                        "\n\n",
                                        "event: other\r\ndata: {}\r\n\r\n"};
      noisy += kNoise[below(std::size(kNoise))];
      noisy += rest.substr(0, size);
      rest.remove_prefix(size);
    }
    const bool is_cut = below(2) == 0;
    const std::string_view text =
        std::string_view(noisy).substr(0, is_cut ? below(noisy.size() + 1) : noisy.size());
    UsageReader in_pieces(kind, kNoUnits, Format::event_stream, kMaxBytes);
    std::int64_t bound = 0;
    for (std::size_t at = 0; at < text.size();) {
      const auto size = 1 + below(40);
      in_pieces.feed(text.substr(at, size));
      at += size;
      const auto now = in_pieces.output_token_bound();
      if (now >= 0) {
        ASSERT_GE(now, bound);
        bound = now;
      }
    }
    const auto usage = in_pieces.finish(!is_cut);
    UsageReader at_once(kind, kNoUnits, Format::event_stream, kMaxBytes);
    at_once.feed(text);
    const auto same = at_once.finish(!is_cut);
    ASSERT_EQ(usage.known, same.known);
    ASSERT_EQ(tokens_of(usage), tokens_of(same));
    ASSERT_EQ(in_pieces.output_token_bound(), at_once.output_token_bound());
    if (usage.known) {
      ASSERT_EQ(tokens_of(usage), tokens);
    }
    if (!is_cut) {
      ASSERT_TRUE(usage.known);
    }
  }
}

// Servers that send cumulative usage with every chunk: a cut leaves too small a count.
TEST(UsageReaderTest, RunningUsageOfACutStreamIsNotItsUsage) {
  const std::string running =
      "data: "
      "{\"choices\":[{\"delta\":{},\"finish_reason\":null}],\"usage\":{\"prompt_tokens\":5,\"completion_"
      "tokens\":1}}\n\n"
      "data: "
      "{\"choices\":[{\"delta\":{},\"finish_reason\":null}],\"usage\":{\"prompt_tokens\":5,\"completion_"
      "tokens\":2}}\n\n";
  EXPECT_EQ(stream(CallKind::openai_chat, running, false), std::nullopt);
  EXPECT_EQ(stream(CallKind::openai_chat, running, true), (Tokens{.input = 5, .output = 2}));
  EXPECT_EQ(stream(CallKind::openai_chat, running + "data: [DONE]\n\n", false),
            (Tokens{.input = 5, .output = 2}));
  // A later count below an earlier one is a fault: the bill does not fall.
  EXPECT_EQ(stream(CallKind::openai_chat, running + "data: {\"choices\":[],\"usage\":{\"prompt_tokens\":1,"
                                                    "\"completion_tokens\":1}}\n\n"),
            (Tokens{.input = 5, .output = 2}));
}

TEST(UsageReaderTest, AnthropicStreamsWithoutTheirEndAreUnknown) {
  const auto start = kAnthropicStream.substr(0, kAnthropicStream.find("event: content_block_start"));
  EXPECT_EQ(stream(CallKind::anthropic_messages, start, true), std::nullopt);
  EXPECT_EQ(stream(CallKind::anthropic_messages,
                   start + "event: message_stop\ndata: {\"type\":\"message_stop\"}\n\n"),
            std::nullopt);
}

// Overloaded after a 200: the stream ends as framed, but not as the provider meant.
TEST(UsageReaderTest, ErrorsInsideStreamsAreSeen) {
  const auto error_of = [](CallKind kind, std::string_view bytes) {
    UsageReader reader(kind, kNoUnits, Format::event_stream, kMaxBytes);
    reader.feed(bytes);
    EXPECT_FALSE(reader.finish(true).known) << bytes;
    return reader.saw_stream_error();
  };
  EXPECT_TRUE(error_of(CallKind::anthropic_messages,
                       "event: error\ndata: {\"type\":\"error\",\"error\":{\"type\":"
                       "\"overloaded_error\",\"message\":\"Overloaded\"}}\n\n"));
  EXPECT_TRUE(error_of(CallKind::openai_chat, "data: {\"error\":{\"message\":\"x\"}}\n\n"));
  EXPECT_TRUE(error_of(CallKind::openai_chat,
                       "data: {\"choices\":[{}],\"usage\":{\"prompt_tokens\":1,\"completion_tokens\":1}}\n\n"
                       "data: {\"error\":{\"message\":\"x\"}}\n\n"));
  EXPECT_TRUE(error_of(CallKind::gemini_stream, "data: {\"error\":{\"code\":503}}\n\n"));
  EXPECT_TRUE(error_of(CallKind::openai_responses,
                       "data: {\"type\":\"response.failed\",\"response\":{\"error\":{},"
                       "\"usage\":null}}\n\ndata: {\"type\":\"error\"}\n\n"));
  EXPECT_TRUE(error_of(CallKind::other, "event: error\ndata: plain text\n\n"));
  EXPECT_FALSE(error_of(CallKind::openai_chat, "data: {\"error\":null,\"choices\":[]}\n\n"));
  EXPECT_FALSE(error_of(CallKind::openai_chat,
                        "data: {\"choices\":[{\"delta\":{\"content\":\"\\\"error\\\": 1\"}}]}\n\n"));
}

// Found by the fuzzer: of two usages with one total the last counts, but the bound does not fall.
TEST(UsageReaderTest, TheBoundHoldsTheMostOutputTold) {
  UsageReader reader(CallKind::openai_chat, kNoUnits, Format::event_stream, kMaxBytes);
  reader.feed("data: {\"usage\":{\"prompt_tokens\":1,\"completion_tokens\":900}}\n\n");
  EXPECT_EQ(reader.output_token_bound(), 900);
  reader.feed("data: {\"usage\":{\"prompt_tokens\":801,\"completion_tokens\":100}}\n\n");
  EXPECT_EQ(reader.output_token_bound(), 900);
  EXPECT_EQ(tokens_of(reader.finish(true)), (Tokens{.input = 801, .output = 100}));
}

// Reasoning is billed and not sent: bytes that passed bound nothing then.
TEST(UsageReaderTest, HiddenOutputHasNoByteBound) {
  const auto bound = [](CallKind kind, std::string_view bytes) {
    UsageReader reader(kind, kNoUnits, Format::event_stream, kMaxBytes);
    reader.feed(bytes);
    return reader.output_token_bound();
  };
  EXPECT_EQ(bound(CallKind::anthropic_messages, "data: {\"content_block\":{\"type\":\"thinking\"}}\n\n"), -1);
  EXPECT_EQ(bound(CallKind::gemini_stream, "data: {\"usageMetadata\":{\"thoughtsTokenCount\":3}}\n\n"), -1);
  EXPECT_EQ(
      bound(CallKind::openai_responses, "data: {\"response\":{\"reasoning\":{\"effort\":\"low\"}}}\n\n"), -1);
  EXPECT_EQ(bound(CallKind::openai_chat, "data: {\"model\":\"o4-mini\"}\n\n"), -1);
  EXPECT_EQ(bound(CallKind::openai_chat, "data: {\"model\":\"gpt-5-nano\"}\n\n"), -1);
  EXPECT_EQ(bound(CallKind::openai_chat, "data: {\"model\":\"gpt-4o\"}\n\n"), 26);
  EXPECT_EQ(bound(CallKind::other, "data: {}\n\n"), -1);
  EXPECT_EQ(UsageReader(CallKind::openai_chat, kNoUnits, Format::json, 10).output_token_bound(), -1);
  EXPECT_EQ(UsageReader(CallKind::openai_chat, kNoUnits, Format::none, 10).output_token_bound(), -1);
}

TEST(UsageReaderTest, FinishTellsTheSameAgainAlsoAfterAMove) {
  UsageReader reader(CallKind::openai_chat, kNoUnits, Format::event_stream, kMaxBytes);
  reader.feed(std::string_view(kChatStream).substr(0, 100));
  UsageReader moved(std::move(reader));
  moved.feed(std::string_view(kChatStream).substr(100));
  const auto usage = moved.finish(true);
  moved.feed("data: {\"choices\":[],\"usage\":{\"prompt_tokens\":900,\"completion_tokens\":900}}\n\n");
  EXPECT_EQ(tokens_of(moved.finish(true)), tokens_of(usage));
  EXPECT_EQ(tokens_of(usage), kStreams[0].tokens);
}

// Servers that leave out the last empty line.
TEST(UsageReaderTest, ALastEventWithoutItsEmptyLineCountsWhereTheStreamIsComplete) {
  const std::string text = "data: {\"choices\":[],\"usage\":{\"prompt_tokens\":5,\"completion_tokens\":1}}";
  EXPECT_EQ(stream(CallKind::openai_chat, text, true), (Tokens{.input = 5, .output = 1}));
  EXPECT_EQ(stream(CallKind::openai_chat, text, false), std::nullopt);
}

// Found by the fuzzer: a field without a colon has no value at all, not even an address.
TEST(UsageReaderTest, EventsWithoutDataTellNothing) {
  EXPECT_EQ(stream(CallKind::openai_chat, "data\n\ndata:\n\nevent\n\n"), std::nullopt);
}

TEST(UsageReaderTest, AnEventThatCannotBeReadMayHaveToldMore) {
  const std::string running =
      "data: {\"choices\":[{}],\"usage\":{\"prompt_tokens\":5,\"completion_tokens\":1}}\n\n";
  EXPECT_EQ(
      stream(CallKind::openai_chat, running + "data: {\"usage\":{\"prompt_tokens\":5,\n\ndata: [DONE]\n\n"),
      std::nullopt);
  UsageReader reader(CallKind::openai_chat, kNoUnits, Format::event_stream, 100);
  reader.feed(running + "data: {\"pad\":\"" + std::string(200, 'x') + "\"}\n\ndata: [DONE]\n\n");
  EXPECT_FALSE(reader.finish(true).known);
}

class UnitsTest : public testing::Test {
 protected:
  static policy::UnitPrice by_pointer(std::string pointer) {
    return {.name = "p", .pointer = std::move(pointer), .header = "", .per_unit = {}};
  }
  static policy::UnitPrice by_header(std::string header) {
    return {.name = "h", .pointer = "", .header = std::move(header), .per_unit = {}};
  }
  std::vector<policy::UnitPrice> units_{by_pointer("/billing/credits"), by_header("X-Credits-Used")};
};

TEST_F(UnitsTest, ArePointedAtInAnswersAndNamedByHeaders) {
  UsageReader reader(CallKind::other, units_, Format::json, kMaxBytes);
  reader.header("x-credits-used", " 2.25 ");
  reader.header("Content-Type", "application/json");
  reader.feed(R"({"billing":{"credits":"0.1"}})");
  const auto usage = reader.finish(true);
  EXPECT_FALSE(usage.known);
  EXPECT_EQ(usage.nano_units, (std::vector<std::int64_t>{100'000'000, 2'250'000'000}));
}

TEST_F(UnitsTest, HeadersCountWhateverTheBodyIs) {
  UsageReader reader(CallKind::other, units_, Format::none, 0);
  reader.header("X-CREDITS-USED", "3");
  reader.feed("bytes");
  EXPECT_EQ(reader.finish(false).nano_units, (std::vector<std::int64_t>{-1, 3'000'000'000}));
}

TEST_F(UnitsTest, NonsenseIsNotTold) {
  for (const char* bad : {"-1", "\"NaN\"", "\"\"", "1e300", "null", "{}", "true"}) {
    UsageReader reader(CallKind::other, units_, Format::json, kMaxBytes);
    reader.header("X-Credits-Used", bad);
    reader.feed(std::string(R"({"billing":{"credits":)") + bad + "}}");
    EXPECT_EQ(reader.finish(true).nano_units, (std::vector<std::int64_t>{-1, -1})) << bad;
  }
  UsageReader truncated(CallKind::other, units_, Format::json, kMaxBytes);
  truncated.feed(R"({"billing":{"credits":5})");
  EXPECT_EQ(truncated.finish(true).nano_units[0], -1);
}

TEST_F(UnitsTest, TheLastEventThatTellsThemCounts) {
  const std::string text =
      "data: {\"billing\":{\"credits\":1}}\n\ndata: {\"billing\":{\"credits\":2}}\n\ndata: {\"x\":1}\n\n";
  const auto units = [&](bool complete) {
    UsageReader reader(CallKind::other, units_, Format::event_stream, kMaxBytes);
    reader.feed(text);
    return reader.finish(complete).nano_units[0];
  };
  EXPECT_EQ(units(true), 2'000'000'000);
  // Cut: more may have been used. The bound of one unit is charged, or what was told where that is more.
  EXPECT_EQ(units(false), 2'000'000'000);
  units_[0].max_nano_units = 5'000'000'000;
  EXPECT_EQ(units(false), -1);
}

}  // namespace
}  // namespace penstock::gateway
