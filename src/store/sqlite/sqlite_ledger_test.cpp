#include "store/sqlite/sqlite_ledger.hpp"

#include <filesystem>

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

}  // namespace
}  // namespace penstock::store::contract
