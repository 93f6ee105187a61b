#include "store/memory/memory_state.hpp"

#include <map>

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

// ---- Budgets that change in the middle of their windows

/// A ledger that knows every attempt at once.
class WholeHistory final : public History {
 public:
  struct Entry {
    WallTime at{};
    std::int64_t estimate = 0;
    std::optional<std::int64_t> cost;  ///< none: open
    MonotonicTime expired_at = MonotonicTime::max();
  };
  std::map<std::uint64_t, Entry> attempts;

  [[nodiscard]] Spent spent(SubjectKind, std::string_view, policy::WindowSpan span) const override {
    Spent out;
    for (const auto& [id, entry] : attempts) {
      if (entry.at < span.start || entry.at >= span.end) continue;
      const std::int64_t cost = entry.cost.value_or(entry.estimate);
      out.settled.count += std::min(cost, entry.estimate);
      out.overrun.count += std::max<std::int64_t>(0, cost - entry.estimate);
    }
    return out;
  }
  [[nodiscard]] std::vector<Started> started(SubjectKind, std::string_view, WallTime,
                                             nanoseconds) const override {
    return {};
  }
};

/// One provider whose budgets are changed while it is used.
class ChangingBudgets {
 public:
  explicit ChangingBudgets(policy::Random& random) : random_(random) {
    state_.set_history(&ledger_);
    state_.listen({.circuit_changed = {}, .overrun = {}, .lease_expired = [this](AttemptId id) {
                     WholeHistory::Entry& entry = ledger_.attempts.at(id.sequence);
                     entry.cost = entry.estimate;
                     entry.expired_at = now_.mono;
                   }});
    change();
  }

  void step() {
    const std::int64_t dice = random_.between(1, 100);
    if (dice <= 45) {
      reserve();
    } else if (dice <= 75) {
      end();
    } else if (dice <= 85) {
      const nanoseconds time = random_.chance(30) ? nanoseconds{1h} * random_.between(1, 14)
                                                  : nanoseconds{1min} * random_.between(0, 20);
      now_ = {.mono = now_.mono + time, .wall = now_.wall + time};
      state_.reap(now_);
    } else if (dice <= 97) {
      change();
    } else {  // it is away for a while
      state_.declare({}, now_);
      end();
      declare();
    }
    compare();
  }

 private:
  [[nodiscard]] std::int64_t spent(const policy::BudgetSpec& spec) const {
    const Spent all =
        ledger_.spent(SubjectKind::provider, "p", policy::window_at(spec.window, spec.time_zone, now_.wall));
    return (all.settled + all.overrun).count;
  }

  // Exactly what fits by the ledger is admitted: no less after raising, no more after lowering, adding,
  // removing, coming back or changing the zone.
  void reserve() {
    const std::int64_t estimate = random_.between(0, 120);
    bool fits = true;
    for (const policy::BudgetSpec& spec : specs_)
      if (spec.mode == policy::BudgetMode::hard)
        fits = fits && spent(spec) + estimate <= spec.limit_at(now_.wall).count;
    const std::uint64_t id = ++last_id_;
    const auto held = state_.reserve_now({.id = {1, id},
                                          .subjects = ids_,
                                          .estimate = {estimate},
                                          .tokens = 0,
                                          .lease = 1min * random_.between(1, 600),
                                          .is_retry = false,
                                          .now = now_});
    ASSERT_EQ(held.has_value(), fits);
    if (held) ledger_.attempts.emplace(id, WholeHistory::Entry{now_.wall, estimate, {}});
    ++(held ? admitted : refused);
  }

  void end() {
    if (last_id_ == 0) return;
    const std::uint64_t id = static_cast<std::uint64_t>(
        random_.between(std::max<std::int64_t>(1, static_cast<std::int64_t>(last_id_) - 12),
                        static_cast<std::int64_t>(last_id_)));
    const auto found = ledger_.attempts.find(id);
    const bool is_released = random_.chance(20);
    const std::int64_t cost =
        is_released || found == ledger_.attempts.end() ? 0 : random_.between(0, found->second.estimate + 5);
    state_.settle({.id = {1, id},
                   .ending = is_released ? Ending::released : Ending::actual,
                   .cost = {cost},
                   .tokens = -1,
                   .outcome = CircuitOutcome::success,
                   .first_byte = {},
                   .now = now_});
    if (found == ledger_.attempts.end()) return;
    WholeHistory::Entry& entry = found->second;
    const bool is_late = entry.expired_at != MonotonicTime::max();
    if (entry.cost && (!is_late || now_.mono - entry.expired_at > kExpiredHoldKept)) return;
    entry.cost = cost;
    entry.expired_at = MonotonicTime::max();
  }

  void change() {
    specs_.clear();
    const auto add = [&](policy::BudgetWindow window, const char* zone) {
      policy::BudgetSpec spec{.window = window, .limit = {random_.between(1, 700)}, .time_zone = zone};
      if (random_.chance(25)) spec.mode = policy::BudgetMode::warn;
      if (random_.chance(25))
        spec.temporary = policy::BudgetOverride{.limit = {random_.between(0, 900)},
                                                .until = now_.wall + 1min * random_.between(-60, 2'000),
                                                .reason = {}};
      specs_.push_back(std::move(spec));
    };
    if (random_.chance(70)) add(policy::BudgetWindow::daily, random_.chance(50) ? "UTC" : "America/New_York");
    if (random_.chance(60)) add(policy::BudgetWindow::monthly, "UTC");
    if (random_.chance(40)) add(policy::BudgetWindow::daily, "Asia/Tokyo");
    if (random_.chance(50)) std::ranges::reverse(specs_);
    declare();
  }
  void declare() {
    ids_ = state_.declare(std::vector{with_budgets(SubjectKind::provider, "p", specs_)}, now_);
  }

  void compare() {
    const auto views = state_.view(now_, ids_);
    ASSERT_EQ(views.size(), 1U);
    ASSERT_EQ(views[0].budgets.size(), specs_.size());
    for (std::size_t i = 0; i < specs_.size(); ++i) {
      const BudgetView& view = views[0].budgets[i];
      ASSERT_EQ(view.spec.limit, specs_[i].limit_at(now_.wall));
      ASSERT_EQ((view.settled + view.held + view.overrun).count, spent(specs_[i])) << to_string(specs_[i]);
    }
  }

  policy::Random& random_;
  WholeHistory ledger_;
  MemoryState state_;
  Now now_{MonotonicTime{1'000h}, kDay};
  std::vector<policy::BudgetSpec> specs_;
  std::vector<SubjectId> ids_;
  std::uint64_t last_id_ = 0;

 public:
  int admitted = 0;
  int refused = 0;
};

// B7, and more: whatever a reload changes, what is admitted is what fits by the ledger, to the nano-dollar.
TEST(MemoryStateProperty, ReloadsNeitherMintNorLoseMoney) {
  int admitted = 0;
  int refused = 0;
  policy::for_each_seed(60, [&](policy::Random& random) {
    ChangingBudgets budgets(random);
    for (int step = 0; step < 400; ++step) {
      budgets.step();
      if (testing::Test::HasFatalFailure()) return;
    }
    admitted += budgets.admitted;
    refused += budgets.refused;
  });
  EXPECT_GT(admitted, 1'000);
  EXPECT_GT(refused, 1'000);
}

// Without a history a budget whose zone changes keeps its window, and so its counts, to its end.
TEST(MemoryStateTest, WithoutAHistoryAChangedZoneWaits) {
  MemoryState state;
  Now now{MonotonicTime{1'000h}, kDay + 12h};
  policy::BudgetSpec spec = daily(100);
  const auto declare = [&] {
    return state.declare(std::vector{with_budgets(SubjectKind::provider, "p", {spec})}, now);
  };
  const auto ids = declare();
  ASSERT_TRUE(state.reserve_now({.id = {1, 1},
                                 .subjects = ids,
                                 .estimate = {100},
                                 .tokens = 0,
                                 .lease = 1h,
                                 .is_retry = false,
                                 .now = now}));
  spec.time_zone = "Asia/Tokyo";
  declare();
  now.wall = kDay + 18h;  // Tokyo's next day
  EXPECT_EQ(state.view(now, {}).front().budgets.front().held.count, 100);
  now.wall = kDay + 24h;
  EXPECT_EQ(state.view(now, {}).front().budgets.front().held.count, 0);
  EXPECT_EQ(state.view(now, {}).front().budgets.front().span.end, kDay + 39h);
}

// While a jump is in doubt a reservation must fit the day that the wall clock names, too.
TEST(MemoryStateTest, ADoubtedClockOpensNoFreshBudget) {
  MemoryState state;
  Now now{MonotonicTime{1'000h}, kDay + 23h};
  const auto ids = state.declare(std::vector{with_budgets(SubjectKind::provider, "p", {daily(100)})}, now);
  std::uint64_t last = 0;
  const auto reserve = [&](std::int64_t estimate) {
    return state.reserve_now({.id = {1, ++last},
                              .subjects = ids,
                              .estimate = {estimate},
                              .tokens = 0,
                              .lease = 1h,
                              .is_retry = false,
                              .now = now});
  };
  ASSERT_TRUE(reserve(60));
  now.doubtful_ahead = 24h;
  ASSERT_TRUE(reserve(40));
  const auto refused = reserve(1);
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().retry_after, 1h);
  EXPECT_EQ(state.view(now, {}).front().budgets.front().held.count, 100);
  // The jump is believed: the new day has what was held while it was in doubt.
  now = {.mono = now.mono, .wall = now.wall + 24h};
  EXPECT_EQ(state.view(now, {}).front().budgets.front().held.count, 40);
  EXPECT_FALSE(reserve(61));
  EXPECT_TRUE(reserve(60));
  // The holds end in the days that they were made in.
  for (std::uint64_t id = 1; id <= last; ++id)
    state.settle({.id = {1, id},
                  .ending = Ending::actual,
                  .cost = {5},
                  .tokens = -1,
                  .outcome = {},
                  .first_byte = {},
                  .now = now});
  const BudgetView view = state.view(now, {}).front().budgets.front();
  EXPECT_EQ(view.settled.count, 10);
  EXPECT_EQ(view.held.count, 0);
}

}  // namespace
}  // namespace penstock::store::contract
