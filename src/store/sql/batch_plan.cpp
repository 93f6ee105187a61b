#include "store/sql/batch_plan.hpp"

#include <unordered_set>

#include "observe/text.hpp"

namespace penstock::store::sql {
namespace {

struct IdHash {
  template <class Id>
  std::size_t operator()(const Id& id) const noexcept {
    return static_cast<std::size_t>((id.sequence ^ (id.epoch >> 7)) * 0x9E3779B97F4A7C15);
  }
};

constexpr std::array kKinds{SubjectKind::provider, SubjectKind::endpoint, SubjectKind::route,
                            SubjectKind::team,     SubjectKind::consumer, SubjectKind::key};

std::int64_t tokens_of(std::int64_t reserved, const std::optional<AttemptEnd>& end) noexcept {
  return end ? end->tokens : reserved;
}

/// Whether a row that is there takes the change's end.
bool takes(const AttemptRow& row, const AttemptChange& change) noexcept {
  if (!change.now.end) return false;
  if (!row.end) return true;
  if (row.corrected || *row.end == *change.now.end) return false;
  return change.before == row.end || (row.end->expired && !change.now.end->expired);
}

class Planner {
 public:
  Planner(const LedgerBatch& batch, const BatchFacts& facts) : batch_(batch), facts_(facts) {
    rows_.reserve(batch.attempts.size());
    index_.reserve(batch.attempts.size());
    for (const AttemptRow& row : facts.attempts) add(row, Origin::database);
  }

  BatchPlan plan() {
    for (std::size_t i = 0; i < batch_.attempts.size(); ++i) take(batch_.attempts[i], facts_.sets[i]);
    for (const Row& row : rows_) {
      if (row.origin == Origin::batch) plan_.inserts.push_back(row.row);
      if (row.origin == Origin::database && row.changed) plan_.updates.push_back(row.row);
    }
    std::ranges::sort(plan_.inserts, {},
                      [](const AttemptRow& row) { return std::pair(row.reserved_at, row.id); });
    take_calls();
    for (const BudgetChange& change : batch_.budget_changes) see(change.at);
    return std::move(plan_);
  }

 private:
  enum class Origin : std::uint8_t { database, batch };
  struct Row {
    AttemptRow row;
    Origin origin;
    bool changed = false;
  };

  void add(const AttemptRow& row, Origin origin) {
    index_.emplace(row.id, rows_.size());
    rows_.push_back({row, origin});
  }
  void see(WallTime at) { plan_.at = std::max(plan_.at, at); }

  void post(const AttemptRow& row, const std::optional<AttemptEnd>& before,
            const std::optional<AttemptEnd>& after, bool is_first) {
    const Accounts was = is_first ? Accounts{} : accounts_of(row.estimate, before);
    const Accounts is = accounts_of(row.estimate, after);
    const std::int64_t tokens = tokens_of(row.tokens, after) - (is_first ? 0 : tokens_of(row.tokens, before));
    if (!is_first && was == is && tokens == 0) return;
    Posting& posting = plan_.postings[{row.set, quarter_of(row.reserved_at)}];
    posting.moved.reserved += is.reserved - was.reserved;
    posting.moved.spent += is.spent - was.spent;
    posting.moved.overrun += is.overrun - was.overrun;
    posting.attempts += is_first ? 1 : 0;
    posting.tokens += tokens;
    posting.last = std::max(posting.last, row.reserved_at);
  }

  void take(const AttemptChange& change, std::int64_t set) {
    see(change.now.reserved_at);
    if (change.now.end) see(change.now.end->at);
    const auto found = index_.find(change.now.id);
    if (found == index_.end()) return take_unknown(change, set);
    Row& known = rows_[found->second];
    if (!takes(known.row, change)) return;
    post(known.row, known.row.end, change.now.end, false);
    known.row.corrected = known.row.end.has_value();
    known.row.end = change.now.end;
    known.changed = true;
  }

  void take_unknown(const AttemptChange& change, std::int64_t set) {
    AttemptRow row{.id = change.now.id,
                   .reserved_at = change.now.reserved_at,
                   .set = set,
                   .estimate = change.now.estimate,
                   .tokens = change.now.tokens,
                   .end = change.now.end,
                   .corrected = change.before.has_value()};
    if (row.reserved_at < facts_.forgotten_before) {
      // Retention has taken its row; the totals stand. What is open is never forgotten.
      if (facts_.positions_are_behind) return;
      if (!change.is_new) return post(row, change.before, change.now.end, false);
    }
    post(row, {}, row.end, true);
    add(row, Origin::batch);
  }

  void take_calls() {
    plan_.calls.reserve(batch_.calls.size());
    std::unordered_set<CallId, IdHash> seen(facts_.calls.begin(), facts_.calls.end());
    for (const CallRecord& call : batch_.calls) {
      see(call.at);
      if (facts_.positions_are_behind && call.at < facts_.forgotten_before) continue;
      if (facts_.calls_looked_up && !seen.insert(call.id).second) continue;
      plan_.calls.push_back(&call);
      CallTotal& total = plan_.call_totals[day_of(call.at)];
      ++total.calls;
      total.cost += call.cost.count;
    }
    std::ranges::sort(plan_.calls, {}, [](const CallRecord* call) { return std::pair(call->at, call->id); });
  }

  const LedgerBatch& batch_;
  const BatchFacts& facts_;
  BatchPlan plan_;
  std::vector<Row> rows_;
  std::unordered_map<AttemptId, std::size_t, IdHash> index_;
};

}  // namespace

WallTime quarter_of(WallTime at) noexcept {
  return WallTime{
      std::chrono::floor<std::chrono::duration<std::int64_t, std::ratio<900>>>(at.time_since_epoch())};
}
WallTime day_of(WallTime at) noexcept {
  return WallTime{std::chrono::floor<std::chrono::days>(at.time_since_epoch())};
}

Accounts accounts_of(NanoUsd estimate, const std::optional<AttemptEnd>& end) noexcept {
  if (!end) return {.reserved = estimate.count};
  const std::int64_t within = std::min(end->cost.count, estimate.count);
  return {.spent = within, .overrun = end->cost.count - within};
}

BatchPlan plan_batch(const LedgerBatch& batch, const BatchFacts& facts) {
  return Planner(batch, facts).plan();
}

void write_set(std::span<const SubjectRef> subjects, std::string& out) {
  for (const SubjectRef& subject : subjects) {
    out += to_string(subject.kind);
    out += ' ';
    out += std::to_string(subject.name.size());
    out += ' ';
    out += subject.name;
    out += ' ';
  }
}

std::optional<std::int64_t> SetCache::find(std::string_view text) const {
  const auto found = sets_.find(text);
  if (found == sets_.end()) return std::nullopt;
  return found->second;
}

void SetCache::keep(std::string text, std::int64_t id) {
  if (sets_.size() >= kMaxSets) sets_.clear();
  sets_.emplace(std::move(text), id);
}

std::optional<SubjectKind> kind_from_name(std::string_view name) noexcept {
  for (const SubjectKind kind : kKinds)
    if (to_string(kind) == name) return kind;
  return std::nullopt;
}

bool is_plain_utf8(std::string_view text) noexcept {
  while (!text.empty()) {
    const std::size_t used = text.front() == '\0' ? 0 : observe::utf8_sequence(text);
    if (used == 0) return false;
    text.remove_prefix(used);
  }
  return true;
}

std::string to_plain_utf8(std::string_view text) {
  std::string out;
  while (!text.empty()) {
    const std::size_t used = text.front() == '\0' ? 0 : observe::utf8_sequence(text);
    out += used == 0 ? observe::kReplacement : text.substr(0, used);
    text.remove_prefix(std::max<std::size_t>(used, 1));
  }
  return out;
}

}  // namespace penstock::store::sql
