#pragma once

#include <memory>
#include <mutex>
#include <set>
#include <string>

#include "store/postgres/connection.hpp"
#include "store/sql/sql_ledger.hpp"

namespace penstock::store {

/// The ledger that several replicas share, in PostgreSQL (14 or newer). Each replica needs a name of its own;
/// a session lock on it is held while the ledger is open, so a pooler must keep sessions apart (PgBouncer:
/// session mode). Every statement ends after `timeout`, and a server that stands still is given up a second
/// later.
class PostgresLedger final : public sql::SqlLedger {
 public:
  /// `url` is libpq's postgresql://…; a password in it appears in no error.
  PostgresLedger(const std::string& url, std::string replica, nanoseconds timeout = sql::kStatementTimeout);
  ~PostgresLedger() override;

  [[nodiscard]] Result<void> open() override;
  [[nodiscard]] Result<void> apply(const LedgerBatch& batch) override;
  /// One replica at a time does it; to another it is done, with 0 rows.
  [[nodiscard]] Result<std::int64_t> forget_before(WallTime oldest) override;

 private:
  struct Writer;

  [[nodiscard]] Result<void> open_locked();
  [[nodiscard]] Result<void> apply_locked(const LedgerBatch& batch);

  const Result<postgres::Target> target_;
  std::mutex writing_;
  std::unique_ptr<Writer> writer_;  ///< none: not open, or closed after an error
  std::int64_t last_backend_ = 0;   ///< the server's process of the writer before
  sql::SetCache sets_;
};

}  // namespace penstock::store
