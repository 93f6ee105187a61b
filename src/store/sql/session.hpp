#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <string_view>
#include <variant>

#include "base/result.hpp"

/// One connection to either database, as far as reading and small writes go.
namespace penstock::store::sql {

/// 16 bytes: an attempt's or a call's epoch and sequence. Orders as the pair does, in both databases.
struct RowId {
  std::uint64_t epoch = 0;
  std::uint64_t sequence = 0;
};

/// A parameter; the first is `$1`. SQLite numbers them as they first appear, so statements name them in
/// order.
using Value = std::variant<std::monostate, std::int64_t, std::string_view, RowId>;

/// A row of an answer; valid until the visitor returns.
class Row {
 public:
  Row() = default;
  Row(const Row&) = delete;
  Row& operator=(const Row&) = delete;
  virtual ~Row() = default;
  [[nodiscard]] virtual bool is_null(int column) const = 0;
  [[nodiscard]] virtual std::int64_t integer(int column) const = 0;
  [[nodiscard]] virtual std::string_view text(int column) const = 0;
  [[nodiscard]] virtual RowId id(int column) const = 0;
};
using RowVisitor = std::function<void(const Row&)>;

/// Not thread-safe.
class Session {
 public:
  Session() = default;
  Session(const Session&) = delete;
  Session& operator=(const Session&) = delete;
  virtual ~Session() = default;

  /// Runs one statement, prepared once. Bounded by the time set last. Errors: the database's text, with the
  /// statement's first words; after one, rows may have been visited.
  [[nodiscard]] virtual Result<void> run(std::string_view statement, std::span<const Value> values,
                                         const RowVisitor& visit) = 0;
  [[nodiscard]] Result<void> run(std::string_view statement, std::initializer_list<Value> values = {},
                                 const RowVisitor& visit = {}) {
    return run(statement, std::span(values.begin(), values.size()), visit);
  }
  /// For each statement from now on.
  virtual void set_timeout(nanoseconds timeout) = 0;
  /// Starts a transaction that only reads and sees one state; ends with `run("ROLLBACK")`.
  [[nodiscard]] virtual Result<void> begin_snapshot() = 0;
  /// False: the connection is gone, and so is a transaction.
  [[nodiscard]] virtual bool is_usable() const = 0;
};

}  // namespace penstock::store::sql
