#include "store/sql/batch_plan.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace penstock::store::sql {
namespace {

using std::chrono::minutes;

constexpr WallTime kStart{std::chrono::hours{490'000}};

AttemptChange change(std::uint64_t sequence, std::optional<AttemptEnd> end = {},
                     std::optional<AttemptEnd> before = {}, bool is_new = true) {
  return {.now = {.id = {1, sequence},
                  .reserved_at = kStart,
                  .subjects = {{SubjectKind::provider, "p"}},
                  .estimate = {100},
                  .tokens = 10,
                  .end = end},
          .is_new = is_new,
          .before = before};
}
AttemptEnd cost(std::int64_t amount) {
  return {.at = kStart, .ending = Ending::actual, .expired = false, .cost = {amount}, .tokens = 3};
}
AttemptEnd lease_end() {
  return {.at = kStart, .ending = Ending::estimate, .expired = true, .cost = {100}, .tokens = 10};
}
BatchPlan plan(std::vector<AttemptChange> changes, std::vector<AttemptRow> known = {}, WallTime horizon = {},
               bool positions_are_behind = false) {
  LedgerBatch batch;
  batch.attempts = std::move(changes);
  BatchFacts facts;
  facts.sets.assign(batch.attempts.size(), 7);
  facts.attempts = std::move(known);
  facts.forgotten_before = horizon;
  facts.positions_are_behind = positions_are_behind;
  BatchPlan made = plan_batch(batch, facts);
  made.calls.clear();  // they point into the batch
  return made;
}
AttemptRow row(std::uint64_t sequence, std::optional<AttemptEnd> end = {}, bool corrected = false) {
  return {.id = {1, sequence},
          .reserved_at = kStart,
          .set = 7,
          .estimate = {100},
          .tokens = 10,
          .end = end,
          .corrected = corrected};
}

TEST(BatchPlanTest, QuartersAndDaysRoundDownBefore1970Too) {
  EXPECT_EQ(quarter_of(WallTime{minutes{29}}), WallTime{minutes{15}});
  EXPECT_EQ(quarter_of(WallTime{minutes{30}}), WallTime{minutes{30}});
  EXPECT_EQ(quarter_of(WallTime{nanoseconds{-1}}), WallTime{minutes{-15}});
  EXPECT_EQ(day_of(WallTime{nanoseconds{-1}}), WallTime{std::chrono::hours{-24}});
}

TEST(BatchPlanTest, TheAccountsOfAnAttemptAddUpToZero) {
  for (const std::int64_t charged : {0, 1, 99, 100, 101, 1'000}) {
    const Accounts is = accounts_of({100}, cost(charged));
    EXPECT_EQ(is.available() + is.reserved + is.spent + is.overrun, 0);
    EXPECT_EQ(is.spent + is.overrun, charged);
    EXPECT_LE(is.spent, 100);
  }
  EXPECT_EQ(accounts_of({100}, {}), (Accounts{.reserved = 100}));
}

// Settled + held never counts an attempt twice, whatever of it is in one batch.
TEST(BatchPlanTest, AnAttemptThatOpensAndEndsInABatchIsOneRowAndOnePosting) {
  const BatchPlan made = plan({change(1), change(1, cost(40), {}, false)});
  ASSERT_EQ(made.inserts.size(), 1U);
  EXPECT_EQ(made.inserts.front().end, cost(40));
  EXPECT_THAT(made.updates, testing::IsEmpty());
  ASSERT_EQ(made.postings.size(), 1U);
  const Posting& posting = made.postings.begin()->second;
  EXPECT_EQ(posting.moved, (Accounts{.spent = 40}));
  EXPECT_EQ(std::pair(posting.attempts, posting.tokens), std::pair(1L, 3L));
}

TEST(BatchPlanTest, WhatIsThereAlreadyMovesNothing) {
  for (const BatchPlan& made : {
           plan({change(1)}, {row(1)}), plan({change(1)}, {row(1, cost(40))}),
           plan({change(1, cost(40))}, {row(1, cost(40))}),
           plan({change(1, cost(41))}, {row(1, cost(40))}),                            // the first end stands
           plan({change(1, cost(41), lease_end(), false)}, {row(1, cost(40), true)}),  // was corrected
           plan({change(1, lease_end(), {}, false)}, {row(1, cost(40))}),              // too late to expire
       }) {
    EXPECT_THAT(made.inserts, testing::IsEmpty());
    EXPECT_THAT(made.updates, testing::IsEmpty());
    EXPECT_THAT(made.postings, testing::IsEmpty());
  }
}

// Read again after a restart, an expiry and its correction may have become one step.
TEST(BatchPlanTest, ASettlementReplacesAnExpiryWithoutNamingIt) {
  const BatchPlan made = plan({change(1, cost(130))}, {row(1, lease_end())});
  ASSERT_EQ(made.updates.size(), 1U);
  EXPECT_TRUE(made.updates.front().corrected);
  EXPECT_EQ(made.postings.begin()->second.moved, (Accounts{.overrun = 30}));
  EXPECT_EQ(made.postings.begin()->second.tokens, -7);
}

TEST(BatchPlanTest, WhatRetentionTookIsNotCountedAgain) {
  const WallTime horizon = kStart + minutes{1};
  EXPECT_THAT(plan({change(1, cost(40))}, {}, horizon, true).postings, testing::IsEmpty());
  EXPECT_EQ(plan({change(1, cost(40))}, {}, horizon, false).inserts.size(), 1U);  // it comes late, but is new
  const BatchPlan corrected = plan({change(1, cost(40), lease_end(), false)}, {}, horizon);
  EXPECT_THAT(corrected.inserts, testing::IsEmpty());
  EXPECT_EQ(corrected.postings.begin()->second.moved, (Accounts{.spent = -60}));
  EXPECT_EQ(corrected.postings.begin()->second.attempts, 0);
}

// The text is the set's identity: two sets must not share it, whatever their names are.
TEST(BatchPlanTest, TheTextOfASetIsUnambiguous) {
  const auto text = [](std::vector<SubjectRef> subjects) {
    std::string out;
    write_set(subjects, out);
    return out;
  };
  EXPECT_EQ(text({{SubjectKind::provider, "openai"}, {SubjectKind::team, "a b"}}),
            "provider 6 openai team 3 a b ");
  EXPECT_NE(text({{SubjectKind::team, "a team 1 b"}}),
            text({{SubjectKind::team, "a"}, {SubjectKind::team, "b"}}));
}

TEST(BatchPlanTest, TheCacheOfSetsIsBounded) {
  SetCache cache;
  for (std::size_t i = 0; i <= SetCache::kMaxSets; ++i)
    cache.keep(std::to_string(i), static_cast<std::int64_t>(i));
  EXPECT_FALSE(cache.find("0"));
  EXPECT_EQ(cache.find(std::to_string(SetCache::kMaxSets)), static_cast<std::int64_t>(SetCache::kMaxSets));
}

TEST(BatchPlanTest, WhatIsNotUtf8IsReplaced) {
  EXPECT_TRUE(is_plain_utf8("caf\xC3\xA9"));
  EXPECT_FALSE(is_plain_utf8(std::string_view("a\0b", 3)));
  EXPECT_FALSE(is_plain_utf8("\xC0\xAF"));
  EXPECT_EQ(to_plain_utf8(std::string_view("a\0\xFFz", 4)), "a\xEF\xBF\xBD\xEF\xBF\xBDz");
}

}  // namespace
}  // namespace penstock::store::sql
