#pragma once

#include "store/contract/shared_state_testing.hpp"
#include "store/history.hpp"

/// The rules of SharedState one by one. Random sequences: shared_state_properties.hpp. Threads:
/// shared_state_stress.hpp.
namespace penstock::store::contract {

GTEST_ALLOW_UNINSTANTIATED_PARAMETERIZED_TEST(SharedStateContract);

// ---- Reserving

TEST_P(SharedStateContract, HoldsTheEstimateAgainstEveryBudget) {
  const auto ids =
      declare({with_budgets(SubjectKind::provider, "p", {daily(100), monthly(1000)}),
               with_budgets(SubjectKind::consumer, "c", {daily(50)}), subject(SubjectKind::key, "k")});
  hold({ids[0], ids[1], ids[2]}, {.estimate = 30});
  EXPECT_EQ(budget(ids[0], 0), "0+30!0");
  EXPECT_EQ(budget(ids[0], 1), "0+30!0");
  EXPECT_EQ(budget(ids[1]), "0+30!0");
  EXPECT_EQ(view(ids[2]).in_flight, 1U);
}

// G1: to the nano-dollar.
TEST_P(SharedStateContract, FillsAHardBudgetExactlyAndNoFurther) {
  const auto ids = declare({with_budgets(SubjectKind::provider, "p", {daily(100)})});
  hold(ids, {.estimate = 60});
  EXPECT_EQ(refused(ids, {.estimate = 41}).reason, Reason::policy_budget_exceeded);
  const AttemptId second = hold(ids, {.estimate = 40});
  EXPECT_EQ(refused(ids, {.estimate = 1}).reason, Reason::policy_budget_exceeded);
  hold(ids, {.estimate = 0});  // free is free
  settle(second, Ending::released);
  hold(ids, {.estimate = 40});
}

TEST_P(SharedStateContract, AWarnBudgetCountsButAdmits) {
  const auto ids =
      declare({with_budgets(SubjectKind::provider, "p", {daily(100, policy::BudgetMode::warn)})});
  hold(ids, {.estimate = 70});
  hold(ids, {.estimate = 70});
  EXPECT_EQ(budget(ids[0]), "0+140!0");
}

// What no waiting mends says never; what the next window mends says when.
TEST_P(SharedStateContract, ABudgetRefusalTellsWhenItMayFit) {
  const auto ids = declare({with_budgets(SubjectKind::provider, "p", {daily(100)})});
  advance(20h);
  EXPECT_EQ(refused(ids, {.estimate = 101}).retry_after, nanoseconds::max());
  hold(ids, {.estimate = 100});
  const Refusal refusal = refused(ids, {.estimate = 1});
  EXPECT_EQ(refusal.subject, ids[0]);
  EXPECT_EQ(refusal.retry_after, 4h);
  advance(4h);
  hold(ids, {.estimate = 1});
}

// Who waits for it is woken by settlements then; for everything else a settlement changes nothing.
TEST_P(SharedStateContract, ARefusalTellsWhetherASettlementMayMakeRoom) {
  SubjectSpec places = subject(SubjectKind::provider, "places");
  places.concurrency = 1;
  SubjectSpec sick = subject(SubjectKind::provider, "sick");
  sick.circuit = policy::CircuitSpec{.min_calls = 1, .cooldown = 1s, .half_open_trials = 1};
  const auto ids = declare({places, with_limits(SubjectKind::provider, "calls", {calls(1, 1min)}),
                            with_limits(SubjectKind::provider, "tokens", {tokens(10, 1min)}), sick});
  hold({ids[0]}, {});
  EXPECT_TRUE(refused({ids[0]}, {}).opens_early);
  hold({ids[1]}, {});
  EXPECT_FALSE(refused({ids[1]}, {}).opens_early);
  const AttemptId spends = hold({ids[2]}, {.tokens = 10});
  EXPECT_TRUE(refused({ids[2]}, {.tokens = 1}).opens_early);
  settle(spends, Ending::actual);
  EXPECT_FALSE(refused({ids[2]}, {.tokens = 1}).opens_early) << "nothing runs that could give tokens back";
  // What no settlement opens is told even where something else takes longer.
  SubjectSpec both = with_limits(SubjectKind::team, "both", {calls(1, 10s), tokens(10, 1min)});
  const auto team = declare({places, with_limits(SubjectKind::provider, "calls", {calls(1, 1min)}),
                             with_limits(SubjectKind::provider, "tokens", {tokens(10, 1min)}), sick, both});
  hold({team[4]}, {.tokens = 10});
  const Refusal certain = refused({team[4]}, {.tokens = 1});
  EXPECT_FALSE(certain.opens_early);
  EXPECT_LE(certain.retry_after, 11s);
  EXPECT_EQ(refused({team[4]}, {.tokens = 11}).retry_after, nanoseconds::max());
  settle(hold({ids[3]}, {}), Ending::actual, 0, -1, CircuitOutcome::failure);
  EXPECT_FALSE(refused({ids[3]}, {}).opens_early) << "open";
  advance(1s);
  hold({ids[3]}, {});
  EXPECT_TRUE(refused({ids[3]}, {}).opens_early) << "a trial is under way";
}

TEST_P(SharedStateContract, ARefusalByAnySubjectChangesNothing) {
  SubjectSpec provider = with_budgets(SubjectKind::provider, "p", {daily(1000)});
  provider.limits = {calls(10, 1min), tokens(1000, 1min)};
  provider.circuit.emplace();
  provider.retry.emplace();
  SubjectSpec route = subject(SubjectKind::route, "r");
  route.concurrency = 1;
  const auto ids = declare({provider, with_budgets(SubjectKind::consumer, "c", {daily(50)}),
                            with_limits(SubjectKind::key, "k", {calls(1, 1min)}), route,
                            with_limits(SubjectKind::team, "t", {tokens(5, 1min)})});
  hold({ids[2]}, {});
  hold({ids[3]}, {});
  const auto before = lines();
  EXPECT_EQ(refused({ids[0], ids[1]}, {.estimate = 51}).reason, Reason::policy_budget_exceeded);
  EXPECT_EQ(refused({ids[0], ids[1], ids[2]}, {.estimate = 5}).reason, Reason::policy_rate_limited);
  EXPECT_EQ(refused({ids[0], ids[3]}, {.estimate = 5}).subject, ids[3]);
  EXPECT_EQ(refused({ids[0], ids[4]}, {.estimate = 5, .tokens = 6}).retry_after, nanoseconds::max());
  EXPECT_EQ(lines(), before);
}

// A caller that lost the answer asks again.
TEST_P(SharedStateContract, ReservingAgainWithTheSameIdHoldsOnce) {
  SubjectSpec provider = with_budgets(SubjectKind::provider, "p", {daily(100)});
  provider.limits = {calls(10, 1min)};
  const auto ids = declare({provider});
  const AttemptId id = hold(ids, {.estimate = 60});
  const auto before = lines();
  EXPECT_TRUE(ask(id, ids, {.estimate = 60}).has_value());
  EXPECT_TRUE(ask(id, ids, {.estimate = 90}).has_value());  // the first one wins
  EXPECT_EQ(lines(), before);
  settle(id, Ending::actual, 10);
  EXPECT_EQ(budget(ids[0]), "10+0!0");
}

/// Tells the same of every subject; keeps what it was asked.
class FakeHistory final : public History {
 public:
  mutable std::vector<std::string> asked;
  WallTime started_at{};

  Spent spent(SubjectKind, std::string_view name, policy::WindowSpan span) const override {
    asked.push_back(std::string(name) + " " + std::to_string((span.end - span.start) / 1h) + "h");
    return {.settled = {70}, .overrun = {5}};
  }
  std::vector<Started> started(SubjectKind, std::string_view, WallTime, nanoseconds) const override {
    return {{started_at, 3, 300}, {started_at + 20s, 4, 400}};
  }
};

// A restart or a new budget gives nobody fresh money or calls.
TEST_P(SharedStateContract, WhatIsNewBeginsWithItsHistory) {
  FakeHistory history;
  history.started_at = now_.wall - 30s;
  state_->set_history(&history);
  SubjectSpec provider = with_budgets(SubjectKind::provider, "p", {daily(100)});
  provider.limits = {calls(8, 1min), tokens(1000, 1min)};
  auto ids = declare({provider});
  EXPECT_EQ(budget(ids[0]), "70+0!5");
  EXPECT_EQ(refused(ids, {.estimate = 26}).reason, Reason::policy_budget_exceeded);
  hold(ids, {.estimate = 25, .tokens = 100});
  EXPECT_EQ(refused(ids, {}).reason, Reason::policy_rate_limited);
  advance(32s);  // the first three have left the window
  EXPECT_EQ(view(ids[0]).limits[0].used, 5);
  EXPECT_EQ(view(ids[0]).limits[1].used, 500);
  provider.budgets.push_back(monthly(1000));  // what it has already keeps its own counts
  ids = declare({provider});
  EXPECT_EQ(budget(ids[0], 0), "70+25!5");
  // The history's 70 hold the open 25, which a backend may go on to show as held.
  const BudgetView added = view(ids[0]).budgets.at(1);
  EXPECT_EQ((added.settled + added.held).count, 70);
  EXPECT_EQ(added.overrun.count, 5);
  EXPECT_THAT(history.asked, testing::ElementsAre("p 24h", "p 744h"));
}

// ---- Ending

TEST_P(SharedStateContract, EachEndingChargesWhatItSays) {
  const auto ids = declare({with_budgets(SubjectKind::provider, "p", {daily(1000)})});
  settle(hold(ids, {.estimate = 100}), Ending::actual, 30);
  EXPECT_EQ(budget(ids[0]), "30+0!0");
  settle(hold(ids, {.estimate = 100}), Ending::estimate, 1);
  EXPECT_EQ(budget(ids[0]), "130+0!0");
  settle(hold(ids, {.estimate = 100}), Ending::released, 1);
  EXPECT_EQ(budget(ids[0]), "130+0!0");
  EXPECT_EQ(view(ids[0]).in_flight, 0U);
}

TEST_P(SharedStateContract, WhatIsBilledBeyondTheEstimateIsOverrunAndTold) {
  std::vector<std::pair<SubjectId, std::int64_t>> told;
  state_->listen({.circuit_changed = {},
                  .overrun = [&](SubjectId id, NanoUsd amount) { told.emplace_back(id, amount.count); },
                  .lease_expired = {}});
  const auto ids = declare({with_budgets(SubjectKind::provider, "p", {daily(100)})});
  settle(hold(ids, {.estimate = 60}), Ending::actual, 75);
  EXPECT_EQ(budget(ids[0]), "60+0!15");
  EXPECT_THAT(told, testing::ElementsAre(std::pair{ids[0], std::int64_t{15}}));
  EXPECT_FALSE(is_admitted(ids, {.estimate = 26}));  // it is spent all the same
  EXPECT_TRUE(is_admitted(ids, {.estimate = 25}));
}

// G3.
TEST_P(SharedStateContract, AReservationEndsExactlyOnce) {
  SubjectSpec provider = with_budgets(SubjectKind::provider, "p", {daily(1000)});
  provider.limits = {tokens(1000, 1min)};
  const auto ids = declare({provider});
  const AttemptId other = hold(ids, {.estimate = 200, .tokens = 200});
  const AttemptId id = hold(ids, {.estimate = 100, .tokens = 100});
  settle(id, Ending::actual, 40, 40);
  const auto before = lines();
  settle(id, Ending::actual, 90, 90);
  settle(id, Ending::released);
  settle(id, Ending::estimate);
  EXPECT_EQ(lines(), before);
  EXPECT_EQ(budget(ids[0]), "40+200!0");
  settle(other, Ending::released);
  EXPECT_EQ(budget(ids[0]), "40+0!0");
}

TEST_P(SharedStateContract, UnknownIdsChangeNothing) {
  const auto ids = declare({with_budgets(SubjectKind::provider, "p", {daily(100)})});
  hold(ids, {.estimate = 60});
  const auto before = lines();
  settle({7, 999}, Ending::actual, 50);
  settle({8, 1}, Ending::released);  // another process's
  EXPECT_EQ(lines(), before);
  EXPECT_FALSE(ask(next_id(), ids, {.estimate = 60}).has_value());
  settle({7, last_id_}, Ending::released);  // a refused one holds nothing
  EXPECT_EQ(lines(), before);
}

TEST_P(SharedStateContract, ALeaseThatRunsOutChargesTheEstimate) {
  std::vector<AttemptId> told;
  state_->listen(
      {.circuit_changed = {}, .overrun = {}, .lease_expired = [&](AttemptId id) { told.push_back(id); }});
  SubjectSpec provider = with_budgets(SubjectKind::provider, "p", {daily(1000)});
  provider.concurrency = 2;
  const auto ids = declare({provider});
  const AttemptId first = hold(ids, {.estimate = 100, .lease = 30s});
  hold(ids, {.estimate = 10, .lease = 2min});
  advance(30s - 1ns);
  state_->reap(now_);
  EXPECT_EQ(budget(ids[0]), "0+110!0");
  advance(1ns);
  state_->reap(now_);
  EXPECT_EQ(budget(ids[0]), "100+10!0");
  EXPECT_EQ(view(ids[0]).in_flight, 1U);
  state_->reap(now_);
  EXPECT_EQ(budget(ids[0]), "100+10!0");
  EXPECT_THAT(told, testing::ElementsAre(first));
}

TEST_P(SharedStateContract, ALateSettlementCorrectsTheChargeOnce) {
  struct Case {
    Ending ending;
    std::int64_t cost;
    std::string after;
  };
  for (const Case& each : {Case{Ending::actual, 30, "30+0!0"}, Case{Ending::actual, 130, "100+0!30"},
                           Case{Ending::released, 0, "0+0!0"}, Case{Ending::estimate, 0, "100+0!0"}}) {
    SCOPED_TRACE(each.after);
    start_anew();
    const auto ids = declare({with_budgets(SubjectKind::provider, "p", {daily(1000)})});
    const AttemptId id = hold(ids, {.estimate = 100, .lease = 1s});
    advance(2s);
    state_->reap(now_);
    EXPECT_EQ(budget(ids[0]), "100+0!0");
    settle(id, each.ending, each.cost);
    EXPECT_EQ(budget(ids[0]), each.after);
    EXPECT_EQ(view(ids[0]).in_flight, 0U);
    settle(id, Ending::actual, 77);
    settle(id, Ending::released);
    state_->reap(now_);
    EXPECT_EQ(budget(ids[0]), each.after);
  }
}

// A hold of yesterday is yesterday's: it neither fills nor drains today.
TEST_P(SharedStateContract, AHoldStaysInTheWindowThatItWasMadeIn) {
  const auto ids = declare({with_budgets(SubjectKind::provider, "p", {daily(100), monthly(1000)})});
  advance(23h);
  const AttemptId id = hold(ids, {.estimate = 100, .lease = 3h});
  advance(1h);
  hold(ids, {.estimate = 100, .lease = 3h});
  EXPECT_EQ(budget(ids[0], 0), "0+100!0");
  EXPECT_EQ(budget(ids[0], 1), "0+200!0");
  settle(id, Ending::actual, 90);
  EXPECT_EQ(budget(ids[0], 0), "0+100!0");
  EXPECT_EQ(budget(ids[0], 1), "90+100!0");
}

// ---- Limits, concurrency, pauses, retries

TEST_P(SharedStateContract, LimitsSlideAndACallThatStartedCounts) {
  const auto ids = declare({with_limits(SubjectKind::provider, "p", {calls(2, 1min)})});
  settle(hold(ids, {}), Ending::released);
  hold(ids, {});
  const Refusal refusal = refused(ids, {});
  EXPECT_EQ(refusal.reason, Reason::policy_rate_limited);
  EXPECT_GT(refusal.retry_after, 0ns);
  EXPECT_LE(refusal.retry_after, 61s);
  advance(refusal.retry_after - 1ns);
  EXPECT_FALSE(is_admitted(ids, {}));
  advance(1ns);
  EXPECT_TRUE(is_admitted(ids, {}));
}

TEST_P(SharedStateContract, TokensBecomeWhatWasUsed) {
  const auto ids = declare({with_limits(SubjectKind::provider, "p", {tokens(100, 1min)})});
  const auto used = [&] { return view(ids[0]).limits.at(0).used; };
  settle(hold(ids, {.tokens = 60}), Ending::actual, 0, 10);
  EXPECT_EQ(used(), 10);
  settle(hold(ids, {.tokens = 60}), Ending::actual, 0, -1);  // nobody said: as estimated
  EXPECT_EQ(used(), 70);
  settle(hold(ids, {.tokens = 30}), Ending::released, 0, 5);
  EXPECT_EQ(used(), 70);
  settle(hold(ids, {.tokens = 30}), Ending::actual, 0, 50);  // more than estimated delays what comes
  EXPECT_EQ(used(), 120);
  EXPECT_FALSE(is_admitted(ids, {.tokens = 1}));
}

TEST_P(SharedStateContract, ConcurrencyIsFreedByEveryEnd) {
  SubjectSpec provider = subject(SubjectKind::provider, "p");
  provider.concurrency = 2;
  const auto ids = declare({provider});
  const AttemptId first = hold(ids, {.lease = 10s});
  const AttemptId second = hold(ids, {.lease = 1h});
  EXPECT_EQ(refused(ids, {}).reason, Reason::policy_rate_limited);
  settle(second, Ending::actual);
  EXPECT_TRUE(is_admitted(ids, {.lease = 1h}));
  EXPECT_FALSE(is_admitted(ids, {}));
  advance(10s);
  state_->reap(now_);
  EXPECT_TRUE(is_admitted(ids, {.lease = 1h}));
  settle(first, Ending::actual);  // late: its place was given back already
  EXPECT_FALSE(is_admitted(ids, {}));
  EXPECT_EQ(view(ids[0]).in_flight, 2U);
}

TEST_P(SharedStateContract, APauseHoldsBackOneProviderAndIsNeverShortened) {
  const auto ids = declare({subject(SubjectKind::provider, "p"), subject(SubjectKind::provider, "q")});
  state_->pause(ids[0], now_.mono + 30s);
  state_->pause(ids[0], now_.mono + 10s);
  const Refusal refusal = refused({ids[0]}, {});
  EXPECT_EQ(refusal.reason, Reason::policy_rate_limited);
  EXPECT_EQ(refusal.retry_after, 30s);
  EXPECT_TRUE(is_admitted({ids[1]}, {}));
  advance(30s - 1ns);
  EXPECT_FALSE(is_admitted({ids[0]}, {}));
  advance(1ns);
  EXPECT_TRUE(is_admitted({ids[0]}, {}));
}

TEST_P(SharedStateContract, RetriesHaveABudgetThatFirstAttemptsFill) {
  SubjectSpec provider = subject(SubjectKind::provider, "p");
  provider.retry = policy::RetrySpec{};
  provider.retry->budget_ratio = 0.5;
  provider.retry->budget_per_second = 0;
  const auto ids = declare({provider, subject(SubjectKind::provider, "q")});
  EXPECT_FALSE(state_->try_retry(ids[1], now_.mono));  // none configured: none
  EXPECT_FALSE(state_->try_retry(ids[0], now_.mono));
  for (int i = 0; i < 3; ++i) hold({ids[0]}, {});
  hold({ids[0]}, {.is_retry = true});  // adds nothing: one and a half are there
  EXPECT_TRUE(state_->try_retry(ids[0], now_.mono));
  EXPECT_FALSE(state_->try_retry(ids[0], now_.mono));
}

// ---- Circuits

/// A provider whose circuit opens at two failures of two and asks for two good trials.
inline SubjectSpec with_circuit(std::string name) {
  SubjectSpec spec = subject(SubjectKind::provider, std::move(name));
  spec.circuit = policy::CircuitSpec{};
  spec.circuit->min_calls = 2;
  spec.circuit->half_open_trials = 2;
  spec.circuit->cooldown = 5s;
  return spec;
}

// G6.
TEST_P(SharedStateContract, AnOpenCircuitLetsNothingThroughAndTrialsAreCounted) {
  std::vector<CircuitState> told;
  state_->listen({.circuit_changed = [&](SubjectId, CircuitState state) { told.push_back(state); },
                  .overrun = {},
                  .lease_expired = {}});
  const auto ids = declare({with_circuit("p"), with_budgets(SubjectKind::consumer, "c", {daily(10)})});
  const std::vector<SubjectId> provider{ids[0]};
  for (int i = 0; i < 2; ++i) settle(hold(provider, {}), Ending::released, 0, -1, CircuitOutcome::failure);
  EXPECT_EQ(view(ids[0]).circuit, CircuitState::open);
  const Refusal refusal = refused(provider, {});
  EXPECT_EQ(refusal.reason, Reason::policy_circuit_open);
  EXPECT_EQ(refusal.retry_after, 5s);
  advance(5s);
  state_->reap(now_);  // time alone changes it: somebody must say so
  // A refusal by another subject takes no trial.
  for (int i = 0; i < 5; ++i)
    EXPECT_EQ(refused(ids, {.estimate = 11}).reason, Reason::policy_budget_exceeded);
  const AttemptId first = hold(provider, {});
  const AttemptId second = hold(provider, {});
  EXPECT_EQ(refused(provider, {}).reason, Reason::policy_circuit_open);
  settle(first, Ending::released, 0, -1, CircuitOutcome::abandoned);  // gives its trial back
  settle(first, Ending::released, 0, -1, CircuitOutcome::abandoned);  // but once
  const AttemptId third = hold(provider, {});
  EXPECT_FALSE(is_admitted(provider, {}));
  settle(second, Ending::actual);
  EXPECT_FALSE(is_admitted(provider, {}));
  settle(third, Ending::actual);
  EXPECT_TRUE(is_admitted(provider, {}));
  EXPECT_THAT(told, testing::ElementsAre(CircuitState::open, CircuitState::half_open, CircuitState::closed));
}

TEST_P(SharedStateContract, ATrialWhoseLeaseRanOutIsGivenBackOnce) {
  const auto ids = declare({with_circuit("p")});
  for (int i = 0; i < 2; ++i) settle(hold(ids, {}), Ending::released, 0, -1, CircuitOutcome::failure);
  advance(5s);
  const AttemptId lost = hold(ids, {.lease = 1s});
  hold(ids, {.lease = 1h});
  EXPECT_FALSE(is_admitted(ids, {}));
  advance(1s);
  state_->reap(now_);
  EXPECT_TRUE(is_admitted(ids, {.lease = 1h}));
  settle(lost, Ending::actual, 0, -1, CircuitOutcome::failure);  // late: no evidence any more
  EXPECT_EQ(view(ids[0]).circuit, CircuitState::half_open);
  EXPECT_FALSE(is_admitted(ids, {}));
}

// ---- Reloads

TEST_P(SharedStateContract, AReloadKeepsCountsByKindAndName) {
  const auto before = declare({with_budgets(SubjectKind::provider, "a", {daily(100)}),
                               with_budgets(SubjectKind::consumer, "a", {daily(100)}),
                               with_limits(SubjectKind::provider, "b", {calls(5, 1min)})});
  settle(hold({before[0]}, {.estimate = 40}), Ending::actual, 40);
  settle(hold({before[1]}, {.estimate = 7}), Ending::actual, 7);
  hold({before[2]}, {});
  const auto after =
      declare({with_limits(SubjectKind::provider, "b", {calls(2, 1min)}), subject(SubjectKind::team, "a"),
               with_budgets(SubjectKind::consumer, "a", {daily(100)}),
               with_budgets(SubjectKind::provider, "a", {daily(50)})});
  EXPECT_EQ(after[0], before[2]);
  EXPECT_EQ(after[2], before[1]);
  EXPECT_EQ(after[3], before[0]);
  EXPECT_EQ(budget(after[3]), "40+0!0");
  EXPECT_EQ(budget(after[2]), "7+0!0");
  EXPECT_EQ(view(after[0]).limits.at(0).used, 1);
  EXPECT_FALSE(is_admitted({after[3]}, {.estimate = 11}));  // the new limit holds at once
  EXPECT_TRUE(is_admitted({after[0]}, {}));
  EXPECT_FALSE(is_admitted({after[0]}, {}));
}

// A hold finds its own budgets and limits again, whatever a reload moved or removed.
TEST_P(SharedStateContract, AReloadUnderOpenHoldsMixesNothingUp) {
  SubjectSpec spec = with_budgets(SubjectKind::provider, "p", {daily(1000), monthly(1000)});
  spec.limits = {tokens(1000, 1min), tokens(1000, 1h)};
  const auto ids = declare({spec});
  const AttemptId old = hold(ids, {.estimate = 100, .tokens = 100});
  // The first of each goes, the second moves to its place.
  spec.budgets = {monthly(1000)};
  spec.limits = {tokens(1000, 1h)};
  declare({spec});
  // It comes back: under the same name, but another one, which the old hold never counted in.
  spec.budgets = {monthly(1000), daily(1000)};
  spec.limits = {tokens(1000, 1h), tokens(1000, 1min)};
  declare({spec});
  EXPECT_EQ(budget(ids[0], 0), "0+100!0");
  EXPECT_EQ(budget(ids[0], 1), "0+0!0");
  const AttemptId fresh = hold(ids, {.estimate = 10, .tokens = 10});
  settle(old, Ending::actual, 30, 30);
  EXPECT_EQ(budget(ids[0], 0), "30+10!0");
  EXPECT_EQ(budget(ids[0], 1), "0+10!0");
  EXPECT_EQ(view(ids[0]).limits.at(0).used, 40);
  EXPECT_EQ(view(ids[0]).limits.at(1).used, 10);
  settle(fresh, Ending::actual, 5, 5);
  EXPECT_EQ(budget(ids[0], 0), "35+0!0");
  EXPECT_EQ(budget(ids[0], 1), "5+0!0");
}

// A trial of a circuit that was taken away is no trial of the one that came after it.
TEST_P(SharedStateContract, AReloadThatReplacesACircuitForgetsItsPermits) {
  SubjectSpec spec = with_circuit("p");
  const auto ids = declare({spec});
  for (int i = 0; i < 2; ++i) settle(hold(ids, {}), Ending::released, 0, -1, CircuitOutcome::failure);
  advance(5s);
  const AttemptId old = hold(ids, {});
  const auto circuit = spec.circuit;
  spec.circuit.reset();
  declare({spec});
  spec.circuit = circuit;
  declare({spec});
  for (int i = 0; i < 2; ++i) settle(hold(ids, {}), Ending::released, 0, -1, CircuitOutcome::failure);
  advance(5s);
  settle(old, Ending::actual, 0, -1, CircuitOutcome::failure);
  EXPECT_EQ(view(ids[0]).circuit, CircuitState::half_open);
  EXPECT_TRUE(is_admitted(ids, {}));
  EXPECT_TRUE(is_admitted(ids, {}));
  EXPECT_FALSE(is_admitted(ids, {}));
}

TEST_P(SharedStateContract, SubjectsThatAreGoneAreForgottenOnceNothingIsHeld) {
  const SubjectSpec gone = with_budgets(SubjectKind::consumer, "gone", {daily(100)});
  const SubjectSpec stays = with_budgets(SubjectKind::provider, "p", {daily(1000)});
  const auto ids = declare({gone, stays});
  settle(hold(ids, {.estimate = 10}), Ending::actual, 10);
  const AttemptId open = hold(ids, {.estimate = 20, .lease = 1h});
  declare({stays});
  EXPECT_EQ(budget(ids[0]), "10+20!0");  // while something is held for it
  // It comes back in time, with its counts.
  EXPECT_EQ(declare({stays, gone})[1], ids[0]);
  EXPECT_EQ(budget(ids[0]), "10+20!0");
  declare({stays});
  settle(open, Ending::actual, 20);
  declare({stays});
  EXPECT_EQ(state_->view(now_, {}).size(), 1U);
  EXPECT_TRUE(state_->view(now_, std::vector{ids[0]}).empty());
  EXPECT_EQ(budget(declare({stays, gone})[1]), "0+0!0");
  EXPECT_EQ(budget(ids[1]), "30+0!0");
}

TEST_P(SharedStateContract, AnExpiredHoldKeepsItsSubjectForTheLateSettlement) {
  const SubjectSpec gone = with_budgets(SubjectKind::consumer, "gone", {daily(100)});
  const auto ids = declare({gone});
  const AttemptId id = hold(ids, {.estimate = 20, .lease = 1s});
  advance(1s);
  state_->reap(now_);
  declare({});
  EXPECT_EQ(declare({gone})[0], ids[0]);
  settle(id, Ending::actual, 5);
  EXPECT_EQ(budget(ids[0]), "5+0!0");
  declare({});
  EXPECT_TRUE(state_->view(now_, {}).empty());
}

// ---- Views

TEST_P(SharedStateContract, AViewShowsAllOrThoseAskedFor) {
  const auto ids = declare(
      {subject(SubjectKind::provider, "p"), subject(SubjectKind::team, "t"), subject(SubjectKind::key, "k")});
  EXPECT_EQ(state_->view(now_, {}).size(), 3U);
  const auto some = state_->view(now_, std::vector<SubjectId>{ids[2], ids[0], ids[2], 999});
  ASSERT_EQ(some.size(), 2U);
  EXPECT_EQ(some[0].name, "p");
  EXPECT_EQ(some[1].name, "k");
  EXPECT_TRUE(state_->view(now_, std::vector<SubjectId>{999}).empty());
}

TEST_P(SharedStateContract, StartsOfProvidersAreCountedByMinuteAndDay) {
  const auto ids = declare({subject(SubjectKind::provider, "p"), subject(SubjectKind::key, "k")});
  advance(23h + 58min);
  hold(ids, {});
  advance(90s);
  hold(ids, {});
  EXPECT_EQ(view(ids[0]).starts_this_minute, 1);
  EXPECT_EQ(view(ids[0]).starts_today, 2);
  EXPECT_EQ(view(ids[1]).starts_today, 0);
  advance(30s);
  EXPECT_EQ(view(ids[0]).starts_today, 0);
  hold(ids, {});
  EXPECT_EQ(view(ids[0]).starts_today, 1);
}

}  // namespace penstock::store::contract
