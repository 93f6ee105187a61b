#include "store/journal/fold.hpp"

#include <gtest/gtest.h>

#include "policy/property_testing.hpp"

namespace penstock::store {
namespace {

using namespace std::chrono_literals;
const WallTime kStart{std::chrono::hours{500'000}};

class FoldTest : public testing::Test {
 protected:
  Fold fold_;

  static ReserveRecord reserve(std::uint64_t id, std::int64_t estimate = 100) {
    return {.order = 0, .id = {1, id}, .at = kStart, .estimate = {estimate}, .tokens = 7, .subjects = {}};
  }
  static SettleRecord settle(std::uint64_t id, std::int64_t cost, Ending ending = Ending::actual) {
    return {.order = 0, .id = {1, id}, .at = kStart + 1s, .ending = ending, .cost = {cost}, .tokens = -1};
  }
  static ExpireRecord expire(std::uint64_t id) { return {.order = 0, .id = {1, id}, .at = kStart + 1s}; }
  AttemptChange only() {
    LedgerBatch batch = fold_.take();
    EXPECT_EQ(batch.attempts.size(), 1U);
    return batch.attempts.empty() ? AttemptChange{} : batch.attempts.front();
  }
};

TEST_F(FoldTest, WhatBeginsAndEndsInABatchIsOneChange) {
  fold_.add(reserve(1));
  fold_.add(settle(1, 40));
  const AttemptChange change = only();
  EXPECT_TRUE(change.is_new);
  EXPECT_FALSE(change.before);
  ASSERT_TRUE(change.now.end);
  EXPECT_EQ(change.now.end->cost, NanoUsd{40});
  EXPECT_EQ(change.now.end->tokens, 7);
  EXPECT_EQ(fold_.open(), 0U);
}

TEST_F(FoldTest, WhatIsOpenAtTheEndOfABatchEndsInALaterOne) {
  fold_.add(reserve(1));
  EXPECT_FALSE(only().now.end);
  fold_.add(settle(1, 40));
  const AttemptChange change = only();
  EXPECT_FALSE(change.is_new);
  EXPECT_FALSE(change.before);
  EXPECT_EQ(change.now.end->cost, NanoUsd{40});
}

TEST_F(FoldTest, EachEndingChargesWhatItSays) {
  for (std::uint64_t id = 1; id <= 4; ++id) fold_.add(reserve(id));
  fold_.add(settle(1, 130));
  fold_.add(settle(2, 1, Ending::estimate));
  fold_.add(settle(3, 1, Ending::released));
  fold_.add(expire(4));
  const auto changes = fold_.take().attempts;
  ASSERT_EQ(changes.size(), 4U);
  std::vector<std::int64_t> costs;
  std::vector<bool> expired;
  for (const AttemptChange& change : changes) {
    costs.push_back(change.now.end->cost.count);
    expired.push_back(change.now.end->expired);
  }
  EXPECT_EQ(costs, (std::vector<std::int64_t>{130, 100, 0, 100}));
  EXPECT_EQ(expired, (std::vector<bool>{false, false, false, true}));
  EXPECT_EQ(changes[2].now.end->tokens, 0);
}

// G3: a late settlement corrects the charge, once.
TEST_F(FoldTest, ALateSettlementCorrectsTheExpiryOnce) {
  fold_.add(reserve(1));
  fold_.add(expire(1));
  const AttemptEnd charged = *only().now.end;
  fold_.add(settle(1, 30));
  const AttemptChange change = only();
  EXPECT_FALSE(change.is_new);
  EXPECT_EQ(change.before, charged);
  EXPECT_EQ(change.now.end->cost, NanoUsd{30});
  EXPECT_FALSE(change.now.end->expired);
  fold_.add(settle(1, 99));
  fold_.add(expire(1));
  EXPECT_EQ(fold_.size(), 0U);
  EXPECT_EQ(fold_.ignored(), 2U);
}

// The reaper and a settlement meet: whichever the journal has first, the settlement's cost stands.
TEST_F(FoldTest, ExpiryAndSettlementInOneBatchAreOneChange) {
  fold_.add(reserve(1));
  (void)fold_.take();
  fold_.add(expire(1));
  fold_.add(settle(1, 30));
  AttemptChange change = only();
  EXPECT_FALSE(change.before);  // the database has it as open
  EXPECT_EQ(change.now.end->cost, NanoUsd{30});
  fold_.add(reserve(2));
  fold_.add(settle(2, 30));
  fold_.add(expire(2));
  change = only();
  EXPECT_EQ(change.now.end->cost, NanoUsd{30});
  EXPECT_FALSE(change.now.end->expired);
}

TEST_F(FoldTest, WhatIsNotOpenIsIgnored) {
  fold_.add(settle(9, 30));
  fold_.add(expire(9));
  fold_.add(reserve(1));
  fold_.add(reserve(1, 999));  // asked again: the first one stands
  fold_.add(settle(1, 5));
  fold_.add(settle(1, 6));
  EXPECT_EQ(fold_.ignored(), 4U);
  const AttemptChange change = only();
  EXPECT_EQ(change.now.estimate, NanoUsd{100});
  EXPECT_EQ(change.now.end->cost, NanoUsd{5});
}

TEST_F(FoldTest, TheDeadAreChargedAtTheirEstimates) {
  AttemptEntry old;
  old.id = {5, 1};
  old.estimate = {70};
  fold_.set_open({old});
  fold_.add(reserve(1));
  EXPECT_EQ(fold_.expire_others(1, kStart), 1U);
  const auto changes = fold_.take().attempts;
  ASSERT_EQ(changes.size(), 2U);
  EXPECT_FALSE(changes[1].is_new);
  EXPECT_EQ(changes[1].now.end->cost, NanoUsd{70});
  EXPECT_TRUE(changes[1].now.end->expired);
}

// Wherever the batches are cut, the same attempts end the same way.
TEST_F(FoldTest, BatchesMakeNoDifference) {
  policy::for_each_seed(40, [&](policy::Random& random) {
    Fold whole;
    Fold cut;
    std::map<AttemptId, AttemptEntry> of_whole;
    std::map<AttemptId, AttemptEntry> of_cut;
    const auto apply = [](std::map<AttemptId, AttemptEntry>& to, const LedgerBatch& batch) {
      for (const AttemptChange& change : batch.attempts) {
        const auto found = to.find(change.now.id);
        ASSERT_EQ(change.is_new, found == to.end());
        if (!change.is_new) ASSERT_EQ(found->second.end, change.before);
        to[change.now.id] = change.now;
      }
    };
    std::map<std::uint64_t, std::int64_t> expected;  // what each must cost
    std::map<std::uint64_t, int> state;              // 0 none, 1 open, 2 expired, 3 settled
    for (int step = 0; step < 300; ++step) {
      const auto id = static_cast<std::uint64_t>(random.between(1, 40));
      Record record = reserve(id, 100);
      const auto what = random.between(0, 2);
      if (what == 0 && state[id] == 0) {
        state[id] = 1;
        expected[id] = 100;
      } else if (what == 1) {
        const std::int64_t cost = random.between(0, 150);
        record = settle(id, cost);
        if (state[id] == 1 || state[id] == 2) {
          expected[id] = cost;
          state[id] = 3;
        }
      } else if (what == 2) {
        record = expire(id);
        if (state[id] == 1) state[id] = 2;
      } else if (state[id] != 1 && state[id] != 2) {
        continue;  // an id is used once
      }
      whole.add(record);
      cut.add(record);
      if (random.chance(20)) ASSERT_NO_FATAL_FAILURE(apply(of_cut, cut.take()));
    }
    ASSERT_NO_FATAL_FAILURE(apply(of_cut, cut.take()));
    ASSERT_NO_FATAL_FAILURE(apply(of_whole, whole.take()));
    ASSERT_EQ(of_whole.size(), of_cut.size());
    for (const auto& [id, entry] : of_whole) {
      EXPECT_EQ(entry.end, of_cut[id].end);
      EXPECT_EQ((entry.end ? entry.end->cost : entry.estimate).count, expected[id.sequence]);
    }
  });
}

}  // namespace
}  // namespace penstock::store
