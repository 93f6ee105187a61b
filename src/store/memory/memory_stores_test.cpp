#include "store/memory/memory_stores.hpp"

#include "store/contract/caller_limits_contract.hpp"
#include "store/contract/directory_contract.hpp"
#include "store/contract/ledger_contract.hpp"

namespace penstock::store::contract {
namespace {

const auto kName = [](const auto& test) { return test.param.name; };
INSTANTIATE_TEST_SUITE_P(Memory, CallerLimitsContract,
                         testing::Values(CallerLimitsBackend{
                             "memory", [] { return std::make_unique<MemoryCallerLimits>(); }}),
                         kName);
INSTANTIATE_TEST_SUITE_P(Memory, LedgerContract,
                         testing::Values(LedgerBackend{"memory",
                                                       [] { return std::make_unique<MemoryLedger>(); }}),
                         kName);
INSTANTIATE_TEST_SUITE_P(Memory, DirectoryContract,
                         testing::Values(DirectoryBackend{
                             "memory",
                             [](auto keys) { return std::make_unique<MemoryDirectory>(std::move(keys)); }}),
                         kName);

constexpr MonotonicTime kStart{std::chrono::hours{1'000}};
constexpr policy::LimitSpec kTwoAMinute{2, std::chrono::minutes{1}, policy::LimitUnit::calls};

// However many addresses come, what is remembered of them has a bound.
TEST(MemoryCallerLimitsTest, RemembersABoundedNumberOfCallers) {
  MemoryCallerLimits limits(160);
  for (std::uint64_t caller = 0; caller < 10'000; ++caller) {
    EXPECT_TRUE(limits.count(caller, kTwoAMinute, kStart).allowed);
    ASSERT_LE(limits.callers(), 160U);
  }
  EXPECT_GT(limits.callers(), 100U);
}

// A flood of strangers does not wash away the count of one who keeps on calling.
TEST(MemoryCallerLimitsTest, ForgetsTheOneThatWasIdleLongest) {
  MemoryCallerLimits limits(16);  // one in each stripe
  MemoryCallerLimits wide(32);    // two
  constexpr std::uint64_t kBusy = 12'345;
  for (int i = 0; i < 2; ++i) EXPECT_TRUE(wide.count(kBusy, kTwoAMinute, kStart).allowed);
  for (std::uint64_t stranger = 0; stranger < 1'000; ++stranger) {
    (void)wide.count(stranger, kTwoAMinute, kStart);
    ASSERT_FALSE(wide.count(kBusy, kTwoAMinute, kStart).allowed) << stranger;
  }
  for (int i = 0; i < 2; ++i) EXPECT_TRUE(limits.count(kBusy, kTwoAMinute, kStart).allowed);
  for (std::uint64_t stranger = 0; stranger < 1'000; ++stranger)
    (void)limits.count(stranger, kTwoAMinute, kStart);
  EXPECT_TRUE(limits.count(kBusy, kTwoAMinute, kStart).allowed);
}

TEST(MemoryLedgerTest, KeepsTheNewestCallsAndTheWholeSum) {
  MemoryLedger ledger(3);
  for (std::uint64_t i = 1; i <= 5; ++i) {
    CallRecord call;
    call.id = {1, i};
    call.cost = {10};
    ledger.record(std::move(call));
  }
  ASSERT_EQ(ledger.recent(10).size(), 3U);
  EXPECT_EQ(ledger.recent(10).front().id.sequence, 5U);
  EXPECT_EQ(ledger.recent(10).back().id.sequence, 3U);
  EXPECT_EQ(ledger.total_cost(), NanoUsd{50});
}

}  // namespace
}  // namespace penstock::store::contract
