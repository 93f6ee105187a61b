#include "store/memory/memory_state.hpp"

#include "store/contract/shared_state_contract.hpp"
#include "store/contract/shared_state_learning.hpp"
#include "store/contract/shared_state_properties.hpp"
#include "store/contract/shared_state_stress.hpp"

namespace penstock::store::contract {
namespace {

const auto kMemory = testing::Values(StateBackend{"memory", [] { return std::make_unique<MemoryState>(); }});
const auto kName = [](const auto& test) { return test.param.name; };
INSTANTIATE_TEST_SUITE_P(Memory, SharedStateContract, kMemory, kName);
INSTANTIATE_TEST_SUITE_P(Memory, SharedStateLearning, kMemory, kName);
INSTANTIATE_TEST_SUITE_P(Memory, SharedStateProperties, kMemory, kName);
INSTANTIATE_TEST_SUITE_P(Memory, SharedStateStress, kMemory, kName);

// Beyond what is remembered of expired leases, the oldest stay charged for good; nothing of them stays
// behind.
TEST(MemoryStateTest, ExpiredLeasesAreForgottenOldestFirst) {
  MemoryState state;
  Now now{MonotonicTime{1'000h}, kDay};
  const auto ids =
      state.declare(std::vector{with_budgets(SubjectKind::provider, "p", {daily(1'000'000)})}, now);
  const auto reserve = [&](std::uint64_t id) {
    ASSERT_TRUE(state.reserve_now({.id = {1, id},
                                   .subjects = ids,
                                   .estimate = {2},
                                   .tokens = 0,
                                   .lease = 1s,
                                   .is_retry = false,
                                   .now = now}));
  };
  const auto settled = [&] { return state.view(now, {}).front().budgets.front().settled.count; };
  const auto release = [&](std::uint64_t id) {
    state.settle({.id = {1, id},
                  .ending = Ending::released,
                  .cost = {},
                  .tokens = -1,
                  .outcome = {},
                  .first_byte = {},
                  .now = now});
  };
  reserve(1);
  now.mono += 1s;
  state.reap(now);
  constexpr auto kMax = static_cast<std::uint64_t>(kMaxExpiredHolds);
  for (std::uint64_t id = 2; id <= kMax + 1; ++id) ASSERT_NO_FATAL_FAILURE(reserve(id));
  now.mono += 1s;
  state.reap(now);
  EXPECT_EQ(state.open_reservations(), 0U);
  const auto all = static_cast<std::int64_t>(2 * (kMax + 1));
  EXPECT_EQ(settled(), all);
  release(1);  // forgotten
  EXPECT_EQ(settled(), all);
  release(2);  // remembered
  EXPECT_EQ(settled(), all - 2);

  // ... and after an hour all of them.
  now.mono += kExpiredHoldKept + 1s;
  state.reap(now);
  release(3);
  EXPECT_EQ(settled(), all - 2);
  state.declare({}, now);
  EXPECT_TRUE(state.view(now, {}).empty());
}

}  // namespace
}  // namespace penstock::store::contract
