#include "store/sqlite/connection.hpp"

#include <bit>

namespace penstock::store::sqlite {
namespace {

/// Steps of SQLite's machine between two looks at the clock.
constexpr int kStepsPerLook = 20'000;

// Big-endian, so that bytes compare as the pair does.
std::array<std::uint64_t, 2> to_bytes(sql::RowId id) noexcept {
  static_assert(std::endian::native == std::endian::little);
  return {__builtin_bswap64(id.epoch), __builtin_bswap64(id.sequence)};
}

}  // namespace

bool StatementRow::is_null(int column) const { return sqlite3_column_type(handle_, column) == SQLITE_NULL; }
std::int64_t StatementRow::integer(int column) const { return sqlite3_column_int64(handle_, column); }
std::string_view StatementRow::text(int column) const {
  const void* const bytes = sqlite3_column_blob(handle_, column);
  const auto size = static_cast<std::size_t>(sqlite3_column_bytes(handle_, column));
  return {static_cast<const char*>(bytes), bytes == nullptr ? 0 : size};
}
sql::RowId StatementRow::id(int column) const {
  std::array<std::uint64_t, 2> bytes{};
  const std::string_view stored = text(column);
  std::memcpy(bytes.data(), stored.data(), std::min(stored.size(), sizeof bytes));
  return {__builtin_bswap64(bytes[0]), __builtin_bswap64(bytes[1])};
}

void Statement::bind(int place, std::string_view text) noexcept {
  // An empty view may have no address, which would bind NULL.
  sqlite3_bind_text(handle_.get(), place, text.empty() ? "" : text.data(), static_cast<int>(text.size()),
                    SQLITE_STATIC);
}

void Statement::bind(int place, sql::RowId id) noexcept {
  const auto bytes = to_bytes(id);
  sqlite3_bind_blob(handle_.get(), place, bytes.data(), sizeof bytes, SQLITE_TRANSIENT);
}

Statement::Step Statement::step() noexcept {
  switch (sqlite3_step(handle_.get())) {
    case SQLITE_ROW: return Step::row;
    case SQLITE_DONE: return Step::done;
    case SQLITE_CONSTRAINT_PRIMARYKEY: return Step::duplicate;
    default: return Step::failed;
  }
}

Result<std::unique_ptr<Connection>> Connection::open(const std::string& path, Use use, nanoseconds timeout) {
  sqlite3* handle = nullptr;
  const int opened = sqlite3_open_v2(path.c_str(), &handle,
                                     SQLITE_OPEN_READWRITE | SQLITE_OPEN_NOMUTEX | SQLITE_OPEN_EXRESCODE |
                                         (use == Use::write ? SQLITE_OPEN_CREATE : 0),
                                     nullptr);
  std::unique_ptr<Connection> made(new Connection(handle));
  if (handle == nullptr || opened != SQLITE_OK) return made->error("opening " + path);
  made->set_timeout(timeout);
  sqlite3_progress_handler(
      handle, kStepsPerLook,
      [](void* self) -> int {
        return std::chrono::steady_clock::now() > static_cast<Connection*>(self)->deadline_ ? 1 : 0;
      },
      made.get());
  // FULL: what is committed survives a power cut. NORMAL would not be enough: the journal's segment is
  // deleted as soon as its batch is committed. Of the writer's 4 MiB of cache and a WAL that is folded back
  // every 16 MiB, a batch needs less.
  auto done = made->run_script(
      use == Use::write ? "PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL; PRAGMA foreign_keys=ON;"
                          "PRAGMA cache_size=-4096; PRAGMA wal_autocheckpoint=4000;"
                          "PRAGMA journal_size_limit=67108864;"
                        : "PRAGMA query_only=ON; PRAGMA cache_size=-1024;");
  if (!done) return std::unexpected(std::move(done.error()));
  return made;
}

void Connection::set_timeout(nanoseconds timeout) {
  timeout_ = timeout;
  start_timer();
  sqlite3_busy_timeout(handle_.get(), static_cast<int>(std::chrono::ceil<milliseconds>(timeout).count()));
}

std::unexpected<Error> Connection::error(std::string_view during) const {
  const int code = handle_ ? sqlite3_extended_errcode(handle_.get()) : SQLITE_NOMEM;
  const char* const text = handle_ ? sqlite3_errmsg(handle_.get()) : "out of memory";
  return refuse(Reason::gateway_error, "the ledger's database failed",
                "SQLite " + std::to_string(code) + ": " + text + "; " + std::string(during.substr(0, 60)));
}

Result<void> Connection::run_script(const char* script) {
  start_timer();
  if (sqlite3_exec(handle_.get(), script, nullptr, nullptr, nullptr) != SQLITE_OK) return error(script);
  return {};
}

Result<Statement> Connection::prepare(std::string_view statement) {
  sqlite3_stmt* handle = nullptr;
  if (sqlite3_prepare_v3(handle_.get(), statement.data(), static_cast<int>(statement.size()),
                         SQLITE_PREPARE_PERSISTENT, &handle, nullptr) != SQLITE_OK)
    return error(statement);
  return Statement(handle);
}

Result<void> Connection::run(std::string_view statement, std::span<const sql::Value> values,
                             const sql::RowVisitor& visit) {
  auto found = statements_.find(statement);
  if (found == statements_.end()) {
    auto made = prepare(statement);
    if (!made) return std::unexpected(std::move(made.error()));
    found = statements_.emplace(statement, std::move(*made)).first;
  }
  Statement& prepared = found->second;
  for (std::size_t i = 0; i < values.size(); ++i) {
    const int place = static_cast<int>(i) + 1;
    std::visit(
        [&](const auto& value) {
          if constexpr (std::is_same_v<std::decay_t<decltype(value)>, std::monostate>)
            prepared.bind_null(place);
          else
            prepared.bind(place, value);
        },
        values[i]);
  }
  start_timer();
  const StatementRow row(prepared);
  Statement::Step step = prepared.step();
  for (; step == Statement::Step::row; step = prepared.step())
    if (visit) visit(row);
  // Read before the reset, which would clear it.
  Result<void> done;
  if (step != Statement::Step::done) done = error(statement);
  prepared.reset();
  return done;
}

}  // namespace penstock::store::sqlite
