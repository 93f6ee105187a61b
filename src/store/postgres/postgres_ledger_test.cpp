#include "store/postgres/postgres_ledger.hpp"

#include "store/contract/ledger_database_contract.hpp"
#include "store/contract/ledger_database_properties.hpp"
#include "store/postgres/postgres_testing.hpp"

namespace penstock::store::contract {
namespace {

using postgres::PostgresServer;

/// One for all tests of this program; each has its own database.
PostgresServer& server() {
  static PostgresServer made;
  return made;
}

class PostgresPlace final : public LedgerPlace {
 public:
  std::unique_ptr<LedgerDatabase> connect(const std::string& replica) override {
    return std::make_unique<PostgresLedger>(url_, replica);
  }
  void tamper(const std::string& statement) override {
    server().execute(url_.substr(url_.rfind('/') + 1),
                     "SET client_min_messages = warning; SET session_replication_role = replica;"
                     "ALTER TABLE IF EXISTS entries DROP CONSTRAINT IF EXISTS entries_check;" +
                         statement);
  }

 private:
  std::string url_ = server().make_database();
};

const LedgerDatabaseBackend kPostgres{"postgres", [] { return std::make_unique<PostgresPlace>(); }, 1};
const auto kName = [](const auto& test) { return test.param.name; };
INSTANTIATE_TEST_SUITE_P(Postgres, LedgerDatabaseContract, testing::Values(kPostgres), kName);
INSTANTIATE_TEST_SUITE_P(Postgres, LedgerDatabaseProperties, testing::Values(kPostgres), kName);

std::vector<std::string> partitions_of(const std::string& url) {
  const auto target = postgres::Target::parse(url, "test");
  auto session = postgres::Connection::open(*target, postgres::Connection::Use::read, seconds{10});
  std::vector<std::string> out;
  EXPECT_TRUE(
      (*session)->run("SELECT c.relname FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid WHERE "
                      "c.relkind = 'r' ORDER BY 1",
                      {}, [&](const sql::Row& row) { out.emplace_back(row.text(0)); }));
  return out;
}

LedgerBatch one_attempt(std::uint64_t sequence, WallTime at) {
  LedgerBatch batch = batch_of({whole(attempt(sequence, at, 10), settled(at, 10))});
  batch.calls.push_back(call_of(sequence, at, 10));
  return batch;
}

// G10: whatever goes wrong, the URL's password is in no error.
TEST(PostgresLedgerTest, NoErrorTellsThePassword) {
  const std::string port = std::to_string(server().port());
  for (const std::string& url : {
           "postgresql://postgres:" + std::string(PostgresServer::kPasswordInUrl) + "@127.0.0.1:1/ledger",
           "postgresql://postgres:" + std::string(PostgresServer::kPasswordInUrl) + "@127.0.0.1:" + port +
               "/missing",
           "postgresql://nobody:" + std::string(PostgresServer::kPasswordInUrl) + "@127.0.0.1:" + port +
               "/postgres",
           "postgresql://postgres:" + std::string(PostgresServer::kPassword) + "@127.0.0.1:" + port +
               "/postgres",
           "postgresql://postgres:s3cret-p@127.0.0.1:" + port + "/postgres",
           "postgresql://postgres:s3cret-p%zz@127.0.0.1:" + port + "/postgres",
           "postgresql://postgres:s3cret-p@127.0.0.1:" + port + "/postgres?s3cret-p",
           "postgresql://127.0.0.1:" + port + "/postgres?user=postgres&password=s3cret-p",
           std::string("postgresql://s3cret-p@ss"),
           std::string("s3cret-p"),
           std::string(),
       }) {
    PostgresLedger ledger(url, "a", seconds{5});
    const auto opened = ledger.open();
    ASSERT_FALSE(opened);
    const std::string all = opened.error().message + " " + opened.error().detail;
    EXPECT_THAT(all, testing::Not(testing::HasSubstr("s3cret"))) << url;
    EXPECT_THAT(all, testing::Not(testing::HasSubstr("ss@"))) << url;
    EXPECT_FALSE(opened.error().detail.empty());
    EXPECT_FALSE(ledger.recent_calls(1));
    EXPECT_EQ(ledger.spent(SubjectKind::provider, "openai", {kMonday, kMonday + kQuarter}).settled,
              kMaxNanoUsd);
  }
}

// G9: connections stay open and nothing answers. Everything ends by itself, money fails closed, and the same
// batch is applied once when the server goes on.
TEST(PostgresLedgerTest, AServerThatStandsStillIsGivenUp) {
  PostgresServer own;
  const std::string url = own.make_database();
  PostgresLedger ledger(url, "a", milliseconds{1000});
  PostgresLedger late(url, "b", milliseconds{1000});
  ASSERT_TRUE(ledger.open());
  ASSERT_TRUE(ledger.apply(one_attempt(1, kMonday)));
  EXPECT_EQ(*ledger.total_cost(), NanoUsd{10});
  own.pause();
  EXPECT_FALSE(ledger.apply(one_attempt(2, kMonday)));
  EXPECT_FALSE(ledger.apply(one_attempt(2, kMonday)));
  EXPECT_FALSE(ledger.total_cost());
  EXPECT_FALSE(ledger.audit());
  EXPECT_FALSE(ledger.forget_before(kMonday));
  EXPECT_FALSE(late.open());
  EXPECT_EQ(ledger.spent(SubjectKind::provider, "openai", {kMonday, kMonday + kQuarter}).settled,
            kMaxNanoUsd);
  own.resume();
  const auto deadline = std::chrono::steady_clock::now() + seconds{30};
  while (!ledger.apply(one_attempt(2, kMonday)) && std::chrono::steady_clock::now() < deadline) {
  }
  EXPECT_EQ(*ledger.total_cost(), NanoUsd{20});
  EXPECT_EQ(ledger.spent(SubjectKind::provider, "openai", {kMonday, kMonday + kQuarter}).settled,
            NanoUsd{20});
  EXPECT_THAT(ledger.audit()->mistakes, testing::IsEmpty());
}

TEST(PostgresLedgerTest, ARestartOfTheServerIsSurvived) {
  PostgresServer own;
  PostgresLedger ledger(own.make_database(), "a");
  ASSERT_TRUE(ledger.open());
  ASSERT_TRUE(ledger.apply(one_attempt(1, kMonday)));
  EXPECT_EQ(ledger.recent_calls(5)->size(), 1U);
  own.restart();
  EXPECT_EQ(ledger.recent_calls(5)->size(), 1U);  // readers notice by themselves
  if (!ledger.apply(one_attempt(2, kMonday))) {
    const auto again = ledger.apply(one_attempt(2, kMonday));
    ASSERT_TRUE(again) << again.error().detail;
  }
  EXPECT_EQ(*ledger.total_cost(), NanoUsd{20});
  own.stop();
  EXPECT_FALSE(ledger.apply(one_attempt(3, kMonday)));
  EXPECT_FALSE(ledger.open());
  own.start();
  ASSERT_TRUE(ledger.apply(one_attempt(3, kMonday)));
  EXPECT_EQ(*ledger.total_cost(), NanoUsd{30});
}

// A session that hangs at the server after its client is gone holds the replica's name; its own successor
// ends it.
TEST(PostgresLedgerTest, OpeningAgainTakesTheNameFromItsOwnOldSession) {
  PostgresLedger ledger(server().make_database(), "a", seconds{5});
  for (int i = 0; i < 3; ++i) {
    const auto opened = ledger.open();
    ASSERT_TRUE(opened) << opened.error().detail;
  }
}

TEST(PostgresLedgerTest, PartitionsAreMadeADayAheadAndDroppedByRetention) {
  const std::string url = server().make_database();
  PostgresLedger ledger(url, "a");
  ASSERT_TRUE(ledger.open());
  EXPECT_THAT(partitions_of(url), testing::IsEmpty());
  ASSERT_TRUE(ledger.apply(one_attempt(1, kMonday + std::chrono::hours{23})));
  EXPECT_THAT(partitions_of(url),
              testing::ElementsAre("attempts_20260302", "attempts_20260303", "call_attempts_20260302",
                                   "call_attempts_20260303", "calls_20260302", "calls_20260303"));
  LedgerBatch open = batch_of({opened(attempt(2, kMonday, 5))});
  ASSERT_TRUE(ledger.apply(open));
  EXPECT_EQ(*ledger.forget_before(kMonday + std::chrono::days{2}), 2);
  EXPECT_THAT(partitions_of(url), testing::ElementsAre("attempts_20260302"));  // one is still open there
  ASSERT_TRUE(ledger.apply(batch_of({ended(attempt(2, kMonday, 5), settled(kMonday, 5))})));
  EXPECT_EQ(*ledger.forget_before(kMonday + std::chrono::days{2}), 1);
  EXPECT_THAT(partitions_of(url), testing::IsEmpty());
}

// Another replica's retention may take a day's partitions just before a late row comes.
TEST(PostgresLedgerTest, APartitionThatIsGoneIsMadeAgain) {
  const std::string url = server().make_database();
  PostgresLedger first(url, "a");
  PostgresLedger second(url, "b");
  ASSERT_TRUE(first.open());
  ASSERT_TRUE(second.open());
  ASSERT_TRUE(first.apply(one_attempt(1, kMonday)));
  ASSERT_TRUE(second.forget_before(kMonday + std::chrono::days{3}));
  const auto late = first.apply(one_attempt(2, kMonday));
  ASSERT_TRUE(late) << late.error().detail;
  EXPECT_EQ(*first.total_cost(), NanoUsd{20});
  EXPECT_THAT(first.audit()->mistakes, testing::IsEmpty());
}

// Four replicas of a deployment begin together, on an empty database.
TEST(PostgresLedgerTest, ReplicasMayStartAtOnce) {
  const std::string url = server().make_database();
  std::vector<std::unique_ptr<PostgresLedger>> ledgers;
  for (const char* name : {"a", "b", "c", "d"})
    ledgers.push_back(std::make_unique<PostgresLedger>(url, name));
  std::vector<std::thread> threads;
  for (const auto& ledger : ledgers)
    threads.emplace_back([&] {
      const auto opened = ledger->open();
      EXPECT_TRUE(opened) << opened.error().detail;
      EXPECT_TRUE(ledger->apply(one_attempt(static_cast<std::uint64_t>(&ledger - ledgers.data()), kMonday)));
    });
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(*ledgers.front()->total_cost(), NanoUsd{40});
}

}  // namespace
}  // namespace penstock::store::contract
