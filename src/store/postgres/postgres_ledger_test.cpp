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

}  // namespace
}  // namespace penstock::store::contract
