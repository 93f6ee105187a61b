#include "gateway/meter/request_facts.hpp"

#include <string>

#include <gtest/gtest.h>

namespace penstock::gateway {
namespace {

RequestFacts chat(std::string_view body) {
  return read_request(CallKind::openai_chat, "/v1/chat/completions", body);
}
RequestFacts read(CallKind kind, std::string_view body) { return read_request(kind, "/", body); }

TEST(CallKindTest, PathsTellTheKind) {
  using config::Api;
  EXPECT_EQ(call_kind(Api::openai, "/v1/chat/completions"), CallKind::openai_chat);
  EXPECT_EQ(call_kind(Api::openai, "/v1/chat/completions/?a=b"), CallKind::openai_chat);
  EXPECT_EQ(call_kind(Api::openai, "/openai/deployments/x/chat/completions?api-version=1"),
            CallKind::openai_chat);
  EXPECT_EQ(call_kind(Api::openai, "/v1/completions"), CallKind::openai_completions);
  EXPECT_EQ(call_kind(Api::openai, "/v1/responses"), CallKind::openai_responses);
  EXPECT_EQ(call_kind(Api::openai, "/v1/embeddings"), CallKind::openai_embeddings);
  EXPECT_EQ(call_kind(Api::openai, "/v1/models"), CallKind::other);
  EXPECT_EQ(call_kind(Api::anthropic, "/v1/messages"), CallKind::anthropic_messages);
  EXPECT_EQ(call_kind(Api::anthropic, "/v1/messages/count_tokens"), CallKind::other);
  EXPECT_EQ(call_kind(Api::gemini, "/v1beta/models/gemini-2.5-flash:generateContent"),
            CallKind::gemini_generate);
  EXPECT_EQ(call_kind(Api::gemini, "/v1beta/models/g:streamGenerateContent?alt=sse"),
            CallKind::gemini_stream);
  EXPECT_EQ(call_kind(Api::gemini, "/v1beta/models/g:countTokens"), CallKind::other);
  EXPECT_EQ(call_kind(Api::gemini, "/v1beta/openai/chat/completions"), CallKind::openai_chat);
  EXPECT_EQ(call_kind(Api::generic, "/v1/chat/completions"), CallKind::other);
}

TEST(RequestFactsTest, OpenAiChat) {
  const std::string body = R"({"model":"gpt-4o-mini","messages":[{"role":"system","content":"Be brief."},
    {"role":"user","content":[{"type":"text","text":"Hello"}]}],"max_completion_tokens":200,"n":3,"stream":true,
    "stream_options":{"include_usage":true},"temperature":0.5})";
  const auto facts = chat(body);
  EXPECT_TRUE(facts.is_json_object);
  EXPECT_EQ(facts.model, "gpt-4o-mini");
  EXPECT_TRUE(facts.stream);
  EXPECT_TRUE(facts.asks_for_stream_usage);
  EXPECT_FALSE(facts.has_unbounded_input);
  EXPECT_EQ(facts.max_output_tokens, 200);
  EXPECT_EQ(facts.choices, 3);
  EXPECT_TRUE(facts.produces_output);
  EXPECT_EQ(facts.input_token_bound, static_cast<std::int64_t>(body.size()) + 2 * 16);
}

TEST(RequestFactsTest, OtherShapes) {
  EXPECT_EQ(read(CallKind::openai_responses, R"({"model":"m","input":"hi","max_output_tokens":9})")
                .max_output_tokens,
            9);
  EXPECT_EQ(
      read(CallKind::anthropic_messages, R"({"model":"m","max_tokens":8,"messages":[]})").max_output_tokens,
      8);
  const auto gemini =
      read_request(CallKind::gemini_stream, "/v1beta/models/gemini%2D2.5-pro:streamGenerateContent?alt=sse",
                   R"({"contents":[{"parts":[{"text":"x"}]}],
                                       "generationConfig":{"maxOutputTokens":"7","candidateCount":2}})");
  EXPECT_EQ(gemini.model, "gemini-2.5-pro");
  EXPECT_TRUE(gemini.stream);
  EXPECT_EQ(gemini.max_output_tokens, 7);
  EXPECT_EQ(gemini.choices, 2);
  EXPECT_FALSE(gemini.has_unbounded_input);
  EXPECT_EQ(
      read(CallKind::gemini_generate, R"({"generation_config":{"max_output_tokens":6}})").max_output_tokens,
      6);
  EXPECT_FALSE(read(CallKind::openai_embeddings, R"({"model":"e","input":["a","b"]})").produces_output);
}

// Azure serves the deployment of the path whatever model the body names: a caller must not choose the price.
TEST(RequestFactsTest, ADeploymentOfThePathIsTheModel) {
  EXPECT_EQ(
      read_request(CallKind::openai_chat, "/openai/deployments/big/chat/completions", R"({"model":"small"})")
          .model,
      "big");
}

// A bound that the provider of this kind does not know bounds nothing.
TEST(RequestFactsTest, OnlyTheBoundsOfTheKindCount) {
  EXPECT_EQ(read(CallKind::openai_responses, R"({"max_tokens":1})").max_output_tokens, std::nullopt);
  EXPECT_EQ(read(CallKind::anthropic_messages, R"({"max_output_tokens":1})").max_output_tokens, std::nullopt);
  EXPECT_EQ(read(CallKind::gemini_generate, R"({"max_tokens":1})").max_output_tokens, std::nullopt);
  EXPECT_EQ(chat(R"({"max_completion_tokens":1,"max_tokens":500})").max_output_tokens, 500);
  EXPECT_EQ(chat(R"({"max_tokens":500,"max_tokens":1})").max_output_tokens, 500);
  EXPECT_EQ(chat(R"({"max_tok\u0065ns":500})").max_output_tokens, 500);
}

TEST(RequestFactsTest, AbsurdBoundsAreAbsent) {
  for (const char* value :
       {"-1", "0", "null", "true", "\"many\"", "1e40", "99999999999999999999999", "[]", "{}"}) {
    const auto facts = chat(std::string(R"({"max_tokens":)") + value + R"(,"n":)" + value + "}");
    EXPECT_EQ(facts.max_output_tokens, std::nullopt) << value;
    EXPECT_EQ(facts.choices, 1) << value;
    EXPECT_TRUE(facts.is_json_object) << value;
  }
  EXPECT_EQ(chat(R"({"n":100000})").choices, 128);
}

// The completions API answers each prompt of a list with its own choices.
TEST(RequestFactsTest, EachPromptOfAListHasItsChoices) {
  const auto choices = [](std::string_view body) { return read(CallKind::openai_completions, body).choices; };
  EXPECT_EQ(choices(R"({"prompt":["a","b","c"],"n":2})"), 6);
  EXPECT_EQ(choices(R"({"prompt":[[1,2],[3]],"best_of":5,"n":2})"), 10);
  EXPECT_EQ(choices(R"({"prompt":[1,2,3],"n":2})"), 2);
  EXPECT_EQ(choices(R"({"prompt":"a"})"), 1);
  EXPECT_EQ(choices(R"({"prompt":[]})"), 1);
}

TEST(RequestFactsTest, WhatBytesDoNotBoundIsSaid) {
  const auto unbounded = [](CallKind kind, std::string_view body) {
    const auto facts = read(kind, body);
    EXPECT_TRUE(facts.is_json_object) << body;
    return facts.has_unbounded_input;
  };
  const auto chat = CallKind::openai_chat;
  const auto responses = CallKind::openai_responses;
  const auto anthropic = CallKind::anthropic_messages;
  const auto gemini = CallKind::gemini_generate;
  EXPECT_TRUE(unbounded(
      chat, R"({"messages":[{"content":[{"type":"image_url","image_url":{"url":"https://x"}}]}]})"));
  EXPECT_TRUE(unbounded(
      chat, R"({"messages":[{"content":[{"type":"input_audio","input_audio":{"data":"UklG"}}]}]})"));
  EXPECT_TRUE(unbounded(chat, R"({"messages":[{"content":[{"type":"file","file":{"file_id":"f"}}]}]})"));
  EXPECT_TRUE(unbounded(chat, R"({"messages":[{"role":"assistant","audio":{"id":"a"}}]})"));
  EXPECT_TRUE(unbounded(chat, R"({"web_search_options":{}})"));
  EXPECT_TRUE(unbounded(responses, R"({"input":"x","previous_response_id":"r"})"));
  EXPECT_TRUE(unbounded(responses, R"({"input":"x","conversation":"c"})"));
  EXPECT_TRUE(unbounded(responses, R"({"prompt":{"id":"p"}})"));
  EXPECT_TRUE(unbounded(responses, R"({"input":[{"type":"item_reference","id":"i"}]})"));
  EXPECT_TRUE(unbounded(responses, R"({"input":[{"content":[{"type":"input_image","file_id":"f"}]}]})"));
  EXPECT_TRUE(unbounded(responses,
                        R"({"input":[{"type":"function_call_output","output":[{"type":"input_file"}]}]})"));
  EXPECT_TRUE(unbounded(responses, R"({"input":"x","tools":[{"type":"web_search"}]})"));
  EXPECT_TRUE(
      unbounded(anthropic, R"({"messages":[{"content":[{"type":"image","source":{"type":"base64"}}]}]})"));
  EXPECT_TRUE(unbounded(anthropic, R"({"messages":[{"content":[{"type":"document","source":{}}]}]})"));
  EXPECT_TRUE(unbounded(
      anthropic,
      R"({"messages":[{"content":[{"type":"tool_result","content":[{"type":"image","source":{}}]}]}]})"));
  EXPECT_TRUE(unbounded(anthropic, R"({"tools":[{"type":"web_search_20250305","name":"web_search"}]})"));
  EXPECT_TRUE(unbounded(gemini, R"({"contents":[{"parts":[{"inlineData":{"data":"aGk="}}]}]})"));
  EXPECT_TRUE(unbounded(gemini, R"({"contents":[{"parts":[{"file_data":{"file_uri":"u"}}]}]})"));
  EXPECT_TRUE(unbounded(gemini, R"({"contents":{"parts":{"inl\u0069neData":{}}}})"));
  EXPECT_TRUE(unbounded(gemini, R"({"cachedContent":"c"})"));
  EXPECT_TRUE(unbounded(gemini, R"({"tools":[{"googleSearch":{}}]})"));
  EXPECT_TRUE(unbounded(chat, R"({"messages":)" + std::string(100, '[') + std::string(100, ']') + "}"));

  EXPECT_FALSE(unbounded(chat, R"({"messages":[{"role":"assistant","content":null,"audio":null,"tool_calls":[
      {"type":"function","function":{"name":"f","arguments":"{\"type\":\"image\"}"}}]},{"role":"tool","content":"x"}]})"));
  EXPECT_FALSE(unbounded(chat, R"({"tools":[{"type":"function","function":{"name":"f"}}],"messages":[]})"));
  EXPECT_FALSE(unbounded(responses, R"({"previous_response_id":null,"conversation":null,"input":[
      {"type":"message","role":"user","content":[{"type":"input_text","text":"x"}]},
      {"type":"function_call","arguments":"{}"},{"type":"function_call_output","output":"y"}]})"));
  EXPECT_FALSE(
      unbounded(anthropic, R"({"system":[{"type":"text","text":"s","cache_control":{"type":"ephemeral"}}],
      "tools":[{"name":"t","input_schema":{"type":"object"}}],"messages":[{"role":"assistant","content":[
      {"type":"tool_use","name":"t","input":{"type":"circle"}}]},{"role":"user","content":[
      {"type":"tool_result","content":[{"type":"text","text":"r"}]}]}]})"));
  EXPECT_FALSE(unbounded(gemini, R"({"tools":[{"functionDeclarations":[{"name":"f"}]}],"contents":[{"parts":[
      {"text":"x"},{"functionCall":{"name":"f","args":{"type":"image"}}}]}]})"));
}

// Tools are rendered again, with a prompt around them.
TEST(RequestFactsTest, ToolsCountTwiceAndBringAPrompt) {
  const std::string tools = R"([{"type":"function","function":{"name":"f","description":"Größe"}}])";
  const std::string body = R"({"tools":)" + tools + "}";
  EXPECT_EQ(chat(body).input_token_bound, static_cast<std::int64_t>(body.size() + tools.size()) + 1024);
}

// Two members of a name: parsers differ in which one counts, so a cheap model could hide a dear one.
TEST(RequestFactsTest, AnAmbiguousModelIsNotRead) {
  const auto facts = chat(R"({"model":"cheap","messages":[],"model":"dear"})");
  EXPECT_FALSE(facts.is_json_object);
  EXPECT_TRUE(facts.has_unbounded_input);
  EXPECT_EQ(facts.model, "");
}

TEST(RequestFactsTest, WhatIsNoJsonObjectHasTheBytesOnly) {
  const std::string deep = std::string(100'000, '[') + std::string(100'000, ']');
  for (const std::string& body :
       {std::string("not json"), std::string("[]"), std::string("1"), std::string("\"x\""),
        std::string("{\"model\":"), std::string("{\"model\":\"m\"}}"),
        std::string("{\"model\":\"\xff\xfe\"}"), std::string("{\"model\":\"m\"} x"), deep,
        std::string("\x1f\x8b\x08\x00", 4), std::string("{\"model\":\"\\ud800\"", 17),
        std::string(1000, '\0')}) {
    const auto facts = chat(body);
    EXPECT_FALSE(facts.is_json_object) << body.substr(0, 40);
    EXPECT_TRUE(facts.has_unbounded_input);
    EXPECT_EQ(facts.model, "");
    EXPECT_EQ(facts.max_output_tokens, std::nullopt);
    EXPECT_EQ(facts.input_token_bound, static_cast<std::int64_t>(body.size()));
  }
  EXPECT_FALSE(chat("").has_unbounded_input);
  EXPECT_FALSE(chat({}).is_json_object);
  EXPECT_EQ(chat("").input_token_bound, 0);
  // Deep but valid, where nobody looks and where somebody does.
  EXPECT_TRUE(chat(R"({"metadata":)" + deep + "}").is_json_object);
  EXPECT_TRUE(chat(R"({"messages":)" + deep + "}").has_unbounded_input);
}

TEST(BoundTest, TheRequestThenTheModelThenTheDefault) {
  policy::ModelPrice model{.max_output_tokens = 1000, .max_input_tokens = 128'000};
  RequestFacts facts;
  facts.input_token_bound = 50;
  facts.choices = 2;
  EXPECT_EQ(bound_of(facts, nullptr, 4096).output_tokens, 8192);
  EXPECT_EQ(bound_of(facts, &model, 4096).output_tokens, 2000);
  facts.max_output_tokens = 10;
  EXPECT_EQ(bound_of(facts, &model, 4096).output_tokens, 20);
  EXPECT_EQ(bound_of(facts, &model, 4096).input_tokens, 50);
  facts.has_unbounded_input = true;
  EXPECT_EQ(bound_of(facts, &model, 4096).input_tokens, 128'000);
  model.max_input_tokens = 0;
  EXPECT_EQ(bound_of(facts, &model, 4096).input_tokens, 1 << 20);
  EXPECT_EQ(bound_of(facts, nullptr, 4096).input_tokens, 50);
  facts.produces_output = false;
  EXPECT_EQ(bound_of(facts, &model, 4096).output_tokens, 0);
}

TEST(BoundTest, ProductsDoNotOverflow) {
  RequestFacts facts;
  facts.max_output_tokens = 1'000'000'000'000;
  facts.choices = 1LL << 40;
  EXPECT_EQ(bound_of(facts, nullptr, 1).output_tokens, 1'000'000'000'000'000);
}

TEST(StreamUsageTest, IsAskedForAndNothingElseChanges) {
  const auto with = [](std::string_view body) { return with_stream_usage(body).value_or("nothing"); };
  EXPECT_EQ(with(R"({})"), R"({"stream_options":{"include_usage":true}})");
  EXPECT_EQ(with(" \n{ \"a\" : [ 1.50 , {} ] } "),
            " \n{\"stream_options\":{\"include_usage\":true}, \"a\" : [ 1.50 , {} ] } ");
  EXPECT_EQ(with(R"({"stream_options":{},"a":1})"), R"({"stream_options":{"include_usage":true},"a":1})");
  EXPECT_EQ(with(R"({"stream_options": { "x":1 } })"),
            R"({"stream_options": {"include_usage":true, "x":1 } })");
  EXPECT_EQ(with(R"({"stream_options":null ,"a":1})"), R"({"stream_options":{"include_usage":true} ,"a":1})");
  EXPECT_EQ(with(R"({"stream_options":{"y":{},"include_usage" : false , "x":1}})"),
            R"({"stream_options":{"y":{},"include_usage" : true , "x":1}})");
  EXPECT_EQ(with(R"({"stream_options":{"include_usage":true}})"),
            R"({"stream_options":{"include_usage":true}})");
  EXPECT_EQ(with(R"({"stream_options":"odd"})"), R"({"stream_options":"odd"})");
  EXPECT_EQ(with(R"({"a":{"stream_options":{}}})"),
            R"({"stream_options":{"include_usage":true},"a":{"stream_options":{}}})");
  for (const char* body : {"", "[]", "{", "{}{}", "x", R"({"stream_options":{},"stream_options":{}})"}) {
    EXPECT_EQ(with_stream_usage(body), std::nullopt) << body;
  }
}

TEST(StreamUsageTest, WhatIsMadeAsksForUsage) {
  for (const char* body :
       {R"({"messages":[]})", R"({"stream_options":{"include_usage":null}})", R"({"stream_options":null})"}) {
    EXPECT_TRUE(chat(with_stream_usage(body).value()).asks_for_stream_usage) << body;
  }
}

}  // namespace
}  // namespace penstock::gateway
