#pragma once

#include <atomic>
#include <thread>

#include "store/contract/shared_state_testing.hpp"

/// Many threads at once, with a shadow count beside the state. Most telling under the thread sanitizer.
namespace penstock::store::contract {

class SharedStateStress : public SharedStateContract {};
GTEST_ALLOW_UNINSTANTIATED_PARAMETERIZED_TEST(SharedStateStress);

// Each thread counts its hold after it was granted and takes it off before it ends it, so the shadow is never
// above the truth: if it is above the limit, so was the state.
TEST_P(SharedStateStress, EightThreadsStayWithinBudgetAndConcurrency) {
  constexpr std::int64_t kLimit = 20'000;
  constexpr int kConcurrency = 5;
  constexpr int kThreads = 8;
  constexpr int kRounds = 1'500;
  SubjectSpec provider = with_budgets(SubjectKind::provider, "p", {daily(kLimit)});
  provider.concurrency = kConcurrency;
  provider.circuit.emplace();
  const std::vector<SubjectSpec> specs{
      provider, with_budgets(SubjectKind::consumer, "c", {daily(kLimit * 2), monthly(kLimit / 2)}),
      with_limits(SubjectKind::key, "k", {tokens(1'000'000'000, 1min)})};
  const auto ids = declare(specs);
  const std::uint64_t seed = policy::property_seeds(0).back();
  std::printf("seed: %llu (PENSTOCK_SEED=n runs it)\n", static_cast<unsigned long long>(seed));

  std::atomic<std::int64_t> spent{0};  // of the monthly budget, which is the tightest
  std::atomic<int> running{0};
  std::atomic<std::int64_t> admitted{0};
  std::atomic<std::int64_t> charged{0};
  std::atomic<int> working{kThreads};
  const auto work = [&](std::uint64_t number) {
    Caller caller(*state_);
    policy::Random random(seed + number);
    for (std::uint64_t round = 1; round <= kRounds; ++round) {
      const AttemptId id{number, round};
      const std::int64_t estimate = random.between(0, 40);
      const ReservationRequest request{.id = id,
                                       .subjects = ids,
                                       .estimate = {estimate},
                                       .tokens = 1,
                                       .lease = 1h,
                                       .is_retry = false,
                                       .now = now_};
      if (!caller.reserve(request)) continue;
      ++admitted;
      EXPECT_LE(++running, kConcurrency);
      EXPECT_LE(spent += estimate, kLimit / 2);
      const std::int64_t cost =
          random.chance(60) ? random.between(0, std::min<std::int64_t>(estimate, 4)) : 0;
      spent -= estimate - cost;
      if (cost > 0) ++charged;
      --running;
      const Settlement end{.id = id,
                           .ending = cost > 0 ? Ending::actual : Ending::released,
                           .cost = {cost},
                           .tokens = 1,
                           .outcome = CircuitOutcome::success,
                           .first_byte = {},
                           .now = now_};
      state_->settle(end);
      if (random.chance(20)) state_->settle(end);
    }
    --working;
  };
  std::vector<std::thread> threads;
  for (std::uint64_t number = 1; number <= kThreads; ++number) threads.emplace_back(work, number);
  // Meanwhile: an operator looks, the configuration is reloaded, leases are looked through.
  while (working > 0) {
    for (const SubjectView& each : state_->view(now_, {}))
      for (const BudgetView& b : each.budgets) EXPECT_LE((b.settled + b.held).count, b.spec.limit.count);
    EXPECT_EQ(declare(specs), ids);
    state_->reap(now_);
    state_->pause(ids[0], now_.mono);
    (void)state_->try_retry(ids[0], now_.mono);
  }
  for (std::thread& thread : threads) thread.join();

  EXPECT_GT(admitted, kThreads);
  EXPECT_EQ(budget(ids[0]), std::to_string(spent) + "+0!0");
  EXPECT_EQ(budget(ids[1], 0), std::to_string(spent) + "+0!0");
  EXPECT_EQ(budget(ids[1], 1), std::to_string(spent) + "+0!0");
  EXPECT_EQ(view(ids[0]).in_flight, 0U);
  EXPECT_EQ(view(ids[0]).starts_today, admitted);
  EXPECT_EQ(view(ids[2]).limits.at(0).used, charged);  // a token for each that was not released
}

}  // namespace penstock::store::contract
