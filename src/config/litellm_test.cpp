#include "config/litellm.hpp"

#include "config/testing.hpp"

namespace penstock::config {
namespace {

using ::testing::HasSubstr;

// In the format of LiteLLM's public file, numbers of our own.
constexpr std::string_view kSample = R"({
  "sample_spec": {"input_cost_per_token": "set to …", "max_tokens": "LEGACY parameter", "litellm_provider": "one of …"},
  "gpt-mini": {"max_tokens": 16384, "max_input_tokens": 128000, "max_output_tokens": 8192, "input_cost_per_token": 1.5e-07,
    "output_cost_per_token": 6e-07, "cache_read_input_token_cost": 7.5e-08, "litellm_provider": "openai", "mode": "chat",
    "supports_vision": true, "search_context_cost_per_query": {"low": 0.03, "high": [1, {"x": 2}]}},
  "claude-x": {"input_cost_per_token": 3e-06, "output_cost_per_token": 0.000015, "cache_creation_input_token_cost": 3.75e-06,
    "cache_creation_input_token_cost_above_1hr": 6e-06, "cache_read_input_token_cost": 3e-07, "litellm_provider": "anthropic",
    "mode": "chat", "max_tokens": 8192},
  "gemini/long": {"input_cost_per_token_above_200k_tokens": 2.5e-06, "input_cost_per_token": 1.25e-06,
    "output_cost_per_token": 1e-05, "output_cost_per_token_above_200k_tokens": 1.5e-05, "litellm_provider": "gemini", "mode": "chat"},
  "embed": {"input_cost_per_token": 2e-08, "output_cost_per_token": 0.0, "max_tokens": 8191, "litellm_provider": "openai", "mode": "embedding"},
  "dall-e": {"input_cost_per_pixel": 1.9e-08, "litellm_provider": "openai", "mode": "image_generation"},
  "fine": {"input_cost_per_token": 1e-16, "litellm_provider": "openai", "mode": "chat"},
  "text": {"input_cost_per_token": "1e-6", "output_cost_per_token": null, "litellm_provider": "openai"}
})";

const policy::ModelPrice& price_of(const LiteLlmFile& file, std::string_view name) {
  const auto found = std::ranges::find(file.entries, name, &LiteLlmFile::Entry::name);
  EXPECT_NE(found, file.entries.end()) << name;
  static const policy::ModelPrice kNone;
  return found == file.entries.end() ? kNone : found->price;
}

TEST(LiteLlm, NumbersAreExact) {
  const auto file = parse_litellm(kSample);
  ASSERT_TRUE(file) << file.error().text;
  EXPECT_EQ(price_of(*file, "gpt-mini"), (policy::ModelPrice{.input = 150'000'000,
                                                             .output = 600'000'000,
                                                             .cached_input = 75'000'000,
                                                             .cache_write = {},
                                                             .max_output_tokens = 8192,
                                                             .max_input_tokens = 128000}));
  EXPECT_EQ(price_of(*file, "claude-x"), (policy::ModelPrice{.input = 3'000'000'000,
                                                             .output = 15'000'000'000,
                                                             .cached_input = 300'000'000,
                                                             .cache_write = 3'750'000'000,
                                                             .max_output_tokens = 8192,
                                                             .max_input_tokens = 0}));
  EXPECT_EQ(price_of(*file, "text").input, 1'000'000'000);
}

// Finer than a nano-dollar per million: rounded up, so that a budget never counts too little.
TEST(LiteLlm, WhatIsTooFineBecomesDearer) { EXPECT_EQ(price_of(*parse_litellm(kSample), "fine").input, 1); }

TEST(LiteLlm, TheDearestTierStandsForAll) {
  const auto file = parse_litellm(kSample);
  EXPECT_EQ(price_of(*file, "gemini/long").input, 2'500'000'000);
  EXPECT_EQ(price_of(*file, "gemini/long").output, 15'000'000'000);
}

TEST(LiteLlm, AnEmbeddersMaxTokensAreItsInput) {
  EXPECT_EQ(price_of(*parse_litellm(kSample), "embed").max_output_tokens, 0);
}

TEST(LiteLlm, EntriesWithoutTokenPricesAreSkipped) {
  const auto file = parse_litellm(kSample);
  for (const auto& entry : file->entries) {
    EXPECT_NE(entry.name, "sample_spec");
    EXPECT_NE(entry.name, "dall-e");
  }
  EXPECT_EQ(file->entries.size(), 6U);
}

TEST(LiteLlm, OwnPricesAndExactNamesWin) {
  const auto file = parse_litellm(R"({
    "openai/a": {"input_cost_per_token": 1e-06, "litellm_provider": "openai"},
    "a": {"input_cost_per_token": 2e-06, "litellm_provider": "openai"},
    "openai/b": {"input_cost_per_token": 3e-06, "litellm_provider": "openai"},
    "azure/b": {"input_cost_per_token": 4e-06, "litellm_provider": "azure"},
    "openai/c": {"input_cost_per_token": 5e-06, "litellm_provider": "openai"},
    "mistral/d": {"input_cost_per_token": 6e-06, "litellm_provider": "vertex_ai"}})");
  ASSERT_TRUE(file) << file.error().text;
  std::map<std::string, policy::ModelPrice, std::less<>> all{{"openai/c", {.input = 7}}};
  EXPECT_EQ(add_litellm(*file, "", all), 6U);
  EXPECT_EQ(all.at("a").input, 2'000'000'000);  // its own entry, not the short name of openai/a
  EXPECT_EQ(all.at("openai/a").input, 1'000'000'000);
  EXPECT_FALSE(all.contains("b"));         // two prices: nobody's
  EXPECT_EQ(all.at("openai/c").input, 7);  // was there before
  EXPECT_EQ(all.at("c").input, 5'000'000'000);
  EXPECT_FALSE(all.contains("d"));  // the prefix is not the provider

  std::map<std::string, policy::ModelPrice, std::less<>> azure;
  EXPECT_EQ(add_litellm(*file, "azure", azure), 1U);
  EXPECT_EQ(azure.size(), 2U);
  EXPECT_EQ(azure.at("b").input, 4'000'000'000);
  EXPECT_EQ(add_litellm(*file, "cohere", azure), 0U);
}

TEST(LiteLlm, BrokenFilesAreRefusedWithThePlace) {
  EXPECT_THAT(parse_litellm(R"({"m": {"input_cost_per_token": -1e-6}})").error().text,
              HasSubstr(R"("input_cost_per_token" of model "m" has no usable value)"));
  EXPECT_THAT(parse_litellm(R"({"m": {"input_cost_per_token": true}})").error().text,
              HasSubstr("no usable value"));
  EXPECT_THAT(parse_litellm(R"({"m": {"output_cost_per_token": "dear"}})").error().text,
              HasSubstr("no usable value"));
  EXPECT_THAT(parse_litellm(R"({"m": {"input_cost_per_token": 1e300}})").error().text,
              HasSubstr("no usable value"));
  for (const char* text :
       {"", "[]", "{", "42", "{\"m\": {\"input_cost_per_token\": 1e-6}", "{\"m\" {}}", "\xff"}) {
    EXPECT_FALSE(parse_litellm(text)) << text;
  }
  EXPECT_FALSE(parse_litellm(R"({"m": {"input_cost_per_token": 1e-6}} {})"));
  EXPECT_THAT(parse_litellm("{}").error().text, HasSubstr("no model with a price per token"));
}

}  // namespace
}  // namespace penstock::config
