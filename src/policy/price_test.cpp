#include "policy/price.hpp"

#include <limits>

#include <gtest/gtest.h>

#include "policy/property_testing.hpp"

namespace penstock::policy {
namespace {

constexpr std::int64_t kInt64Max = std::numeric_limits<std::int64_t>::max();
constexpr std::int64_t kUsdPerMillion = kNanoPerUsd;

/// 3 USD per million in, 15 out, 0.30 cached, 3.75 written.
ModelPrice sonnet() {
  return {.input = 3 * kUsdPerMillion,
          .output = 15 * kUsdPerMillion,
          .cached_input = 300'000'000,
          .cache_write = 3'750'000'000,
          .max_output_tokens = 64'000,
          .max_input_tokens = 200'000};
}

UnitPrice credits(NanoUsd per_unit, std::int64_t max_nano_units) {
  return {.name = "credits",
          .pointer = "/credits",
          .header = "",
          .per_unit = per_unit,
          .max_nano_units = max_nano_units};
}

TEST(FindModel, ExactThenUndatedThenDefault) {
  PriceList prices;
  EXPECT_EQ(prices.find_model("gpt-4o"), nullptr);
  EXPECT_FALSE(prices.has_models());
  prices.models["gpt-4o"].input = 1;
  prices.models["gpt-4o-2024-05-13"].input = 2;
  prices.models["claude-sonnet-4"].input = 3;
  EXPECT_TRUE(prices.has_models());
  EXPECT_EQ(prices.find_model("gpt-4o")->input, 1);
  EXPECT_EQ(prices.find_model("gpt-4o-2024-05-13")->input, 2);
  EXPECT_EQ(prices.find_model("gpt-4o-2024-08-06")->input, 1);
  EXPECT_EQ(prices.find_model("claude-sonnet-4-20250514")->input, 3);
  EXPECT_EQ(prices.find_model("claude-sonnet-4@20250514")->input, 3);
  for (const char* unknown :
       {"", "gpt-4", "gpt-4o-mini-2024-07-18", "gpt-4o-2024-08", "gpt-4o-1234-08-06", "gpt-4o-20240806x",
        "-2024-08-06", "gpt-4o-0806", "gpt-4o_20240806", "gpt-4o-latest"})
    EXPECT_EQ(prices.find_model(unknown), nullptr) << unknown;
  prices.default_model = ModelPrice{.input = 4};
  EXPECT_EQ(prices.find_model("gpt-4")->input, 4);
  EXPECT_EQ(prices.find_model("gpt-4o")->input, 1);
}

TEST(HasModels, DefaultModelIsOne) {
  PriceList prices;
  prices.default_model.emplace();
  EXPECT_TRUE(prices.has_models());
}

TEST(EstimateCost, FreeIsFree) {
  EXPECT_EQ(estimate_cost({}, nullptr, {1'000, 1'000}), NanoUsd{0});
  EXPECT_EQ(actual_cost({}, nullptr, {1'000, 1'000}, {}).amount, NanoUsd{0});
  EXPECT_FALSE(actual_cost({}, nullptr, {1'000, 1'000}, {}).estimated);
}

TEST(EstimateCost, SumsCallTokensAndUnits) {
  PriceList prices;
  prices.per_call = {7};
  prices.units.push_back(credits({1'000}, 2'500'000'000));
  const ModelPrice model{.input = 2'000'000, .output = 10'000'000};  // 2 and 10 nano-dollars a token
  EXPECT_EQ(estimate_cost(prices, &model, {100, 50}), NanoUsd{7 + 2'500 + 200 + 500});
}

// Whether the provider will read its cache, write it or neither is not known before: the dearest counts.
TEST(EstimateCost, TakesTheDearestInput) {
  ModelPrice model = sonnet();
  EXPECT_EQ(estimate_cost({}, &model, {1'000'000, 0}), NanoUsd{3'750'000'000});
  model.cache_write = 1;
  EXPECT_EQ(estimate_cost({}, &model, {1'000'000, 0}), NanoUsd{3'000'000'000});
  model.cached_input = 4'000'000'000;
  EXPECT_EQ(estimate_cost({}, &model, {1'000'000, 0}), NanoUsd{4'000'000'000});
}

// Three parts of a third of a nano-dollar each are one, not three.
TEST(EstimateCost, RoundsUpOnce) {
  PriceList prices;
  prices.units.push_back(credits({1}, 333'333'334));
  const ModelPrice model{.input = 333'333, .output = 333'333};
  EXPECT_EQ(estimate_cost(prices, &model, {1, 1}), NanoUsd{1});
  EXPECT_EQ(estimate_cost(prices, &model, {1, 2}), NanoUsd{2});
  EXPECT_EQ(estimate_cost({}, &model, {1, 0}), NanoUsd{1});
  EXPECT_EQ(estimate_cost({}, &model, {0, 0}), NanoUsd{0});
}

TEST(EstimateCost, RefusesAboveTheMost) {
  PriceList prices;
  prices.per_call = kMaxNanoUsd;
  EXPECT_EQ(estimate_cost(prices, nullptr, {}), kMaxNanoUsd);
  const ModelPrice model{.input = 1, .output = 0};
  EXPECT_EQ(estimate_cost(prices, &model, {0, 0}), kMaxNanoUsd);
  EXPECT_EQ(estimate_cost(prices, &model, {1, 0}), std::nullopt);  // a millionth of a nano-dollar more
}

// The largest numbers that the types hold must not wrap round into something cheap.
TEST(EstimateCost, DoesNotOverflow) {
  PriceList prices;
  prices.per_call = {kInt64Max};
  for (int i = 0; i < 50; ++i) prices.units.push_back(credits({kInt64Max}, kInt64Max));
  const ModelPrice most{.input = kInt64Max, .output = kInt64Max};
  EXPECT_EQ(estimate_cost(prices, &most, {kInt64Max, kInt64Max}), std::nullopt);
  const ModelPrice large{.input = kMaxNanoUsd.count, .output = kMaxNanoUsd.count};
  EXPECT_EQ(estimate_cost({}, &large, {kInt64Max, kInt64Max}), std::nullopt);
  EXPECT_EQ(estimate_cost({}, &large, {1, 0}), NanoUsd{(kMaxNanoUsd.count + 999'999) / 1'000'000});
  EXPECT_EQ(actual_cost(prices, &most, {kInt64Max, kInt64Max}, {}).amount, kMaxNanoUsd);
}

// Parts that each fit 128 bits, and whose sum does not.
TEST(EstimateCost, ManyLargePartsDoNotOverflow) {
  PriceList prices;
  for (int i = 0; i < 200; ++i) prices.units.push_back(credits(kMaxNanoUsd, kInt64Max));
  const ModelPrice large{.input = kMaxNanoUsd.count, .output = kMaxNanoUsd.count};
  EXPECT_EQ(estimate_cost(prices, &large, {kInt64Max, kInt64Max}), std::nullopt);
}

TEST(EstimateCost, NegativePricesAndBoundsAddNothing) {
  PriceList prices;
  prices.per_call = {-5};
  prices.units.push_back(credits({-5}, 1'000'000'000));
  const ModelPrice model{.input = -1'000'000, .output = 1'000'000};
  EXPECT_EQ(estimate_cost(prices, &model, {10, -10}), NanoUsd{0});
}

TEST(ActualCost, PricesEachKindOfToken) {
  const ModelPrice model = sonnet();
  const Usage usage{.known = true,
                    .input_tokens = 1'000,
                    .cached_input_tokens = 20'000,
                    .cache_write_tokens = 4'000,
                    .output_tokens = 500};
  const Cost cost = actual_cost({}, &model, {100'000, 1'000}, usage);
  EXPECT_EQ(cost.amount, NanoUsd{3'000'000 + 6'000'000 + 15'000'000 + 7'500'000});
  EXPECT_FALSE(cost.estimated);
  EXPECT_EQ(usage.total_tokens(), 25'500);
}

TEST(ActualCost, CachedAndWrittenCostAsInputWhereNothingElseIsSaid) {
  const ModelPrice model{.input = 2'000'000, .output = 0};
  const Usage usage{.known = true, .input_tokens = 1, .cached_input_tokens = 10, .cache_write_tokens = 100};
  EXPECT_EQ(actual_cost({}, &model, {}, usage).amount, NanoUsd{222});
}

TEST(ActualCost, ChargesTheBoundWhenTheAnswerDidNotSay) {
  const ModelPrice model = sonnet();
  const Cost cost = actual_cost({}, &model, {1'000, 100}, {});
  EXPECT_EQ(cost.amount, *estimate_cost({}, &model, {1'000, 100}));
  EXPECT_TRUE(cost.estimated);
}

TEST(ActualCost, DoesNotBelieveAbsurdCounts) {
  const ModelPrice model = sonnet();
  const UsageBound bound{1'000, 100};
  const Cost most = actual_cost({}, &model, bound, {});
  for (const std::int64_t absurd :
       {std::int64_t{-1}, kMaxPlausibleTokens + 1, kInt64Max, std::numeric_limits<std::int64_t>::min()}) {
    for (const auto field : {&Usage::input_tokens, &Usage::cached_input_tokens, &Usage::cache_write_tokens,
                             &Usage::output_tokens}) {
      Usage usage{.known = true};
      usage.*field = absurd;
      const Cost cost = actual_cost({}, &model, bound, usage);
      EXPECT_EQ(cost.amount, most.amount) << absurd;
      EXPECT_TRUE(cost.estimated);
    }
  }
  const Usage plausible{.known = true, .output_tokens = kMaxPlausibleTokens};
  EXPECT_EQ(actual_cost({}, &model, bound, plausible).amount,
            NanoUsd{15'000 * kNanoPerUsd});  // shown as overrun
}

TEST(ActualCost, ChargesUnitsAsTold) {
  PriceList prices;
  prices.per_call = {100};
  prices.units.push_back(credits({1'000'000}, 5'000'000'000));
  prices.units.push_back(credits({2'000}, 1'000'000'000));
  const auto cost_of = [&](std::vector<std::int64_t> nano_units) {
    return actual_cost(prices, nullptr, {}, {.nano_units = std::move(nano_units)});
  };
  EXPECT_EQ(cost_of({2'500'000'000, 0}).amount, NanoUsd{100 + 2'500'000});
  EXPECT_FALSE(cost_of({2'500'000'000, 0}).estimated);
  EXPECT_EQ(cost_of({0, 500'000'000}).amount, NanoUsd{100 + 1'000});
  // Not told, absent, or absurd: the most that one call can use.
  for (const std::int64_t untold :
       {std::int64_t{-1}, kMaxPlausibleNanoUnits + 1, std::numeric_limits<std::int64_t>::min()}) {
    EXPECT_EQ(cost_of({untold, 0}).amount, NanoUsd{100 + 5'000'000});
    EXPECT_TRUE(cost_of({untold, 0}).estimated);
  }
  EXPECT_EQ(cost_of({}).amount, NanoUsd{100 + 5'000'000 + 2'000});
  EXPECT_EQ(cost_of({0}).amount, NanoUsd{100 + 2'000});
  EXPECT_TRUE(cost_of({0}).estimated);
}

TEST(ActualCost, StopsAtTheMost) {
  PriceList prices;
  prices.units.push_back(credits(kMaxNanoUsd, 1'000'000'000));
  EXPECT_EQ(actual_cost(prices, nullptr, {}, {.nano_units = {kMaxPlausibleNanoUnits}}).amount, kMaxNanoUsd);
}

std::optional<std::int64_t> maybe_price(Random& random, std::int64_t most) {
  if (random.chance(40)) return std::nullopt;
  return random.between(0, most);
}

// C1: whatever an answer says within the bound, or does not say, the call costs no more than was held for it;
// and more usage never costs less (C4).
TEST(CostProperty, EstimateCoversEveryUsageWithinTheBound) {
  for_each_seed(300, [](Random& random) {
    const std::int64_t most = random.chance(30)   ? 1'000
                              : random.chance(50) ? 20 * kUsdPerMillion
                                                  : 600 * kUsdPerMillion;
    PriceList prices;
    prices.per_call = {random.chance(50) ? 0 : random.between(0, 10'000'000)};
    for (std::int64_t i = random.between(0, 3); i > 0; --i)
      prices.units.push_back(credits({random.between(0, 50'000'000)}, random.between(0, 100'000'000'000)));
    const ModelPrice model{.input = random.between(0, most),
                           .output = random.between(0, most),
                           .cached_input = maybe_price(random, most),
                           .cache_write = maybe_price(random, 2 * most)};
    const UsageBound bound{random.between(0, 2'000'000), random.between(0, 200'000)};
    const auto estimate = estimate_cost(prices, &model, bound);
    ASSERT_TRUE(estimate.has_value());
    for (int i = 0; i < 100; ++i) {
      Usage usage{.known = !random.chance(10)};
      std::int64_t input = random.between(0, bound.input_tokens);
      if (random.chance(20)) input = bound.input_tokens;
      usage.input_tokens = random.between(0, input);
      usage.cached_input_tokens = random.between(0, input - usage.input_tokens);
      usage.cache_write_tokens = input - usage.input_tokens - usage.cached_input_tokens;
      usage.output_tokens = random.chance(20) ? bound.output_tokens : random.between(0, bound.output_tokens);
      for (const UnitPrice& unit : prices.units)
        usage.nano_units.push_back(random.chance(10) ? -1 : random.between(0, unit.max_nano_units));
      const Cost cost = actual_cost(prices, &model, bound, usage);
      ASSERT_LE(cost.amount, *estimate);
      ASSERT_GE(cost.amount, prices.per_call);
      Usage more = usage;
      more.output_tokens += random.between(0, 1'000);
      more.cached_input_tokens += random.between(0, 1'000);
      ASSERT_GE(actual_cost(prices, &model, bound, more).amount, cost.amount);
    }
  });
}

// Against long division done by hand: the sum is exact and rounded up once.
TEST(CostProperty, ExactToTheNanoDollar) {
  for_each_seed(200, [](Random& random) {
    const ModelPrice model{.input = random.between(0, 100'000'000'000),
                           .output = random.between(0, 100'000'000'000)};
    const Usage usage{.known = true,
                      .input_tokens = random.between(0, 1'000'000),
                      .output_tokens = random.between(0, 1'000'000)};
    // Whole nano-dollars and millionths of one, kept apart.
    std::int64_t whole = 0;
    std::int64_t millionths = 0;
    for (const auto& [price, tokens] :
         {std::pair{model.input, usage.input_tokens}, {model.output, usage.output_tokens}}) {
      whole += price / 1'000'000 * tokens;
      millionths += price % 1'000'000 * tokens;
    }
    const std::int64_t expected = whole + millionths / 1'000'000 + (millionths % 1'000'000 != 0 ? 1 : 0);
    ASSERT_EQ(actual_cost({}, &model, {}, usage).amount.count, expected);
  });
}

}  // namespace
}  // namespace penstock::policy
