#include "store/redis/redis_state.hpp"

#include "store/contract/shared_state_contract.hpp"
#include "store/contract/shared_state_properties.hpp"
#include "store/contract/shared_state_stress.hpp"
#include "store/redis/redis_testing.hpp"

namespace penstock::store::contract {
namespace {

/// One for all tests of this file; each has a domain of its own.
RedisServer& server() {
  static RedisServer one;
  return one;
}

const auto kRedis =
    testing::Values(StateBackend{"redis", [] { return started(tests_options(server(), new_domain())); }});
const auto kName = [](const auto& test) { return test.param.name; };
INSTANTIATE_TEST_SUITE_P(Redis, SharedStateContract, kRedis, kName);
INSTANTIATE_TEST_SUITE_P(Redis, SharedStateProperties, kRedis, kName);
INSTANTIATE_TEST_SUITE_P(Redis, SharedStateStress, kRedis, kName);

/// One state with a clock that stands, as the contract's tests have it.
class RedisStateTest : public testing::Test {
 protected:
  std::unique_ptr<RedisState> state_ = started(tests_options(server(), new_domain()));
  Caller caller_{*state_};
  Now now_{MonotonicTime{1'000h}, kDay};
  std::uint64_t last_id_ = 0;

  std::expected<void, Refusal> ask(const std::vector<SubjectId>& subjects, std::int64_t estimate,
                                   std::int64_t token_count = 0) {
    return caller_.reserve({.id = {9, ++last_id_},
                            .subjects = subjects,
                            .estimate = {estimate},
                            .tokens = token_count,
                            .lease = 1min,
                            .is_retry = false,
                            .now = now_});
  }
  void settle(std::uint64_t id, Ending ending, std::int64_t cost = 0, std::int64_t used = -1) {
    state_->settle({.id = {9, id},
                    .ending = ending,
                    .cost = {cost},
                    .tokens = used,
                    .outcome = {},
                    .first_byte = {},
                    .now = now_});
  }
  std::string line(SubjectId id) { return line_of(state_->view(now_, std::vector{id}).at(0)); }
};

// The server counts in doubles: every amount up to 2^53 - 1 must come back as it went, and none above may go
// in.
TEST_F(RedisStateTest, NumbersAreExactUpToTheMostAndRefusedAbove) {
  constexpr std::int64_t kMost = kMaxNanoUsd.count;
  for (const std::int64_t amount :
       {std::int64_t{0}, std::int64_t{1}, std::int64_t{123'456'789'012'345},
        std::int64_t{100'000'000'000'000}, std::int64_t{1'000'000'000'000'001}, kMost - 1, kMost}) {
    SCOPED_TRACE(amount);
    const auto ids =
        state_->declare(std::vector{with_budgets(SubjectKind::provider, "p" + std::to_string(amount),
                                                 {daily(kMost), monthly(kMost)})},
                        now_);
    ASSERT_TRUE(ask(ids, amount));
    EXPECT_EQ(state_->view(now_, ids).at(0).budgets.at(0).held.count, amount);
    EXPECT_EQ(ask(ids, kMost - amount + 1).has_value(), false);
    settle(last_id_ - 1, Ending::actual, amount);
    EXPECT_EQ(state_->view(now_, ids).at(0).budgets.at(1).settled.count, amount);
    EXPECT_TRUE(ask(ids, kMost - amount));  // and the rest fits to the last one
  }
  const auto ids =
      state_->declare(std::vector{with_budgets(SubjectKind::provider, "q",
                                               {daily(kMost), monthly(kMost, policy::BudgetMode::warn)})},
                      now_);
  const std::string before = line(ids[0]);
  for (const std::int64_t bad :
       {kMost + 1, kMost + 2, std::int64_t{-1}, std::numeric_limits<std::int64_t>::max()}) {
    SCOPED_TRACE(bad);
    const auto refused = ask(ids, bad);
    ASSERT_FALSE(refused);
    EXPECT_EQ(refused.error().reason, Reason::policy_state_unavailable);
    EXPECT_FALSE(ask(ids, 0, bad));
  }
  EXPECT_EQ(line(ids[0]), before);
}

// Spend that no limit stops does not wrap around.
TEST_F(RedisStateTest, AWarnBudgetStopsAtTheMost) {
  constexpr std::int64_t kMost = kMaxNanoUsd.count;
  const auto ids = state_->declare(
      std::vector{with_budgets(SubjectKind::provider, "p", {daily(1, policy::BudgetMode::warn)})}, now_);
  for (int i = 0; i < 3; ++i) {
    ASSERT_TRUE(ask(ids, kMost));
    settle(last_id_, Ending::estimate);
  }
  EXPECT_EQ(state_->view(now_, ids).at(0).budgets.at(0).settled.count, kMost);
}

// All or nothing: after a refusal, by whatever, the server holds exactly what it held.
TEST_F(RedisStateTest, ARefusalWritesNothing) {
  SubjectSpec provider = with_budgets(SubjectKind::provider, "p", {daily(1000), monthly(5000)});
  provider.limits = {calls(10, 1min), tokens(1000, 1min)};
  SubjectSpec busy = subject(SubjectKind::team, "busy");
  busy.concurrency = 1;
  const auto ids =
      state_->declare(std::vector{provider, with_budgets(SubjectKind::consumer, "c", {daily(50)}),
                                  with_limits(SubjectKind::key, "k", {calls(1, 1min)}), busy},
                      now_);
  ASSERT_TRUE(ask({ids[0], ids[2], ids[3]}, 10, 10));
  now_ = {now_.mono + 7s, now_.wall + 25h};  // limits and windows have moved on, and nobody has written so
  (void)state_->view(now_, {});
  const auto digest = [] { return server().ask("DEBUG DIGEST"); };
  const std::string before = digest();
  ASSERT_EQ(before.size(), 40U);
  EXPECT_EQ(ask({ids[0], ids[1]}, 51).error().reason, Reason::policy_budget_exceeded);
  EXPECT_EQ(ask({ids[0], ids[1]}, 5001).error().reason, Reason::policy_budget_exceeded);
  EXPECT_EQ(ask({ids[0], ids[1], ids[2]}, 5).error().subject, ids[2]);
  EXPECT_EQ(ask({ids[0], ids[3]}, 5).error().subject, ids[3]);
  EXPECT_EQ(ask({ids[0]}, 5, 1001).error().retry_after, nanoseconds::max());
  EXPECT_EQ(ask({ids[0]}, -5).error().reason, Reason::policy_state_unavailable);
  EXPECT_EQ(digest(), before);
  ASSERT_TRUE(ask({ids[0]}, 5));
  EXPECT_NE(digest(), before);
}

/// Two replicas of one domain, on one clock.
class TwoReplicasTest : public RedisStateTest {
 protected:
  std::string domain_ = new_domain();
  std::unique_ptr<RedisState> a_ = started(tests_options(server(), domain_, "a"));
  std::unique_ptr<RedisState> b_ = started(tests_options(server(), domain_, "b"));

  std::expected<void, Refusal> ask(RedisState& state, AttemptId id, const std::vector<SubjectId>& subjects,
                                   std::int64_t estimate, nanoseconds lease = 1min) {
    return Caller(state).reserve({.id = id,
                                  .subjects = subjects,
                                  .estimate = {estimate},
                                  .tokens = 0,
                                  .lease = lease,
                                  .is_retry = false,
                                  .now = now_});
  }
};

TEST_F(TwoReplicasTest, BudgetsLimitsConcurrencyAndPausesAreShared) {
  SubjectSpec spec = with_budgets(SubjectKind::provider, "p", {daily(100)});
  spec.limits = {calls(3, 1min)};
  SubjectSpec team = subject(SubjectKind::team, "t");
  team.concurrency = 2;
  const std::vector specs{spec, team};
  const auto a = a_->declare(specs, now_);
  const auto b = b_->declare(specs, now_);
  ASSERT_TRUE(ask(*a_, {1, 1}, a, 60));
  EXPECT_EQ(ask(*b_, {2, 1}, b, 41).error().reason, Reason::policy_budget_exceeded);
  ASSERT_TRUE(ask(*b_, {2, 2}, b, 40));
  EXPECT_EQ(ask(*a_, {1, 2}, {a[1]}, 0).error().subject, a[1]);  // concurrency
  a_->settle({.id = {1, 1},
              .ending = Ending::actual,
              .cost = {10},
              .tokens = -1,
              .outcome = {},
              .first_byte = {},
              .now = now_});
  EXPECT_EQ(line_of(a_->view(now_, a).at(0)), line_of(b_->view(now_, b).at(0)));
  ASSERT_TRUE(ask(*b_, {2, 3}, b, 50));
  EXPECT_EQ(ask(*a_, {1, 3}, {a[0]}, 0).error().reason, Reason::policy_rate_limited);
  now_ = {now_.mono + 2min, now_.wall + 2min};
  a_->pause(a[0], now_.mono + 30s);
  (void)a_->view(now_, a);
  EXPECT_EQ(ask(*b_, {2, 4}, {b[0]}, 0).error().retry_after, 30s);
}

// Whoever lives charges what a dead replica left behind.
TEST_F(TwoReplicasTest, ALeaseOfOneIsReapedByTheOther) {
  const std::vector specs{with_budgets(SubjectKind::provider, "p", {daily(100)})};
  const auto a = a_->declare(specs, now_);
  const auto b = b_->declare(specs, now_);
  ASSERT_TRUE(ask(*a_, {1, 1}, a, 60, 10s));
  a_.reset();
  now_ = {now_.mono + 10s, now_.wall + 10s};
  b_->reap(now_);
  EXPECT_EQ(line_of(b_->view(now_, b).at(0)).find("in_flight=0 daily=60+0!0"),
            std::string("provider p ").size());
}

// One replica's reload takes nothing from another that still has the subject.
TEST_F(TwoReplicasTest, WhatOneForgetsTheOtherKeeps) {
  const std::vector specs{with_budgets(SubjectKind::provider, "p", {daily(100), monthly(1000)})};
  const auto a = a_->declare(specs, now_);
  const auto b = b_->declare(specs, now_);
  ASSERT_TRUE(ask(*a_, {1, 1}, a, 60));
  a_->settle({.id = {1, 1},
              .ending = Ending::estimate,
              .cost = {},
              .tokens = -1,
              .outcome = {},
              .first_byte = {},
              .now = now_});
  a_->declare(std::vector{with_budgets(SubjectKind::provider, "p", {monthly(1000)})}, now_);
  EXPECT_EQ(b_->view(now_, b).at(0).budgets.at(0).settled.count, 60);
  a_->declare({}, now_);
  EXPECT_EQ(b_->view(now_, b).at(0).budgets.at(1).settled.count, 60);
  b_->declare({}, now_);
  const auto again = b_->declare(specs, now_);
  EXPECT_EQ(b_->view(now_, again).at(0).budgets.at(0).settled.count, 0);
}

}  // namespace
}  // namespace penstock::store::contract
