#include <atomic>
#include <thread>

#include "store/contract/shared_state_testing.hpp"
#include "store/redis/redis_testing.hpp"

/// The server stops, dies, forgets or remembers too little; money stays within its limit and nothing hangs
/// (G1, G9). On the real clocks.
namespace penstock::store::contract {
namespace {

/// Far above what any answer should take, on a busy machine and sanitised; far below "hangs".
constexpr seconds kBound{5};

class RedisFailuresTest : public testing::Test {
 protected:
  RedisServer server_;
  std::string domain_ = new_domain();
  std::uint64_t last_id_ = 0;

  RedisOptions options(const std::string& replica) const {
    RedisOptions options;
    options.url = server_.url();
    options.domain = domain_;
    options.replica = replica;
    options.grace = milliseconds{0};
    return options;
  }
  struct Held {
    AttemptId id;
    std::expected<void, Refusal> decision;
  };
  Held ask(RedisState& state, const std::vector<SubjectId>& subjects, std::int64_t estimate,
           nanoseconds lease = 1h) {
    const AttemptId id{5, ++last_id_};
    const auto began = std::chrono::steady_clock::now();
    auto decision = Caller(state).reserve({.id = id,
                                           .subjects = subjects,
                                           .estimate = {estimate},
                                           .tokens = 0,
                                           .lease = lease,
                                           .is_retry = false,
                                           .now = read_clocks()});
    EXPECT_LT(std::chrono::steady_clock::now() - began, kBound);
    return {id, decision};
  }
  static void settle(RedisState& state, AttemptId id, Ending ending, std::int64_t cost = 0) {
    state.settle({.id = id,
                  .ending = ending,
                  .cost = {cost},
                  .tokens = -1,
                  .outcome = {},
                  .first_byte = {},
                  .now = read_clocks()});
  }
  static std::string budget(RedisState& state, SubjectId id) {
    const BudgetView shown = state.view(read_clocks(), std::vector{id}).at(0).budgets.at(0);
    return std::to_string(shown.settled.count) + "+" + std::to_string(shown.held.count) + "!" +
           std::to_string(shown.overrun.count);
  }
  static bool is_well(const RedisState& state) {
    const RedisStatus status = state.status();
    return !status.degraded && !status.learning;
  }
  static bool recovers(const RedisState& state) {
    return eventually([&] { return is_well(state); });
  }
  static bool fails(const RedisState& state) {
    return eventually([&] { return state.status().degraded; });
  }
  /// Budgets of the test are monthly, so that midnight does not matter. (The month's end does.)
  static std::vector<SubjectSpec> specs(std::int64_t limit,
                                        policy::BudgetMode mode = policy::BudgetMode::hard) {
    return {with_budgets(SubjectKind::provider, "p", {monthly(limit, mode)})};
  }
};

// G9: a server that answers nothing costs one timeout, then nothing; what ended meanwhile is told after.
TEST_F(RedisFailuresTest, AStoppedServerClosesHardBudgetsAndComesBackByItself) {
  const auto state = started(options("a"));
  const auto ids = state->declare(specs(100), read_clocks());
  const Held open = ask(*state, ids, 60);
  ASSERT_TRUE(open.decision);
  server_.pause();
  for (int i = 0; i < 3; ++i) {
    const Held refused = ask(*state, ids, 1);
    ASSERT_FALSE(refused.decision);
    EXPECT_EQ(refused.decision.error().reason, Reason::policy_state_unavailable);
    EXPECT_GT(refused.decision.error().retry_after, 0ns);
  }
  EXPECT_TRUE(state->status().degraded);
  EXPECT_FALSE(state->status().reason.empty());
  settle(*state, open.id, Ending::actual, 25);
  EXPECT_EQ(state->status().unsettled > 0, true);
  server_.resume();
  ASSERT_TRUE(recovers(*state));
  EXPECT_TRUE(eventually([&] { return state->status().unsettled == 0; }));
  EXPECT_EQ(budget(*state, ids[0]), "25+0!0");  // those that timed out hold nothing
  EXPECT_TRUE(ask(*state, ids, 75).decision);
}

TEST_F(RedisFailuresTest, WithoutTheServerWarnBudgetsAdmitAndAreToldAfter) {
  const auto state = started(options("a"));
  const auto ids = state->declare(specs(100, policy::BudgetMode::warn), read_clocks());
  server_.stop(SIGKILL);
  ASSERT_TRUE(fails(*state));
  const Held ended = ask(*state, ids, 60);
  const Held open = ask(*state, ids, 70);
  ASSERT_TRUE(ended.decision);
  ASSERT_TRUE(open.decision);
  settle(*state, ended.id, Ending::actual, 5);
  server_.start();
  ASSERT_TRUE(recovers(*state));
  EXPECT_TRUE(eventually([&] { return budget(*state, ids[0]) == "5+70!0"; })) << budget(*state, ids[0]);
}

// Limits fall to what is this replica's part, whatever it started before.
TEST_F(RedisFailuresTest, WithoutTheServerReplicasShareALimit) {
  const std::vector specs{with_limits(SubjectKind::provider, "p", {calls(10, 1h)})};
  const auto a = started(options("a"));
  const auto b = started(options("b"));
  const auto ids = a->declare(specs, read_clocks());
  ASSERT_EQ(b->declare(specs, read_clocks()), ids);
  ASSERT_TRUE(eventually([&] { return a->status().replicas == 2 && b->status().replicas == 2; }));
  ASSERT_TRUE(ask(*a, ids, 0).decision);
  server_.stop(SIGKILL);
  ASSERT_TRUE(fails(*a));
  ASSERT_TRUE(fails(*b));
  int admitted = 0;
  for (RedisState* state : {a.get(), b.get()}) {
    // Its share comes into force a moment after the loss.
    EXPECT_TRUE(eventually([&] {
      const bool is_admitted = ask(*state, ids, 0).decision.has_value();
      admitted += is_admitted ? 1 : 0;
      return is_admitted;
    }));
    for (int i = 0; i < 10; ++i) admitted += ask(*state, ids, 0).decision ? 1 : 0;
    EXPECT_EQ(ask(*state, ids, 0).decision.error().reason, Reason::policy_rate_limited);
  }
  EXPECT_EQ(admitted, 9);  // 4 more of a, 5 of b
  server_.start();
  ASSERT_TRUE(recovers(*a));
  ASSERT_TRUE(recovers(*b));
  EXPECT_TRUE(eventually([&] { return a->view(read_clocks(), ids).at(0).limits.at(0).used == 10; }))
      << a->view(read_clocks(), ids).at(0).limits.at(0).used;
  EXPECT_FALSE(ask(*a, ids, 0).decision);
}

TEST_F(RedisFailuresTest, LimitsCanBeClosedInstead) {
  RedisOptions closed = options("a");
  closed.on_lost = RedisOptions::OnLost::closed;
  const auto state = started(closed);
  const std::vector specs{with_limits(SubjectKind::provider, "p", {calls(10, 1h)}),
                          subject(SubjectKind::key, "k")};
  const auto ids = state->declare(specs, read_clocks());
  server_.stop(SIGKILL);
  ASSERT_TRUE(fails(*state));
  EXPECT_EQ(ask(*state, ids, 0).decision.error().reason, Reason::policy_state_unavailable);
  EXPECT_TRUE(ask(*state, {ids[1]}, 0).decision);  // nothing of it is limited
}

// The three ways to lose the server's memory end in one picture: what the replicas know to be spent and held.
class RedisMemoryLossTest : public RedisFailuresTest, public testing::WithParamInterface<std::string> {};

TEST_P(RedisMemoryLossTest, WhatIsSpentAndHeldIsLearntAgain) {
  const auto a = started(options("a"));
  const auto b = started(options("b"));
  const auto ids = a->declare(specs(1000), read_clocks());
  ASSERT_EQ(b->declare(specs(1000), read_clocks()), ids);
  ASSERT_TRUE(eventually([&] { return a->status().replicas == 2 && b->status().replicas == 2; }));
  settle(*a, ask(*a, ids, 100).id, Ending::actual, 30);
  const Held open_a = ask(*a, ids, 200);
  (void)a->view(read_clocks(), ids);
  server_.keep_files("old");
  // All of this an old copy does not know, and that the 200 have ended.
  settle(*b, ask(*b, ids, 100).id, Ending::estimate);
  const Held open_b = ask(*b, ids, 300);
  settle(*a, open_a.id, Ending::actual, 50);
  const Held late_a = ask(*a, ids, 400);
  (void)a->view(read_clocks(), ids);
  EXPECT_EQ(budget(*b, ids[0]), "180+700!0");

  server_.stop(SIGKILL);
  if (GetParam() == "empty") server_.forget_files();
  if (GetParam() == "old") server_.restore_files("old");
  ASSERT_TRUE(fails(*a));
  server_.start();
  ASSERT_TRUE(recovers(*a));
  ASSERT_TRUE(recovers(*b));
  // An old copy's account is one of several, and its 200 were held then: it may be above the truth, never
  // below.
  EXPECT_EQ(budget(*a, ids[0]), "180+700!0");
  EXPECT_FALSE(ask(*b, ids, 121).decision);
  EXPECT_TRUE(ask(*b, ids, 120).decision);
  settle(*a, late_a.id, Ending::actual, 1);
  settle(*b, open_b.id, Ending::released);
  EXPECT_TRUE(eventually([&] { return budget(*a, ids[0]) == "181+120!0"; })) << budget(*a, ids[0]);
}
INSTANTIATE_TEST_SUITE_P(Ways, RedisMemoryLossTest, testing::Values("kept", "old", "empty"),
                         [](const auto& test) { return test.param; });

// Nobody knows what a member that has not come back yet has spent: hard budgets wait for it, others do not.
TEST_F(RedisFailuresTest, AMemberThatDoesNotComeBackHoldsHardBudgetsUpToTheLongestLease) {
  RedisOptions given = options("a");
  given.longest_lease = seconds{4};
  const auto state = started(given);
  const auto ids = state->declare(
      std::vector{with_budgets(SubjectKind::provider, "p", {monthly(100)}), subject(SubjectKind::key, "k")},
      read_clocks());
  const std::string key = "ps:{" + domain_ + "}:replicas";
  (void)server_.ask(("ZADD " + key + " 9000000000000000 ghost").c_str());
  ASSERT_TRUE(eventually([&] { return state->status().replicas == 2; }));
  server_.stop(SIGKILL);
  server_.forget_files();
  ASSERT_TRUE(fails(*state));
  server_.start();
  ASSERT_TRUE(eventually([&] { return !state->status().degraded; }));
  EXPECT_EQ(ask(*state, ids, 1).decision.error().reason, Reason::policy_state_unavailable);
  EXPECT_TRUE(ask(*state, {ids[1]}, 1).decision);
  ASSERT_TRUE(recovers(*state));
  EXPECT_TRUE(ask(*state, ids, 1).decision);
}

class FixedHistory final : public History {
 public:
  explicit FixedHistory(Spent spent) : spent_(spent) {}
  Spent spent(SubjectKind, std::string_view, policy::WindowSpan) const override { return spent_; }
  std::vector<Started> started(SubjectKind, std::string_view, WallTime, nanoseconds) const override {
    return {};
  }

 private:
  Spent spent_;
};
class FixedUnapplied final : public Unapplied {
 public:
  explicit FixedUnapplied(std::int64_t amount) : amount_(amount) {}
  Spent unapplied(SubjectKind, std::string_view, policy::WindowSpan) const override {
    return {.settled = {amount_}, .overrun = {}};
  }

 private:
  std::int64_t amount_;
};

// The database tells what dead processes spent; each replica adds what only its own journal has.
TEST_F(RedisFailuresTest, TheDatabaseAndEveryJournalCountOnce) {
  const FixedHistory of_a({.settled = {500 + 40}, .overrun = {7}});
  const FixedHistory of_b({.settled = {500 + 60}, .overrun = {7}});
  const FixedUnapplied only_a(40);
  const FixedUnapplied only_b(60);
  const auto a = started(options("a"));
  const auto b = started(options("b"));
  a->set_history(&of_a);
  a->set_unapplied(&only_a);
  b->set_history(&of_b);
  b->set_unapplied(&only_b);
  const auto ids = a->declare(specs(1000), read_clocks());
  EXPECT_EQ(budget(*a, ids[0]), "540+0!7");
  b->declare(specs(1000), read_clocks());
  EXPECT_EQ(budget(*a, ids[0]), "600+0!7");
  ASSERT_TRUE(eventually([&] { return a->status().replicas == 2 && b->status().replicas == 2; }));
  server_.stop(SIGKILL);
  server_.forget_files();
  ASSERT_TRUE(fails(*a));
  ASSERT_TRUE(fails(*b));
  server_.start();
  ASSERT_TRUE(recovers(*a));
  ASSERT_TRUE(recovers(*b));
  EXPECT_EQ(budget(*a, ids[0]), "600+0!7");
}

// A replica that joins knows of nothing that the others do not count: it can only raise.
TEST_F(RedisFailuresTest, WhoeverJoinsLaterRaisesToTheHigherSpend) {
  const FixedHistory less({.settled = {30}, .overrun = {}});
  const FixedHistory more({.settled = {300}, .overrun = {}});
  const auto a = started(options("a"));
  const auto ids = a->declare(specs(1000), read_clocks());
  ASSERT_TRUE(recovers(*a));
  settle(*a, ask(*a, ids, 50).id, Ending::estimate);
  ASSERT_TRUE(ask(*a, ids, 20).decision);
  const auto b = started(options("b"));
  b->set_history(&less);
  b->declare(specs(1000), read_clocks());
  EXPECT_EQ(budget(*a, ids[0]), "50+20!0");
  const auto c = started(options("c"));
  c->set_history(&more);
  c->declare(specs(1000), read_clocks());
  EXPECT_EQ(budget(*a, ids[0]), "280+20!0");
}

// FLUSHALL, or a key that is lost: noticed without a new connection.
TEST_F(RedisFailuresTest, AServerThatIsEmptiedIsNoticed) {
  const auto state = started(options("a"));
  const auto ids = state->declare(specs(100), read_clocks());
  settle(*state, ask(*state, ids, 60).id, Ending::actual, 40);
  (void)state->view(read_clocks(), ids);
  (void)server_.ask("FLUSHALL");
  EXPECT_TRUE(eventually([&] { return ask(*state, ids, 60).decision.has_value(); }));
  EXPECT_FALSE(ask(*state, ids, 1).decision);
  EXPECT_EQ(budget(*state, ids[0]), "40+60!0");
}

// An answer that is lost with its connection is asked for again: by its id it is held once.
TEST_F(RedisFailuresTest, ConnectionsThatBreakHoldNothingTwiceAndLoseNothing) {
  const auto state = started(options("a"));
  const auto ids = state->declare(specs(1'000'000), read_clocks());
  std::atomic<bool> is_done{false};
  std::atomic<std::int64_t> spent{0};
  std::vector<std::thread> workers;
  for (std::uint64_t worker = 1; worker <= 2; ++worker)
    workers.emplace_back([&, worker] {
      Caller caller(*state);
      for (std::uint64_t i = 1; !is_done; ++i) {
        const AttemptId id{worker, i};
        const auto held = caller.reserve({.id = id,
                                          .subjects = ids,
                                          .estimate = {5},
                                          .tokens = 0,
                                          .lease = 1h,
                                          .is_retry = false,
                                          .now = read_clocks()});
        if (!held) continue;
        settle(*state, id, Ending::actual, 3);
        spent += 3;
      }
    });
  for (int i = 0; i < 20; ++i) {
    const std::int64_t before = spent;
    EXPECT_TRUE(eventually([&] { return spent > before + 30; }));
    (void)server_.ask("CLIENT KILL TYPE normal");
  }
  is_done = true;
  for (std::thread& worker : workers) worker.join();
  ASSERT_TRUE(recovers(*state));
  EXPECT_TRUE(eventually([&] { return state->status().unsettled == 0; }));
  EXPECT_EQ(budget(*state, ids[0]), std::to_string(spent) + "+0!0");
}

// ---- Start

TEST_F(RedisFailuresTest, StartsWithoutAServerAndFindsItLater) {
  server_.stop(SIGKILL);
  const auto state = started(options("a"));
  const auto ids = state->declare(specs(100), read_clocks());
  EXPECT_EQ(ask(*state, ids, 1).decision.error().reason, Reason::policy_state_unavailable);
  server_.start();
  ASSERT_TRUE(recovers(*state));
  EXPECT_TRUE(ask(*state, ids, 100).decision);
}

TEST(RedisStartTest, AServerThatMayForgetCannotKeepHardBudgets) {
  const std::vector hard{with_budgets(SubjectKind::provider, "p", {monthly(100)})};
  const std::vector warn{with_budgets(SubjectKind::provider, "p", {monthly(100, policy::BudgetMode::warn)})};
  const auto detail = [&](std::vector<std::string> settings, bool is_allowed) {
    const RedisServer server(std::move(settings));
    RedisOptions options = tests_options(server, new_domain());
    options.allow_volatile = is_allowed;
    const auto state = started(options);
    EXPECT_TRUE(state->check(warn));
    const auto checked = state->check(hard);
    return checked ? std::string() : checked.error().detail;
  };
  EXPECT_EQ(detail({"--appendonly", "yes"}, false), "");
  EXPECT_NE(detail({"--appendonly", "no"}, false).find("appendonly is no"), std::string::npos);
  EXPECT_NE(detail({"--appendonly", "yes", "--maxmemory", "50mb", "--maxmemory-policy", "allkeys-lru"}, false)
                .find("maxmemory-policy is allkeys-lru"),
            std::string::npos);
  EXPECT_EQ(detail({"--appendonly", "yes", "--maxmemory", "50mb", "--maxmemory-policy", "noeviction"}, false),
            "");
  EXPECT_EQ(detail({"--appendonly", "no"}, true), "");
}

// G10: the password is in no error.
TEST(RedisStartTest, AWrongPasswordIsAnErrorThatDoesNotShowIt) {
  const RedisServer server({"--requirepass", "right-secret"});
  RedisOptions options = tests_options(server, new_domain());
  options.url.password = "wrong-secret";
  RedisState wrong(options);
  const auto refused = wrong.start();
  ASSERT_FALSE(refused);
  EXPECT_NE(refused.error().detail.find("password"), std::string::npos);
  EXPECT_EQ((refused.error().detail + refused.error().message + wrong.status().reason).find("secret"),
            std::string::npos);
  options.url.password = "right-secret";
  EXPECT_TRUE(RedisState(options).start());
}

TEST(RedisUrlTest, ReadsWhatItShould) {
  const auto url = parse_redis_url("rediss://me:p%40ss@cache.example:7000/3");
  ASSERT_TRUE(url);
  EXPECT_TRUE(url->tls);
  EXPECT_EQ(url->user, "me");
  EXPECT_EQ(url->password, "p@ss");
  EXPECT_EQ(to_string(*url), "rediss://cache.example:7000/3");
  EXPECT_EQ(to_string(*parse_redis_url("redis://localhost")), "redis://localhost:6380/1");
  EXPECT_EQ(to_string(*parse_redis_url("redis://:x@[::1]:1/0")), "redis://[::1]:1/0");
  for (const char* bad :
       {"", "localhost", "http://x", "redis://", "redis://x:0", "redis://x:70000", "redis://x/y",
        "redis://x/5000", "redis://secret@x", "redis://u:%zz@x", "redis://[::1", "redis://a b"}) {
    const auto refused = parse_redis_url(bad);
    EXPECT_FALSE(refused) << bad;
    if (!refused) {
      EXPECT_EQ(refused.error().find("secret"), std::string::npos);
    }
  }
}

}  // namespace
}  // namespace penstock::store::contract
