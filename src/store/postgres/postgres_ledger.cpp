#include "store/postgres/postgres_ledger.hpp"

#include "store/postgres/copy.hpp"
#include "store/postgres/schema.hpp"

namespace penstock::store {

using postgres::ArrayText;
using postgres::Connection;
using postgres::CopyRows;
using sql::AttemptRow;
using sql::BatchFacts;
using sql::BatchPlan;
using sql::RowId;
using sql::to_nanos;

namespace {

using std::chrono::days;

// Advisory locks are numbers that only this program knows: "pnst" and what is locked.
// 1: migrating; 2: adding sets; 3: adding partitions; 4: retention. A replica's name: "pnst" and its number.
constexpr std::string_view kLockMigrations = "SELECT pg_advisory_xact_lock(1886286708, -1)";
constexpr std::array<std::string_view, 2> kBeginSets{"BEGIN", "SELECT pg_advisory_xact_lock(1886286708, -2)"};
constexpr std::string_view kLockPartitions = "SELECT pg_advisory_xact_lock(1886286708, -3)";
constexpr std::string_view kTryRetention =
    "SELECT CASE WHEN pg_try_advisory_lock(1886286708, -4) THEN 1 ELSE 0 END";
constexpr std::string_view kLockReplica = "SELECT pg_advisory_lock(1886286708, $1)";

constexpr std::array<std::string_view, 3> kPartitioned{"attempts", "calls", "call_attempts"};

RowId row_id(AttemptId id) noexcept { return {id.epoch, id.sequence}; }
RowId row_id(CallId id) noexcept { return {id.epoch, id.sequence}; }

std::string partition_name(std::string_view table, WallTime day) {
  const std::chrono::year_month_day date{std::chrono::floor<days>(day)};
  char suffix[24];
  std::snprintf(suffix, sizeof suffix, "_%04d%02u%02u", static_cast<int>(date.year()),
                static_cast<unsigned>(date.month()), static_cast<unsigned>(date.day()));
  return std::string(table) + suffix;
}

/// The day of a partition's name; none where it is not one of ours.
std::optional<WallTime> partition_day(std::string_view table, std::string_view name) {
  if (name.size() != table.size() + 9 || !name.starts_with(table)) return std::nullopt;
  unsigned number = 0;
  const std::string_view digits = name.substr(table.size() + 1);
  const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), number);
  if (error != std::errc{} || end != digits.data() + digits.size()) return std::nullopt;
  const std::chrono::year_month_day date{std::chrono::year{static_cast<int>(number / 10'000)},
                                         std::chrono::month{number / 100 % 100},
                                         std::chrono::day{number % 100}};
  if (!date.ok()) return std::nullopt;
  return WallTime{std::chrono::sys_days{date}};
}

}  // namespace

/// The writing connection and what it knows.
struct PostgresLedger::Writer {
  std::unique_ptr<Connection> connection;
  std::int64_t replica = 0;
  std::set<WallTime> days;  ///< that have partitions

  Result<void> migrate();
  Result<void> make_partitions(const LedgerBatch& batch);
  Result<void> make_partition(std::string_view table, WallTime day);
  /// Of the batch, what is in the tables already: of the changes alone, or of everything.
  Result<void> look_up(const LedgerBatch& batch, bool everything, BatchFacts& facts);
  Result<void> write(const BatchPlan& plan, const LedgerBatch& batch);
  Result<void> add_attempts(std::span<const AttemptRow> rows);
  Result<void> end_attempts(std::span<const AttemptRow> rows);
  Result<void> add_calls(std::span<const CallRecord* const> calls);
  Result<void> write_totals(const BatchPlan& plan);
  Result<void> write_rest(const LedgerBatch& batch);
};

Result<void> PostgresLedger::Writer::migrate() {
  auto done = connection->run("BEGIN");
  if (done) done = connection->run(kLockMigrations);
  if (done)
    done = connection->run_script(
        "CREATE TABLE IF NOT EXISTS schema_migrations (version bigint PRIMARY KEY, applied_at text NOT "
        "NULL)");
  std::int64_t version = 0;
  if (done)
    done = connection->run("SELECT COALESCE(max(version), 0) FROM schema_migrations", {},
                           [&](const sql::Row& row) { version = row.integer(0); });
  const auto migrations = postgres::migrations();
  if (done && version > std::ssize(migrations)) done = sql::newer_schema(version, std::ssize(migrations));
  for (std::int64_t next = version; done && next < std::ssize(migrations); ++next) {
    done = connection->run_script(migrations[static_cast<std::size_t>(next)]);
    if (done) done = connection->run("INSERT INTO schema_migrations VALUES ($1, now()::text)", {next + 1});
  }
  if (done) done = connection->run("COMMIT");
  if (!done) (void)connection->run("ROLLBACK");
  return done;
}

Result<void> PostgresLedger::Writer::make_partition(std::string_view table, WallTime day) {
  const std::string name = partition_name(table, day);
  bool is_there = false;
  auto done = connection->run("SELECT 1 FROM pg_class WHERE oid = to_regclass($1)", {name},
                              [&](const sql::Row&) { is_there = true; });
  if (!done || is_there) return done;
  // Made apart and then attached, which does not stop those who read or write other days.
  return connection->run_script("CREATE TABLE " + name + " (LIKE " + std::string(table) +
                                " INCLUDING DEFAULTS INCLUDING CONSTRAINTS); ALTER TABLE " +
                                std::string(table) + " ATTACH PARTITION " + name + " FOR VALUES FROM (" +
                                std::to_string(to_nanos(day)) + ") TO (" +
                                std::to_string(to_nanos(day + std::chrono::days{1})) + ")");
}

Result<void> PostgresLedger::Writer::make_partitions(const LedgerBatch& batch) {
  std::set<WallTime> missing;
  const auto need = [&](WallTime at) {
    const WallTime day = sql::day_of(at);
    // The next day too: a partition is made before midnight, not by the first call after it.
    for (const WallTime each : {day, day + std::chrono::days{1}})
      if (!days.contains(each)) missing.insert(each);
  };
  for (const AttemptChange& change : batch.attempts) need(change.now.reserved_at);
  for (const CallRecord& call : batch.calls) need(call.at);
  if (missing.empty()) return {};
  auto done = connection->run("BEGIN");
  if (done) done = connection->run(kLockPartitions);
  for (const WallTime day : missing)
    for (const std::string_view table : kPartitioned)
      if (done) done = make_partition(table, day);
  if (done) done = connection->run("COMMIT");
  if (done) days.insert(missing.begin(), missing.end());
  return done;
}

Result<void> PostgresLedger::Writer::look_up(const LedgerBatch& batch, bool everything, BatchFacts& facts) {
  static const std::string kFind = "SELECT " + std::string(sql::kAttemptColumns) +
                                   " FROM unnest($1::bigint[], $2::uuid[]) AS k (key_at, key_id)"
                                   " JOIN attempts ON reserved_at = key_at AND id = key_id"
                                   " WHERE reserved_at BETWEEN $3 AND $4";
  // With the bounds, partitions of other days are left alone.
  struct Keys {
    ArrayText times;
    ArrayText ids;
    std::int64_t first = std::numeric_limits<std::int64_t>::max();
    std::int64_t last = std::numeric_limits<std::int64_t>::min();
    void add(WallTime at, RowId id) {
      times.add(to_nanos(at));
      ids.add(id);
      first = std::min(first, to_nanos(at));
      last = std::max(last, to_nanos(at));
    }
    [[nodiscard]] bool empty() const { return first > last; }
  };
  Keys attempts;
  for (const AttemptChange& change : batch.attempts)
    if (everything || !change.is_new) attempts.add(change.now.reserved_at, row_id(change.now.id));
  Result<void> done;
  if (!attempts.empty())
    done = connection->run(kFind,
                           {attempts.times.finish(), attempts.ids.finish(), attempts.first, attempts.last},
                           [&](const sql::Row& row) { facts.attempts.push_back(sql::read_attempt(row)); });
  facts.calls_looked_up = everything;
  if (!done || !everything) return done;
  Keys calls;
  for (const CallRecord& call : batch.calls) calls.add(call.at, row_id(call.id));
  if (!calls.empty())
    done = connection->run(
        "SELECT id FROM unnest($1::bigint[], $2::uuid[]) AS k (key_at, key_id)"
        " JOIN calls ON at = key_at AND id = key_id WHERE at BETWEEN $3 AND $4",
        {calls.times.finish(), calls.ids.finish(), calls.first, calls.last}, [&](const sql::Row& row) {
          const RowId id = row.id(0);
          facts.calls.push_back({id.epoch, id.sequence});
        });
  return done;
}

Result<void> PostgresLedger::Writer::add_attempts(std::span<const AttemptRow> rows) {
  if (rows.empty()) return {};
  CopyRows copy(12);
  for (const AttemptRow& row : rows) {
    copy.row();
    copy.bigint(to_nanos(row.reserved_at));
    copy.uuid(row_id(row.id));
    copy.bigint(replica);
    copy.bigint(row.set);
    copy.bigint(row.estimate.count);
    copy.bigint(row.tokens);
    copy.smallint(sql::state_of(row.end));
    if (row.end)
      copy.bigint(to_nanos(row.end->at));
    else
      copy.null();
    copy.smallint(row.end && row.end->expired ? 1 : 0);
    if (row.end) {
      copy.bigint(row.end->cost.count);
      copy.bigint(row.end->tokens);
    } else {
      copy.null();
      copy.null();
    }
    copy.smallint(row.corrected ? 1 : 0);
  }
  return connection->copy(
      "COPY attempts (reserved_at, id, replica_id, set_id, estimate, tokens, state, ended_at, expired, cost, "
      "used,"
      " corrected) FROM STDIN (FORMAT BINARY)",
      copy.finish());
}

Result<void> PostgresLedger::Writer::end_attempts(std::span<const AttemptRow> rows) {
  if (rows.empty()) return {};
  std::array<ArrayText, 8> columns;
  std::int64_t first = std::numeric_limits<std::int64_t>::max();
  std::int64_t last = std::numeric_limits<std::int64_t>::min();
  for (const AttemptRow& row : rows) {
    const std::int64_t at = to_nanos(row.reserved_at);
    first = std::min(first, at);
    last = std::max(last, at);
    columns[0].add(at);
    columns[1].add(row_id(row.id));
    columns[2].add(sql::state_of(row.end));
    columns[3].add(to_nanos(row.end->at));
    columns[4].add(std::int64_t{row.end->expired});
    columns[5].add(row.end->cost.count);
    columns[6].add(row.end->tokens);
    columns[7].add(std::int64_t{row.corrected});
  }
  return connection->run(
      "UPDATE attempts a SET state = u.state, ended_at = u.ended_at, expired = u.expired, cost = u.cost,"
      " used = u.used, corrected = u.corrected FROM unnest($1::bigint[], $2::uuid[], $3::smallint[], "
      "$4::bigint[],"
      " $5::smallint[], $6::bigint[], $7::bigint[], $8::smallint[]) AS u (reserved_at, id, state, ended_at, "
      "expired,"
      " cost, used, corrected) WHERE a.reserved_at = u.reserved_at AND a.id = u.id"
      " AND a.reserved_at BETWEEN $9 AND $10",
      {columns[0].finish(), columns[1].finish(), columns[2].finish(), columns[3].finish(),
       columns[4].finish(), columns[5].finish(), columns[6].finish(), columns[7].finish(), first, last});
}

Result<void> PostgresLedger::Writer::add_calls(std::span<const CallRecord* const> calls) {
  if (calls.empty()) return {};
  const auto add_reason = [](CopyRows& copy, const std::optional<Reason>& reason) {
    if (reason)
      copy.smallint(static_cast<std::int64_t>(*reason));
    else
      copy.null();
  };
  CopyRows rows(13);
  CopyRows attempts(11);
  bool has_attempts = false;
  for (const CallRecord* call : calls) {
    rows.row();
    rows.bigint(to_nanos(call->at));
    rows.uuid(row_id(call->id));
    for (const std::string_view text :
         {call->route.view(), call->consumer.view(), call->team.view(), call->key.view(), call->model.view()})
      rows.text(text);
    rows.text(call->tag);
    rows.smallint(call->status);
    add_reason(rows, call->reason);
    rows.bigint(call->cost.count);
    rows.smallint(call->cost_estimated ? 1 : 0);
    rows.bigint(call->total.count());
    std::int64_t place = 0;
    for (const AttemptRecord& attempt : call->attempts) {
      has_attempts = true;
      attempts.row();
      attempts.bigint(to_nanos(call->at));
      attempts.uuid(row_id(call->id));
      attempts.smallint(place++);
      attempts.uuid(row_id(attempt.id));
      attempts.text(attempt.provider.view());
      attempts.text(attempt.endpoint.view());
      attempts.bigint(attempt.estimate.count);
      attempts.bigint(attempt.cost.count);
      attempts.smallint(sql::state_of(attempt.ending));
      attempts.smallint(attempt.status);
      add_reason(attempts, attempt.reason);
    }
  }
  auto done = connection->copy(
      "COPY calls (at, id, route, consumer, team, key, model, tag, status, reason, cost, cost_estimated, "
      "total)"
      " FROM STDIN (FORMAT BINARY)",
      rows.finish());
  if (!done || !has_attempts) return done;
  return connection->copy(
      "COPY call_attempts (at, call_id, place, attempt_id, provider, endpoint, estimate, cost, ending, "
      "status,"
      " reason) FROM STDIN (FORMAT BINARY)",
      attempts.finish());
}

Result<void> PostgresLedger::Writer::write_totals(const BatchPlan& plan) {
  if (!plan.postings.empty()) {
    std::int64_t batch = 0;
    auto done =
        connection->run("INSERT INTO batches (replica_id, at) VALUES ($1, $2) RETURNING id",
                        {replica, to_nanos(plan.at)}, [&](const sql::Row& row) { batch = row.integer(0); });
    if (!done) return done;
    CopyRows entries(9);
    std::array<ArrayText, 8> totals;
    for (const auto& [key, posting] : plan.postings) {
      const sql::Accounts& moved = posting.moved;
      entries.row();
      for (const std::int64_t value :
           {batch, key.set, to_nanos(key.quarter), moved.available(), moved.reserved, moved.spent,
            moved.overrun, posting.attempts, posting.tokens})
        entries.bigint(value);
      const std::array values{key.set,       to_nanos(key.quarter), moved.reserved, moved.spent,
                              moved.overrun, posting.attempts,      posting.tokens, to_nanos(posting.last)};
      for (std::size_t i = 0; i < values.size(); ++i) totals[i].add(values[i]);
    }
    done = connection->copy(
        "COPY entries (batch_id, set_id, quarter, available, reserved, spent, overrun, attempts, tokens)"
        " FROM STDIN (FORMAT BINARY)",
        entries.finish());
    // In the order of sets and quarters, as every replica's: they wait for each other, but not in a circle.
    if (done)
      done = connection->run(
          "INSERT INTO spend AS s (set_id, quarter, reserved, spent, overrun, attempts, tokens, last_at)"
          " SELECT * FROM unnest($1::bigint[], $2::bigint[], $3::bigint[], $4::bigint[], $5::bigint[], "
          "$6::bigint[],"
          " $7::bigint[], $8::bigint[]) ON CONFLICT (set_id, quarter) DO UPDATE SET"
          " reserved = s.reserved + excluded.reserved, spent = s.spent + excluded.spent,"
          " overrun = s.overrun + excluded.overrun, attempts = s.attempts + excluded.attempts,"
          " tokens = s.tokens + excluded.tokens, last_at = greatest(s.last_at, excluded.last_at)",
          {totals[0].finish(), totals[1].finish(), totals[2].finish(), totals[3].finish(), totals[4].finish(),
           totals[5].finish(), totals[6].finish(), totals[7].finish()});
    if (!done) return done;
  }
  for (const auto& [day, total] : plan.call_totals) {
    auto done = connection->run(
        "INSERT INTO call_totals AS t (day, calls, cost) VALUES ($1, $2, $3) ON CONFLICT (day) DO UPDATE SET"
        " calls = t.calls + excluded.calls, cost = t.cost + excluded.cost",
        {to_nanos(day), total.calls, total.cost});
    if (!done) return done;
  }
  return {};
}

Result<void> PostgresLedger::Writer::write_rest(const LedgerBatch& batch) {
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
        "INSERT INTO journal_positions AS p (replica_id, lane, segment, position) VALUES ($1, $2, $3, $4)"
        " ON CONFLICT (replica_id, lane) DO UPDATE SET segment = excluded.segment, position = "
        "excluded.position"
        " WHERE (excluded.segment, excluded.position) > (p.segment, p.position)",
        {replica, std::int64_t{position.lane}, static_cast<std::int64_t>(position.segment),
         static_cast<std::int64_t>(position.offset)});
    if (!done) return done;
  }
  return {};
}

Result<void> PostgresLedger::Writer::write(const BatchPlan& plan, const LedgerBatch& batch) {
  auto done = add_attempts(plan.inserts);
  if (done) done = add_calls(plan.calls);
  if (done) done = end_attempts(plan.updates);
  // The rows that replicas share come last, so that they are locked for the shortest time.
  if (done) done = write_rest(batch);
  if (done) done = write_totals(plan);
  return done;
}

PostgresLedger::PostgresLedger(const std::string& url, std::string replica, nanoseconds timeout)
    : SqlLedger(
          replica,
          [this]() -> Result<std::unique_ptr<sql::Session>> {
            if (!target_) return std::unexpected(target_.error());
            return Connection::open(*target_, Connection::Use::read, timeout_);
          },
          timeout),
      target_(postgres::Target::parse(url, "penstock " + replica)) {}

PostgresLedger::~PostgresLedger() = default;

Result<void> PostgresLedger::open() {
  const std::scoped_lock lock(writing_);
  return open_locked();
}

Result<void> PostgresLedger::open_locked() {
  writer_.reset();
  sets_.clear();
  readers_.clear();
  if (!target_) return std::unexpected(target_.error());
  auto connection = Connection::open(*target_, Connection::Use::write, timeout_);
  if (!connection) return std::unexpected(std::move(connection.error()));
  auto made = std::make_unique<Writer>();
  made->connection = std::move(*connection);
  Connection& session = *made->connection;
  auto done = made->migrate();
  if (!done) return done;
  auto replica = intern_replica(session);
  if (!replica) return std::unexpected(std::move(replica.error()));
  made->replica = *replica;
  // Our own session before this one may hang at the server, with the lock.
  if (last_backend_ != 0)
    done = session.run(
        "SELECT pg_terminate_backend(pid::int) FROM pg_stat_activity WHERE pid = $1 AND application_name = "
        "$2",
        {last_backend_, target_->application()});
  if (done) done = session.run_script("BEGIN");
  // So long the session of a process that has just been killed may take to end.
  if (done) done = session.run_script("SET LOCAL lock_timeout = '2s'");
  if (done) {
    done = session.run(kLockReplica, {*replica});
    if (!done && session.sqlstate() == "55P03")
      done = refuse(Reason::gateway_error, "the ledger's database is in use",
                    "another process with the replica name '" + replica_ + "' writes this ledger");
  }
  if (done) done = session.run_script("COMMIT");
  if (done)
    done = session.run("SELECT pg_backend_pid()", {},
                       [&](const sql::Row& row) { last_backend_ = row.integer(0); });
  if (done) writer_ = std::move(made);
  return done;
}

Result<void> PostgresLedger::apply(const LedgerBatch& batch) {
  const std::scoped_lock lock(writing_);
  if (!writer_ || !writer_->connection->is_usable())
    if (auto opened = open_locked(); !opened) return opened;
  auto done = apply_locked(batch);
  // Whatever state the session is in: the next batch starts with a fresh one.
  if (!done) writer_.reset();
  return done;
}

Result<void> PostgresLedger::apply_locked(const LedgerBatch& batch) {
  Connection& session = *writer_->connection;
  auto sets = intern_sets(session, sets_, batch.attempts, kBeginSets);
  if (!sets) return std::unexpected(std::move(sets.error()));
  BatchFacts facts;
  facts.sets = std::move(*sets);
  // What a batch calls new mostly is: only when a row turns out to be there is everything looked up.
  bool everything = false;
  bool partitions_again = false;
  for (;;) {
    facts.attempts.clear();
    auto done = writer_->make_partitions(batch);
    if (done) done = session.run("BEGIN");
    if (done) done = read_horizon(session, batch, writer_->replica, facts);
    if (done) done = writer_->look_up(batch, everything, facts);
    if (!done) return done;
    done = writer_->write(sql::plan_batch(batch, facts), batch);
    if (done) return session.run("COMMIT");
    constexpr std::string_view kDuplicate = "23505";
    constexpr std::string_view kNoPartition = "23514";  // another replica's retention has dropped it
    if (session.sqlstate() == kDuplicate && !everything) {
      everything = true;
    } else if (session.sqlstate() == kNoPartition && !partitions_again) {
      partitions_again = true;
      writer_->days.clear();
    } else {
      return done;
    }
    if (done = session.run("ROLLBACK"); !done) return done;
  }
}

namespace {

/// Retention, on a session of its own.
class Forgetting {
 public:
  Forgetting(Connection& session, WallTime day) : session_(session), day_(day) {}

  Result<std::int64_t> run() {
    bool is_ours = false;
    done_ = session_.run(kTryRetention, {}, [&](const sql::Row& row) { is_ours = row.integer(0) == 1; });
    if (done_ && !is_ours) return 0;
    // The horizon first: whoever recomputes meanwhile sees nothing that is wrong.
    if (done_)
      done_ = session_.run("UPDATE retention SET forgotten_before = greatest(forgotten_before, $1)",
                           {to_nanos(day_)});
    for (const std::string_view table : {"calls", "call_attempts", "attempts"})
      for (const std::string& partition : partitions_of(table))
        if (done_) forget(table, partition);
    if (!done_) return std::unexpected(std::move(done_.error()));
    return gone_;
  }

 private:
  std::vector<std::string> partitions_of(std::string_view table) {
    std::vector<std::string> out;
    if (done_)
      done_ = session_.run(
          "SELECT c.relname FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid"
          " WHERE i.inhparent = to_regclass($1) ORDER BY c.relname",
          {table}, [&](const sql::Row& row) {
            const auto day = partition_day(table, row.text(0));
            if (day && *day < day_) out.emplace_back(row.text(0));
          });
    return out;
  }

  void script(const std::string& text) {
    if (done_) done_ = session_.run_script(text);
  }
  std::int64_t number(const std::string& statement) {
    std::int64_t out = 0;
    if (done_) done_ = session_.run(statement, {}, [&](const sql::Row& row) { out = row.integer(0); });
    return out;
  }

  /// Drops it; where attempts are still open there, deletes the others.
  void forget(std::string_view table, const std::string& partition) {
    const bool is_attempts = table == "attempts";
    const std::int64_t rows =
        number("SELECT count(*) FROM " + partition + (is_attempts ? " WHERE state <> 0" : ""));
    // The parent before the partition, as everybody locks them.
    script("BEGIN; LOCK TABLE ONLY " + std::string(table) + " IN ACCESS EXCLUSIVE MODE");
    const std::int64_t open =
        is_attempts
            ? number("SELECT count(*) FROM (SELECT 1 FROM " + partition + " WHERE state = 0 LIMIT 1) open")
            : 0;
    script(open == 0 ? "DROP TABLE " + partition : "DELETE FROM " + partition + " WHERE state <> 0");
    script("COMMIT");
    if (table != "call_attempts") gone_ += rows;
  }

  Connection& session_;
  WallTime day_;
  Result<void> done_;
  std::int64_t gone_ = 0;
};

}  // namespace

Result<std::int64_t> PostgresLedger::forget_before(WallTime oldest) {
  // LOCK TABLE takes no snapshot: what follows sees what the replica before it has folded.
  constexpr std::array<std::string_view, 2> kBeginFold{"BEGIN ISOLATION LEVEL REPEATABLE READ",
                                                       "LOCK TABLE retention IN SHARE UPDATE EXCLUSIVE MODE"};
  if (!target_) return std::unexpected(target_.error());
  auto session = Connection::open(*target_, Connection::Use::write, timeout_);
  if (!session) return std::unexpected(std::move(session.error()));
  (*session)->set_timeout(sql::kAuditTimeout);
  const WallTime day = sql::day_of(oldest);
  const auto gone = Forgetting(**session, day).run();
  if (!gone) return gone;
  for (;;) {
    const auto more = fold_entries(**session, kBeginFold, day);
    if (!more) return std::unexpected(more.error());
    if (!*more) return gone;
  }
}

}  // namespace penstock::store
