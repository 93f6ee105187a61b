#include "store/sqlite/sqlite_ledger.hpp"

#include <csignal>
#include <filesystem>
#include <fstream>

#include <sys/wait.h>
#include <unistd.h>

#include "store/contract/ledger_database_contract.hpp"
#include "store/contract/ledger_database_properties.hpp"

namespace penstock::store::contract {
namespace {

/// A folder that goes with the test.
class Folder {
 public:
  Folder() {
    std::string name = (std::filesystem::temp_directory_path() / "penstock-sqlite-XXXXXX").string();
    path_ = mkdtemp(name.data());
  }
  Folder(const Folder&) = delete;
  Folder& operator=(const Folder&) = delete;
  ~Folder() { std::filesystem::remove_all(path_); }
  [[nodiscard]] std::string file() const { return path_ / "ledger.sqlite"; }

 private:
  std::filesystem::path path_;
};

class SqlitePlace final : public LedgerPlace {
 public:
  std::unique_ptr<LedgerDatabase> connect(const std::string& replica) override {
    return std::make_unique<SqliteLedger>(folder_.file(), replica);
  }
  void tamper(const std::string& statement) override {
    auto connection = sqlite::Connection::open(folder_.file(), sqlite::Connection::Use::write, seconds{10});
    ASSERT_TRUE(connection);
    const auto done =
        (*connection)
            ->run_script(
                ("PRAGMA foreign_keys=OFF; PRAGMA ignore_check_constraints=ON;" + statement).c_str());
    ASSERT_TRUE(done) << done.error().detail;
  }

 private:
  Folder folder_;
};

const LedgerDatabaseBackend kSqlite{"sqlite", [] { return std::make_unique<SqlitePlace>(); }};
const auto kName = [](const auto& test) { return test.param.name; };
INSTANTIATE_TEST_SUITE_P(Sqlite, LedgerDatabaseContract, testing::Values(kSqlite), kName);
INSTANTIATE_TEST_SUITE_P(Sqlite, LedgerDatabaseProperties, testing::Values(kSqlite), kName);

// G2: a process is killed at any instant. What `apply` has answered is there, whole; at most one batch more.
TEST(SqliteLedgerTest, AKilledProcessLeavesWholeBatches) {
  constexpr std::int64_t kAttempts = 20;
  policy::Random random(7);
  const Folder folder;
  std::int64_t answered = 0;
  std::uint64_t sequence = 0;
  for (int round = 0; round < 6; ++round) {
    int ends[2];
    ASSERT_EQ(pipe(ends), 0);
    const pid_t child = fork();
    if (child == 0) {
      SqliteLedger ledger(folder.file());
      if (!ledger.open()) _exit(1);
      for (;;) {
        LedgerBatch batch;
        for (std::int64_t i = 0; i < kAttempts; ++i)
          batch.attempts.push_back(whole(attempt(sequence++, kMonday, 1), settled(kMonday, 1)));
        if (!ledger.apply(batch)) _exit(2);
        if (write(ends[1], "x", 1) != 1) _exit(3);
      }
    }
    close(ends[1]);
    char answer = 0;
    const std::int64_t wanted = random.between(1, 8);
    for (std::int64_t i = 0; i < wanted; ++i) ASSERT_EQ(read(ends[0], &answer, 1), 1);
    kill(child, SIGKILL);
    answered += wanted;
    while (read(ends[0], &answer, 1) == 1) ++answered;  // answered before it died
    close(ends[0]);
    waitpid(child, nullptr, 0);
    SqliteLedger ledger(folder.file());
    ASSERT_TRUE(ledger.open());
    const auto found = ledger.audit();
    ASSERT_TRUE(found);
    EXPECT_THAT(found->mistakes, testing::IsEmpty());
    const std::int64_t batches = found->attempts / kAttempts;
    EXPECT_EQ(found->attempts % kAttempts, 0);
    EXPECT_GE(batches, answered);
    EXPECT_LE(batches, answered + 1);
    answered = batches;
    sequence = static_cast<std::uint64_t>(found->attempts);
  }
}

// Somebody else's transaction, say a backup's, delays a batch by the time-out and no longer.
TEST(SqliteLedgerTest, ALockedFileIsAnErrorInTime) {
  const Folder folder;
  SqliteLedger ledger(folder.file(), "a", milliseconds{50});
  ASSERT_TRUE(ledger.open());
  auto other = sqlite::Connection::open(folder.file(), sqlite::Connection::Use::write, seconds{10});
  ASSERT_TRUE(other);
  ASSERT_TRUE((*other)->run("BEGIN IMMEDIATE"));
  const LedgerBatch batch = batch_of({whole(attempt(1, kMonday, 1), settled(kMonday, 1))});
  const auto refused = ledger.apply(batch);
  ASSERT_FALSE(refused);
  EXPECT_THAT(refused.error().detail, testing::HasSubstr("locked"));
  EXPECT_TRUE(ledger.recent_calls(1));  // readers go on
  ASSERT_TRUE((*other)->run("ROLLBACK"));
  EXPECT_TRUE(ledger.apply(batch));
}

TEST(SqliteLedgerTest, AStatementThatTakesTooLongIsEnded) {
  const Folder folder;
  auto connection = sqlite::Connection::open(folder.file(), sqlite::Connection::Use::write, milliseconds{20});
  ASSERT_TRUE(connection);
  const auto done =
      (*connection)
          ->run("WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n) SELECT count(*) FROM n");
  ASSERT_FALSE(done);
  EXPECT_THAT(done.error().detail, testing::HasSubstr("interrupt"));
}

TEST(SqliteLedgerTest, AFileThatIsNoLedgerIsRefused) {
  const Folder folder;
  SqliteLedger missing(folder.file() + ".d/ledger.sqlite");
  ASSERT_FALSE(missing.open());
  EXPECT_THAT(missing.open().error().detail, testing::HasSubstr(folder.file()));
  EXPECT_FALSE(missing.recent_calls(1));
  EXPECT_EQ(missing.spent(SubjectKind::provider, "openai", {kMonday, kMonday + kQuarter}).settled,
            kMaxNanoUsd);
  std::ofstream(folder.file()) << std::string(8'192, 'x');
  SqliteLedger text(folder.file());
  ASSERT_FALSE(text.open());
  EXPECT_THAT(text.open().error().detail, testing::HasSubstr("not a database"));
}

// While a day is forgotten in many steps, batches get their turn.
TEST(SqliteLedgerTest, RetentionAndBatchesTakeTurns) {
  const Folder folder;
  SqliteLedger ledger(folder.file());
  ASSERT_TRUE(ledger.open());
  LedgerBatch old;
  for (std::uint64_t i = 0; i < 9'000; ++i) {
    old.attempts.push_back(whole(attempt(i, kMonday, 1), settled(kMonday, 1)));
    old.calls.push_back(call_of(i, kMonday, 1));
  }
  ASSERT_TRUE(ledger.apply(old));
  std::thread forgetting(
      [&] { EXPECT_EQ(ledger.forget_before(kMonday + std::chrono::days{1}).value_or(0), 18'000); });
  for (std::uint64_t i = 10'000; i < 10'020; ++i) {
    const WallTime at = kMonday + std::chrono::days{2};
    EXPECT_TRUE(ledger.apply(batch_of({whole(attempt(i, at, 1), settled(at, 1))})));
  }
  forgetting.join();
  const auto found = ledger.audit();
  EXPECT_THAT(found->mistakes, testing::IsEmpty());
  EXPECT_EQ(std::tuple(found->attempts, found->calls, found->spent), std::tuple(20, 0, NanoUsd{9'020}));
}

}  // namespace
}  // namespace penstock::store::contract
