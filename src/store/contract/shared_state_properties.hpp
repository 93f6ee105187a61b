#pragma once

#include <map>
#include <set>

#include "store/contract/shared_state_testing.hpp"

/// Random sequences over several subjects, compared step by step with a model that is too plain to be wrong.
namespace penstock::store::contract {

/// What a state should show of budgets, concurrency and calls: sums over lists, nothing clever.
class StateModel {
 public:
  struct Budget {
    policy::BudgetSpec spec;
    std::int64_t settled = 0;
    std::int64_t held = 0;
    std::int64_t overrun = 0;
    std::int64_t allowed = 0;  ///< G1's bound: the limit, or what there was when a reload lowered it
  };
  struct Subject {
    SubjectSpec spec;
    std::map<int, Budget> budgets;  ///< by number
    int in_flight = 0;
  };
  struct Hold {
    std::vector<std::size_t> subjects;
    std::set<int> budgets;  ///< numbers
    std::int64_t estimate = 0;
    MonotonicTime lease_end{};
    bool expired = false;
  };

  std::map<std::size_t, Subject> subjects;  ///< by place in the test's list
  std::map<std::uint64_t, Hold> holds;      ///< by sequence number; ended ones are gone

  void declare(std::size_t place, const SubjectSpec& spec) {
    Subject& subject = subjects[place];
    std::map<int, Budget> kept;
    for (const policy::BudgetSpec& budget : spec.budgets) {
      const auto same = std::ranges::find_if(
          subject.budgets, [&](const auto& b) { return b.second.spec.window == budget.window; });
      const bool known = same != subject.budgets.end();
      Budget& now = kept[known ? same->first : ++last_number_];
      if (known) now = same->second;
      now.spec = budget;
      now.allowed = std::max(budget.limit.count, now.settled + now.held);
    }
    subject.budgets = std::move(kept);
    subject.spec = spec;
  }
  bool may_hold(const std::vector<std::size_t>& places, std::int64_t estimate) const {
    return std::ranges::all_of(places, [&](std::size_t place) {
      const Subject& subject = subjects.at(place);
      if (subject.spec.concurrency && subject.in_flight >= static_cast<int>(*subject.spec.concurrency))
        return false;
      return std::ranges::all_of(subject.budgets, [&](const auto& numbered) {
        const Budget& b = numbered.second;
        return b.spec.mode == policy::BudgetMode::warn ||
               b.settled + b.held + b.overrun + estimate <= b.spec.limit.count;
      });
    });
  }
  void hold(std::uint64_t id, const std::vector<std::size_t>& places, std::int64_t estimate,
            MonotonicTime lease_end) {
    Hold& made = holds[id] = {
        .subjects = places, .budgets = {}, .estimate = estimate, .lease_end = lease_end, .expired = false};
    for (const std::size_t place : places) {
      ++subjects[place].in_flight;
      for (auto& [number, budget] : subjects[place].budgets) {
        budget.held += estimate;
        made.budgets.insert(number);
      }
    }
  }
  void settle(std::uint64_t id, Ending ending, std::int64_t cost) {
    const auto found = holds.find(id);
    if (found == holds.end()) return;
    const Hold& hold = found->second;
    const std::int64_t charge = ending == Ending::actual     ? cost
                                : ending == Ending::estimate ? hold.estimate
                                                             : 0;
    each_budget(hold, [&](Budget& budget) {
      if (hold.expired)
        budget.settled -= hold.estimate;
      else
        budget.held -= hold.estimate;
      budget.settled += std::min(charge, hold.estimate);
      budget.overrun += std::max<std::int64_t>(0, charge - hold.estimate);
    });
    if (!hold.expired)
      for (const std::size_t place : hold.subjects) --subjects[place].in_flight;
    holds.erase(found);
  }
  void reap(MonotonicTime now) {
    for (auto& [id, hold] : holds) {
      if (hold.expired || hold.lease_end > now) continue;
      hold.expired = true;
      each_budget(hold, [&](Budget& budget) {
        budget.held -= hold.estimate;
        budget.settled += hold.estimate;
      });
      for (const std::size_t place : hold.subjects) --subjects[place].in_flight;
    }
  }

 private:
  template <class F>
  void each_budget(const Hold& hold, F f) {
    for (const std::size_t place : hold.subjects)
      for (auto& [number, budget] : subjects[place].budgets)
        if (hold.budgets.contains(number)) f(budget);
  }
  int last_number_ = 0;
};

class SharedStateProperties : public SharedStateContract {
 protected:
  static constexpr std::size_t kPlaces = 6;

  /// The subjects of a configuration; amounts, limits and which budgets there are vary with every reload.
  std::vector<SubjectSpec> random_specs(policy::Random& random) {
    std::vector<SubjectSpec> specs;
    const auto kinds = {SubjectKind::provider, SubjectKind::endpoint, SubjectKind::route,
                        SubjectKind::team,     SubjectKind::consumer, SubjectKind::key};
    for (const SubjectKind kind : kinds) {
      SubjectSpec spec = subject(kind, "same");  // the kind alone tells them apart
      const auto mode = random.chance(80) ? policy::BudgetMode::hard : policy::BudgetMode::warn;
      if (random.chance(70)) spec.budgets.push_back(daily(random.between(0, 3000), mode));
      if (random.chance(50)) spec.budgets.push_back(monthly(random.between(100, 6000)));
      if (random.chance(50)) std::ranges::reverse(spec.budgets);
      if (random.chance(30)) spec.concurrency = static_cast<std::uint32_t>(random.between(1, 8));
      if (random.chance(30)) spec.limits.push_back(calls(random.between(1, 20), 10s));
      if (random.chance(30)) spec.limits.push_back(tokens(random.between(1, 500), 20s));
      specs.push_back(std::move(spec));
    }
    return specs;
  }

  void reload(policy::Random& random) {
    const auto specs = random_specs(random);
    const auto ids = declare(specs);
    if (!ids_.empty()) {
      EXPECT_EQ(ids, ids_);  // they stay the same
    }
    ids_ = ids;
    for (std::size_t place = 0; place < specs.size(); ++place) model_.declare(place, specs[place]);
  }

  /// What the limits, by what they show, say to an attempt.
  bool limits_allow(const std::vector<SubjectId>& subjects, std::int64_t token_count) {
    for (const SubjectView& each : state_->view(now_, subjects))
      for (const LimitView& limit : each.limits)
        if ((limit.spec.unit == policy::LimitUnit::calls ? 1 : token_count) > limit.spec.amount - limit.used)
          return false;
    return true;
  }

  void try_to_reserve(policy::Random& random) {
    std::vector<std::size_t> places;
    std::vector<SubjectId> subjects;
    for (std::size_t place = 0; place < kPlaces; ++place)
      if (random.chance(50)) {
        places.push_back(place);
        subjects.push_back(ids_[place]);
      }
    if (places.empty()) return;
    const Ask what{.estimate = random.between(0, 400),
                   .tokens = random.between(0, 60),
                   .lease = seconds{random.between(1, 60)},
                   .is_retry = random.chance(20)};
    const bool expected = model_.may_hold(places, what.estimate) && limits_allow(subjects, what.tokens);
    const auto before = lines();
    const AttemptId id = next_id();
    const bool held = ask(id, subjects, what).has_value();
    ASSERT_EQ(held, expected);
    if (!held) {
      ASSERT_EQ(lines(), before);  // a refusal changes nothing
      return;
    }
    model_.hold(id.sequence, places, what.estimate, now_.mono + what.lease);
    if (random.chance(20)) {
      const auto after = lines();
      ASSERT_TRUE(ask(id, subjects, what).has_value());
      ASSERT_EQ(lines(), after);  // asked again: nothing more
    }
  }

  void settle_something(policy::Random& random) {
    const auto id = static_cast<std::uint64_t>(random.between(1, static_cast<std::int64_t>(last_id_) + 3));
    const auto ending = static_cast<Ending>(random.between(0, 2));
    const std::int64_t cost = random.between(0, 500);
    settle({7, id}, ending, cost, random.between(-1, 80));
    model_.settle(id, ending, cost);
  }

  void compare() {
    const auto views = state_->view(now_, ids_);
    ASSERT_EQ(views.size(), kPlaces);
    for (std::size_t place = 0; place < kPlaces; ++place) {
      const auto found = std::ranges::find(views, ids_[place], &SubjectView::id);
      ASSERT_NE(found, views.end());
      const StateModel::Subject& wanted = model_.subjects.at(place);
      ASSERT_EQ(found->in_flight, static_cast<std::uint32_t>(wanted.in_flight)) << line_of(*found);
      ASSERT_EQ(found->budgets.size(), wanted.budgets.size());
      for (const auto& [number, budget] : wanted.budgets) {
        const auto shown = std::ranges::find_if(
            found->budgets, [&](const BudgetView& b) { return b.spec.window == budget.spec.window; });
        ASSERT_NE(shown, found->budgets.end());
        ASSERT_EQ(shown->settled.count, budget.settled) << line_of(*found);
        ASSERT_EQ(shown->held.count, budget.held) << line_of(*found);
        ASSERT_EQ(shown->overrun.count, budget.overrun) << line_of(*found);
        if (budget.spec.mode == policy::BudgetMode::hard) {
          ASSERT_LE(shown->settled.count + shown->held.count, budget.allowed) << line_of(*found);  // G1
        }
      }
    }
  }

  StateModel model_;
  std::vector<SubjectId> ids_;
};
GTEST_ALLOW_UNINSTANTIATED_PARAMETERIZED_TEST(SharedStateProperties);

// G1 and G3 at every step.
TEST_P(SharedStateProperties, BudgetsAndConcurrencyAreAsTheModelSays) {
  policy::for_each_seed(12, [&](policy::Random& random) {
    start_anew();
    model_ = {};
    ids_.clear();
    reload(random);
    for (int step = 0; step < 400; ++step) {
      SCOPED_TRACE("step " + std::to_string(step));
      const std::int64_t dice = random.between(1, 100);
      if (dice <= 45)
        ASSERT_NO_FATAL_FAILURE(try_to_reserve(random));
      else if (dice <= 80)
        settle_something(random);
      else if (dice <= 98) {
        advance(milliseconds{random.between(0, 6000)});
        state_->reap(now_);
        model_.reap(now_.mono);
      } else {
        reload(random);
      }
      ASSERT_NO_FATAL_FAILURE(compare());
    }
    // In the end nothing is held: no leaked hold, no phantom refusal.
    advance(2min);
    state_->reap(now_);
    model_.reap(now_.mono);
    ASSERT_NO_FATAL_FAILURE(compare());
    for (const SubjectView& each : state_->view(now_, {})) {
      ASSERT_EQ(each.in_flight, 0U);
      for (const BudgetView& b : each.budgets) ASSERT_EQ(b.held.count, 0);
    }
  });
}

// G1 across midnights and a wall clock that jumps, either way.
TEST_P(SharedStateProperties, HardBudgetsHoldInEveryWindow) {
  policy::for_each_seed(12, [&](policy::Random& random) {
    const auto state = GetParam().make();
    Caller caller(*state);
    Now now{MonotonicTime{1'000h}, kDay};
    const std::vector<SubjectSpec> specs{
        with_budgets(SubjectKind::provider, "p", {daily(1000), monthly(5000)}),
        with_budgets(SubjectKind::consumer, "c", {daily(700)})};
    const auto ids = state->declare(specs, now);
    std::vector<AttemptId> open;
    std::uint64_t last = 0;
    const auto end = [&](AttemptId id) {
      state->settle({.id = id,
                     .ending = static_cast<Ending>(random.between(0, 2)),
                     .cost = {random.between(0, 150)},
                     .tokens = -1,
                     .outcome = CircuitOutcome::success,
                     .first_byte = {},
                     .now = now});
    };
    for (int step = 0; step < 500; ++step) {
      const std::int64_t dice = random.between(1, 100);
      if (dice <= 60) {
        const AttemptId id{1, ++last};
        const ReservationRequest request{.id = id,
                                         .subjects = ids,
                                         .estimate = {random.between(0, 150)},
                                         .tokens = 0,
                                         .lease = std::chrono::minutes{random.between(1, 3000)},
                                         .is_retry = false,
                                         .now = now};
        if (caller.reserve(request)) open.push_back(id);
      } else if (dice <= 85 && !open.empty()) {
        std::swap(
            open[static_cast<std::size_t>(random.between(0, static_cast<std::int64_t>(open.size()) - 1))],
            open.back());
        end(open.back());
        if (random.chance(80)) open.pop_back();  // else it is settled once more
      } else {
        const auto time = std::chrono::minutes{random.between(0, 400)};
        now.mono += time;
        now.wall += time + (random.chance(10) ? std::chrono::minutes{random.between(-2000, 2000)}
                                              : std::chrono::minutes{0});
        state->reap(now);
      }
      for (const SubjectView& each : state->view(now, {}))
        for (const BudgetView& b : each.budgets) {
          ASSERT_LE((b.settled + b.held).count, b.spec.limit.count)
              << "step " << step << ": " << line_of(each);
          ASSERT_GE(b.settled.count, 0) << line_of(each);
          ASSERT_GE(b.held.count, 0) << line_of(each);
        }
    }
    for (const AttemptId id : open) end(id);
    now.mono += 60h;
    state->reap(now);
    for (const SubjectView& each : state->view(now, {})) {
      ASSERT_EQ(each.in_flight, 0U);
      for (const BudgetView& b : each.budgets) ASSERT_EQ(b.held.count, 0) << line_of(each);
    }
  });
}

// G4: no window of the limit's length sees more starts than the limit allows, whatever else refuses.
TEST_P(SharedStateProperties, NoWindowSeesMoreStartsThanItsLimit) {
  policy::for_each_seed(12, [&](policy::Random& random) {
    const auto state = GetParam().make();
    Caller caller(*state);
    Now now{MonotonicTime{1'000h}, kDay};
    const std::int64_t amount = random.between(1, 12);
    const nanoseconds period = seconds{random.between(1, 30)};
    const std::vector<SubjectSpec> specs{with_limits(SubjectKind::provider, "p", {calls(amount, period)}),
                                         with_budgets(SubjectKind::consumer, "c", {daily(30)})};
    const auto ids = state->declare(specs, now);
    std::vector<MonotonicTime> starts;
    for (std::uint64_t step = 1; step <= 600; ++step) {
      const AttemptId id{1, step};
      const ReservationRequest request{.id = id,
                                       .subjects = ids,
                                       .estimate = {random.between(0, 10)},
                                       .tokens = 0,
                                       .lease = 1min,
                                       .is_retry = false,
                                       .now = now};
      if (caller.reserve(request)) {
        starts.push_back(now.mono);
        state->settle({.id = id,
                       .ending = Ending::released,
                       .cost = {},
                       .tokens = -1,
                       .outcome = CircuitOutcome::success,
                       .first_byte = {},
                       .now = now});
      }
      const nanoseconds time{random.between(0, period.count() / 8)};
      now = {now.mono + time, now.wall + time};
    }
    ASSERT_GE(static_cast<std::int64_t>(starts.size()), amount);
    for (std::size_t first = 0; first + static_cast<std::size_t>(amount) < starts.size(); ++first)
      ASSERT_GE(starts[first + static_cast<std::size_t>(amount)] - starts[first], period);
  });
}

// G6: trials are conserved, whatever ends them.
TEST_P(SharedStateProperties, HalfOpenLetsThroughExactlyItsTrials) {
  policy::for_each_seed(20, [&](policy::Random& random) {
    const auto state = GetParam().make();
    Caller caller(*state);
    Now now{MonotonicTime{1'000h}, kDay};
    SubjectSpec spec = subject(SubjectKind::provider, "p");
    spec.circuit = policy::CircuitSpec{};
    spec.circuit->min_calls = 1;
    spec.circuit->cooldown = 1s;
    spec.circuit->half_open_trials = static_cast<std::uint32_t>(random.between(1, 4));
    spec.circuit->half_open_timeout = 10h;
    const auto ids =
        state->declare(std::vector{spec, with_budgets(SubjectKind::consumer, "c", {daily(0)})}, now);
    const std::vector<SubjectId> provider{ids[0]};
    std::uint64_t last = 0;
    const auto reserve = [&](const std::vector<SubjectId>& subjects, std::int64_t estimate,
                             nanoseconds lease) {
      return caller.reserve({.id = {1, ++last},
                             .subjects = subjects,
                             .estimate = {estimate},
                             .tokens = 0,
                             .lease = lease,
                             .is_retry = false,
                             .now = now});
    };
    const auto end = [&](std::uint64_t id, CircuitOutcome outcome) {
      state->settle({.id = {1, id},
                     .ending = Ending::released,
                     .cost = {},
                     .tokens = -1,
                     .outcome = outcome,
                     .first_byte = {},
                     .now = now});
    };
    ASSERT_TRUE(reserve(provider, 0, 1h));
    end(last, CircuitOutcome::failure);
    now = {now.mono + 1s, now.wall + 1s};
    std::vector<std::uint64_t> running;
    for (int step = 0; step < 200; ++step) {
      ASSERT_EQ(state->view(now, {}).front().circuit, CircuitState::half_open);
      if (random.chance(20)) {
        const auto refusal = reserve(ids, 1, 1h);  // the consumer's budget says no, or the circuit does
        ASSERT_FALSE(refusal.has_value());
      } else if (random.chance(60)) {
        const bool free = running.size() < spec.circuit->half_open_trials;
        const auto held = reserve(provider, 0, random.chance(20) ? nanoseconds{1s} : nanoseconds{1h});
        ASSERT_EQ(held.has_value(), free) << "step " << step;
        if (held) running.push_back(last);
      } else if (!running.empty()) {
        end(running.back(), CircuitOutcome::abandoned);
        if (random.chance(30)) end(running.back(), CircuitOutcome::abandoned);
        running.pop_back();
      }
      if (random.chance(5)) {  // every lease of 1 s runs out; the ids settle late
        now = {now.mono + 1s, now.wall + 1s};
        state->reap(now);
        for (const std::uint64_t id : running) end(id, CircuitOutcome::abandoned);
        running.clear();
      }
    }
    for (std::uint32_t i = static_cast<std::uint32_t>(running.size()); i < spec.circuit->half_open_trials;
         ++i)
      ASSERT_TRUE(reserve(provider, 0, 1h));
    ASSERT_FALSE(reserve(provider, 0, 1h));
  });
}

}  // namespace penstock::store::contract
