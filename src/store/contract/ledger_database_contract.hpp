#pragma once

#include <functional>
#include <map>
#include <memory>
#include <thread>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "policy/property_testing.hpp"
#include "store/ledger_database.hpp"

/// What every LedgerDatabase must do.
namespace penstock::store::contract {

/// One database, empty at first, that several replicas may write.
class LedgerPlace {
 public:
  LedgerPlace() = default;
  LedgerPlace(const LedgerPlace&) = delete;
  LedgerPlace& operator=(const LedgerPlace&) = delete;
  virtual ~LedgerPlace() = default;
  /// Not yet open.
  [[nodiscard]] virtual std::unique_ptr<LedgerDatabase> connect(const std::string& replica) = 0;
  /// Changes the tables behind the program's back; no constraint stops it.
  virtual void tamper(const std::string& statement) = 0;
};

struct LedgerDatabaseBackend {
  std::string name;
  std::function<std::unique_ptr<LedgerPlace>()> make;
  std::uint64_t seeds = 4;  ///< fixed ones, of the random test
};
inline void PrintTo(const LedgerDatabaseBackend& backend, std::ostream* out) { *out << backend.name; }

inline constexpr std::chrono::minutes kQuarter{15};
/// 2026-03-02 00:00 UTC, a Monday.
inline constexpr WallTime kMonday{std::chrono::sys_days{std::chrono::year{2026} / 3 / 2}};

/// Makes attempts, and changes of them as a journal's writer would.
inline AttemptEntry attempt(std::uint64_t sequence, WallTime at, std::int64_t estimate,
                            std::vector<SubjectRef> subjects = {{SubjectKind::provider, "openai"},
                                                                {SubjectKind::team, "search"}}) {
  return {.id = {0xF000'0000'0000'0001, sequence},
          .reserved_at = at,
          .subjects = std::move(subjects),
          .estimate = {estimate},
          .tokens = 10,
          .end = {}};
}
inline AttemptEnd settled(WallTime at, std::int64_t cost) {
  return {.at = at, .ending = Ending::actual, .expired = false, .cost = {cost}, .tokens = 7};
}
inline AttemptEnd expired(WallTime at, std::int64_t estimate) {
  return {.at = at, .ending = Ending::estimate, .expired = true, .cost = {estimate}, .tokens = 10};
}
inline AttemptChange opened(AttemptEntry entry) {
  return {.now = std::move(entry), .is_new = true, .before = {}};
}
inline AttemptChange ended(AttemptEntry entry, AttemptEnd end) {
  entry.end = end;
  return {.now = std::move(entry), .is_new = false, .before = {}};
}
inline AttemptChange whole(AttemptEntry entry, AttemptEnd end) {
  entry.end = end;
  return {.now = std::move(entry), .is_new = true, .before = {}};
}
inline AttemptChange corrected(AttemptEntry entry, AttemptEnd before, AttemptEnd end) {
  entry.end = end;
  return {.now = std::move(entry), .is_new = false, .before = before};
}
inline LedgerBatch batch_of(std::vector<AttemptChange> changes) {
  return {.attempts = std::move(changes), .calls = {}, .budget_changes = {}, .positions = {}};
}
inline CallRecord call_of(std::uint64_t sequence, WallTime at, std::int64_t cost) {
  CallRecord made;
  made.id = {0xF000'0000'0000'0001, sequence};
  made.at = at;
  made.route = Name("chat");
  made.status = 200;
  made.cost = {cost};
  if (cost > 0)
    made.attempts.push_back({.id = {0xF000'0000'0000'0001, sequence},
                             .provider = Name("openai"),
                             .endpoint = Name("chat"),
                             .estimate = {cost},
                             .cost = {cost},
                             .ending = Ending::actual,
                             .status = 200,
                             .reason = {}});
  return made;
}

class LedgerDatabaseContract : public testing::TestWithParam<LedgerDatabaseBackend> {
 protected:
  void SetUp() override { reopen(); }

  /// As after a restart.
  void reopen(const std::string& replica = "a") {
    ledger_.reset();
    ledger_ = place_->connect(replica);
    const auto opened = ledger_->open();
    ASSERT_TRUE(opened) << opened.error().detail;
  }
  static void must(const Result<void>& done) {
    ASSERT_TRUE(done) << done.error().message << ": " << done.error().detail;
  }
  void apply(const LedgerBatch& batch) { must(ledger_->apply(batch)); }

  [[nodiscard]] Spent spent(SubjectKind kind, std::string_view name, WallTime from, WallTime to) const {
    return ledger_->spent(kind, name, {from, to});
  }
  /// Of the provider "openai" on Monday.
  [[nodiscard]] std::pair<std::int64_t, std::int64_t> monday() const {
    const Spent all = spent(SubjectKind::provider, "openai", kMonday, kMonday + std::chrono::hours{24});
    return {all.settled.count, all.overrun.count};
  }
  [[nodiscard]] LedgerAudit audit() {
    auto found = ledger_->audit();
    EXPECT_TRUE(found) << found.error().detail;
    return found ? *found : LedgerAudit{};
  }
  void expect_clean() { EXPECT_THAT(audit().mistakes, testing::IsEmpty()); }

  std::unique_ptr<LedgerPlace> place_ = GetParam().make();
  std::unique_ptr<LedgerDatabase> ledger_;
};
GTEST_ALLOW_UNINSTANTIATED_PARAMETERIZED_TEST(LedgerDatabaseContract);

inline bool same_call(const CallRecord& a, const CallRecord& b) {
  const auto head = [](const CallRecord& c) {
    return std::tuple(c.id, c.at, c.route.view(), c.consumer.view(), c.team.view(), c.key.view(),
                      c.model.view(), c.tag, c.status, c.reason, c.cost, c.cost_estimated, c.total);
  };
  const auto part = [](const AttemptRecord& r) {
    return std::tuple(r.id, r.provider.view(), r.endpoint.view(), r.estimate, r.cost, r.ending, r.status,
                      r.reason);
  };
  return head(a) == head(b) && std::ranges::equal(a.attempts, b.attempts, {}, part, part);
}

TEST_P(LedgerDatabaseContract, StartsEmpty) {
  EXPECT_THAT(*ledger_->positions(), testing::IsEmpty());
  EXPECT_THAT(*ledger_->open_attempts(), testing::IsEmpty());
  EXPECT_THAT(*ledger_->recent_calls(10), testing::IsEmpty());
  EXPECT_EQ(*ledger_->total_cost(), NanoUsd{});
  EXPECT_EQ(monday(), std::pair(0L, 0L));
  EXPECT_THAT(ledger_->started(SubjectKind::provider, "openai", kMonday, seconds{1}), testing::IsEmpty());
  EXPECT_THAT(*ledger_->balances(kMonday, kMonday + kQuarter), testing::IsEmpty());
  apply({});
  expect_clean();
}

// Every field, with none, one and several attempts, and numbers above 2^63 in the ids.
TEST_P(LedgerDatabaseContract, GivesBackCallsAsTheyWereRecorded) {
  CallRecord full = call_of(9, kMonday + nanoseconds{1}, 0);
  full.consumer = Name("app");
  full.team = Name("search");
  full.key = Name("app-key");
  full.model = Name("gpt");
  full.tag = "nightly \"'\\ \xC3\xA9";
  full.status = 429;
  full.reason = Reason::policy_budget_exceeded;
  full.cost = {kMaxNanoUsd.count};
  full.cost_estimated = true;
  full.total = milliseconds{17};
  for (int i = 0; i < 3; ++i)
    full.attempts.push_back({.id = {std::numeric_limits<std::uint64_t>::max(), std::uint64_t{1} << 63},
                             .provider = Name("p"),
                             .endpoint = Name("other"),
                             .estimate = {5},
                             .cost = {i},
                             .ending = static_cast<Ending>(i),
                             .status = i == 0 ? 0 : 503,
                             .reason = i == 0 ? std::nullopt : std::optional(Reason::gateway_error)});
  const CallRecord plain = call_of(10, kMonday + nanoseconds{1}, 3);
  const CallRecord none = call_of(11, kMonday, 0);
  apply({.attempts = {}, .calls = {full, plain, none}, .budget_changes = {}, .positions = {}});
  const auto got = ledger_->recent_calls(10);
  ASSERT_TRUE(got);
  ASSERT_EQ(got->size(), 3U);
  EXPECT_TRUE(same_call((*got)[0], plain));
  EXPECT_TRUE(same_call((*got)[1], full));
  EXPECT_TRUE(same_call((*got)[2], none));
  EXPECT_THAT(*ledger_->recent_calls(1), testing::SizeIs(1));
  EXPECT_THAT(*ledger_->recent_calls(0), testing::IsEmpty());
  EXPECT_EQ(*ledger_->total_cost(), NanoUsd{kMaxNanoUsd.count + 3});
}

// A caller's tag is bytes; a database takes UTF-8 only, and one bad tag must not stop the ledger.
TEST_P(LedgerDatabaseContract, TagsThatAreNotTextAreReplaced) {
  CallRecord call = call_of(1, kMonday, 0);
  call.tag = std::string("a\0b\xFF", 4);
  apply({.attempts = {}, .calls = {call}, .budget_changes = {}, .positions = {}});
  EXPECT_EQ(ledger_->recent_calls(1)->front().tag,
            "a\xEF\xBF\xBD"
            "b\xEF\xBF\xBD");
}

// Reports read page by page: order, borders and an early end hold across pages.
TEST_P(LedgerDatabaseContract, ReadsLongRangesInOrder) {
  constexpr int kCount = 2'500;
  LedgerBatch batch;
  for (int i = 0; i < kCount; ++i) {
    const auto sequence = static_cast<std::uint64_t>(i);
    const WallTime at = kMonday + seconds{i / 5};  // five of each moment: the id orders them
    batch.calls.push_back(call_of(sequence, at, 2));
    batch.attempts.push_back(whole(attempt(sequence, at, 2), settled(at, 2)));
  }
  std::ranges::reverse(batch.calls);
  apply(batch);
  std::vector<std::uint64_t> calls;
  must(ledger_->for_each_call(kMonday + seconds{1}, kMonday + seconds{480}, [&](const CallRecord& call) {
    calls.push_back(call.id.sequence);
    return true;
  }));
  std::vector<std::uint64_t> attempts;
  must(
      ledger_->for_each_attempt(kMonday + seconds{1}, kMonday + seconds{480}, [&](const AttemptEntry& entry) {
        attempts.push_back(entry.id.sequence);
        EXPECT_EQ(entry.subjects.size(), 2U);
        return true;
      }));
  std::vector<std::uint64_t> expected;
  for (std::uint64_t i = 5; i < 2'400; ++i) expected.push_back(i);
  EXPECT_EQ(calls, expected);
  EXPECT_EQ(attempts, expected);
  int seen = 0;
  must(
      ledger_->for_each_call(kMonday, kMonday + seconds{480}, [&](const CallRecord&) { return ++seen < 7; }));
  EXPECT_EQ(seen, 7);
  expect_clean();
}

TEST_P(LedgerDatabaseContract, AnAttemptsMoneyMovesFromReservedToSpent) {
  const AttemptEntry one = attempt(1, kMonday, 100);
  apply(batch_of({opened(one)}));
  EXPECT_THAT(*ledger_->open_attempts(), testing::SizeIs(1));
  EXPECT_EQ(monday(), std::pair(100L, 0L));  // open: at its estimate
  EXPECT_EQ(audit().reserved, NanoUsd{100});
  apply(batch_of({ended(one, settled(kMonday + seconds{3}, 40))}));
  EXPECT_THAT(*ledger_->open_attempts(), testing::IsEmpty());
  EXPECT_EQ(monday(), std::pair(40L, 0L));
  const LedgerAudit found = audit();
  EXPECT_THAT(found.mistakes, testing::IsEmpty());
  EXPECT_EQ(std::tuple(found.attempts, found.open_attempts, found.reserved, found.spent, found.overrun),
            std::tuple(1, 0, NanoUsd{0}, NanoUsd{40}, NanoUsd{0}));
}

TEST_P(LedgerDatabaseContract, WhatIsBilledBeyondTheEstimateIsOverrun) {
  apply(batch_of({whole(attempt(1, kMonday, 100), settled(kMonday, 130))}));
  EXPECT_EQ(monday(), std::pair(100L, 30L));
  const auto balances = ledger_->balances(kMonday, kMonday + kQuarter);
  ASSERT_EQ(balances->size(), 2U);
  for (const Balance& balance : *balances)
    EXPECT_EQ(std::tuple(balance.reserved, balance.spent, balance.overrun),
              std::tuple(NanoUsd{0}, NanoUsd{100}, NanoUsd{30}));
  expect_clean();
}

TEST_P(LedgerDatabaseContract, AReleasedAttemptCostsNothing) {
  const AttemptEntry one = attempt(1, kMonday, 100);
  apply(batch_of({opened(one)}));
  apply(batch_of(
      {ended(one, {.at = kMonday, .ending = Ending::released, .expired = false, .cost = {}, .tokens = 0})}));
  EXPECT_EQ(monday(), std::pair(0L, 0L));
  expect_clean();
}

// The answer of a commit may be lost: the same batch comes again, and the journal is read again after a
// restart, in batches that may end elsewhere.
TEST_P(LedgerDatabaseContract, TheSameBatchAgainChangesNothing) {
  const AttemptEntry one = attempt(1, kMonday, 100);
  const AttemptEntry two = attempt(2, kMonday, 50);
  const LedgerBatch first{
      .attempts = {opened(one), whole(two, settled(kMonday, 20))},
      .calls = {call_of(2, kMonday, 20)},
      .budget_changes = {{kMonday, {SubjectKind::team, "search"}, "", "20 USD daily", "file"}},
      .positions = {{0, 1, 500}}};
  const LedgerBatch second{.attempts = {ended(one, settled(kMonday, 60))},
                           .calls = {call_of(1, kMonday, 60)},
                           .budget_changes = {},
                           .positions = {{0, 1, 900}}};
  const auto expect_result = [&] {
    EXPECT_EQ(monday(), std::pair(80L, 0L));
    const LedgerAudit found = audit();
    EXPECT_THAT(found.mistakes, testing::IsEmpty());
    EXPECT_EQ(std::tuple(found.attempts, found.calls, found.spent), std::tuple(2, 2, NanoUsd{80}));
    EXPECT_EQ(*ledger_->total_cost(), NanoUsd{80});
    EXPECT_THAT(*ledger_->positions(), testing::ElementsAre(JournalPosition{0, 1, 900}));
  };
  apply(first);
  apply(first);
  EXPECT_EQ(monday(), std::pair(120L, 0L));
  apply(second);
  expect_result();
  for (const LedgerBatch* again : {&first, &second, &first}) apply(*again);
  expect_result();
  reopen();
  LedgerBatch merged = first;  // what was open when it was applied first has ended by now
  merged.attempts[0] = whole(one, settled(kMonday, 60));
  merged.calls.push_back(second.calls.front());
  apply(merged);
  expect_result();
}

// A batch without progress in the journal counts all the same: leases that ran out are such.
TEST_P(LedgerDatabaseContract, PositionsAloneDoNotMakeABatchOld) {
  const AttemptEntry one = attempt(1, kMonday, 100);
  LedgerBatch batch = batch_of({opened(one)});
  batch.positions = {{0, 1, 500}};
  apply(batch);
  batch.attempts = {ended(one, settled(kMonday, 1))};
  apply(batch);
  EXPECT_EQ(monday(), std::pair(1L, 0L));
}

TEST_P(LedgerDatabaseContract, OneBatchMayOpenAndEndAnAttemptStepByStep) {
  const AttemptEntry one = attempt(1, kMonday, 100);
  const AttemptEnd lease = expired(kMonday + seconds{60}, 100);
  apply(
      batch_of({opened(one), ended(one, lease), corrected(one, lease, settled(kMonday + seconds{70}, 30))}));
  EXPECT_EQ(monday(), std::pair(30L, 0L));
  apply(batch_of({corrected(one, lease, settled(kMonday + seconds{70}, 35))}));  // was corrected: stays
  EXPECT_EQ(monday(), std::pair(30L, 0L));
  expect_clean();
}

// G3: an expired reservation is charged; its late settlement corrects that, once. The first end stands else.
TEST_P(LedgerDatabaseContract, ALateSettlementCorrectsAnExpiryOnce) {
  const AttemptEntry one = attempt(1, kMonday, 100);
  const AttemptEnd lease = expired(kMonday + seconds{60}, 100);
  apply(batch_of({opened(one)}));
  apply(batch_of({ended(one, lease)}));
  EXPECT_EQ(monday(), std::pair(100L, 0L));
  const AttemptEnd late = settled(kMonday + seconds{70}, 130);
  apply(batch_of({corrected(one, lease, late)}));
  EXPECT_EQ(monday(), std::pair(100L, 30L));
  apply(batch_of({corrected(one, late, settled(kMonday + seconds{80}, 1))}));
  apply(batch_of({ended(one, lease)}));
  EXPECT_EQ(monday(), std::pair(100L, 30L));
  const AttemptEntry two = attempt(2, kMonday, 7);
  apply(batch_of({whole(two, settled(kMonday, 7))}));
  apply(batch_of({ended(two, settled(kMonday, 5))}));  // not a correction
  EXPECT_EQ(monday(), std::pair(107L, 30L));
  expect_clean();
}

// Budgets count by calendar windows in any zone; all begin on a quarter of an hour. An attempt belongs to the
// window of its reservation, whenever it ends.
TEST_P(LedgerDatabaseContract, SpendIsExactForWindowsThatBeginOnAQuarter) {
  const WallTime noon = kMonday + std::chrono::hours{12};
  LedgerBatch batch;
  std::uint64_t sequence = 0;
  for (const nanoseconds offset :
       {nanoseconds{-1}, nanoseconds{0}, kQuarter - nanoseconds{1}, nanoseconds{kQuarter}}) {
    const std::int64_t cost = std::int64_t{1} << (4 * ++sequence);
    batch.attempts.push_back(
        whole(attempt(sequence, noon + offset, cost), settled(noon + std::chrono::hours{30}, cost)));
  }
  apply(batch);
  const auto between = [&](WallTime from, WallTime to) {
    return spent(SubjectKind::team, "search", from, to).settled.count;
  };
  EXPECT_EQ(between(noon, noon + kQuarter), 0x1100);
  EXPECT_EQ(between(noon - kQuarter, noon), 0x10);
  EXPECT_EQ(between(noon + kQuarter, noon + 2 * kQuarter), 0x10000);
  EXPECT_EQ(between(noon - kQuarter, noon + 2 * kQuarter), 0x11110);
  EXPECT_EQ(between(noon + seconds{1}, noon + seconds{2}), 0x1100);  // outward to quarters: never too little
  EXPECT_EQ(spent(SubjectKind::consumer, "search", noon, noon + kQuarter).settled, NanoUsd{});
  EXPECT_EQ(spent(SubjectKind::team, "other", noon, noon + kQuarter).settled, NanoUsd{});
}

TEST_P(LedgerDatabaseContract, AnAttemptCountsForEachOfItsSubjectsOnce) {
  const std::vector<SubjectRef> both{{SubjectKind::provider, "openai"}, {SubjectKind::consumer, "app"}};
  const std::vector<SubjectRef> other{{SubjectKind::provider, "openai"}, {SubjectKind::consumer, "web"}};
  apply(batch_of({whole(attempt(1, kMonday, 10, both), settled(kMonday, 1)),
                  whole(attempt(2, kMonday, 10, other), settled(kMonday, 2)),
                  whole(attempt(3, kMonday, 10, {}), settled(kMonday, 4))}));
  EXPECT_EQ(monday().first, 3);
  EXPECT_EQ(spent(SubjectKind::consumer, "app", kMonday, kMonday + kQuarter).settled, NanoUsd{1});
  EXPECT_EQ(spent(SubjectKind::consumer, "web", kMonday, kMonday + kQuarter).settled, NanoUsd{2});
  EXPECT_EQ(audit().spent, NanoUsd{7});
  expect_clean();
}

// For limits: no earlier than the truth, and close to it over a short past.
TEST_P(LedgerDatabaseContract, TellsWhatStartedInSteps) {
  LedgerBatch batch;
  for (int i = 0; i < 10; ++i)
    batch.attempts.push_back(opened(attempt(static_cast<std::uint64_t>(i), kMonday + seconds{i}, 1)));
  batch.attempts.push_back(whole(attempt(10, kMonday + seconds{10}, 1), settled(kMonday + seconds{11}, 1)));
  apply(batch);
  const auto started = ledger_->started(SubjectKind::provider, "openai", kMonday + seconds{2}, seconds{4});
  ASSERT_EQ(started.size(), 3U);
  // After 2 s and before 6 s: three; then four before 10 s, and one that has ended.
  EXPECT_EQ(std::tuple(started[0].at, started[0].calls, started[0].tokens),
            std::tuple(kMonday + seconds{5}, 3, 30));
  EXPECT_EQ(std::tuple(started[1].at, started[1].calls, started[1].tokens),
            std::tuple(kMonday + seconds{9}, 4, 40));
  EXPECT_EQ(std::tuple(started[2].at, started[2].calls, started[2].tokens),
            std::tuple(kMonday + seconds{10}, 1, 7));
}

// A daily limit looks back further than attempts can be read one by one.
TEST_P(LedgerDatabaseContract, TellsALongPastByQuarters) {
  LedgerBatch batch;
  for (int i = 0; i < 40; ++i)
    batch.attempts.push_back(
        whole(attempt(static_cast<std::uint64_t>(i), kMonday + i * std::chrono::minutes{7}, 1),
              settled(kMonday + std::chrono::hours{9}, 1)));
  apply(batch);
  const WallTime since = kMonday + std::chrono::minutes{20};
  const auto started = ledger_->started(SubjectKind::provider, "openai", since, std::chrono::minutes{22});
  std::int64_t calls = 0;
  for (const Started& each : started) calls += each.calls;
  EXPECT_GE(calls, 37);  // those after `since`
  EXPECT_LE(calls, 38);  // and no more than its quarter's
  EXPECT_EQ(started.back().at, kMonday + 39 * std::chrono::minutes{7});
  EXPECT_TRUE(std::ranges::is_sorted(started, {}, &Started::at));
}

TEST_P(LedgerDatabaseContract, PositionsOnlyGoForward) {
  LedgerBatch batch;
  batch.positions = {{1, 7, 0}, {0, 3, 40}};
  apply(batch);
  batch.positions = {{0, 2, 900}, {1, 7, 1}};
  apply(batch);
  reopen();
  EXPECT_THAT(*ledger_->positions(),
              testing::ElementsAre(JournalPosition{0, 3, 40}, JournalPosition{1, 7, 1}));
}

TEST_P(LedgerDatabaseContract, EachReplicaHasItsOwnJournalAndAllShareTheTotals) {
  auto other = place_->connect("b");
  must(other->open());
  LedgerBatch mine = batch_of({opened(attempt(1, kMonday, 100))});
  mine.positions = {{0, 1, 10}};
  apply(mine);
  LedgerBatch theirs = batch_of({opened(attempt(2, kMonday, 50))});
  theirs.positions = {{0, 5, 50}};
  must(other->apply(theirs));
  ASSERT_EQ(ledger_->open_attempts()->size(), 1U);
  EXPECT_EQ(ledger_->open_attempts()->front().id.sequence, 1U);
  EXPECT_EQ(ledger_->open_attempts()->front().subjects, attempt(1, kMonday, 1).subjects);
  EXPECT_EQ(other->open_attempts()->front().id.sequence, 2U);
  EXPECT_THAT(*other->positions(), testing::ElementsAre(JournalPosition{0, 5, 50}));
  EXPECT_EQ(monday().first, 150);
  EXPECT_EQ(other->spent(SubjectKind::provider, "openai", {kMonday, kMonday + kQuarter}).settled,
            NanoUsd{150});
  expect_clean();
}

// Two processes with one name would both think that the journal's positions are theirs.
TEST_P(LedgerDatabaseContract, TheSameReplicaNameTwiceIsRefused) {
  auto twin = place_->connect("a");
  const auto opened = twin->open();
  ASSERT_FALSE(opened);
  EXPECT_THAT(opened.error().detail, testing::HasSubstr("'a'"));
  ledger_.reset();
  must(twin->open());
  must(twin->apply(batch_of({whole(attempt(1, kMonday, 1), settled(kMonday, 1))})));
}

TEST_P(LedgerDatabaseContract, ANewerSchemaIsRefused) {
  ledger_.reset();
  place_->tamper("INSERT INTO schema_migrations (version, applied_at) VALUES (99, '2030-01-01')");
  ledger_ = place_->connect("a");
  const auto opened = ledger_->open();
  ASSERT_FALSE(opened);
  EXPECT_THAT(opened.error().detail, testing::HasSubstr("version 99"));
}

TEST_P(LedgerDatabaseContract, ABatchIsAppliedWholeOrNotAtAll) {
  const LedgerBatch batch{
      .attempts = {whole(attempt(1, kMonday, 1), settled(kMonday, 1))},
      .calls = {call_of(1, kMonday, 1)},
      .budget_changes = {{kMonday, {SubjectKind::team, "search"}, "20 USD daily", "", "admin"}},
      .positions = {{0, 1, 1}}};
  place_->tamper("ALTER TABLE budget_changes RENAME TO hidden");
  EXPECT_FALSE(ledger_->apply(batch));
  EXPECT_FALSE(ledger_->apply(batch));
  EXPECT_EQ(monday().first, 0);
  EXPECT_THAT(*ledger_->recent_calls(5), testing::IsEmpty());
  EXPECT_THAT(*ledger_->positions(), testing::IsEmpty());
  place_->tamper("ALTER TABLE hidden RENAME TO budget_changes");
  apply(batch);
  EXPECT_EQ(monday().first, 1);
  expect_clean();
}

TEST_P(LedgerDatabaseContract, RetentionTakesRowsAndLeavesTotals) {
  using std::chrono::days;
  LedgerBatch batch;
  for (int day = 0; day < 4; ++day)
    for (int i = 0; i < 3; ++i) {
      const auto sequence = 10 * static_cast<std::uint64_t>(day) + static_cast<std::uint64_t>(i);
      const WallTime at = kMonday + days{day} + seconds{i};
      batch.attempts.push_back(whole(attempt(sequence, at, 10), settled(at, 10)));
      batch.calls.push_back(call_of(sequence, at, 10));
    }
  const AttemptEntry open = attempt(100, kMonday + seconds{9}, 500);
  batch.attempts.push_back(opened(open));
  batch.positions = {{0, 1, 1}};
  apply(batch);
  apply(batch_of({whole(attempt(101, kMonday + days{3}, 7), settled(kMonday + days{3}, 7))}));
  EXPECT_EQ(*ledger_->forget_before(kMonday + days{2} + std::chrono::hours{5}), 12);  // two days, 3 + 3 each
  EXPECT_EQ(*ledger_->forget_before(kMonday + days{2} + std::chrono::hours{5}), 0);
  expect_clean();
  EXPECT_EQ(monday().first, 530);
  EXPECT_EQ(*ledger_->total_cost(), NanoUsd{120});
  EXPECT_EQ(ledger_->recent_calls(100)->size(), 6U);
  ASSERT_EQ(ledger_->open_attempts()->size(), 1U);  // what is open is kept
  // It ends long after; and what came before comes again.
  apply(batch_of({ended(open, settled(kMonday + days{3}, 450))}));
  apply(batch);
  EXPECT_EQ(monday().first, 480);
  // A late correction of what is forgotten moves the totals.
  const AttemptEntry gone = attempt(0, kMonday, 10);
  apply(batch_of({corrected(gone, settled(kMonday, 10), settled(kMonday + days{3}, 4))}));
  EXPECT_EQ(monday().first, 474);
  expect_clean();
  EXPECT_EQ(*ledger_->forget_before(kMonday + days{5}),
            14);  // 2 days, 3 + 3 each; 101; the one that was open
  EXPECT_EQ(monday().first, 474);
  const LedgerAudit found = audit();
  EXPECT_THAT(found.mistakes, testing::IsEmpty());
  EXPECT_EQ(std::tuple(found.attempts, found.calls), std::tuple(0, 0));
  reopen();
  EXPECT_EQ(monday().first, 474);
  apply(batch_of({whole(attempt(200, kMonday + days{6}, 7), settled(kMonday + days{6}, 7))}));
  expect_clean();
}

// Whatever is changed behind its back, the audit says where, with both numbers.
TEST_P(LedgerDatabaseContract, TheAuditFindsEveryKindOfMistake) {
  struct Case {
    std::string tamper;
    std::string undo;
    std::vector<std::string> told;
  };
  const AttemptEntry open = attempt(3, kMonday, 70);
  apply({.attempts = {whole(attempt(1, kMonday, 100), settled(kMonday, 40)),
                      whole(attempt(2, kMonday, 9), settled(kMonday, 12)), opened(open)},
         .calls = {call_of(1, kMonday, 40), call_of(2, kMonday, 12)},
         .budget_changes = {},
         .positions = {}});
  expect_clean();
  for (const Case& each : std::vector<Case>{
           {"UPDATE spend SET spent = spent + 5",
            "UPDATE spend SET spent = spent - 5",
            {"spent", "54", "49"}},
           {"UPDATE spend SET tokens = tokens + 1",
            "UPDATE spend SET tokens = tokens - 1",
            {"tokens", "25", "24"}},
           {"UPDATE spend SET set_id = set_id + 50",
            "UPDATE spend SET set_id = set_id - 50",
            {"which is not there"}},
           {"UPDATE entries SET reserved = reserved + 1",
            "UPDATE entries SET reserved = reserved - 1",
            {"add up to 1,", "71"}},
           {"UPDATE entries SET batch_id = batch_id + 50",
            "UPDATE entries SET batch_id = batch_id - 50",
            {"of batch 51"}},
           {"UPDATE attempts SET cost = 41 WHERE cost = 40",
            "UPDATE attempts SET cost = 40 WHERE cost = 41",
            {"50", "49", "the call says that it cost 40, charged was 41"}},
           {"UPDATE attempts SET state = 2 WHERE cost = 40",
            "UPDATE attempts SET state = 1 WHERE cost = 40",
            {"state 2", "estimate 100, cost 40"}},
           {"UPDATE attempts SET estimate = 71 WHERE estimate = 70",
            "UPDATE attempts SET estimate = 70 WHERE estimate = 71",
            {"71", "70"}},
           {"UPDATE calls SET cost = 41 WHERE cost = 40",
            "UPDATE calls SET cost = 40 WHERE cost = 41",
            {"it cost 41, its attempts add up to 40", "the total cost 52, the calls' 53"}},
           {"UPDATE call_attempts SET cost = 39 WHERE cost = 40",
            "UPDATE call_attempts SET cost = 40 WHERE cost = 39",
            {"it cost 40, its attempts add up to 39", "charged was 40"}},
           {"UPDATE call_totals SET calls = 3",
            "UPDATE call_totals SET calls = 2",
            {"the total is calls 3, there are 2"}},
           {"UPDATE subject_sets SET subjects = 'x'",
            "UPDATE subject_sets SET subjects = 'provider 6 openai team 6 search '",
            {"its text is 'x', its members are 'provider 6 openai team 6 search '"}},
           {"UPDATE subjects SET name = 'azure' WHERE name = 'openai'",
            "UPDATE subjects SET name = 'openai' WHERE name = 'azure'",
            {"azure"}},
           {"UPDATE subject_set_members SET set_id = set_id + 50",
            "UPDATE subject_set_members SET set_id = set_id - 50",
            {"its members are ''"}},
       }) {
    SCOPED_TRACE(each.tamper);
    place_->tamper(each.tamper);
    const LedgerAudit found = audit();
    std::string all;
    for (const std::string& mistake : found.mistakes) all += mistake + "\n";
    for (const std::string& part : each.told) EXPECT_THAT(all, testing::HasSubstr(part));
    place_->tamper(each.undo);
    expect_clean();
  }
}

// Readers see whole batches only, while the writer goes on.
TEST_P(LedgerDatabaseContract, ReadersSeeWholeBatches) {
  constexpr int kBatches = 40;
  std::atomic<bool> stop = false;
  std::atomic<int> reads = 0;
  std::vector<std::thread> readers;
  for (int i = 0; i < 3; ++i)
    readers.emplace_back([&, i] {
      while (!stop) {
        if (i == 0) {
          EXPECT_EQ(monday().first % 10, 0);
        } else if (i == 1) {
          const auto found = ledger_->audit();
          EXPECT_TRUE(found && found->mistakes.empty());
        } else {
          std::int64_t cost = 0;
          const auto calls = ledger_->recent_calls(10'000);
          ASSERT_TRUE(calls);
          for (const CallRecord& call : *calls) cost += call.cost.count;
          EXPECT_EQ(cost % 10, 0);
        }
        ++reads;
      }
    });
  for (std::uint64_t number = 0; number < kBatches; ++number) {
    LedgerBatch batch;
    for (std::uint64_t i = 0; i < 10; ++i) {
      const std::uint64_t sequence = 10 * number + i;
      batch.attempts.push_back(whole(attempt(sequence, kMonday + seconds{sequence}, 1), settled(kMonday, 1)));
      batch.calls.push_back(call_of(sequence, kMonday + seconds{sequence}, 1));
    }
    apply(batch);
  }
  stop = true;
  for (std::thread& reader : readers) reader.join();
  EXPECT_GT(reads, 0);
  EXPECT_EQ(monday().first, 10 * kBatches);
}

// Replicas write the same totals at the same time: none is lost, and none waits for ever.
TEST_P(LedgerDatabaseContract, ReplicasWriteTheSameTotalsAtOnce) {
  constexpr int kReplicas = 3;
  constexpr int kBatches = 15;
  std::vector<std::thread> writers;
  for (std::uint64_t replica = 0; replica < kReplicas; ++replica)
    writers.emplace_back([&, replica] {
      auto mine = place_->connect("r" + std::to_string(replica));
      must(mine->open());
      for (std::uint64_t number = 0; number < kBatches; ++number) {
        LedgerBatch batch;
        for (std::uint64_t i = 0; i < 20; ++i) {
          // Each replica meets the same sets in another order.
          const std::uint64_t set = replica == 1 ? 19 - i : i;
          AttemptEntry entry = attempt(1'000 * replica + 20 * number + i, kMonday, 1,
                                       {{SubjectKind::provider, "openai"},
                                        {SubjectKind::consumer, "c" + std::to_string(set + number)}});
          batch.calls.push_back(call_of(entry.id.sequence, kMonday, 1));
          batch.attempts.push_back(whole(std::move(entry), settled(kMonday, 1)));
        }
        must(mine->apply(batch));
      }
    });
  for (std::thread& writer : writers) writer.join();
  EXPECT_EQ(monday().first, kReplicas * kBatches * 20);
  expect_clean();
}

}  // namespace penstock::store::contract
