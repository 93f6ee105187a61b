#include "store/sql/sql_ledger.hpp"

#include <set>

namespace penstock::store::sql {
namespace {

/// How many calls or attempts are read at a time.
constexpr std::int64_t kPage = 1'000;
/// Sets of subjects that a page's reader keeps.
constexpr std::size_t kMaxSetsRead = 4'096;
/// Limits are told attempt by attempt when they look back no further than this.
constexpr std::chrono::hours kShortPast{2};

constexpr std::string_view kOfSubject =
    "set_id IN (SELECT m.set_id FROM subject_set_members m JOIN subjects s ON s.id = m.subject_id"
    " WHERE s.kind = $1 AND s.name = $2)";

std::string text(std::initializer_list<std::string_view> parts) {
  std::string out;
  for (const std::string_view part : parts) out += part;
  return out;
}

constexpr std::string_view kCallColumns =
    "c.at, c.id, c.route, c.consumer, c.team, c.key, c.model, c.tag, c.status, c.reason, c.cost,"
    " c.cost_estimated, c.total, a.attempt_id, a.provider, a.endpoint, a.estimate, a.cost, a.ending, "
    "a.status,"
    " a.reason";

std::optional<Reason> read_reason(const Row& row, int column) {
  if (row.is_null(column)) return std::nullopt;
  const std::int64_t number = row.integer(column);
  if (number < 0 || number >= static_cast<std::int64_t>(kReasonCount)) return Reason::gateway_error;
  return static_cast<Reason>(number);
}

Ending read_ending(std::int64_t state) noexcept {
  return state == 1 ? Ending::actual : state == 3 ? Ending::released : Ending::estimate;
}

/// Rows of a call and its attempts, one after another, become records.
void add_call_row(const Row& row, std::vector<CallRecord>& calls) {
  const RowId id = row.id(1);
  const CallId call_id{id.epoch, id.sequence};
  const WallTime at = from_nanos(row.integer(0));
  if (calls.empty() || calls.back().id != call_id || calls.back().at != at)
    calls.push_back({.id = call_id,
                     .at = at,
                     .route = Name(row.text(2)),
                     .consumer = Name(row.text(3)),
                     .team = Name(row.text(4)),
                     .key = Name(row.text(5)),
                     .model = Name(row.text(6)),
                     .tag = std::string(row.text(7)),
                     .status = static_cast<int>(row.integer(8)),
                     .reason = read_reason(row, 9),
                     .cost = {row.integer(10)},
                     .cost_estimated = row.integer(11) != 0,
                     .total = nanoseconds{row.integer(12)},
                     .attempts = {}});
  if (row.is_null(13)) return;
  const RowId attempt = row.id(13);
  calls.back().attempts.push_back({.id = {attempt.epoch, attempt.sequence},
                                   .provider = Name(row.text(14)),
                                   .endpoint = Name(row.text(15)),
                                   .estimate = {row.integer(16)},
                                   .cost = {row.integer(17)},
                                   .ending = read_ending(row.integer(18)),
                                   .status = static_cast<int>(row.integer(19)),
                                   .reason = read_reason(row, 20)});
}

/// Where a page ended: what comes after (at, id).
struct Cursor {
  std::int64_t at = 0;
  RowId id;
};
Cursor before(WallTime from) noexcept {
  constexpr std::uint64_t kLast = std::numeric_limits<std::uint64_t>::max();
  const std::int64_t at = to_nanos(from);
  if (at == std::numeric_limits<std::int64_t>::min()) return {at, {}};
  return {at - 1, {kLast, kLast}};
}

}  // namespace

std::int64_t state_of(Ending ending) noexcept {
  return ending == Ending::actual ? 1 : ending == Ending::estimate ? 2 : 3;
}

std::int64_t state_of(const std::optional<AttemptEnd>& end) noexcept {
  return end ? state_of(end->ending) : 0;
}

std::unexpected<Error> newer_schema(std::int64_t found, std::int64_t known) {
  return refuse(Reason::gateway_error, "the ledger's database is of a newer version",
                "its schema has version " + std::to_string(found) + ", this program knows versions up to " +
                    std::to_string(known) + ": start the newer program, or restore a backup from before it");
}

AttemptRow read_attempt(const Row& row, int first) {
  const RowId id = row.id(first + 1);
  AttemptRow out{.id = {id.epoch, id.sequence},
                 .reserved_at = from_nanos(row.integer(first)),
                 .set = row.integer(first + 2),
                 .estimate = {row.integer(first + 3)},
                 .tokens = row.integer(first + 4),
                 .end = {},
                 .corrected = row.integer(first + 10) != 0};
  const std::int64_t state = row.integer(first + 5);
  if (state != 0)
    out.end = AttemptEnd{.at = from_nanos(row.integer(first + 6)),
                         .ending = read_ending(state),
                         .expired = row.integer(first + 7) != 0,
                         .cost = {row.integer(first + 8)},
                         .tokens = row.integer(first + 9)};
  return out;
}

Result<void> SqlLedger::read(std::string_view statement, std::initializer_list<Value> values,
                             const RowVisitor& visit) const {
  for (;;) {
    auto lease = readers_.take();
    if (!lease) return std::unexpected(std::move(lease.error()));
    auto done = (*lease)->run(statement, values, visit);
    // An idle session may have been closed by a restart of the server; its rows come all at once or not.
    if (done || (*lease)->is_usable() || lease->is_fresh()) return done;
  }
}

Spent SqlLedger::spent(SubjectKind kind, std::string_view name, policy::WindowSpan span) const {
  static const std::string kStatement = text(
      {"SELECT CAST(COALESCE(sum(reserved + spent), 0) AS bigint), CAST(COALESCE(sum(overrun), 0) AS bigint)"
       " FROM spend WHERE ",
       kOfSubject, " AND quarter >= $3 AND quarter < $4"});
  Spent out;
  const auto done = read(kStatement,
                         {to_string(kind), name, to_nanos(quarter_of(span.start)),
                          to_nanos(quarter_of(span.end + kQuarter - nanoseconds{1}))},
                         [&](const Row& row) { out = {{row.integer(0)}, {row.integer(1)}}; });
  if (!done) return {.settled = kMaxNanoUsd, .overrun = {}};
  return out;
}

std::vector<Started> SqlLedger::started(SubjectKind kind, std::string_view name, WallTime since,
                                        nanoseconds step) const {
  static const std::string kLatest =
      text({"SELECT COALESCE(max(last_at), 0), (SELECT forgotten_before FROM retention)"
            " FROM spend WHERE ",
            kOfSubject});
  static const std::string kByQuarter = text(
      {"SELECT max(last_at), CAST(sum(attempts) AS bigint), CAST(sum(tokens) AS bigint) FROM spend WHERE ",
       kOfSubject, " AND quarter >= $3 AND last_at > $4 GROUP BY quarter ORDER BY quarter"});
  static const std::string kByAttempt = text(
      {"SELECT max(reserved_at), count(*), CAST(sum(COALESCE(used, tokens)) AS bigint) FROM attempts WHERE ",
       kOfSubject, " AND reserved_at > $3 GROUP BY (reserved_at - $4) / $5 ORDER BY 1"});
  std::vector<Started> out;
  const auto add = [&](const Row& row) {
    out.push_back({from_nanos(row.integer(0)), row.integer(1), row.integer(2)});
  };
  WallTime latest{};
  WallTime forgotten_before{};
  auto done = read(kLatest, {to_string(kind), name}, [&](const Row& row) {
    latest = from_nanos(row.integer(0));
    forgotten_before = from_nanos(row.integer(1));
  });
  if (!done || latest <= since) return out;
  if (latest - since <= kShortPast && since >= forgotten_before)
    done = read(
        kByAttempt,
        {to_string(kind), name, to_nanos(since), to_nanos(since), std::max<std::int64_t>(step.count(), 1)},
        add);
  else
    done = read(kByQuarter, {to_string(kind), name, to_nanos(quarter_of(since)), to_nanos(since)}, add);
  if (!done) out.clear();
  return out;
}

Result<std::vector<JournalPosition>> SqlLedger::positions() {
  std::vector<JournalPosition> out;
  auto done = read(
      "SELECT lane, segment, position FROM journal_positions"
      " WHERE replica_id = (SELECT id FROM replicas WHERE name = $1) ORDER BY lane",
      {replica_}, [&](const Row& row) {
        out.push_back({.lane = static_cast<std::uint32_t>(row.integer(0)),
                       .segment = static_cast<std::uint64_t>(row.integer(1)),
                       .offset = static_cast<std::uint64_t>(row.integer(2))});
      });
  if (!done) return std::unexpected(std::move(done.error()));
  return out;
}

Result<void> SqlLedger::add_subjects(std::span<const AttemptRow> rows, SubjectsOfSets& known,
                                     std::vector<AttemptEntry>& out) const {
  for (const AttemptRow& row : rows) {
    if (known.size() >= kMaxSetsRead) known.clear();
    const auto [place, is_new] = known.try_emplace(row.set);
    if (is_new) {
      auto done = read(
          "SELECT s.kind, s.name FROM subject_set_members m JOIN subjects s ON s.id = m.subject_id"
          " WHERE m.set_id = $1",
          {row.set}, [&](const Row& member) {
            place->second.push_back({kind_from_name(member.text(0)).value_or(SubjectKind::provider),
                                     std::string(member.text(1))});
          });
      if (!done) return done;
      std::ranges::sort(place->second);
    }
    out.push_back({.id = row.id,
                   .reserved_at = row.reserved_at,
                   .subjects = place->second,
                   .estimate = row.estimate,
                   .tokens = row.tokens,
                   .end = row.end});
  }
  return {};
}

Result<std::vector<AttemptEntry>> SqlLedger::open_attempts() {
  static const std::string kStatement =
      text({"SELECT ", kAttemptColumns,
            " FROM attempts WHERE state = 0 AND replica_id = (SELECT id FROM replicas WHERE name = $1)"
            " ORDER BY reserved_at, id"});
  std::vector<AttemptRow> rows;
  auto done = read(kStatement, {replica_}, [&](const Row& row) { rows.push_back(read_attempt(row)); });
  SubjectsOfSets known;
  std::vector<AttemptEntry> out;
  if (done) done = add_subjects(rows, known, out);
  if (!done) return std::unexpected(std::move(done.error()));
  return out;
}

Result<std::vector<CallRecord>> SqlLedger::recent_calls(std::size_t count) {
  static const std::string kStatement =
      text({"SELECT ", kCallColumns,
            " FROM (SELECT * FROM calls ORDER BY at DESC, id DESC LIMIT $1) c"
            " LEFT JOIN call_attempts a ON a.at = c.at AND a.call_id = c.id"
            " ORDER BY c.at DESC, c.id DESC, a.place"});
  std::vector<CallRecord> out;
  auto done =
      read(kStatement, {static_cast<std::int64_t>(count)}, [&](const Row& row) { add_call_row(row, out); });
  if (!done) return std::unexpected(std::move(done.error()));
  return out;
}

Result<NanoUsd> SqlLedger::total_cost() {
  NanoUsd out;
  auto done = read("SELECT CAST(COALESCE(sum(cost), 0) AS bigint) FROM call_totals", {},
                   [&](const Row& row) { out = {row.integer(0)}; });
  if (!done) return std::unexpected(std::move(done.error()));
  return out;
}

Result<void> SqlLedger::for_each_call(WallTime from, WallTime to,
                                      const std::function<bool(const CallRecord&)>& visit) {
  static const std::string kStatement =
      text({"SELECT ", kCallColumns,
            " FROM (SELECT * FROM calls WHERE at >= $1 AND (at, id) > ($2, $3) AND at < $4"
            " ORDER BY at, id LIMIT $5) c"
            " LEFT JOIN call_attempts a ON a.at = c.at AND a.call_id = c.id ORDER BY c.at, c.id, a.place"});
  Cursor after = before(from);
  for (;;) {
    std::vector<CallRecord> page;
    auto done = read(kStatement, {after.at, after.at, after.id, to_nanos(to), kPage},
                     [&](const Row& row) { add_call_row(row, page); });
    if (!done) return done;
    for (const CallRecord& call : page)
      if (!visit(call)) return {};
    if (std::ssize(page) < kPage) return {};
    after = {to_nanos(page.back().at), {page.back().id.epoch, page.back().id.sequence}};
  }
}

Result<void> SqlLedger::for_each_attempt(WallTime from, WallTime to,
                                         const std::function<bool(const AttemptEntry&)>& visit) {
  static const std::string kStatement =
      text({"SELECT ", kAttemptColumns,
            " FROM attempts WHERE reserved_at >= $1 AND (reserved_at, id) > ($2, $3) AND reserved_at < $4"
            " ORDER BY reserved_at, id LIMIT $5"});
  Cursor after = before(from);
  SubjectsOfSets known;
  for (;;) {
    std::vector<AttemptRow> page;
    auto done = read(kStatement, {after.at, after.at, after.id, to_nanos(to), kPage},
                     [&](const Row& row) { page.push_back(read_attempt(row)); });
    std::vector<AttemptEntry> entries;
    if (done) done = add_subjects(page, known, entries);
    if (!done) return done;
    for (const AttemptEntry& entry : entries)
      if (!visit(entry)) return {};
    if (std::ssize(page) < kPage) return {};
    after = {to_nanos(page.back().reserved_at), {page.back().id.epoch, page.back().id.sequence}};
  }
}

Result<std::vector<Balance>> SqlLedger::balances(WallTime from, WallTime to) {
  std::vector<Balance> out;
  auto done = read(
      "SELECT s.kind, s.name, p.quarter, CAST(sum(p.reserved) AS bigint), CAST(sum(p.spent) AS bigint),"
      " CAST(sum(p.overrun) AS bigint)"
      " FROM spend p JOIN subject_set_members m ON m.set_id = p.set_id JOIN subjects s ON s.id = m.subject_id"
      " WHERE p.quarter >= $1 AND p.quarter < $2"
      " GROUP BY s.kind, s.name, p.quarter ORDER BY p.quarter, s.kind, s.name",
      {to_nanos(from), to_nanos(to)}, [&](const Row& row) {
        out.push_back({.subject = {kind_from_name(row.text(0)).value_or(SubjectKind::provider),
                                   std::string(row.text(1))},
                       .quarter = from_nanos(row.integer(2)),
                       .reserved = {row.integer(3)},
                       .spent = {row.integer(4)},
                       .overrun = {row.integer(5)}});
      });
  if (!done) return std::unexpected(std::move(done.error()));
  return out;
}

Result<std::int64_t> SqlLedger::intern_replica(Session& writer) const {
  std::int64_t id = 0;
  auto done = writer.run("INSERT INTO replicas (name) VALUES ($1) ON CONFLICT (name) DO NOTHING", {replica_});
  if (done)
    done = writer.run("SELECT id FROM replicas WHERE name = $1", {replica_},
                      [&](const Row& row) { id = row.integer(0); });
  if (!done) return std::unexpected(std::move(done.error()));
  return id;
}

namespace {

/// The first column of the first row; none: no row.
Result<std::optional<std::int64_t>> number(Session& session, std::string_view statement,
                                           std::initializer_list<Value> values) {
  std::optional<std::int64_t> out;
  auto done = session.run(statement, values, [&](const Row& row) { out = row.integer(0); });
  if (!done) return std::unexpected(std::move(done.error()));
  return out;
}

Result<std::int64_t> find_or_add(Session& writer, std::string_view find, std::string_view add,
                                 std::initializer_list<Value> values) {
  auto id = number(writer, find, values);
  if (id && !*id) id = number(writer, add, values);
  if (!id) return std::unexpected(std::move(id.error()));
  return id->value_or(0);
}

Result<std::int64_t> add_set(Session& writer, const std::string& set, std::span<const SubjectRef> subjects) {
  constexpr std::string_view kFind = "SELECT id FROM subject_sets WHERE subjects = $1";
  auto known = number(writer, kFind, {set});
  if (!known) return std::unexpected(std::move(known.error()));
  if (*known) return **known;
  auto id = find_or_add(writer, kFind, "INSERT INTO subject_sets (subjects) VALUES ($1) RETURNING id", {set});
  for (const SubjectRef& subject : subjects) {
    if (!id) return id;
    auto member = find_or_add(writer, "SELECT id FROM subjects WHERE kind = $1 AND name = $2",
                              "INSERT INTO subjects (kind, name) VALUES ($1, $2) RETURNING id",
                              {to_string(subject.kind), subject.name});
    if (!member) return member;
    auto done = writer.run(
        "INSERT INTO subject_set_members (subject_id, set_id) VALUES ($1, $2) ON CONFLICT DO NOTHING",
        {*member, *id});
    if (!done) return std::unexpected(std::move(done.error()));
  }
  return id;
}

}  // namespace

Result<std::vector<std::int64_t>> SqlLedger::intern_sets(Session& writer, SetCache& cache,
                                                         std::span<const AttemptChange> changes,
                                                         std::span<const std::string_view> begin) {
  constexpr std::int64_t kUnknown = -1;
  std::vector<std::int64_t> sets(changes.size(), kUnknown);
  struct Missing {
    std::span<const SubjectRef> subjects;
    std::vector<std::size_t> places;
  };
  std::map<std::string, Missing> missing;
  std::string set;
  for (std::size_t i = 0; i < changes.size(); ++i) {
    set.clear();
    write_set(changes[i].now.subjects, set);
    if (const auto id = cache.find(set)) {
      sets[i] = *id;
    } else {
      Missing& entry = missing[set];
      entry.subjects = changes[i].now.subjects;
      entry.places.push_back(i);
    }
  }
  if (missing.empty()) return sets;
  Result<void> done;
  for (const std::string_view statement : begin)
    if (done) done = writer.run(statement);
  std::vector<std::pair<const std::string*, std::int64_t>> added;
  for (const auto& [key, entry] : missing) {
    if (!done) break;
    const auto id = add_set(writer, key, entry.subjects);
    if (!id) {
      done = std::unexpected(id.error());
      break;
    }
    added.emplace_back(&key, *id);
    for (const std::size_t place : entry.places) sets[place] = *id;
  }
  if (done) done = writer.run("COMMIT");
  if (!done) {
    (void)writer.run("ROLLBACK");
    return std::unexpected(std::move(done.error()));
  }
  for (const auto& [key, id] : added) cache.keep(*key, id);
  return sets;
}

Result<void> SqlLedger::read_horizon(Session& writer, const LedgerBatch& batch, std::int64_t replica,
                                     BatchFacts& facts) {
  auto done = writer.run("SELECT forgotten_before FROM retention", {},
                         [&](const Row& row) { facts.forgotten_before = from_nanos(row.integer(0)); });
  std::map<std::uint32_t, std::pair<std::uint64_t, std::uint64_t>> stored;
  if (done)
    done = writer.run("SELECT lane, segment, position FROM journal_positions WHERE replica_id = $1",
                      {replica}, [&](const Row& row) {
                        stored[static_cast<std::uint32_t>(row.integer(0))] = {
                            static_cast<std::uint64_t>(row.integer(1)),
                            static_cast<std::uint64_t>(row.integer(2))};
                      });
  facts.positions_are_behind =
      !batch.positions.empty() && std::ranges::all_of(batch.positions, [&](const JournalPosition& each) {
        const auto found = stored.find(each.lane);
        return found != stored.end() && std::pair(each.segment, each.offset) <= found->second;
      });
  return done;
}

Result<bool> SqlLedger::fold_entries(Session& writer, std::span<const std::string_view> begin, WallTime day) {
  constexpr std::string_view kLastOfStep =
      "SELECT max(at) FROM (SELECT at FROM batches WHERE id > 0 AND at < $1 ORDER BY at LIMIT 200) oldest";
  constexpr std::array<std::string_view, 3> kFold{
      "INSERT INTO entries (batch_id, set_id, quarter, available, reserved, spent, overrun, attempts, tokens)"
      " SELECT 0, set_id, quarter, sum(available), sum(reserved), sum(spent), sum(overrun), sum(attempts),"
      " sum(tokens) FROM entries WHERE batch_id IN (SELECT id FROM batches WHERE id > 0 AND at <= $1)"
      " GROUP BY set_id, quarter ON CONFLICT (batch_id, set_id, quarter) DO UPDATE SET"
      " available = entries.available + excluded.available, reserved = entries.reserved + excluded.reserved,"
      " spent = entries.spent + excluded.spent, overrun = entries.overrun + excluded.overrun,"
      " attempts = entries.attempts + excluded.attempts, tokens = entries.tokens + excluded.tokens",
      "DELETE FROM entries WHERE batch_id IN (SELECT id FROM batches WHERE id > 0 AND at <= $1)",
      "DELETE FROM batches WHERE id > 0 AND at <= $1"};
  Result<void> done;
  for (const std::string_view statement : begin)
    if (done) done = writer.run(statement);
  std::optional<std::int64_t> last;
  if (done)
    done = writer.run(kLastOfStep, {to_nanos(day)}, [&](const Row& row) {
      if (!row.is_null(0)) last = row.integer(0);
    });
  for (const std::string_view statement : kFold)
    if (done && last) done = writer.run(statement, {*last});
  if (done) done = writer.run("COMMIT");
  if (done) return last.has_value();
  (void)writer.run("ROLLBACK");
  return std::unexpected(std::move(done.error()));
}

}  // namespace penstock::store::sql
