#pragma once

#include "store/contract/shared_state_testing.hpp"

/// What a state does with what a provider's answers teach. The rules themselves are tested in policy; here,
/// that the state asks them and keeps them.
namespace penstock::store::contract {

using policy::LimitSigns;

class SharedStateLearning : public SharedStateContract {
 protected:
  static SubjectSpec provider(std::vector<policy::LimitSpec> limits = {}) {
    SubjectSpec spec = with_limits(SubjectKind::provider, "p", std::move(limits));
    spec.gate = {.learns_limits = true, .adapts_concurrency = true};
    return spec;
  }
  static LimitSigns left(std::int64_t remaining, std::int64_t limit = 60) {
    LimitSigns signs{.answer = LimitSigns::Answer::good, .readings = {}, .retry_after = {}};
    signs.readings[0] = policy::LimitReading{.limit = limit,
                                             .remaining = remaining,
                                             .reset = 60s,
                                             .refill = policy::LimitReading::Refill::at_once};
    return signs;
  }
  static LimitSigns refused_for(nanoseconds time) {
    return {.answer = LimitSigns::Answer::rate_limited, .readings = {}, .retry_after = time};
  }
  void learn(AttemptId id, const LimitSigns& signs) {
    state_->learn({.id = id, .signs = signs, .now = now_.mono});
  }
};

GTEST_ALLOW_UNINSTANTIATED_PARAMETERIZED_TEST(SharedStateLearning);

TEST_P(SharedStateLearning, WhatAProviderHasLeftLessWhatWasStartedSinceMayStart) {
  const auto ids = declare({provider(), subject(SubjectKind::key, "k")});
  const AttemptId first = hold(ids, {});
  hold(ids, {});
  hold(ids, {});
  learn(first, left(5));  // a margin of one
  hold(ids, {});
  hold(ids, {});
  const Refusal refusal = refused(ids, {});
  EXPECT_EQ(refusal.reason, Reason::policy_rate_limited);
  EXPECT_EQ(refusal.subject, ids[0]);
  EXPECT_EQ(refusal.retry_after, 60s);
  advance(60s);
  hold(ids, {});
}

TEST_P(SharedStateLearning, ARefusedAttemptIsNotCountedAsStarted) {
  const auto ids = declare({provider(), with_limits(SubjectKind::key, "k", {calls(1, 1min)})});
  learn(hold({ids[0]}, {}), left(4));
  hold(ids, {});
  for (int i = 0; i < 10; ++i) refused(ids, {});
  hold({ids[0]}, {});
  hold({ids[0]}, {});
  refused({ids[0]}, {});
}

// Nothing that a provider says lifts what is configured.
TEST_P(SharedStateLearning, AConfiguredLimitStandsWhateverIsTold) {
  const auto ids = declare({provider({calls(3, 1min)})});
  for (int i = 0; i < 3; ++i) learn(hold(ids, {}), left(1'000'000, 1'000'000));
  EXPECT_EQ(refused(ids, {}).retry_after, 61s);
}

TEST_P(SharedStateLearning, AnOlderAnswerThatComesLateTellsNothing) {
  const auto ids = declare({provider()});
  const AttemptId older = hold(ids, {});
  learn(hold(ids, {}), left(0));
  learn(older, left(50));
  refused(ids, {});
}

TEST_P(SharedStateLearning, RetryAfterHoldsThenOneProbesThenAllGo) {
  const auto ids = declare({provider()});
  const AttemptId first = hold(ids, {});
  learn(first, refused_for(10s));
  settle(first, Ending::released, 0, -1, CircuitOutcome::neutral);
  EXPECT_EQ(refused(ids, {}).retry_after, 10s);
  advance(10s);
  const AttemptId probe = hold(ids, {});
  refused(ids, {});
  settle(probe, Ending::actual);
  hold(ids, {});
  hold(ids, {});
}

TEST_P(SharedStateLearning, ClassesAreLimitedApart) {
  const auto ids = declare({provider()});
  const auto ask_as = [&](std::uint32_t limit_class, AttemptId id) {
    return caller_.reserve({.id = id,
                            .subjects = ids,
                            .estimate = {},
                            .tokens = 0,
                            .lease = 1min,
                            .is_retry = false,
                            .now = now_,
                            .limit_class = limit_class});
  };
  const AttemptId first = next_id();
  EXPECT_TRUE(ask_as(1, first));
  learn(first, left(0));
  EXPECT_FALSE(ask_as(1, next_id()));
  EXPECT_TRUE(ask_as(2, next_id()));
}

TEST_P(SharedStateLearning, ConcurrencyIsLearnedAndGivenBackByEveryEnding) {
  const auto ids = declare({provider()});
  std::vector<AttemptId> open;
  for (int i = 0; i < 20; ++i) open.push_back(hold(ids, {.lease = 10s}));
  learn(open[0], {.answer = LimitSigns::Answer::overloaded, .readings = {}, .retry_after = {}});
  EXPECT_EQ(view(ids[0]).learned_concurrency, 18U);
  refused(ids, {});
  for (int i = 0; i < 3; ++i)
    settle(open[static_cast<std::size_t>(i)], Ending::actual, 0, -1, CircuitOutcome::failure);
  hold(ids, {.lease = 10s});
  refused(ids, {});
  advance(10s);
  state_->reap(now_);
  for (int i = 0; i < 18; ++i) hold(ids, {});
  refused(ids, {});
}

TEST_P(SharedStateLearning, UnknownAndSettledAttemptsTeachNothing) {
  const auto ids = declare({provider()});
  const AttemptId id = hold(ids, {});
  settle(id, Ending::actual);
  learn(id, left(0));
  learn({9, 9}, left(0));
  hold(ids, {});
}

TEST_P(SharedStateLearning, AViewShowsWhatWasLearnedAndAReloadMayForgetIt) {
  const auto ids = declare({provider()});
  learn(hold(ids, {}), left(40));
  const SubjectView seen = view(ids[0]);
  ASSERT_EQ(seen.learned.size(), 1U);
  EXPECT_EQ(seen.learned[0].dimension, policy::LimitDimension::requests);
  EXPECT_EQ(seen.learned[0].limit, 60);
  EXPECT_EQ(seen.learned[0].remaining, 39);
  declare({provider()});
  EXPECT_EQ(view(ids[0]).learned.size(), 1U);
  declare({subject(SubjectKind::provider, "p")});
  EXPECT_TRUE(view(ids[0]).learned.empty());
}

}  // namespace penstock::store::contract
