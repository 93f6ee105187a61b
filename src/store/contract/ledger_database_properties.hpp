#pragma once

#include "store/contract/ledger_database_contract.hpp"

/// Random batches against the plainest ledger that can be right.
namespace penstock::store::contract {

class LedgerDatabaseProperties : public LedgerDatabaseContract {
 protected:
  /// One attempt as it really is.
  struct Truth {
    AttemptEntry entry;
    std::string replica;
    bool is_final = false;  ///< settled, or corrected: nothing changes it any more
    bool is_called = false;
    CallRecord call;
  };

  /// What the tables must tell.
  struct Oracle {
    std::vector<Truth> attempts;
    WallTime forgotten_before{};

    static std::pair<std::int64_t, std::int64_t> money(
        const AttemptEntry& entry) {  // settled or held, overrun
      if (!entry.end) return {entry.estimate.count, 0};
      const std::int64_t within = std::min(entry.end->cost.count, entry.estimate.count);
      return {within, entry.end->cost.count - within};
    }
    [[nodiscard]] Spent spent(const SubjectRef& subject, WallTime from, WallTime to) const {
      Spent out;
      for (const Truth& each : attempts) {
        if (each.entry.reserved_at < from || each.entry.reserved_at >= to) continue;
        if (std::ranges::find(each.entry.subjects, subject) == each.entry.subjects.end()) continue;
        const auto [within, beyond] = money(each.entry);
        out.settled += NanoUsd{within};
        out.overrun += NanoUsd{beyond};
      }
      return out;
    }
    [[nodiscard]] std::vector<AttemptId> open(const std::string& replica) const {
      std::vector<std::pair<WallTime, AttemptId>> found;
      for (const Truth& each : attempts)
        if (!each.entry.end && each.replica == replica)
          found.emplace_back(each.entry.reserved_at, each.entry.id);
      std::ranges::sort(found);
      std::vector<AttemptId> out;
      for (const auto& [at, id] : found) out.push_back(id);
      return out;
    }
  };

  struct Replica {
    std::string name;
    std::unique_ptr<LedgerDatabase> ledger;
    std::vector<LedgerBatch> past;
    std::uint64_t position = 0;
  };

  static std::vector<SubjectRef> random_subjects(policy::Random& random) {
    std::vector<SubjectRef> out{{SubjectKind::provider, random.chance(50) ? "openai" : "geo"}};
    if (random.chance(70)) out.push_back({SubjectKind::team, "t" + std::to_string(random.between(0, 2))});
    if (random.chance(70)) out.push_back({SubjectKind::consumer, "c" + std::to_string(random.between(0, 4))});
    return out;
  }

  static AttemptEnd random_end(policy::Random& random, const AttemptEntry& entry) {
    AttemptEnd end{.at = entry.reserved_at + seconds{random.between(0, 90'000)},
                   .ending = Ending::actual,
                   .expired = random.chance(25),
                   .cost = {},
                   .tokens = random.between(0, 30)};
    if (end.expired || random.chance(20)) {
      end.ending = Ending::estimate;
      end.cost = entry.estimate;
    } else if (random.chance(20)) {
      end.ending = Ending::released;
    } else {
      end.cost = {random.chance(15) ? entry.estimate.count + random.between(1, 50)
                                    : random.between(0, entry.estimate.count)};
    }
    return end;
  }

  /// Moves some attempts one step on and tells the changes.
  static LedgerBatch random_batch(policy::Random& random, Oracle& oracle, Replica& replica, WallTime now,
                                  std::uint64_t& sequence) {
    LedgerBatch batch;
    const auto finish = [&](Truth& truth) {
      truth.is_final = !truth.entry.end->expired;
      if (!truth.is_final || truth.is_called || random.chance(10)) return;
      truth.is_called = true;
      truth.call = call_of(truth.entry.id.sequence, truth.entry.reserved_at, 0);
      truth.call.cost = truth.entry.end->cost;
      truth.call.attempts.push_back({.id = truth.entry.id,
                                     .provider = Name("openai"),
                                     .endpoint = Name("chat"),
                                     .estimate = truth.entry.estimate,
                                     .cost = truth.entry.end->cost,
                                     .ending = truth.entry.end->ending,
                                     .status = 200,
                                     .reason = {}});
      batch.calls.push_back(truth.call);
    };
    for (Truth& truth : oracle.attempts) {
      if (truth.is_final || truth.replica != replica.name || !random.chance(30)) continue;
      AttemptChange change{.now = {}, .is_new = false, .before = truth.entry.end};
      truth.entry.end = random_end(random, truth.entry);
      if (change.before) truth.entry.end->expired = false;
      change.now = truth.entry;
      batch.attempts.push_back(change);
      finish(truth);
    }
    for (std::int64_t more = random.between(0, 12); more > 0; --more) {
      Truth truth;
      truth.replica = replica.name;
      truth.entry = attempt(++sequence, now - seconds{random.between(0, 4'000)}, random.between(0, 1'000),
                            random_subjects(random));
      truth.entry.tokens = random.between(0, 20);
      if (random.chance(60)) truth.entry.end = random_end(random, truth.entry);
      batch.attempts.push_back({.now = truth.entry, .is_new = true, .before = {}});
      if (truth.entry.end) finish(truth);
      oracle.attempts.push_back(std::move(truth));
    }
    batch.positions = {{0, 1, ++replica.position}};
    return batch;
  }

  static void compare(const Oracle& oracle, const Replica& replica, WallTime start, WallTime end) {
    LedgerDatabase& ledger = *replica.ledger;
    std::map<std::pair<SubjectRef, WallTime>, std::tuple<std::int64_t, std::int64_t, std::int64_t>> expected;
    std::set<SubjectRef> subjects;
    for (const Truth& each : oracle.attempts)
      for (const SubjectRef& subject : each.entry.subjects) {
        const auto since = (each.entry.reserved_at - kMonday) / kQuarter;
        auto& [reserved, spent, overrun] = expected[{subject, kMonday + since * kQuarter}];
        const auto [within, beyond] = Oracle::money(each.entry);
        (each.entry.end ? spent : reserved) += within;
        overrun += beyond;
        subjects.insert(subject);
      }
    const auto balances = ledger.balances(start, end);
    ASSERT_TRUE(balances);
    decltype(expected) told;
    for (const Balance& each : *balances)
      told[{each.subject, each.quarter}] = {each.reserved.count, each.spent.count, each.overrun.count};
    EXPECT_EQ(told, expected);
    for (const SubjectRef& subject : subjects) {
      const Spent told_spent = ledger.spent(subject.kind, subject.name, {start, end});
      const Spent true_spent = oracle.spent(subject, start, end);
      EXPECT_EQ(std::pair(told_spent.settled, told_spent.overrun),
                std::pair(true_spent.settled, true_spent.overrun));
    }
    std::vector<AttemptId> open;
    for (const AttemptEntry& each : *ledger.open_attempts()) open.push_back(each.id);
    EXPECT_EQ(open, oracle.open(replica.name));
    NanoUsd cost;
    for (const Truth& each : oracle.attempts)
      if (each.is_called) cost += each.call.cost;
    EXPECT_EQ(*ledger.total_cost(), cost);
    const auto found = ledger.audit();
    ASSERT_TRUE(found) << found.error().detail;
    EXPECT_THAT(found->mistakes, testing::IsEmpty());
    std::tuple<std::int64_t, std::int64_t, std::int64_t> sums{};
    for (const Truth& each : oracle.attempts) {
      const auto [within, beyond] = Oracle::money(each.entry);
      (each.entry.end ? std::get<1>(sums) : std::get<0>(sums)) += within;
      std::get<2>(sums) += beyond;
    }
    EXPECT_EQ(std::tuple(found->reserved.count, found->spent.count, found->overrun.count), sums);
  }

  /// Every attempt that must still be there is, as it is.
  static void compare_rows(const Oracle& oracle, const Replica& replica, WallTime start, WallTime end) {
    std::map<AttemptId, const Truth*> expected;
    for (const Truth& each : oracle.attempts)
      if (each.entry.reserved_at >= oracle.forgotten_before) expected.emplace(each.entry.id, &each);
    std::size_t seen = 0;
    const WallTime from = std::max(start, oracle.forgotten_before);
    const auto done = replica.ledger->for_each_attempt(from, end, [&](const AttemptEntry& entry) {
      ++seen;
      const Truth* truth = expected[entry.id];
      EXPECT_TRUE(truth != nullptr);
      if (truth == nullptr) return false;
      EXPECT_EQ(std::tie(entry.reserved_at, entry.subjects, entry.estimate, entry.tokens, entry.end),
                std::tie(truth->entry.reserved_at, truth->entry.subjects, truth->entry.estimate,
                         truth->entry.tokens, truth->entry.end));
      return true;
    });
    EXPECT_TRUE(done);
    EXPECT_EQ(seen, expected.size());
  }
};
GTEST_ALLOW_UNINSTANTIATED_PARAMETERIZED_TEST(LedgerDatabaseProperties);

// Opens, ends, corrections, repeated batches, restarts, retention, two replicas: the tables tell the truth.
TEST_P(LedgerDatabaseProperties, AgreesWithThePlainSumsWhateverComes) {
  policy::for_each_seed(GetParam().seeds, [&](policy::Random& random) {
    ledger_.reset();
    place_ = GetParam().make();
    Oracle oracle;
    std::array<Replica, 2> replicas{Replica{.name = "a", .ledger = {}, .past = {}},
                                    Replica{.name = "b", .ledger = {}, .past = {}}};
    const auto restart = [&](Replica& replica) {
      replica.ledger.reset();
      replica.ledger = place_->connect(replica.name);
      must(replica.ledger->open());
    };
    for (Replica& replica : replicas) restart(replica);
    std::uint64_t sequence = 0;
    WallTime now = kMonday + std::chrono::hours{20};
    const WallTime end = kMonday + std::chrono::days{30};
    for (int step = 0; step < 60; ++step) {
      now += seconds{random.between(0, 7'200)};
      Replica& replica = replicas[static_cast<std::size_t>(random.between(0, 1))];
      const LedgerBatch batch = random_batch(random, oracle, replica, now, sequence);
      must(replica.ledger->apply(batch));
      if (random.chance(20)) must(replica.ledger->apply(batch));
      replica.past.push_back(batch);
      if (random.chance(15))
        must(replica.ledger->apply(
            replica.past[static_cast<std::size_t>(random.between(0, std::ssize(replica.past) - 1))]));
      if (random.chance(10)) restart(replica);
      if (random.chance(5)) {
        const WallTime oldest = now - std::chrono::hours{random.between(0, 40)};
        EXPECT_TRUE(replica.ledger->forget_before(oldest));
        oracle.forgotten_before =
            std::max(oracle.forgotten_before, WallTime{std::chrono::floor<std::chrono::days>(oldest)});
      }
      if (random.chance(20)) compare(oracle, replica, kMonday, end);
      if (testing::Test::HasFatalFailure() || testing::Test::HasNonfatalFailure()) return;
    }
    for (const Replica& replica : replicas) {
      compare(oracle, replica, kMonday, end);
      compare_rows(oracle, replica, kMonday, end);
    }
  });
}

}  // namespace penstock::store::contract
