#include "base/money.hpp"

#include <cstdio>
#include <limits>
#include <random>
#include <string>

#include <gtest/gtest.h>

namespace penstock {
namespace {

constexpr std::int64_t kInt64Max = std::numeric_limits<std::int64_t>::max();
constexpr std::int64_t kInt64Min = std::numeric_limits<std::int64_t>::min();

TEST(NanoUsd, AddsAndCompares) {
  EXPECT_EQ(NanoUsd{2} + NanoUsd{3}, NanoUsd{5});
  EXPECT_EQ(NanoUsd{2} - NanoUsd{3}, NanoUsd{-1});
  NanoUsd amount{1};
  amount += {5};
  amount -= {2};
  EXPECT_EQ(amount, NanoUsd{4});
  EXPECT_LT(NanoUsd{1}, NanoUsd{2});
}

TEST(AddSaturating, StopsAtTheMost) {
  EXPECT_EQ(add_saturating({1}, {2}), NanoUsd{3});
  EXPECT_EQ(add_saturating(kMaxNanoUsd, {0}), kMaxNanoUsd);
  EXPECT_EQ(add_saturating(kMaxNanoUsd, {1}), kMaxNanoUsd);
  EXPECT_EQ(add_saturating({kInt64Max}, {kInt64Max}), kMaxNanoUsd);
}

TEST(ParseUsd, ReadsDecimalDollarsExactly) {
  const struct {
    const char* text;
    std::int64_t nano;
  } cases[] = {
      {"0", 0},
      {"20", 20'000'000'000},
      {"0.25", 250'000'000},
      {".5", 500'000'000},
      {"5.", 5'000'000'000},
      {"007", 7'000'000'000},
      {"0.000000001", 1},
      {"0.0000000010", 1},
      {"1e-6", 1'000},
      {"1.5E-7", 150},
      {"2e3", 2'000'000'000'000},
      {"2e+3", 2'000'000'000'000},
      {"1000e-3", 1'000'000'000},
      {"0e99", 0},
      {"0e-99", 0},
      {"0.00000000000000000000", 0},
      {"9007199.254740991", 9'007'199'254'740'991},
      {"0.1", 100'000'000},  // not what a double makes of it
      {"1234567.890123456", 1'234'567'890'123'456},
  };
  for (const auto& [text, nano] : cases) {
    const auto amount = parse_usd(text);
    ASSERT_TRUE(amount.has_value()) << text;
    EXPECT_EQ(amount->count, nano) << text;
  }
}

TEST(ParseUsd, RefusesAllElse) {
  for (const char* text : {"",
                           ".",
                           "e5",
                           "-1",
                           "+1",
                           " 1",
                           "1 ",
                           "$1",
                           "1,5",
                           "1_000",
                           "1..2",
                           "1.2.3",
                           "1e",
                           "1e-",
                           "1e+",
                           "1ex",
                           "1e1.5",
                           "1e1e1",
                           "0x10",
                           "nan",
                           "inf",
                           "0.0000000001",
                           "1.0000000001",
                           "1e-10",
                           "9007199.254740992",
                           "9007200",
                           "1e8",
                           "1e99",
                           "1e999999999999",
                           "99999999999999999999999999999999999999999999999999",
                           "0.99999999999999999999999999999999999999999999999999"})
    EXPECT_FALSE(parse_usd(text).has_value()) << text;
  EXPECT_FALSE(parse_usd(std::string_view("1\0", 2)).has_value());
}

TEST(FormatUsd, WritesTheShortestExactDecimal) {
  const struct {
    std::int64_t nano;
    const char* text;
  } cases[] = {
      {0, "0"},
      {250'000'000, "0.25"},
      {20'000'000'000, "20"},
      {1, "0.000000001"},
      {-1'500'000'000, "-1.5"},
      {-1, "-0.000000001"},
      {1'000'000'010, "1.00000001"},
      {kMaxNanoUsd.count, "9007199.254740991"},
      {kInt64Max, "9223372036.854775807"},
      {kInt64Min, "-9223372036.854775808"},
  };
  for (const auto& [nano, text] : cases) EXPECT_EQ(format_usd({nano}), text);
}

// The longest there is must fit the buffer that the header promises is enough.
TEST(FormatUsd, NeedsNoMoreThan24Bytes) {
  char text[24];
  EXPECT_LE(format_usd_to({kInt64Min}, text), sizeof text);
}

TEST(MoneyProperty, ParseReadsWhatFormatWrites) {
  const std::uint64_t seed = std::random_device{}();
  std::printf("seed: %llu\n", static_cast<unsigned long long>(seed));
  SCOPED_TRACE("seed " + std::to_string(seed));
  std::mt19937_64 random(seed);
  for (int i = 0; i < 20'000; ++i) {
    // All magnitudes alike.
    const NanoUsd amount{static_cast<std::int64_t>((random() >> 11) >> (random() % 53))};
    const std::string text = format_usd(amount);
    ASSERT_EQ(parse_usd(text), amount) << text;
    ASSERT_FALSE(text.find('.') != std::string::npos && text.ends_with('0')) << text;
  }
}

}  // namespace
}  // namespace penstock
