#include "store/sql/sql_ledger.hpp"

/// The audit: recomputes every total from what it is made of, in one snapshot. Sums are made in the database;
/// only what differs comes here.
namespace penstock::store::sql {
namespace {

constexpr std::size_t kMaxMistakes = 100;
constexpr std::int64_t kMaxRows = kMaxMistakes + 1;

std::string time_text(std::int64_t nanos) {
  const auto at = std::chrono::floor<seconds>(from_nanos(nanos));
  const auto day = std::chrono::floor<std::chrono::days>(at);
  const std::chrono::year_month_day date{day};
  const std::chrono::hh_mm_ss time{at - day};
  char out[48];
  const int length =
      std::snprintf(out, sizeof out, "%04d-%02u-%02uT%02d:%02d:%02dZ", static_cast<int>(date.year()),
                    static_cast<unsigned>(date.month()), static_cast<unsigned>(date.day()),
                    static_cast<int>(time.hours().count()), static_cast<int>(time.minutes().count()),
                    static_cast<int>(time.seconds().count()));
  return {out, static_cast<std::size_t>(std::max(length, 0))};
}

std::string id_text(RowId id) { return to_string(CallId{id.epoch, id.sequence}); }

/// An attempt's row as postings, for quarters from $1 on.
constexpr std::string_view kAttemptsAsTotals =
    "SELECT set_id, reserved_at - reserved_at % 900000000000 AS quarter,"
    " CASE WHEN state = 0 THEN estimate ELSE 0 END AS reserved,"
    " CASE WHEN state = 0 THEN 0 WHEN cost < estimate THEN cost ELSE estimate END AS spent,"
    " CASE WHEN state <> 0 AND cost > estimate THEN cost - estimate ELSE 0 END AS overrun,"
    " 1 AS attempts, COALESCE(used, tokens) AS tokens FROM attempts WHERE reserved_at >= $1";
constexpr std::string_view kEntries =
    "SELECT set_id, quarter, reserved, spent, overrun, attempts, tokens FROM entries";
constexpr std::string_view kSpend =
    "SELECT set_id, quarter, reserved, spent, overrun, attempts, tokens FROM spend";
constexpr std::array<std::string_view, 5> kTotals{"reserved", "spent", "overrun", "attempts", "tokens"};

/// Rows (set, quarter, then each total as `left` and as `right` have it) where the two differ.
std::string compare(std::string_view left, std::string_view right) {
  std::string sums;
  std::string differs;
  for (const std::string_view total : kTotals) {
    const std::string name(total);
    for (const char* side : {"l_", "r_"}) sums += ", CAST(sum(" + (side + name) + ") AS bigint)";
    if (!differs.empty()) differs += " OR ";
    differs += "sum(l_" + name + ") <> sum(r_" + name + ")";
  }
  std::string left_columns;
  std::string right_columns;
  for (const std::string_view total : kTotals) {
    const std::string name(total);
    left_columns += ", " + name + " AS l_" + name + ", 0 AS r_" + name;
    right_columns += ", 0, " + name;
  }
  return "SELECT set_id, quarter" + sums + " FROM (SELECT set_id, quarter" + left_columns + " FROM (" +
         std::string(left) + ") l UNION ALL SELECT set_id, quarter" + right_columns + " FROM (" +
         std::string(right) + ") r) both_sides GROUP BY set_id, quarter HAVING " + differs +
         " ORDER BY set_id, quarter LIMIT 101";
}

class Auditor {
 public:
  explicit Auditor(Session& session) : session_(session) {}

  Result<LedgerAudit> audit() {
    ask("SELECT forgotten_before FROM retention", {}, [&](const Row& row) { horizon_ = row.integer(0); });
    count();
    check_sets();
    check_entries();
    check_totals();
    check_attempts();
    check_calls();
    if (!done_) return std::unexpected(std::move(done_.error()));
    return std::move(out_);
  }

 private:
  void ask(std::string_view statement, std::initializer_list<Value> values, const RowVisitor& visit) {
    if (done_) done_ = session_.run(statement, values, visit);
  }
  void say(std::string mistake) {
    if (out_.mistakes.size() < kMaxMistakes)
      out_.mistakes.push_back(std::move(mistake));
    else if (out_.mistakes.size() == kMaxMistakes)
      out_.mistakes.emplace_back("there are more mistakes than are told");
  }
  static std::string differ(std::string_view what, std::int64_t left, std::string_view other,
                            std::int64_t right) {
    return std::string(what) + " " + std::to_string(left) + ", " + std::string(other) + " " +
           std::to_string(right);
  }

  void count() {
    ask("SELECT count(*), COALESCE(sum(CASE WHEN state = 0 THEN 1 ELSE 0 END), 0) FROM attempts", {},
        [&](const Row& row) {
          out_.attempts = row.integer(0);
          out_.open_attempts = row.integer(1);
        });
    ask("SELECT count(*) FROM calls", {}, [&](const Row& row) { out_.calls = row.integer(0); });
    ask("SELECT count(*) FROM entries", {}, [&](const Row& row) { out_.entries = row.integer(0); });
    ask("SELECT CAST(COALESCE(sum(reserved), 0) AS bigint), CAST(COALESCE(sum(spent), 0) AS bigint),"
        " CAST(COALESCE(sum(overrun), 0) AS bigint) FROM spend",
        {}, [&](const Row& row) {
          out_.reserved = {row.integer(0)};
          out_.spent = {row.integer(1)};
          out_.overrun = {row.integer(2)};
        });
  }

  /// A set's text tells its members; and what is counted for a set needs one.
  void check_sets() {
    std::int64_t set = 0;
    std::string text;
    std::vector<SubjectRef> members;
    const auto finish = [&] {
      std::ranges::sort(members);
      std::string expected;
      write_set(members, expected);
      if (set != 0 && expected != text)
        say("subject set " + std::to_string(set) + ": its text is '" + text + "', its members are '" +
            expected + "'");
      members.clear();
    };
    ask("SELECT t.id, t.subjects, s.kind, s.name FROM subject_sets t"
        " LEFT JOIN subject_set_members m ON m.set_id = t.id LEFT JOIN subjects s ON s.id = m.subject_id"
        " ORDER BY t.id",
        {}, [&](const Row& row) {
          if (row.integer(0) != set) {
            finish();
            set = row.integer(0);
            text = row.text(1);
          }
          if (row.is_null(2)) return;
          members.push_back(
              {kind_from_name(row.text(2)).value_or(SubjectKind::provider), std::string(row.text(3))});
        });
    if (done_) finish();
    ask("SELECT DISTINCT set_id FROM spend WHERE set_id NOT IN (SELECT id FROM subject_sets)"
        " ORDER BY set_id LIMIT 101",
        {}, [&](const Row& row) {
          say("table spend: it has totals of subject set " + std::to_string(row.integer(0)) +
              ", which is not there");
        });
  }

  void check_entries() {
    ask("SELECT batch_id, CAST(sum(available + reserved + spent + overrun) AS bigint) FROM entries"
        " GROUP BY batch_id HAVING sum(available + reserved + spent + overrun) <> 0 ORDER BY batch_id LIMIT "
        "$1",
        {kMaxRows}, [&](const Row& row) {
          say(differ("batch " + std::to_string(row.integer(0)) + ": its entries add up to", row.integer(1),
                     "balanced ones to", 0));
        });
    ask("SELECT DISTINCT batch_id FROM entries WHERE batch_id NOT IN (SELECT id FROM batches)"
        " ORDER BY batch_id LIMIT $1",
        {kMaxRows}, [&](const Row& row) {
          say("table entries: it has some of batch " + std::to_string(row.integer(0)) +
              ", which is not there");
        });
  }

  void compare_totals(const std::string& statement, std::initializer_list<Value> values,
                      std::string_view left, std::string_view right) {
    ask(statement, values, [&](const Row& row) {
      for (std::size_t i = 0; i < kTotals.size(); ++i) {
        const int column = 2 + 2 * static_cast<int>(i);
        if (row.integer(column) == row.integer(column + 1)) continue;
        say("subject set " + std::to_string(row.integer(0)) + ", quarter " + time_text(row.integer(1)) +
            ", " + std::string(kTotals[i]) + ": " +
            differ(left, row.integer(column), right, row.integer(column + 1)));
      }
    });
  }

  void check_totals() {
    compare_totals(compare(kSpend, kEntries), {}, "the total is", "its entries add up to");
    std::string entries(kEntries);
    entries += " WHERE quarter >= $2";
    compare_totals(compare(kAttemptsAsTotals, entries), {horizon_, horizon_}, "the attempts add up to",
                   "the entries to");
  }

  void check_attempts() {
    ask("SELECT id, state, estimate, COALESCE(cost, 0) FROM attempts"
        " WHERE state NOT IN (0, 1, 2, 3) OR (state = 0) <> (ended_at IS NULL) OR (state = 0) <> (cost IS "
        "NULL)"
        " OR (state = 2 AND cost <> estimate) OR (state = 3 AND cost <> 0) ORDER BY reserved_at, id LIMIT $1",
        {kMaxRows}, [&](const Row& row) {
          say("attempt " + id_text(row.id(0)) + ": its state " + std::to_string(row.integer(1)) +
              " does not go with its end; " + differ("estimate", row.integer(2), "cost", row.integer(3)));
        });
    // One that expired is charged its estimate, until its settlement comes.
    ask("SELECT c.call_id, c.attempt_id, c.cost, a.cost FROM call_attempts c JOIN attempts a"
        " ON a.id = c.attempt_id WHERE a.state <> 0 AND a.expired = 0 AND a.cost <> c.cost"
        " ORDER BY c.at, c.call_id, c.place LIMIT $1",
        {kMaxRows}, [&](const Row& row) {
          say("call " + id_text(row.id(0)) + ", attempt " + id_text(row.id(1)) + ": " +
              differ("the call says that it cost", row.integer(2), "charged was", row.integer(3)));
        });
  }

  void check_calls() {
    ask("SELECT c.id, c.cost, CAST(COALESCE(sum(a.cost), 0) AS bigint) FROM calls c LEFT JOIN call_attempts a"
        " ON a.at = c.at AND a.call_id = c.id WHERE c.at >= $1 GROUP BY c.at, c.id, c.cost"
        " HAVING c.cost <> COALESCE(sum(a.cost), 0) ORDER BY c.at, c.id LIMIT $2",
        {horizon_, kMaxRows}, [&](const Row& row) {
          say("call " + id_text(row.id(0)) + ": " +
              differ("it cost", row.integer(1), "its attempts add up to", row.integer(2)));
        });
    ask("SELECT day, CAST(sum(l) AS bigint), CAST(sum(r) AS bigint), CAST(sum(lc) AS bigint),"
        " CAST(sum(rc) AS bigint) FROM (SELECT day, calls AS l, 0 AS r, cost AS lc, 0 AS rc FROM call_totals"
        " WHERE day >= $1 UNION ALL SELECT at - at % 86400000000000, 0, 1, 0, cost FROM calls WHERE at >= "
        "$2) x"
        " GROUP BY day HAVING sum(l) <> sum(r) OR sum(lc) <> sum(rc) ORDER BY day LIMIT $3",
        {horizon_, horizon_, kMaxRows}, [&](const Row& row) {
          say("day " + time_text(row.integer(0)) + ": " +
              differ("the total is calls", row.integer(1), "there are", row.integer(2)) + "; " +
              differ("the total cost", row.integer(3), "the calls'", row.integer(4)));
        });
  }

  Session& session_;
  Result<void> done_;
  LedgerAudit out_;
  std::int64_t horizon_ = 0;
};

}  // namespace

Result<LedgerAudit> SqlLedger::audit() {
  auto lease = readers_.take();
  if (!lease) return std::unexpected(std::move(lease.error()));
  Session& session = **lease;
  session.set_timeout(kAuditTimeout);
  auto begun = session.begin_snapshot();
  auto out =
      begun ? Auditor(session).audit() : Result<LedgerAudit>(std::unexpected(std::move(begun.error())));
  (void)session.run("ROLLBACK");
  session.set_timeout(timeout_);
  return out;
}

}  // namespace penstock::store::sql
