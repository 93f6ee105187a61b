#include "gateway/series.hpp"

#include <deque>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace penstock::gateway {
namespace {

struct Named {
  std::string label;
  std::atomic<int> count{0};
};

/// Makes series and remembers them; a family has a lock of its own too.
struct Family {
  std::mutex mutex;
  std::deque<Named> made;
  Named& operator()(std::optional<std::uint32_t> number) {
    const std::scoped_lock lock(mutex);
    made.emplace_back().label = number ? std::to_string(*number) : "other";
    return made.back();
  }
};

TEST(SeriesByNumberTest, ANumberHasItsOwnSeriesMadeOnce) {
  Family family;
  SeriesByNumber<Named, 4> series;
  for (int round = 0; round < 3; ++round)
    for (const std::uint32_t number : {200U, 0U, 404U})
      EXPECT_EQ(series.get(number, family).label, std::to_string(number));
  EXPECT_EQ(family.made.size(), 3U);
}

// An observation never lands under another number's label.
TEST(SeriesByNumberTest, NumbersBeyondThePlacesShareOther) {
  Family family;
  SeriesByNumber<Named, 3> series;
  for (std::uint32_t number = 1; number <= 9; ++number) ++series.get(number, family).count;
  for (std::uint32_t number = 1; number <= 9; ++number) {
    Named& got = series.get(number, family);
    EXPECT_EQ(got.label, number <= 3 ? std::to_string(number) : "other");
    EXPECT_EQ(got.count, number <= 3 ? 1 : 6);
  }
  EXPECT_EQ(family.made.size(), 4U);
}

TEST(SeriesByNumberTest, AClosedSetThatFitsNeedsNoOther) {
  Family family;
  SeriesByNumber<Named, 2> series;
  const auto make = [&]() -> Named& { return family(7); };
  EXPECT_EQ(series.get(7, make).label, "7");
  EXPECT_EQ(&series.get(7, make), &series.get(7, make));
}

TEST(SeriesByNumberTest, ThreadsMeetInTheSameSeries) {
  Family family;
  SeriesByNumber<Named, 8> series;
  std::vector<std::thread> threads;
  for (int i = 0; i < 4; ++i)
    threads.emplace_back([&] {
      for (int round = 0; round < 500; ++round)
        for (std::uint32_t number = 0; number < 12; ++number) ++series.get(number, family).count;
    });
  for (std::thread& thread : threads) thread.join();
  ASSERT_EQ(family.made.size(), 9U);
  for (const Named& each : family.made)
    EXPECT_EQ(each.count, each.label == "other" ? 8'000 : 2'000) << each.label;
}

}  // namespace
}  // namespace penstock::gateway
