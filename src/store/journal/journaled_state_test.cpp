#include "store/journal/journaled_state.hpp"

#include "store/contract/ledger_contract.hpp"
#include "store/contract/shared_state_contract.hpp"
#include "store/contract/shared_state_properties.hpp"
#include "store/contract/shared_state_stress.hpp"
#include "store/journal/database_testing.hpp"
#include "store/journal/journal_ledger.hpp"
#include "store/memory/memory_state.hpp"

namespace penstock::store {

/// A journal, its keeper, and a database to keep it for.
struct Kept {
  static constexpr std::uint64_t kEpoch = 7;
  explicit Kept(JournalOptions options) {
    options.epoch = kEpoch;
    journal = std::move(*Journal::open(*directory, std::move(options), disk));
    writer.emplace(*journal, database,
                   LedgerWriterOptions{.batch_delay = milliseconds{1}, .retry_first = milliseconds{1}});
    EXPECT_TRUE(writer->recover(kNoon));
    writer->start();
  }
  TemporaryDirectory temporary;
  Disk disk;
  Result<DataDirectory> directory = DataDirectory::open(temporary.path() / "data");
  FakeDatabase database;
  std::unique_ptr<Journal> journal;
  std::optional<LedgerWriter> writer;
};

/// A JournaledState with all that it stands on.
class WholeState final : public SharedState {
 public:
  WholeState(JournalOptions options, bool at_once)
      : kept_(std::move(options)),
        state_(memory_, *kept_.journal,
               at_once ? [this](const ReservationRequest& request) { return memory_.reserve_now(request); }
                       : JournaledState::ReserveNow{}) {}

  void listen(Listener listener) override { state_.listen(std::move(listener)); }
  void set_history(const History* history) override { state_.set_history(history); }
  std::vector<SubjectId> declare(std::span<const SubjectSpec> specs, Now now) override {
    return state_.declare(specs, now);
  }
  Awaitable<std::expected<void, Refusal>> reserve(ReservationRequest request) override {
    return state_.reserve(request);
  }
  void settle(const Settlement& settlement) noexcept override { state_.settle(settlement); }
  void pause(SubjectId provider, MonotonicTime until) noexcept override { state_.pause(provider, until); }
  bool try_retry(SubjectId provider, MonotonicTime now) noexcept override {
    return state_.try_retry(provider, now);
  }
  void reap(Now now) override { state_.reap(now); }
  std::vector<SubjectView> view(Now now, std::span<const SubjectId> only) override {
    return state_.view(now, only);
  }
  Kept& kept() { return kept_; }
  MemoryState& memory() { return memory_; }

 private:
  Kept kept_;
  MemoryState memory_;
  JournaledState state_;
};

JournalOptions journal_options(SyncMode sync = SyncMode::interval) {
  return {.lanes = 2, .segment_bytes = 1 << 20, .sync = sync, .sync_interval = milliseconds{1}};
}

namespace contract {
namespace {

const auto kStates = testing::Values(
    StateBackend{"journaled", [] { return std::make_unique<WholeState>(journal_options(), true); }},
    StateBackend{"journaled_waiting", [] { return std::make_unique<WholeState>(journal_options(), false); }},
    StateBackend{"journaled_synced",
                 [] { return std::make_unique<WholeState>(journal_options(SyncMode::always), true); }});
const auto kName = [](const auto& test) { return test.param.name; };
INSTANTIATE_TEST_SUITE_P(Journal, SharedStateContract, kStates, kName);
INSTANTIATE_TEST_SUITE_P(Journal, SharedStateProperties, kStates, kName);
INSTANTIATE_TEST_SUITE_P(Journal, SharedStateStress,
                         testing::Values(StateBackend{
                             "journaled",
                             [] { return std::make_unique<WholeState>(journal_options(), true); }}),
                         kName);

/// A JournalLedger with all that it stands on.
class WholeLedger final : public Ledger {
 public:
  WholeLedger()
      : kept_(journal_options()), ledger_(*kept_.journal, *kept_.writer, kept_.database, seconds{20}) {}
  void record(CallRecord call) override { ledger_.record(std::move(call)); }
  std::vector<CallRecord> recent(std::size_t count) const override { return ledger_.recent(count); }
  NanoUsd total_cost() const override { return ledger_.total_cost(); }

 private:
  Kept kept_;
  JournalLedger ledger_;
};
INSTANTIATE_TEST_SUITE_P(Journal, LedgerContract,
                         testing::Values(LedgerBackend{"journal",
                                                       [] { return std::make_unique<WholeLedger>(); }}),
                         kName);

}  // namespace
}  // namespace contract

namespace {

using contract::Caller;
using contract::daily;
using contract::with_budgets;

class JournaledStateTest : public testing::Test {
 protected:
  std::optional<WholeState> state_;
  std::vector<SubjectId> ids_;
  Now now_{MonotonicTime{1'000h}, kNoon};

  void make(JournalOptions options) {
    state_.emplace(std::move(options), true);
    ids_ = state_->declare(std::vector{with_budgets(SubjectKind::provider, "p", {daily(1'000)})}, now_);
  }
  std::expected<void, Refusal> reserve(std::uint64_t id, std::int64_t estimate = 100) {
    return Caller(*state_).reserve({.id = {Kept::kEpoch, id},
                                    .subjects = ids_,
                                    .estimate = {estimate},
                                    .tokens = 5,
                                    .lease = 30s,
                                    .is_retry = false,
                                    .now = now_});
  }
  void settle(std::uint64_t id, Ending ending, std::int64_t cost = 0) {
    state_->settle({.id = {Kept::kEpoch, id},
                    .ending = ending,
                    .cost = {cost},
                    .tokens = -1,
                    .outcome = policy::CircuitBreaker::Outcome::success,
                    .first_byte = {},
                    .now = now_});
  }
  std::vector<std::string> in_database() {
    EXPECT_TRUE(state_->kept().writer->catch_up(20s));
    return state_->kept().database.lines();
  }
  NanoUsd held() { return state_->view(now_, {}).front().budgets.front().held; }
};

TEST_F(JournaledStateTest, WhatWasGrantedIsWrittenAndWhatWasRefusedIsNot) {
  make(journal_options());
  EXPECT_TRUE(reserve(1, 600));
  EXPECT_FALSE(reserve(2, 600));
  EXPECT_TRUE(reserve(3, 400));
  settle(1, Ending::actual, 50);
  EXPECT_THAT(in_database(), testing::ElementsAre("1:50", "3:open"));
  EXPECT_EQ(state_->kept().journal->reserves(), 2U);
}

TEST_F(JournaledStateTest, ALeaseThatRunsOutIsWrittenAndCorrected) {
  make(journal_options());
  EXPECT_TRUE(reserve(1));
  now_.mono += 31s;
  state_->reap(now_);
  EXPECT_THAT(in_database(), testing::ElementsAre("1:100!"));
  settle(1, Ending::actual, 30);
  EXPECT_THAT(in_database(), testing::ElementsAre("1:30"));
  EXPECT_TRUE(state_->kept().database.mistakes.empty());
}

// G9: without a journal nothing that costs money leaves, and nothing stays held.
TEST_F(JournaledStateTest, AJournalThatTakesNothingRefusesAndHoldsNothing) {
  make(journal_options());
  EXPECT_TRUE(reserve(1));
  state_->kept().journal->fail(refuse(Reason::gateway_error, "the disk is gone").error());
  const auto refused = reserve(2);
  ASSERT_FALSE(refused.has_value());
  EXPECT_EQ(refused.error().reason, Reason::policy_state_unavailable);
  EXPECT_EQ(held(), NanoUsd{100});
  settle(1, Ending::actual, 30);  // what runs ends
  EXPECT_EQ(held(), NanoUsd{});
}

// Its id has no name here, so it cannot be written: held for a moment, then given back.
TEST_F(JournaledStateTest, WhatCannotBeWrittenIsGivenBack) {
  make(journal_options());
  ids_ = state_->memory().declare(std::vector{with_budgets(SubjectKind::provider, "p", {daily(1'000)}),
                                              with_budgets(SubjectKind::key, "k", {})},
                                  now_);
  EXPECT_FALSE(reserve(1));
  EXPECT_EQ(held(), NanoUsd{});
  EXPECT_TRUE(in_database().empty());
}

/// Syncs when a test lets it.
class SlowDisk final : public Disk {
 public:
  std::atomic<bool> is_stuck{false};
  int sync(int fd) noexcept override {
    while (is_stuck) std::this_thread::yield();
    return Disk::sync(fd);
  }
};

class SyncedStateTest : public JournalTest {
 protected:
  SlowDisk slow_;
  MemoryState memory_;
  Now now_{MonotonicTime{1'000h}, kNoon};
  std::vector<SubjectId> ids_;

  NanoUsd held() { return memory_.view(now_, {}).front().budgets.front().held; }
  ReservationRequest request() {
    return {.id = {kEpoch, 1},
            .subjects = ids_,
            .estimate = {100},
            .tokens = 5,
            .lease = 30s,
            .is_retry = false,
            .now = now_};
  }
};

// The disk does not answer: the attempt does not leave, and its reservation ends as released, in the journal
// too.
TEST_F(SyncedStateTest, AReservationThatIsNotSafeInTimeIsReleased) {
  JournalOptions always = options();
  always.sync = SyncMode::always;
  always.sync_wait = 10ms;
  const auto journal = started(always, slow_);
  JournaledState state(memory_, *journal);
  ids_ = state.declare(std::vector{with_budgets(SubjectKind::provider, "p", {daily(1'000)})}, now_);
  slow_.is_stuck = true;
  EXPECT_FALSE(Caller(state).reserve(request()).has_value());
  EXPECT_EQ(held(), NanoUsd{});
  slow_.is_stuck = false;
  journal->close();
  EXPECT_TRUE(
      std::ranges::any_of(lines(), [](const std::string& line) { return line.find(" 5 ") != line.npos; }));
}

// The caller hangs up while its reservation waits for the disk.
TEST_F(SyncedStateTest, AReservationWhoseCallerLeavesIsReleased) {
  JournalOptions always = options();
  always.sync = SyncMode::always;
  const auto journal = started(always, slow_);
  JournaledState state(memory_, *journal);
  ids_ = state.declare(std::vector{with_budgets(SubjectKind::provider, "p", {daily(1'000)})}, now_);
  slow_.is_stuck = true;
  {
    boost::asio::io_context io{1};
    boost::asio::co_spawn(io, state.reserve(request()),
                          [](std::exception_ptr, std::expected<void, Refusal>) {});
    io.run_one();
    EXPECT_EQ(held(), NanoUsd{100});
  }
  EXPECT_EQ(held(), NanoUsd{});
  slow_.is_stuck = false;
}

}  // namespace
}  // namespace penstock::store
