#include "config/mistakes.hpp"

#include <gtest/gtest.h>

namespace penstock::config {
namespace {

TEST(EditDistance, CountsSwapsOfNeighboursAsOne) {
  EXPECT_EQ(edit_distance("limits", "limits"), 0U);
  EXPECT_EQ(edit_distance("limts", "limits"), 1U);
  EXPECT_EQ(edit_distance("limist", "limits"), 1U);
  EXPECT_EQ(edit_distance("lmitis", "limits"), 2U);
  EXPECT_EQ(edit_distance("", "abc"), 3U);
  EXPECT_EQ(edit_distance("LIMITS", "limits"), 0U);
}

TEST(EditDistance, LongTextsAreFarFromEverything) {
  EXPECT_EQ(edit_distance(std::string(65, 'a'), std::string(65, 'a')), 64U);  // bounded work
}

TEST(Nearest, FindsTheNearestWithinTwoEdits) {
  constexpr std::array<std::string_view, 3> kWords{"limits", "limit", "timeouts"};
  EXPECT_EQ(nearest("limts", kWords), "limits");
  EXPECT_EQ(nearest("limi", kWords), "limit");
  EXPECT_EQ(nearest("tmeots", kWords), "timeouts");
  EXPECT_EQ(nearest("budgets", kWords), "");
}

// "ab" is two edits from "tls" less a letter: a suggestion that shares nothing only confuses.
TEST(Nearest, NothingInCommonIsNoNearMiss) {
  constexpr std::array<std::string_view, 2> kWords{"p", "ab"};
  EXPECT_EQ(nearest("xy", kWords), "");
}

TEST(Shown, IsOneLineAndBounded) {
  EXPECT_EQ(shown("a\"b\n\x01"), R"("a\"b\n\x01")");
  const std::string text = shown(std::string(59, 'a') + "üü" + std::string(100, 'b'));
  EXPECT_EQ(text, "\"" + std::string(59, 'a') + "ü…\"");  // not cut inside a character
}

TEST(Mistake, PrintsAsOneLineWithPlaceAndHint) {
  Mistake mistake{.place = {.file = "a.yaml", .line = 12, .column = 7}, .text = "wrong", .hint = {}};
  EXPECT_EQ(to_string(mistake), "a.yaml:12:7: wrong");
  mistake.hint = "did you mean right?";
  EXPECT_EQ(to_string(mistake), "a.yaml:12:7: wrong; did you mean right?");
}

TEST(Mistakes, AreSortedAndBounded) {
  Mistakes mistakes("f");
  for (int line = 500; line > 0; --line) mistakes.add({.line = line, .column = 1}, "x");
  const auto all = mistakes.take();
  ASSERT_EQ(all.size(), Mistakes::kMost);
  EXPECT_LT(all.front().place.line, all.back().place.line);
}

}  // namespace
}  // namespace penstock::config
