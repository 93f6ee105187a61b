#pragma once

#include <memory>
#include <mutex>
#include <optional>
#include <string>

#include "store/sql/sql_ledger.hpp"
#include "store/sqlite/connection.hpp"

namespace penstock::store {

/// The ledger of one machine, in the SQLite file `path`; beside it stand SQLite's -wal and -shm and an empty
/// `.lock`. The file's folder must exist. Every statement and every wait for a lock ends after `timeout`.
class SqliteLedger final : public sql::SqlLedger {
 public:
  explicit SqliteLedger(std::string path, std::string replica = "local",
                        nanoseconds timeout = sql::kStatementTimeout);
  ~SqliteLedger() override;

  [[nodiscard]] Result<void> open() override;
  [[nodiscard]] Result<void> apply(const LedgerBatch& batch) override;
  [[nodiscard]] Result<std::int64_t> forget_before(WallTime oldest) override;

 private:
  struct Writer;
  /// An advisory lock on one byte of a file; held as long as the ledger lives.
  class ReplicaLock;

  [[nodiscard]] Result<void> open_locked();
  [[nodiscard]] Result<void> apply_locked(const LedgerBatch& batch);
  [[nodiscard]] Result<std::int64_t> forget_step(std::string_view statement, WallTime day);
  /// The writer, for one transaction. Whoever waits goes next: a loop that takes it again and again does not
  /// starve the other.
  [[nodiscard]] std::unique_lock<std::mutex> lock_writer();

  const std::string path_;
  std::mutex next_;  ///< held while waiting for writing_
  std::mutex writing_;
  std::unique_ptr<Writer> writer_;  ///< none: not open, or closed after an error
  std::unique_ptr<ReplicaLock> replica_lock_;
  sql::SetCache sets_;
};

}  // namespace penstock::store
