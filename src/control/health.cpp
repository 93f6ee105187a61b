#include "control/health.hpp"

#include <algorithm>
#include <chrono>
#include <span>
#include <utility>

#include "base/money.hpp"
#include "observe/text.hpp"
#include "policy/budget.hpp"
#include "policy/limit.hpp"
#include "policy/line.hpp"

namespace penstock::control {
namespace {

using policy::CircuitBreaker;
using store::SubjectView;

constexpr std::string_view kJson = "application/json";
constexpr std::string_view kExposition = "text/plain; version=0.0.4; charset=utf-8";

constexpr std::chrono::minutes kWindow{5};
/// Nearer together they would tell nothing more: this bounds them to kWindow / kSnapshotEvery + 1 a provider.
constexpr seconds kSnapshotEvery{10};

/// Fewer attempts than this say nothing about a provider.
constexpr std::int64_t kMinAttempts = 10;
constexpr std::int64_t kMillion = 1'000'000;

// JSON, written as it is read: a comma goes before whatever is not the first of its object or list.

void append_number(std::string& out, std::int64_t value, int decimals = 0) {
  char text[observe::kMaxDecimal];
  out.append(text, observe::write_decimal(value, decimals, text));
}

void append_usd(std::string& out, NanoUsd amount) {
  char text[24];
  out.append(text, format_usd_to(amount, text));
}

void append_text(std::string& out, std::string_view text) {
  const std::size_t bound = 6 * text.size() + 3;  // every byte as \u00xx: nothing is cut off
  const std::size_t begin = out.size() + 1;
  out += '"';
  out.resize(begin + bound);
  out.resize(
      static_cast<std::size_t>(observe::write_json_text(text, bound, out.data() + begin) - out.data()));
  out += '"';
}

void key(std::string& out, std::string_view name) {
  if (!out.ends_with('{')) out += ',';
  append_text(out, name);
  out += ':';
}

void member(std::string& out, std::string_view name, std::string_view text) {
  key(out, name);
  append_text(out, text);
}

void member(std::string& out, std::string_view name, std::int64_t value, int decimals = 0) {
  key(out, name);
  append_number(out, value, decimals);
}

void member_usd(std::string& out, std::string_view name, std::optional<NanoUsd> amount) {
  key(out, name);
  if (amount) {
    append_usd(out, *amount);
  } else {
    out += "null";
  }
}

void member_or_null(std::string& out, std::string_view name, std::optional<std::int64_t> value,
                    int decimals = 0) {
  key(out, name);
  if (value) {
    append_number(out, *value, decimals);
  } else {
    out += "null";
  }
}

void append_padded(std::string& out, unsigned value, std::size_t width) {
  const std::string digits = std::to_string(value);
  out.append(width - std::min(width, digits.size()), '0');
  out += digits;
}

/// RFC 3339 in UTC, to the second.
std::string timestamp(WallTime at) {
  const auto day = std::chrono::floor<std::chrono::days>(at);
  const std::chrono::year_month_day date{day};
  const std::chrono::hh_mm_ss time{std::chrono::floor<seconds>(at - day)};
  std::string out;
  append_padded(out, static_cast<unsigned>(static_cast<int>(date.year())), 4);
  append_padded(out += '-', static_cast<unsigned>(date.month()), 2);
  append_padded(out += '-', static_cast<unsigned>(date.day()), 2);
  append_padded(out += 'T', static_cast<unsigned>(time.hours().count()), 2);
  append_padded(out += ':', static_cast<unsigned>(time.minutes().count()), 2);
  append_padded(out += ':', static_cast<unsigned>(time.seconds().count()), 2);
  return out += 'Z';
}

/// part / whole in millionths, rounded down: 1.0 only where nothing is left. A budget of nothing is used up.
std::int64_t millionths(std::int64_t part, std::int64_t whole) {
  if (whole <= 0) return kMillion;
  const auto ratio = static_cast<__int128>(part) * kMillion / whole;
  return static_cast<std::int64_t>(std::min<__int128>(ratio, INT64_MAX));
}

/// The limit without its amount, which makes the label's values a closed set: "calls/minute", "tokens/10s".
std::string limit_type(const policy::LimitSpec& spec) {
  const std::string text = to_string(spec);
  return (spec.unit == policy::LimitUnit::tokens ? "tokens" : "calls") + text.substr(text.find('/'));
}

const store::BudgetView* find_budget(const SubjectView& view, policy::BudgetWindow window) {
  const auto found = std::ranges::find(view.budgets, window, [](const auto& b) { return b.spec.window; });
  return found == view.budgets.end() ? nullptr : &*found;
}

std::optional<std::int64_t> calls_limit(const SubjectView& view, nanoseconds period) {
  for (const store::LimitView& limit : view.limits)
    if (limit.spec.unit == policy::LimitUnit::calls && limit.spec.period == period) return limit.spec.amount;
  return std::nullopt;
}

std::optional<std::int64_t> concurrency_limit(const SubjectView& view) {
  if (!view.concurrency || !view.learned_concurrency)
    return view.concurrency ? view.concurrency : view.learned_concurrency;
  return std::min(*view.concurrency, *view.learned_concurrency);
}

/// Nine tenths of a hard budget are gone: settled, held, and what was billed beyond the estimates.
bool is_nearly_spent(const store::BudgetView& budget) {
  if (budget.spec.mode != policy::BudgetMode::hard) return false;
  const auto used = static_cast<__int128>(budget.settled.count) + budget.held.count + budget.overrun.count;
  return used * 10 >= static_cast<__int128>(budget.spec.limit.count) * 9;
}

std::int64_t gauge_value(CircuitBreaker::State state) {
  switch (state) {
    case CircuitBreaker::State::closed: return 0;
    case CircuitBreaker::State::half_open: return 1;
    case CircuitBreaker::State::open: return 2;
  }
  return 0;
}

/// How an attempt counts, by the status label of external_api_calls_total: a provider's status, or a reason.
enum class Verdict : std::uint8_t { good, error, unrelated };

Verdict verdict_of(std::string_view status) {
  if (status.starts_with("caller_")) return Verdict::unrelated;  // who leaves says nothing about the provider
  if (status == "other") return Verdict::unrelated;              // statuses too many to be told apart
  const bool is_answer = !status.empty() && status.front() >= '1' && status.front() <= '9';
  return is_answer && status.front() != '5' ? Verdict::good : Verdict::error;
}

/// Interpolated within the bucket, as Histogram::quantile; what is above the last bound counts as the bound.
std::optional<nanoseconds> quantile(std::span<const std::int64_t> buckets,
                                    std::span<const std::int64_t> bounds, double q) {
  std::int64_t total = 0;
  for (const std::int64_t count : buckets) total += count;
  if (total == 0 || bounds.empty()) return std::nullopt;
  const double rank = q * static_cast<double>(total);
  double below = 0;
  for (std::size_t i = 0; i < bounds.size(); ++i) {
    const auto here = static_cast<double>(buckets[i]);
    if (here > 0 && below + here >= rank) {
      const double low = i == 0 ? 0.0 : static_cast<double>(bounds[i - 1]);
      const double width = static_cast<double>(bounds[i]) - low;
      return nanoseconds{static_cast<std::int64_t>(low + width * (rank - below) / here)};
    }
    below += here;
  }
  return nanoseconds{bounds.back()};
}

/// Where the window that ends at `now` begins: the newest snapshot that is old enough, else the oldest.
template <class Snapshots>
auto window_begin(Snapshots& snapshots, MonotonicTime now) {
  const auto is_outside = [&](const auto& snapshot) { return snapshot.at <= now - kWindow; };
  auto begin = snapshots.begin();
  while (std::next(begin) != snapshots.end() && is_outside(*std::next(begin))) ++begin;
  return begin;
}

void member_ms(std::string& out, std::string_view name, std::optional<nanoseconds> value) {
  std::optional<std::int64_t> tenths;  // finer would promise more than an estimate from buckets holds
  if (value) tenths = (value->count() + 50'000) / 100'000;
  member_or_null(out, name, tenths, 1);
}

void append_budget(std::string& out, const SubjectView& view, WallTime now) {
  out += '{';
  for (const auto window : {policy::BudgetWindow::daily, policy::BudgetWindow::monthly}) {
    const store::BudgetView* const budget = find_budget(view, window);
    const std::string prefix(to_string(window));
    const auto part = [&](std::string_view name, auto amount_of) {
      member_usd(out, prefix + std::string(name),
                 budget == nullptr ? std::nullopt : std::optional<NanoUsd>(amount_of(*budget)));
    };
    // Overrun is spent too, though it is no part of what was settled (policy/budget.hpp).
    part("_spent_usd", [](const store::BudgetView& b) { return b.settled + b.overrun; });
    part("_held_usd", [](const store::BudgetView& b) { return b.held; });
    part("_limit_usd", [](const store::BudgetView& b) { return b.spec.limit; });
    if (budget == nullptr || !budget->spec.temporary || now >= budget->spec.temporary->until) continue;
    key(out, prefix + "_override");
    out += '{';
    member(out, "until", timestamp(budget->spec.temporary->until));
    member(out, "reason", budget->spec.temporary->reason);
    out += '}';
  }
  out += '}';
}

void append_limits(std::string& out, const SubjectView& view) {
  out += '[';
  for (const store::LimitView& limit : view.limits) {
    if (!out.ends_with('[')) out += ',';
    out += '{';
    member(out, "limit", to_string(limit.spec));
    member(out, "used", limit.used);
    member(out, "remaining", limit.remaining);
    out += '}';
  }
  out += ']';
}

std::string_view to_string(StoreStatus::State state) {
  switch (state) {
    case StoreStatus::State::ok: return "ok";
    case StoreStatus::State::degraded: return "degraded";
    case StoreStatus::State::closed: return "closed";
  }
  return "closed";
}

Answer store_answer(const AskStore& ask) {
  if (!ask) return {200, kJson, R"({"status":"not_configured"})"};
  const StoreStatus status = ask();
  std::string out = "{";
  member(out, "status", to_string(status.state));
  if (!status.problem.empty()) member(out, "problem", status.problem);
  for (const auto& [name, text] : status.texts) member(out, name, text);
  for (const auto& [name, number] : status.numbers) member(out, name, number);
  return {status.state == StoreStatus::State::ok ? 200 : 503, kJson, out += '}'};
}

void append_learned(std::string& out, const SubjectView& view) {
  out += '{';
  for (const store::LearnedView& learned : view.learned) {
    key(out, to_string(learned.dimension));
    out += '{';
    member_or_null(out, "limit", learned.limit > 0 ? std::optional(learned.limit) : std::nullopt);
    member(out, "remaining", learned.remaining);
    out += '}';
  }
  out += '}';
}

}  // namespace

/// What happened in the window.
struct Health::Recent {
  std::optional<nanoseconds> p50;
  std::optional<nanoseconds> p95;
  std::int64_t attempts = 0;
  std::optional<std::int64_t> error_millionths;

  Recent(const Counts& then, const Counts& now, std::span<const std::int64_t> bounds)
      : attempts(now.attempts - then.attempts) {
    std::vector<std::int64_t> durations = now.durations;
    for (std::size_t i = 0; i < durations.size(); ++i) durations[i] -= then.durations[i];
    p50 = quantile(durations, bounds, 0.5);
    p95 = quantile(durations, bounds, 0.95);
    if (attempts > 0) error_millionths = millionths(now.errors - then.errors, attempts);
  }
  [[nodiscard]] bool is_bad() const {
    return attempts >= kMinAttempts && error_millionths && *error_millionths > kMillion / 10;
  }
};

Health::Health(store::SharedState& state, observe::Metrics& metrics, std::string version)
    : state_(state), metrics_(metrics), version_(std::move(version)), started_(read_clocks().mono) {}

void Health::set_providers(std::vector<ProviderInfo> providers) {
  const std::scoped_lock lock(mutex_);
  std::vector<Provider> next;
  std::vector<Circuit> circuits;
  for (ProviderInfo& info : providers) {
    const auto known = std::ranges::find(providers_, info.name, &Provider::name);
    Provider& provider = next.emplace_back();
    if (known != providers_.end()) {
      provider = std::move(*known);
      providers_.erase(known);
    }
    provider.name = std::move(info.name);
    provider.subject = info.subject;
    for (const std::string& endpoint : info.endpoints) {
      const observe::Histogram* const series = &metrics_.duration.with({provider.name, endpoint});
      if (std::ranges::find(provider.durations, series) == provider.durations.end())
        provider.durations.push_back(series);
    }
    circuits.push_back({provider.subject, &metrics_.circuit_state.with({provider.name})});
  }
  const std::vector<Provider> gone = std::exchange(providers_, std::move(next));
  for (const Provider& provider : gone)
    for (const SetGauge& each : provider.gauges) each.gauge->set(each.at_rest);

  std::vector<Counts> counts = count_all();
  for (std::size_t i = 0; i < providers_.size();
       ++i) {  // for a new one, what was counted before is another life's
    std::deque<Snapshot>& snapshots = providers_[i].snapshots;
    if (snapshots.empty()) snapshots.push_back({MonotonicTime::min(), std::move(counts[i])});
  }
  const std::scoped_lock circuits_lock(circuits_mutex_);
  for (Circuit& circuit : circuits) circuit.last_change = circuit_changes_;
  circuits_ = std::move(circuits);
  // Only now: no change of theirs can come any more.
  for (const Provider& provider : gone)
    metrics_.circuit_state.with({provider.name}).set(gauge_value(CircuitBreaker::State::closed));
}

void Health::set_draining() { draining_.store(true, std::memory_order_relaxed); }

void Health::update(Now now) {
  std::uint64_t changes_seen = 0;
  {
    const std::scoped_lock lock(circuits_mutex_);
    changes_seen = circuit_changes_;
  }
  const Views views = provider_views(now);
  {
    const std::scoped_lock lock(mutex_);
    std::vector<Counts> counts = count_all();
    for (std::size_t i = 0; i < providers_.size(); ++i) {
      Provider& provider = providers_[i];
      if (const auto view = views.find(provider.subject); view != views.end())
        set_gauges(provider, view->second);
      if (now.mono - kSnapshotEvery >= provider.snapshots.back().at)
        provider.snapshots.push_back({now.mono, std::move(counts[i])});
      provider.snapshots.erase(provider.snapshots.begin(), window_begin(provider.snapshots, now.mono));
    }
  }
  set_circuits(views, changes_seen);
}

void Health::clock_changed(policy::ClockGuard::Trust trust) {
  clock_.store(trust, std::memory_order_relaxed);
  metrics_.clock_suspect.with({}).set(trust == policy::ClockGuard::Trust::trusted ? 0 : 1);
}

void Health::circuit_changed(store::SubjectId subject, CircuitBreaker::State state) {
  const std::scoped_lock lock(circuits_mutex_);
  ++circuit_changes_;
  for (Circuit& circuit : circuits_) {
    if (circuit.subject != subject) continue;  // an endpoint's circuit has no gauge
    circuit.last_change = circuit_changes_;
    circuit.gauge->set(gauge_value(state));
  }
}

/// A circuit that changed since the state was asked is newer than its view: it keeps what it was set to.
void Health::set_circuits(const Views& views, std::uint64_t changes_seen) {
  const std::scoped_lock lock(circuits_mutex_);
  for (const Circuit& circuit : circuits_) {
    const auto view = views.find(circuit.subject);
    if (view == views.end() || circuit.last_change > changes_seen) continue;
    circuit.gauge->set(gauge_value(view->second.circuit));
  }
}

void Health::set_gauges(Provider& provider, const SubjectView& view) {
  std::vector<SetGauge> gauges;
  for (const store::BudgetView& budget : view.budgets) {
    observe::Gauge& gauge = metrics_.budget_ratio.with({provider.name, to_string(budget.spec.window)});
    gauge.set(millionths((budget.settled + budget.held).count, budget.spec.limit.count));
    gauges.push_back({&gauge, 0});
  }
  for (const store::LimitView& limit : view.limits) {
    observe::Gauge& gauge = metrics_.rate_limit_remaining.with({provider.name, limit_type(limit.spec)});
    gauge.set(limit.remaining);
    gauges.push_back({&gauge, limit.spec.amount});
  }
  for (const store::LearnedView& learned : view.learned) {
    observe::Gauge& gauge = metrics_.learned_limit.with({provider.name, to_string(learned.dimension)});
    gauge.set(learned.limit);
    gauges.push_back({&gauge, 0});
  }
  if (const auto concurrency = concurrency_limit(view)) {
    observe::Gauge& gauge = metrics_.concurrency_limit.with({provider.name});
    gauge.set(*concurrency);
    gauges.push_back({&gauge, 0});
  }
  for (const SetGauge& before : provider.gauges)
    if (std::ranges::find(gauges, before.gauge, &SetGauge::gauge) == gauges.end())
      before.gauge->set(before.at_rest);
  provider.gauges = std::move(gauges);
}

Health::Views Health::provider_views(Now now) {
  std::vector<store::SubjectId> subjects;
  {
    const std::scoped_lock lock(mutex_);
    for (const Provider& provider : providers_) subjects.push_back(provider.subject);
  }
  Views views;
  if (subjects.empty()) return views;  // to the state, none would mean all: consumers by the thousand
  for (SubjectView& view : state_.view(now, subjects)) views.emplace(view.id, std::move(view));
  return views;
}

/// In the order of providers_. Pre: mutex_ is held.
std::vector<Health::Counts> Health::count_all() const {
  std::vector<Counts> out(providers_.size());
  std::map<std::string_view, Counts*> by_name;
  for (std::size_t i = 0; i < providers_.size(); ++i) {
    std::vector<std::int64_t>& durations = out[i].durations;
    durations.assign(metrics_.duration.bounds().size() + 1, 0);
    for (const observe::Histogram* series : providers_[i].durations)
      for (std::size_t bucket = 0; bucket < durations.size(); ++bucket)
        durations[bucket] += series->bucket(bucket);
    by_name.emplace(providers_[i].name, &out[i]);
  }
  metrics_.calls.visit([&](const std::vector<std::string>& labels, const observe::Counter& series) {
    const auto found = by_name.find(labels[0]);
    const Verdict verdict = verdict_of(labels[2]);
    if (found == by_name.end() || verdict == Verdict::unrelated) return;
    const std::int64_t count = series.value();
    found->second->attempts += count;
    if (verdict == Verdict::error) found->second->errors += count;
  });
  return out;
}

std::optional<Answer> Health::answer(std::string_view path, Now now) {
  if (path == "/metrics") return Answer{200, kExposition, metrics_.exposition()};
  constexpr std::string_view kApi = "/api/v1";
  if (path.starts_with(kApi)) path.remove_prefix(kApi.size());
  constexpr std::string_view kHealth = "/health";
  if (!path.starts_with(kHealth)) return std::nullopt;
  path.remove_prefix(kHealth.size());
  if (path.empty()) return Answer{200, kJson, health_json(now)};
  if (path == "/live") return Answer{200, kJson, R"({"status":"alive"})"};
  if (path == "/ready") return ready();
  if (path == "/providers") return Answer{200, kJson, providers_json(now)};
  if (path == "/redis") return store_answer(ask_shared_state_);
  if (path == "/database") return store_answer(ask_ledger_);
  return std::nullopt;
}

void Health::set_stores(AskStore shared_state, AskStore ledger) {
  ask_shared_state_ = std::move(shared_state);
  ask_ledger_ = std::move(ledger);
}

Answer Health::ready() const {
  if (draining_.load(std::memory_order_relaxed)) return Answer{503, kJson, R"({"status":"draining"})"};
  using State = StoreStatus::State;
  State worst = State::ok;
  for (const AskStore* ask : {&ask_shared_state_, &ask_ledger_})
    if (*ask) worst = std::max(worst, (*ask)().state);
  if (worst == State::closed) return Answer{503, kJson, R"({"status":"closed"})"};
  return Answer{200, kJson,
                worst == State::ok ? R"({"status":"ready"})" : R"({"status":"ready","stores":"degraded"})"};
}

std::string Health::health_json(Now now) const {
  const auto uptime = std::chrono::duration_cast<seconds>(now.mono - started_);
  std::string out = "{";
  member(out, "status", "healthy");
  member(out, "version", version_);
  member(out, "uptime_seconds", std::max<std::int64_t>(uptime.count(), 0));
  member(out, "clock", policy::ClockGuard::to_string(clock_.load(std::memory_order_relaxed)));
  member(out, "timestamp", timestamp(now.wall));
  return out += '}';
}

std::string Health::providers_json(Now now) {
  const Views views = provider_views(now);
  const SubjectView unknown;  // for a moment in a reload
  bool all_healthy = true;
  std::string out = "{";
  key(out, "providers");
  out += '{';
  const std::scoped_lock lock(mutex_);
  const std::vector<Counts> counts = count_all();
  for (std::size_t i = 0; i < providers_.size(); ++i) {
    const Provider& provider = providers_[i];
    const auto found = views.find(provider.subject);
    const SubjectView& view = found == views.end() ? unknown : found->second;
    const Recent recent(window_begin(provider.snapshots, now.mono)->counts, counts[i],
                        metrics_.duration.bounds());

    std::string_view status = "healthy";
    if (view.circuit == CircuitBreaker::State::open) {
      status = "unhealthy";
    } else if (view.circuit == CircuitBreaker::State::half_open || recent.is_bad() ||
               std::ranges::any_of(view.budgets, is_nearly_spent)) {
      status = "degraded";
    }
    all_healthy = all_healthy && status == "healthy";

    key(out, provider.name);
    out += '{';
    member(out, "provider_id", provider.name);
    member(out, "status", status);
    key(out, "budget");
    append_budget(out, view, now.wall);
    key(out, "requests");
    out += '{';
    member(out, "requests_this_minute", view.starts_this_minute);
    member_or_null(out, "minute_limit", calls_limit(view, std::chrono::minutes{1}));
    member(out, "daily_count", view.starts_today);
    member_or_null(out, "daily_limit", calls_limit(view, std::chrono::hours{24}));
    out += '}';
    key(out, "circuit_breaker");
    out += '{';
    member(out, "state", to_string(view.circuit));
    member(out, "failure_count", view.circuit_failures);
    key(out, "can_request");
    out += view.circuit == CircuitBreaker::State::open ? "false" : "true";
    out += '}';
    key(out, "latency");
    out += '{';
    member_ms(out, "p50_ms", recent.p50);
    member_ms(out, "p95_ms", recent.p95);
    out += '}';
    member_or_null(out, "error_ratio", recent.error_millionths, 6);
    std::int64_t waiting = 0;
    for (const policy::WaitLane lane : policy::kAllWaitLanes)
      waiting += metrics_.queue_depth.with({provider.name, to_string(lane)}).value();
    member(out, "waiting", waiting);
    key(out, "limits");
    append_limits(out, view);
    key(out, "learned_limits");
    append_learned(out, view);
    member(out, "in_flight", std::int64_t{view.in_flight});
    member_or_null(out, "concurrency_limit", concurrency_limit(view));
    // Every budget counts the same overrun; the longest window remembers most of it.
    std::optional<NanoUsd> overrun;
    for (const store::BudgetView& budget : view.budgets)
      overrun = std::max(overrun.value_or(NanoUsd{}), budget.overrun);
    member_usd(out, "overrun_usd", overrun);
    out += '}';
  }
  out += '}';
  member(out, "status", all_healthy ? "healthy" : "degraded");
  member(out, "timestamp", timestamp(now.wall));
  return out += '}';
}

}  // namespace penstock::control
