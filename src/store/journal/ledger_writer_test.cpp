#include "store/journal/ledger_writer.hpp"

#include <gmock/gmock.h>

#include "policy/property_testing.hpp"
#include "store/journal/database_testing.hpp"
#include "store/journal/journal_ledger.hpp"

namespace penstock::store {
namespace {

using testing::ElementsAre;
using Fault = FakeDatabase::Fault;

class LedgerWriterTest : public JournalTest {
 protected:
  FakeDatabase database_;
  std::unique_ptr<Journal> journal_;
  std::unique_ptr<LedgerWriter> writer_;
  std::vector<std::string> errors_;
  std::uint64_t epoch_ = kEpoch;

  LedgerWriterOptions quick() {
    return {.max_batch = 64,
            .batch_delay = 1ms,
            .retry_first = 1ms,
            .retry_most = 2ms,
            .start_wait = 10ms,
            .on_error = [this](const Error& error) { errors_.push_back(error.detail); }};
  }
  JournalOptions small() {
    JournalOptions made = options();
    made.segment_bytes = 4 * 1024;
    made.sync_interval = 1ms;
    made.epoch = epoch_;
    return made;
  }
  /// Another process, on the same directory and database.
  Result<void> begin() {
    end();
    ++epoch_;
    journal_ = open(small());
    if (!journal_) return refuse(Reason::gateway_error, "not opened");
    writer_ = std::make_unique<LedgerWriter>(*journal_, database_, quick());
    auto done = writer_->recover(kNoon + 1h);
    if (done) writer_->start();
    return done;
  }
  /// It dies: nothing more is applied.
  void end() {
    writer_.reset();
    journal_.reset();
  }
  bool reserve(std::uint64_t id, std::int64_t estimate = 100) {
    return eventually([&] {
      return journal_
          ->reserve({.order = 0,
                     .id = {epoch_, id},
                     .at = kNoon,
                     .estimate = {estimate},
                     .tokens = 5,
                     .subjects = {}},
                    subjects_)
          .has_value();
    });
  }
  bool settle(std::uint64_t id, std::int64_t cost) {
    return journal_->settle({.order = 0,
                             .id = {epoch_, id},
                             .at = kNoon + 1s,
                             .ending = Ending::actual,
                             .cost = {cost},
                             .tokens = 3});
  }
  bool expire(std::uint64_t id) {
    return journal_->expire({.order = 0, .id = {epoch_, id}, .at = kNoon + 1s});
  }
  bool catch_up() { return writer_->catch_up(20s); }
};

TEST_F(LedgerWriterTest, WhatTheJournalHasComesToTheDatabase) {
  ASSERT_TRUE(begin());
  EXPECT_TRUE(reserve(1));
  EXPECT_TRUE(reserve(2));
  EXPECT_TRUE(settle(1, 40));
  EXPECT_TRUE(journal_->call(call(1)));
  EXPECT_TRUE(journal_->budget({.at = kNoon,
                                .subject = {SubjectKind::provider, "p"},
                                .before = "",
                                .after = "20 USD daily hard UTC",
                                .who = "configuration file"}));
  EXPECT_TRUE(catch_up());
  EXPECT_THAT(database_.lines(), ElementsAre("1:40", "2:open"));
  ASSERT_EQ(database_.calls.size(), 1U);
  EXPECT_EQ(database_.calls[0].tag, "nightly");
  ASSERT_EQ(database_.budget_changes.size(), 1U);
  EXPECT_EQ(database_.attempts.begin()->second.subjects, (std::vector<SubjectRef>{provider_, key_}));
  EXPECT_EQ(writer_->status(std::chrono::steady_clock::now()).unapplied_bytes, 0U);
  EXPECT_TRUE(database_.mistakes.empty());
}

TEST_F(LedgerWriterTest, WithoutBeingAskedItAppliesToo) {
  ASSERT_TRUE(begin());
  EXPECT_TRUE(reserve(1));
  EXPECT_TRUE(eventually([&] { return database_.lines().size() == 1; }));
}

// ---- Starts

// G2: what was open when the process died may have been billed.
TEST_F(LedgerWriterTest, AttemptsOfADeadProcessAreChargedAtTheirEstimates) {
  ASSERT_TRUE(begin());
  EXPECT_TRUE(reserve(1, 100));
  EXPECT_TRUE(reserve(2, 200));
  EXPECT_TRUE(catch_up());
  EXPECT_TRUE(settle(1, 40));
  EXPECT_TRUE(reserve(3, 300));
  database_.set_gone(true);  // so that the rest stays in the journal
  end();
  database_.set_gone(false);
  ASSERT_TRUE(begin());
  EXPECT_THAT(database_.lines(), ElementsAre("1:40", "2:200!", "3:300!"));
  EXPECT_EQ(writer_->status({}).recovered_expired, 2U);
  EXPECT_TRUE(database_.mistakes.empty());
  // ... and once.
  ASSERT_TRUE(begin());
  EXPECT_EQ(writer_->status({}).recovered_expired, 0U);
  EXPECT_THAT(database_.lines(), ElementsAre("1:40", "2:200!", "3:300!"));
}

TEST_F(LedgerWriterTest, ACorrectionThatTheDatabaseLacksIsNotLost) {
  ASSERT_TRUE(begin());
  EXPECT_TRUE(reserve(1, 100));
  EXPECT_TRUE(expire(1));
  EXPECT_TRUE(catch_up());
  EXPECT_THAT(database_.lines(), ElementsAre("1:100!"));
  database_.set_gone(true);
  EXPECT_TRUE(settle(1, 130));
  end();
  database_.set_gone(false);
  ASSERT_TRUE(begin());
  EXPECT_THAT(database_.lines(), ElementsAre("1:130"));
  EXPECT_TRUE(database_.mistakes.empty());
}

TEST_F(LedgerWriterTest, ADatabaseThatIsNotThereAtTheStartIsAnError) {
  database_.set_gone(true);
  const auto begun = begin();
  ASSERT_FALSE(begun.has_value());
  EXPECT_EQ(begun.error().reason, Reason::policy_state_unavailable);
  EXPECT_FALSE(journal_->accepts());
  EXPECT_THAT(errors_, ElementsAre("no route to it"));
}

TEST_F(LedgerWriterTest, ADatabaseThatComesLateIsWaitedFor) {
  database_.fault = [](std::size_t step) { return step < 4 ? Fault::refused : Fault::none; };
  EXPECT_TRUE(begin());
}

// An older copy of the database lacks what was deleted from the journal: money would be missing.
TEST_F(LedgerWriterTest, AnOlderCopyOfTheDatabaseIsRefused) {
  ASSERT_TRUE(begin());
  EXPECT_TRUE(reserve(1));
  EXPECT_TRUE(catch_up());
  const auto old_positions = database_.known;
  for (std::uint64_t id = 2; id <= 150; ++id) EXPECT_TRUE(reserve(id));
  EXPECT_TRUE(catch_up());
  EXPECT_TRUE(reserve(200));
  database_.known = old_positions;
  database_.set_gone(true);
  end();
  database_.set_gone(false);
  const auto begun = begin();
  ASSERT_FALSE(begun.has_value());
  EXPECT_NE(begun.error().detail.find("older copy"), std::string::npos) << begun.error().detail;
}

// The journal was lost with its disk, the database was not: numbers of segments go on, so that nothing new is
// taken for applied.
TEST_F(LedgerWriterTest, ALostJournalIsFollowedByANewOne) {
  ASSERT_TRUE(begin());
  for (std::uint64_t id = 1; id <= 150; ++id) EXPECT_TRUE(reserve(id));
  EXPECT_TRUE(catch_up());
  end();
  for (const auto& entry : std::filesystem::directory_iterator(directory_->journal()))
    std::filesystem::remove(entry.path());
  ASSERT_TRUE(begin());
  EXPECT_TRUE(reserve(151));
  EXPECT_TRUE(catch_up());
  EXPECT_EQ(database_.attempts.size(), 151U);
}

// ---- Faults

TEST_F(LedgerWriterTest, WithTheDatabaseGoneItTriesOn) {
  ASSERT_TRUE(begin());
  database_.set_gone(true);
  EXPECT_TRUE(reserve(1));
  EXPECT_FALSE(writer_->catch_up(20ms));
  const LedgerStatus gone = writer_->status(std::chrono::steady_clock::now());
  EXPECT_FALSE(gone.database_ok);
  EXPECT_EQ(gone.database_error, "no route to it");
  EXPECT_GT(gone.unapplied_bytes, 0U);
  EXPECT_GT(gone.behind, 0ns);
  database_.set_gone(false);
  EXPECT_TRUE(catch_up());
  EXPECT_THAT(database_.lines(), ElementsAre("1:open"));
  EXPECT_TRUE(writer_->status({}).database_ok);
  EXPECT_EQ(errors_.size(), 1U);  // one line for a row of failures
}

TEST_F(LedgerWriterTest, StoppingAppliesTheRestWithinItsBound) {
  ASSERT_TRUE(begin());
  EXPECT_TRUE(reserve(1));
  EXPECT_TRUE(writer_->stop(20s));
  EXPECT_EQ(database_.lines().size(), 1U);
  ASSERT_TRUE(begin());
  EXPECT_TRUE(reserve(2));
  database_.set_gone(true);
  EXPECT_FALSE(writer_->stop(10ms));
}

TEST_F(LedgerWriterTest, SegmentsGoWhenTheyAreApplied) {
  ASSERT_TRUE(begin());
  for (std::uint64_t id = 1; id <= 300; ++id) EXPECT_TRUE(reserve(id));
  EXPECT_TRUE(catch_up());
  const auto left = list_segments(directory_->journal())->at(0);
  EXPECT_LE(left.size(), 2U);  // the current one and its spare
  EXPECT_GT(left.front(), 3U);
}

// The database fails or loses its answer at any step, the process dies at any time: every attempt ends up in
// the database exactly once, at what it cost, or at its estimate where its process died first.
TEST_F(LedgerWriterTest, WhateverFailsEverythingIsAppliedExactlyOnce) {
  policy::for_each_seed(15, [&](policy::Random& random) {
    end();
    for (const auto& entry : std::filesystem::directory_iterator(directory_->journal()))
      std::filesystem::remove(entry.path());
    {
      const std::scoped_lock lock(database_.mutex);
      database_.attempts.clear();
      database_.calls.clear();
      database_.known.clear();
      database_.fault = [&, seed = random.next()](std::size_t step) {
        const std::uint64_t dice = policy::Random(seed + step).next() % 10;
        return dice < 2 ? Fault::refused : dice < 4 ? Fault::lost : Fault::none;
      };
    }
    std::map<AttemptId, std::int64_t> cost;  // of those that ended
    std::map<AttemptId, std::int64_t> estimate;
    std::uint64_t calls = 0;
    std::uint64_t next_id = 0;
    for (int process = 0; process < 4; ++process) {
      while (!begin()) {
      }
      std::vector<std::uint64_t> open;
      const auto steps = random.between(1, 120);
      for (std::int64_t step = 0; step < steps; ++step) {
        const auto what = random.between(0, 5);
        if (what <= 2 || open.empty()) {
          ASSERT_TRUE(reserve(++next_id, 100));
          estimate[{epoch_, next_id}] = 100;
          open.push_back(next_id);
        } else if (what <= 4) {
          const auto at =
              static_cast<std::size_t>(random.between(0, static_cast<std::int64_t>(open.size()) - 1));
          const std::uint64_t id = open[at];
          const std::int64_t real = random.between(0, 120);
          if (random.chance(20)) ASSERT_TRUE(expire(id));
          ASSERT_TRUE(settle(id, real));
          cost[{epoch_, id}] = real;
          open.erase(open.begin() + static_cast<std::ptrdiff_t>(at));
        } else if (journal_->call(call(next_id))) {
          ++calls;
        }
        if (random.chance(3)) (void)writer_->catch_up(1ms);
      }
    }
    while (!begin()) {
    }
    ASSERT_EQ(database_.mistakes, std::vector<std::string>{});
    ASSERT_EQ(database_.attempts.size(), estimate.size());
    for (const auto& [id, entry] : database_.attempts) {
      ASSERT_TRUE(entry.end);
      const auto ended = cost.find(id);
      EXPECT_EQ(entry.end->expired, ended == cost.end());
      EXPECT_EQ(entry.end->cost.count, ended == cost.end() ? 100 : ended->second);
    }
    EXPECT_EQ(database_.calls.size(), calls);
  });
}

// Two threads, each in a lane of its own, settle what the other one reserved: no ending is read before its
// reservation.
TEST_F(LedgerWriterTest, LanesAreReadInTheOrderOfWhatHappened) {
  JournalOptions two = small();
  two.segment_bytes = 64 * 1024;
  two.lanes = 2;
  journal_ = open(two);
  LedgerWriterOptions tiny = quick();
  tiny.max_batch = 7;
  writer_ = std::make_unique<LedgerWriter>(*journal_, database_, tiny);
  ASSERT_TRUE(writer_->recover(kNoon));
  writer_->start();
  constexpr std::uint64_t kEach = 4'000;
  std::array<std::atomic<std::uint64_t>, 2> reserved{};
  std::atomic<int> working{2};
  const auto work = [&](std::uint64_t own) {
    const std::uint64_t other = 1 - own;
    std::uint64_t settled = 0;
    for (std::uint64_t id = 1; (id <= kEach || settled < kEach) && !HasFailure();) {
      if (id <= kEach) {
        if (!reserve(2 * id + own)) ADD_FAILURE() << id;
        reserved[own] = id++;
      }
      while (settled < reserved[other])
        if (!settle(2 * ++settled + other, 1)) ADD_FAILURE() << settled;
    }
    --working;
  };
  std::thread even(work, 0);
  std::thread odd(work, 1);
  while (working > 0) EXPECT_TRUE(catch_up());
  even.join();
  odd.join();
  EXPECT_TRUE(catch_up());
  EXPECT_EQ(writer_->status({}).ignored, 0U);
  EXPECT_EQ(database_.total_of_attempts(), static_cast<std::int64_t>(2 * kEach));
  EXPECT_TRUE(database_.mistakes.empty());
}

// ---- The interfaces behind it

TEST_F(LedgerWriterTest, TheLedgerTellsWhatWasJustRecorded) {
  ASSERT_TRUE(begin());
  JournalLedger ledger(*journal_, *writer_, database_, 20s);
  ledger.record(call(1));
  ledger.record(call(2));
  EXPECT_EQ(ledger.total_cost(), NanoUsd{80});
  const auto newest = ledger.recent(1);
  ASSERT_EQ(newest.size(), 1U);
  EXPECT_EQ(newest[0].id.sequence, 2U);
}

// A budget that is new begins with what is still on its way to the database.
TEST_F(LedgerWriterTest, TheHistoryKnowsWhatWasJustReserved) {
  ASSERT_TRUE(begin());
  const LedgerHistory history(*journal_, *writer_, database_, 20s);
  const policy::WindowSpan day{.start = kNoon - 12h, .end = kNoon + 12h};
  EXPECT_EQ(history.spent(SubjectKind::provider, "p", day).settled, NanoUsd{});
  EXPECT_TRUE(reserve(1, 100));
  EXPECT_EQ(history.spent(SubjectKind::provider, "p", day).settled, NanoUsd{100});
}

}  // namespace
}  // namespace penstock::store
