#include "store/sqlite/sqlite_ledger.hpp"

#include <cerrno>

#include <fcntl.h>
#include <unistd.h>

#include "store/sqlite/schema.hpp"

namespace penstock::store {

using sql::AttemptRow;
using sql::BatchFacts;
using sql::BatchPlan;
using sql::id_of;
using sql::RowId;
using sql::to_nanos;
using sqlite::Connection;
using sqlite::Statement;
using Step = Statement::Step;

namespace {

constexpr std::array<std::string_view, 1> kBegin{"BEGIN IMMEDIATE"};

RowId row_id(AttemptId id) noexcept { return {id.epoch, id.sequence}; }
RowId row_id(CallId id) noexcept { return {id.epoch, id.sequence}; }

}  // namespace

class SqliteLedger::ReplicaLock {
 public:
  /// Errors: another process, or another ledger of this one, holds it.
  static Result<std::unique_ptr<ReplicaLock>> take(const std::string& path, std::int64_t replica,
                                                   const std::string& name) {
    const int file = ::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (file < 0)
      return refuse(Reason::gateway_error, "the ledger's database failed",
                    path + ": " + std::generic_category().message(errno));
    auto made = std::make_unique<ReplicaLock>(file);
    struct flock lock{};
    lock.l_type = F_WRLCK;
    lock.l_whence = SEEK_SET;
    lock.l_start = replica;
    lock.l_len = 1;
    if (::fcntl(file, F_OFD_SETLK, &lock) != 0)
      return refuse(Reason::gateway_error, "the ledger's database is in use",
                    path + ": another process with the replica name '" + name + "' writes this ledger");
    return made;
  }

  explicit ReplicaLock(int file) : file_(file) {}
  ReplicaLock(const ReplicaLock&) = delete;
  ReplicaLock& operator=(const ReplicaLock&) = delete;
  ~ReplicaLock() { ::close(file_); }

 private:
  int file_;
};

/// The writing connection and what it has prepared.
struct SqliteLedger::Writer {
  std::unique_ptr<Connection> connection;
  std::int64_t replica = 0;
  Statement find_attempt;
  Statement add_attempt;
  Statement end_attempt;
  Statement find_call;
  Statement add_call;
  Statement add_call_attempt;
  Statement add_entry;
  Statement add_spend;

  Result<void> prepare();
  Result<void> migrate();
  /// Of the batch, what is in the table already: of the changes alone, or of everything.
  Result<void> look_up(const LedgerBatch& batch, bool everything, BatchFacts& facts);
  Result<Step> write(const BatchPlan& plan, const LedgerBatch& batch);
  Result<Step> write_attempts(const BatchPlan& plan);
  Result<Step> write_calls(const BatchPlan& plan);
  Result<void> write_totals(const BatchPlan& plan);
  Result<void> write_rest(const LedgerBatch& batch);
};

Result<void> SqliteLedger::Writer::prepare() {
  static const std::string kFind =
      "SELECT " + std::string(sql::kAttemptColumns) + " FROM attempts WHERE reserved_at = ?1 AND id = ?2";
  const std::pair<Statement*, std::string_view> all[] = {
      {&find_attempt, kFind},
      {&add_attempt,
       "INSERT INTO attempts (reserved_at, id, replica_id, set_id, estimate, tokens, state, ended_at, "
       "expired, cost,"
       " used, corrected) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12)"},
      {&end_attempt,
       "UPDATE attempts SET state = ?3, ended_at = ?4, expired = ?5, cost = ?6, used = ?7, corrected = ?8"
       " WHERE reserved_at = ?1 AND id = ?2"},
      {&find_call, "SELECT 1 FROM calls WHERE at = ?1 AND id = ?2"},
      {&add_call,
       "INSERT INTO calls (at, id, route, consumer, team, key, model, tag, status, reason, cost, "
       "cost_estimated,"
       " total) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13)"},
      {&add_call_attempt,
       "INSERT INTO call_attempts (at, call_id, place, attempt_id, provider, endpoint, estimate, cost, "
       "ending,"
       " status, reason) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)"
       " ON CONFLICT DO NOTHING"},
      {&add_entry,
       "INSERT INTO entries (batch_id, set_id, quarter, available, reserved, spent, overrun, attempts, "
       "tokens)"
       " VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)"},
      {&add_spend,
       "INSERT INTO spend (set_id, quarter, reserved, spent, overrun, attempts, tokens, last_at)"
       " VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8) ON CONFLICT (set_id, quarter) DO UPDATE SET"
       " reserved = reserved + excluded.reserved, spent = spent + excluded.spent,"
       " overrun = overrun + excluded.overrun, attempts = attempts + excluded.attempts,"
       " tokens = tokens + excluded.tokens, last_at = max(last_at, excluded.last_at)"},
  };
  for (const auto& [statement, text] : all) {
    auto made = connection->prepare(text);
    if (!made) return std::unexpected(std::move(made.error()));
    *statement = std::move(*made);
  }
  return {};
}

Result<void> SqliteLedger::Writer::migrate() {
  auto done = connection->run("BEGIN IMMEDIATE");
  if (done)
    done = connection->run_script(
        "CREATE TABLE IF NOT EXISTS schema_migrations (version INTEGER PRIMARY KEY, applied_at TEXT NOT "
        "NULL) STRICT");
  std::int64_t version = 0;
  if (done)
    done = connection->run("SELECT COALESCE(max(version), 0) FROM schema_migrations", {},
                           [&](const sql::Row& row) { version = row.integer(0); });
  const auto migrations = sqlite::migrations();
  if (done && version > std::ssize(migrations)) done = sql::newer_schema(version, std::ssize(migrations));
  for (std::int64_t next = version; done && next < std::ssize(migrations); ++next) {
    done = connection->run_script(migrations[static_cast<std::size_t>(next)]);
    if (done)
      done = connection->run("INSERT INTO schema_migrations VALUES ($1, datetime('now'))", {next + 1});
  }
  if (done) done = connection->run("COMMIT");
  if (!done) (void)connection->run("ROLLBACK");
  return done;
}

Result<void> SqliteLedger::Writer::look_up(const LedgerBatch& batch, bool everything, BatchFacts& facts) {
  for (const AttemptChange& change : batch.attempts) {
    if (change.is_new && !everything) continue;
    find_attempt.bind(1, to_nanos(change.now.reserved_at));
    find_attempt.bind(2, row_id(change.now.id));
    const Step step = find_attempt.step();
    if (step == Step::row) facts.attempts.push_back(sql::read_attempt(sqlite::StatementRow(find_attempt)));
    if (step == Step::failed) return connection->error("look up an attempt");
    find_attempt.reset();
  }
  facts.calls_looked_up = everything;
  if (!everything) return {};
  for (const CallRecord& call : batch.calls) {
    find_call.bind(1, to_nanos(call.at));
    find_call.bind(2, row_id(call.id));
    const Step step = find_call.step();
    if (step == Step::row) facts.calls.push_back(call.id);
    if (step == Step::failed) return connection->error("look up a call");
    find_call.reset();
  }
  return {};
}

namespace {

/// The columns of an end, from `place` on: state, ended_at, expired, cost, used, corrected.
void bind_end(Statement& statement, int place, const AttemptRow& row) {
  statement.bind(place, sql::state_of(row.end));
  statement.bind(place + 2, row.end && row.end->expired ? std::int64_t{1} : 0);
  statement.bind(place + 5, row.corrected ? std::int64_t{1} : 0);
  if (row.end) {
    statement.bind(place + 1, to_nanos(row.end->at));
    statement.bind(place + 3, row.end->cost.count);
    statement.bind(place + 4, row.end->tokens);
  } else {
    for (const int each : {1, 3, 4}) statement.bind_null(place + each);
  }
}

void bind_reason(Statement& statement, int place, const std::optional<Reason>& reason) {
  if (reason)
    statement.bind(place, static_cast<std::int64_t>(*reason));
  else
    statement.bind_null(place);
}

}  // namespace

Result<Step> SqliteLedger::Writer::write_attempts(const BatchPlan& plan) {
  for (const AttemptRow& row : plan.inserts) {
    add_attempt.bind(1, to_nanos(row.reserved_at));
    add_attempt.bind(2, row_id(row.id));
    add_attempt.bind(3, replica);
    add_attempt.bind(4, row.set);
    add_attempt.bind(5, row.estimate.count);
    add_attempt.bind(6, row.tokens);
    bind_end(add_attempt, 7, row);
    const Step step = add_attempt.step();
    if (step == Step::failed) return connection->error("add an attempt");
    add_attempt.reset();
    if (step == Step::duplicate) return step;
  }
  for (const AttemptRow& row : plan.updates) {
    end_attempt.bind(1, to_nanos(row.reserved_at));
    end_attempt.bind(2, row_id(row.id));
    bind_end(end_attempt, 3, row);
    if (end_attempt.step() != Step::done) return connection->error("end an attempt");
    end_attempt.reset();
  }
  return Step::done;
}

Result<Step> SqliteLedger::Writer::write_calls(const BatchPlan& plan) {
  std::string plain;
  for (const CallRecord* call : plan.calls) {
    add_call.bind(1, to_nanos(call->at));
    add_call.bind(2, row_id(call->id));
    add_call.bind(3, call->route.view());
    add_call.bind(4, call->consumer.view());
    add_call.bind(5, call->team.view());
    add_call.bind(6, call->key.view());
    add_call.bind(7, call->model.view());
    std::string_view tag = call->tag;  // the only text that a caller chooses
    if (!sql::is_plain_utf8(tag)) tag = plain = sql::to_plain_utf8(tag);
    add_call.bind(8, tag);
    add_call.bind(9, std::int64_t{call->status});
    bind_reason(add_call, 10, call->reason);
    add_call.bind(11, call->cost.count);
    add_call.bind(12, std::int64_t{call->cost_estimated});
    add_call.bind(13, call->total.count());
    const Step step = add_call.step();
    if (step == Step::failed) return connection->error("add a call");
    add_call.reset();
    if (step == Step::duplicate) return step;
  }
  for (const CallRecord* call : plan.calls) {
    std::int64_t place = 0;
    for (const AttemptRecord& attempt : call->attempts) {
      add_call_attempt.bind(1, to_nanos(call->at));
      add_call_attempt.bind(2, row_id(call->id));
      add_call_attempt.bind(3, place++);
      add_call_attempt.bind(4, row_id(attempt.id));
      add_call_attempt.bind(5, attempt.provider.view());
      add_call_attempt.bind(6, attempt.endpoint.view());
      add_call_attempt.bind(7, attempt.estimate.count);
      add_call_attempt.bind(8, attempt.cost.count);
      add_call_attempt.bind(9, sql::state_of(attempt.ending));
      add_call_attempt.bind(10, std::int64_t{attempt.status});
      bind_reason(add_call_attempt, 11, attempt.reason);
      if (add_call_attempt.step() != Step::done) return connection->error("add a call's attempt");
      add_call_attempt.reset();
    }
  }
  return Step::done;
}

Result<void> SqliteLedger::Writer::write_totals(const BatchPlan& plan) {
  if (!plan.postings.empty()) {
    std::int64_t batch = 0;
    auto made =
        connection->run("INSERT INTO batches (replica_id, at) VALUES ($1, $2) RETURNING id",
                        {replica, to_nanos(plan.at)}, [&](const sql::Row& row) { batch = row.integer(0); });
    if (!made) return made;
    for (const auto& [key, posting] : plan.postings) {
      const sql::Accounts& moved = posting.moved;
      add_entry.bind(1, batch);
      add_entry.bind(2, key.set);
      add_entry.bind(3, to_nanos(key.quarter));
      int place = 4;
      for (const std::int64_t delta :
           {moved.available(), moved.reserved, moved.spent, moved.overrun, posting.attempts, posting.tokens})
        add_entry.bind(place++, delta);
      if (add_entry.step_and_reset() != Step::done) return connection->error("add an entry");
      add_spend.bind(1, key.set);
      add_spend.bind(2, to_nanos(key.quarter));
      place = 3;
      for (const std::int64_t delta : {moved.reserved, moved.spent, moved.overrun, posting.attempts,
                                       posting.tokens, to_nanos(posting.last)})
        add_spend.bind(place++, delta);
      if (add_spend.step_and_reset() != Step::done) return connection->error("add to a total");
    }
  }
  for (const auto& [day, total] : plan.call_totals) {
    auto done = connection->run(
        "INSERT INTO call_totals (day, calls, cost) VALUES ($1, $2, $3) ON CONFLICT (day) DO UPDATE SET"
        " calls = calls + excluded.calls, cost = cost + excluded.cost",
        {to_nanos(day), total.calls, total.cost});
    if (!done) return done;
  }
  return {};
}

Result<void> SqliteLedger::Writer::write_rest(const LedgerBatch& batch) {
  for (const BudgetChange& change : batch.budget_changes) {
    auto done = connection->run(
        "INSERT INTO budget_changes (at, kind, name, before, after, who) VALUES ($1, $2, $3, $4, $5, $6)"
        " ON CONFLICT DO NOTHING",
        {to_nanos(change.at), to_string(change.subject.kind), change.subject.name, change.before,
         change.after, change.who});
    if (!done) return done;
  }
  for (const JournalPosition& position : batch.positions) {
    auto done = connection->run(
        "INSERT INTO journal_positions (replica_id, lane, segment, position) VALUES ($1, $2, $3, $4)"
        " ON CONFLICT (replica_id, lane) DO UPDATE SET segment = excluded.segment, position = "
        "excluded.position"
        " WHERE (excluded.segment, excluded.position) > (segment, position)",
        {replica, std::int64_t{position.lane}, static_cast<std::int64_t>(position.segment),
         static_cast<std::int64_t>(position.offset)});
    if (!done) return done;
  }
  return {};
}

Result<Step> SqliteLedger::Writer::write(const BatchPlan& plan, const LedgerBatch& batch) {
  auto step = write_attempts(plan);
  if (step && *step == Step::done) step = write_calls(plan);
  if (!step || *step != Step::done) return step;
  auto done = write_totals(plan);
  if (done) done = write_rest(batch);
  if (!done) return std::unexpected(std::move(done.error()));
  return Step::done;
}

SqliteLedger::SqliteLedger(std::string path, std::string replica, nanoseconds timeout)
    : SqlLedger(
          std::move(replica),
          [path, timeout]() -> Result<std::unique_ptr<sql::Session>> {
            return Connection::open(path, Connection::Use::read, timeout);
          },
          timeout),
      path_(std::move(path)) {}

SqliteLedger::~SqliteLedger() = default;

std::unique_lock<std::mutex> SqliteLedger::lock_writer() {
  const std::scoped_lock turn(next_);
  return std::unique_lock(writing_);
}

Result<void> SqliteLedger::open() {
  const auto lock = lock_writer();
  return open_locked();
}

Result<void> SqliteLedger::open_locked() {
  writer_.reset();
  sets_.clear();
  readers_.clear();
  auto connection = Connection::open(path_, Connection::Use::write, timeout_);
  if (!connection) return std::unexpected(std::move(connection.error()));
  auto made = std::make_unique<Writer>();
  made->connection = std::move(*connection);
  auto done = made->migrate();
  if (!done) return done;
  auto replica = intern_replica(*made->connection);
  if (!replica) return std::unexpected(std::move(replica.error()));
  made->replica = *replica;
  if (!replica_lock_) {
    auto held = ReplicaLock::take(path_ + ".lock", *replica, replica_);
    if (!held) return std::unexpected(std::move(held.error()));
    replica_lock_ = std::move(*held);
  }
  done = made->prepare();
  if (done) writer_ = std::move(made);
  return done;
}

Result<void> SqliteLedger::apply(const LedgerBatch& batch) {
  const auto lock = lock_writer();
  if (!writer_)
    if (auto opened = open_locked(); !opened) return opened;
  auto done = apply_locked(batch);
  // Whatever state the connection is in: the next batch starts with a fresh one.
  if (!done) writer_.reset();
  return done;
}

Result<void> SqliteLedger::apply_locked(const LedgerBatch& batch) {
  Connection& connection = *writer_->connection;
  auto sets = intern_sets(connection, sets_, batch.attempts, kBegin);
  if (!sets) return std::unexpected(std::move(sets.error()));
  BatchFacts facts;
  facts.sets = std::move(*sets);
  // What a batch calls new mostly is: only when a row turns out to be there is everything looked up.
  for (const bool everything : {false, true}) {
    facts.attempts.clear();
    auto done = connection.run("BEGIN IMMEDIATE");
    if (done) done = read_horizon(connection, batch, writer_->replica, facts);
    if (done) done = writer_->look_up(batch, everything, facts);
    if (!done) return done;
    const auto step = writer_->write(sql::plan_batch(batch, facts), batch);
    if (!step) return std::unexpected(step.error());
    if (*step == Step::done) return connection.run("COMMIT");
    if (done = connection.run("ROLLBACK"); !done) return done;
  }
  return refuse(Reason::gateway_error, "the ledger's database failed",
                "a row was there that had not been found before");
}

Result<std::int64_t> SqliteLedger::forget_step(std::string_view statement, WallTime day) {
  const auto lock = lock_writer();
  if (!writer_)
    if (auto opened = open_locked(); !opened) return std::unexpected(std::move(opened.error()));
  auto done = writer_->connection->run(statement, {to_nanos(day)});
  if (!done) return std::unexpected(std::move(done.error()));
  return writer_->connection->changes();
}

Result<std::int64_t> SqliteLedger::forget_before(WallTime oldest) {
  const WallTime day = sql::day_of(oldest);
  // The horizon first, then calls before their attempts: whoever reads meanwhile sees nothing that is wrong.
  auto horizon = forget_step("UPDATE retention SET forgotten_before = max(forgotten_before, $1)", day);
  if (!horizon) return horizon;
  std::int64_t gone = 0;
  struct Table {
    std::string_view statement;
    bool counts;
  };
  for (const Table& table : {
           Table{"DELETE FROM calls WHERE (at, id) IN (SELECT at, id FROM calls WHERE at < $1"
                 " ORDER BY at, id LIMIT 2000)",
                 true},
           Table{"DELETE FROM call_attempts WHERE (at, call_id, place) IN (SELECT at, call_id, place"
                 " FROM call_attempts WHERE at < $1 ORDER BY at, call_id, place LIMIT 2000)",
                 false},
           Table{"DELETE FROM attempts WHERE (reserved_at, id) IN (SELECT reserved_at, id FROM attempts"
                 " WHERE reserved_at < $1 AND state <> 0 ORDER BY reserved_at, id LIMIT 2000)",
                 true},
       }) {
    for (;;) {
      const auto step = forget_step(table.statement, day);
      if (!step) return step;
      if (*step == 0) break;
      if (table.counts) gone += *step;
    }
  }
  for (;;) {
    const auto lock = lock_writer();
    if (!writer_)
      if (auto opened = open_locked(); !opened) return std::unexpected(std::move(opened.error()));
    const auto more = fold_entries(*writer_->connection, kBegin, day);
    if (!more) return std::unexpected(more.error());
    if (!*more) return gone;
  }
}

}  // namespace penstock::store
