#pragma once

#include <functional>
#include <memory>
#include <thread>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "store/ledger.hpp"

/// What every backend of Ledger must do.
namespace penstock::store::contract {

struct LedgerBackend {
  std::string name;
  std::function<std::unique_ptr<Ledger>()> make;  ///< empty; keeps at least 1000 calls
};
inline void PrintTo(const LedgerBackend& backend, std::ostream* out) { *out << backend.name; }

class LedgerContract : public testing::TestWithParam<LedgerBackend> {
 protected:
  std::unique_ptr<Ledger> ledger_ = GetParam().make();

  static CallRecord call(std::uint64_t sequence, std::int64_t cost) {
    CallRecord made;
    made.id = {1, sequence};
    made.cost = {cost};
    return made;
  }
};
GTEST_ALLOW_UNINSTANTIATED_PARAMETERIZED_TEST(LedgerContract);

TEST_P(LedgerContract, StartsEmpty) {
  EXPECT_TRUE(ledger_->recent(10).empty());
  EXPECT_EQ(ledger_->total_cost(), NanoUsd{});
}

TEST_P(LedgerContract, TellsTheNewestFirstAndNoMoreThanAskedFor) {
  for (std::uint64_t i = 1; i <= 5; ++i) ledger_->record(call(i, 1));
  const auto sequences = [&](std::size_t count) {
    std::vector<std::uint64_t> out;
    for (const CallRecord& each : ledger_->recent(count)) out.push_back(each.id.sequence);
    return out;
  };
  EXPECT_THAT(sequences(3), testing::ElementsAre(5, 4, 3));
  EXPECT_THAT(sequences(0), testing::IsEmpty());
  EXPECT_THAT(sequences(99), testing::ElementsAre(5, 4, 3, 2, 1));
}

TEST_P(LedgerContract, GivesBackWhatWasRecorded) {
  CallRecord made = call(9, 1'234'567'890'123);
  made.at = WallTime{std::chrono::hours{500'000}};
  made.route = Name("chat");
  made.consumer = Name("app");
  made.team = Name("search");
  made.key = Name("app-key");
  made.tag = "nightly";
  made.model = Name("m");
  made.status = 429;
  made.reason = Reason::policy_budget_exceeded;
  made.cost_estimated = true;
  made.total = milliseconds{17};
  made.attempts = {{.id = {1, 10},
                    .provider = Name("p"),
                    .endpoint = Name("other"),
                    .estimate = {5},
                    .cost = {3},
                    .ending = Ending::actual,
                    .status = 503,
                    .reason = Reason::provider_error},
                   {.id = {1, 11},
                    .provider = Name("q"),
                    .endpoint = Name("chat"),
                    .estimate = {7},
                    .cost = {7},
                    .ending = Ending::estimate,
                    .status = 0,
                    .reason = {}}};
  ledger_->record(made);
  const auto all = ledger_->recent(1);
  ASSERT_EQ(all.size(), 1U);
  const CallRecord& got = all.front();
  EXPECT_EQ(got.id, made.id);
  EXPECT_EQ(got.at, made.at);
  EXPECT_EQ(std::tie(got.route, got.consumer, got.team, got.key, got.tag, got.model),
            std::tie(made.route, made.consumer, made.team, made.key, made.tag, made.model));
  EXPECT_EQ(std::tie(got.status, got.reason, got.cost, got.cost_estimated, got.total),
            std::tie(made.status, made.reason, made.cost, made.cost_estimated, made.total));
  ASSERT_EQ(got.attempts.size(), 2U);
  for (std::size_t i = 0; i < 2; ++i) {
    const AttemptRecord& a = got.attempts[i];
    const AttemptRecord& b = made.attempts[i];
    EXPECT_EQ(std::tie(a.id, a.provider, a.endpoint, a.estimate, a.cost, a.ending, a.status, a.reason),
              std::tie(b.id, b.provider, b.endpoint, b.estimate, b.cost, b.ending, b.status, b.reason));
  }
}

TEST_P(LedgerContract, SumsExactlyFromManyThreads) {
  std::vector<std::thread> threads;
  for (std::uint64_t number = 0; number < 4; ++number)
    threads.emplace_back([&, number] {
      for (std::uint64_t i = 0; i < 200; ++i) ledger_->record(call(number * 1'000 + i, 3));
    });
  for (int i = 0; i < 20; ++i) (void)ledger_->recent(50);
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(ledger_->total_cost(), NanoUsd{2'400});
  EXPECT_EQ(ledger_->recent(2'000).size(), 800U);
}

}  // namespace penstock::store::contract
