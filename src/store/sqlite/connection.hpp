#pragma once

#include <map>
#include <memory>
#include <string>
#include <string_view>

#include <sqlite3.h>

#include "store/sql/session.hpp"

/// SQLite's C interface, with owners for what must be closed. Not thread-safe: one thread at a time.
namespace penstock::store::sqlite {

/// A prepared statement. Text that is bound must live until the next `reset`.
class Statement {
 public:
  enum class Step : std::uint8_t { row, done, duplicate, failed };

  Statement() = default;
  explicit Statement(sqlite3_stmt* handle) : handle_(handle) {}
  void bind(int place, std::int64_t value) noexcept { sqlite3_bind_int64(handle_.get(), place, value); }
  void bind(int place, std::string_view text) noexcept;
  void bind(int place, sql::RowId id) noexcept;  ///< copied
  void bind_null(int place) noexcept { sqlite3_bind_null(handle_.get(), place); }
  [[nodiscard]] Step step() noexcept;  ///< duplicate: a row with this primary key is there
  void reset() noexcept { sqlite3_reset(handle_.get()); }
  /// For a statement that returns no rows.
  [[nodiscard]] Step step_and_reset() noexcept {
    const Step done = step();
    reset();
    return done;
  }
  [[nodiscard]] sqlite3_stmt* get() const noexcept { return handle_.get(); }

 private:
  struct Finalize {
    void operator()(sqlite3_stmt* handle) const noexcept { sqlite3_finalize(handle); }
  };
  std::unique_ptr<sqlite3_stmt, Finalize> handle_;
};

/// The row at which a statement stands.
class StatementRow final : public sql::Row {
 public:
  explicit StatementRow(const Statement& statement) : handle_(statement.get()) {}
  [[nodiscard]] bool is_null(int column) const override;
  [[nodiscard]] std::int64_t integer(int column) const override;
  [[nodiscard]] std::string_view text(int column) const override;
  [[nodiscard]] sql::RowId id(int column) const override;

 private:
  sqlite3_stmt* handle_;
};

class Connection final : public sql::Session {
 public:
  enum class Use : std::uint8_t { write, read };
  /// Opens the file, makes it when missing, and waits at most `timeout` for a lock or a statement.
  [[nodiscard]] static Result<std::unique_ptr<Connection>> open(const std::string& path, Use use,
                                                                nanoseconds timeout);

  using Session::run;
  [[nodiscard]] Result<void> run(std::string_view statement, std::span<const sql::Value> values,
                                 const sql::RowVisitor& visit) override;
  void set_timeout(nanoseconds timeout) override;
  [[nodiscard]] Result<void> begin_snapshot() override { return run("BEGIN"); }
  [[nodiscard]] bool is_usable() const override { return true; }

  /// Several statements without parameters.
  [[nodiscard]] Result<void> run_script(const char* script);
  [[nodiscard]] Result<Statement> prepare(std::string_view statement);
  [[nodiscard]] std::int64_t changes() const noexcept { return sqlite3_changes64(handle_.get()); }
  /// Of the call that failed last.
  [[nodiscard]] std::unexpected<Error> error(std::string_view during) const;

 private:
  explicit Connection(sqlite3* handle) : handle_(handle) {}
  void start_timer() noexcept { deadline_ = std::chrono::steady_clock::now() + timeout_; }

  struct Close {
    void operator()(sqlite3* handle) const noexcept { sqlite3_close_v2(handle); }
  };
  std::unique_ptr<sqlite3, Close> handle_;
  std::map<std::string, Statement, std::less<>> statements_;
  nanoseconds timeout_{};
  MonotonicTime deadline_;
};

}  // namespace penstock::store::sqlite
