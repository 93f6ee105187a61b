#include "base/name.hpp"

#include <gtest/gtest.h>

namespace penstock {
namespace {

// A name is its text, kept once: equal texts are one pointer, and an empty one needs no table.
TEST(Name, IsKeptOnce) {
  std::string text = "openai";
  const Name first(text);
  text = "changed";
  EXPECT_EQ(first.view(), "openai");
  EXPECT_EQ(first, Name("openai"));
  EXPECT_EQ(first.view().data(), Name("openai").view().data());
  EXPECT_FALSE(first == Name("geocoder"));
  EXPECT_EQ(Name().view(), "");
  EXPECT_EQ(Name(""), Name());
}

}  // namespace
}  // namespace penstock
