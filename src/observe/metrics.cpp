#include "observe/metrics.hpp"

#include <stdexcept>
#include <utility>

#include "observe/text.hpp"

namespace penstock::observe {
namespace {

constexpr std::int64_t kMicro = 1'000;
constexpr std::int64_t kMilli = 1'000'000;
constexpr std::int64_t kSecond = 1'000'000'000;

/// Calls to providers: a geocoder answers in milliseconds, a language model in minutes.
constexpr std::int64_t kCallBounds[] = {
    5 * kMilli,    10 * kMilli, 25 * kMilli,  50 * kMilli,  100 * kMilli, 250 * kMilli, 500 * kMilli, kSecond,
    2500 * kMilli, 5 * kSecond, 10 * kSecond, 20 * kSecond, 30 * kSecond, 60 * kSecond, 120 * kSecond};
/// What the gateway itself adds: microseconds when it is well.
constexpr std::int64_t kOverheadBounds[] = {20 * kMicro,  35 * kMicro,   50 * kMicro,  75 * kMicro,
                                            100 * kMicro, 150 * kMicro,  250 * kMicro, 500 * kMicro,
                                            kMilli,       2500 * kMicro, 5 * kMilli,   10 * kMilli,
                                            25 * kMilli,  50 * kMilli,   100 * kMilli};
/// A turn that comes at once, up to batch work that waits for the next minute's limit.
constexpr std::int64_t kWaitBounds[] = {kMilli,        5 * kMilli,    10 * kMilli,  50 * kMilli,
                                        100 * kMilli,  250 * kMilli,  500 * kMilli, kSecond,
                                        2500 * kMilli, 5 * kSecond,   10 * kSecond, 30 * kSecond,
                                        60 * kSecond,  120 * kSecond, 300 * kSecond};
/// fsync: a good NVMe drive, up to a disk in trouble.
constexpr std::int64_t kSyncBounds[] = {50 * kMicro,  100 * kMicro,  250 * kMicro, 500 * kMicro,
                                        kMilli,       2500 * kMicro, 5 * kMilli,   10 * kMilli,
                                        25 * kMilli,  50 * kMilli,   100 * kMilli, 250 * kMilli,
                                        500 * kMilli, kSecond,       2500 * kMilli};

constexpr Scale kUnits{0};
constexpr Scale kMillionths{6};
constexpr Scale kNano{9};

constexpr std::string_view kOther = "other";

void append_decimal(std::string& out, std::int64_t value, int decimals) {
  char text[kMaxDecimal];
  out.append(text, write_decimal(value, decimals, text));
}

/// A label's value: backslash, quote and line feed escaped; bytes that are not UTF-8 and other control
/// characters replaced, since one of them would make a scraper refuse the whole page.
void append_label_value(std::string& out, std::string_view text) {
  while (!text.empty()) {
    const char c = text.front();
    std::size_t used = 1;
    if (c == '\\' || c == '"') {
      out += '\\';
      out += c;
    } else if (c == '\n') {
      out += "\\n";
    } else if (used = utf8_sequence(text); used == 0 || (c >= 0 && c < ' ') || c == 0x7F) {
      out += kReplacement;
      used = 1;
    } else {
      out.append(text, 0, used);
    }
    text.remove_prefix(used);
  }
}

void append_help(std::string& out, std::string_view text) {
  for (const char c : text) {
    if (c == '\\') out += '\\';
    if (c == '\n') {
      out += "\\n";
    } else {
      out += c;
    }
  }
}

/// `provider="openai",lane="batch"`, without braces, so that a histogram can add `le`.
std::string label_pairs(const std::vector<std::string>& names, const std::vector<std::string>& values) {
  std::string pairs;
  for (std::size_t i = 0; i < names.size(); ++i) {
    if (i != 0) pairs += ',';
    pairs += names[i];
    pairs += "=\"";
    append_label_value(pairs, values[i]);
    pairs += '"';
  }
  return pairs;
}

void append_sample(std::string& out, std::string_view name, std::string_view suffix, std::string_view pairs,
                   std::int64_t value, int decimals) {
  out += name;
  out += suffix;
  if (!pairs.empty()) {
    out += '{';
    out += pairs;
    out += '}';
  }
  out += ' ';
  append_decimal(out, value, decimals);
  out += '\n';
}

void append_series(std::string& out, std::string_view name, const std::string& pairs, const Histogram& series,
                   Scale scale) {
  const auto bounds = series.bounds();
  std::int64_t cumulative = 0;
  std::string with_le;
  for (std::size_t i = 0; i <= bounds.size(); ++i) {
    cumulative += series.bucket(i);
    with_le = pairs;
    with_le += pairs.empty() ? "le=\"" : ",le=\"";
    if (i < bounds.size()) {
      append_decimal(with_le, bounds[i], scale.decimals);
    } else {
      with_le += "+Inf";
    }
    with_le += '"';
    append_sample(out, name, "_bucket", with_le, cumulative, 0);
  }
  append_sample(out, name, "_sum", pairs, series.sum_ns(), scale.decimals);
  append_sample(out, name, "_count", pairs, cumulative,
                0);  // what was read above: it must equal the +Inf bucket
}

template <class Series>
void append_series(std::string& out, std::string_view name, const std::string& pairs, const Series& series,
                   Scale scale) {
  append_sample(out, name, "", pairs, series.value(), scale.decimals);
}

constexpr std::string_view name_of(Kind kind) noexcept {
  switch (kind) {
    case Kind::counter: return "counter";
    case Kind::gauge: return "gauge";
    case Kind::histogram: return "histogram";
  }
  return "untyped";
}

}  // namespace

Histogram::Histogram(std::span<const std::int64_t> bounds_ns)
    : bounds_(bounds_ns), buckets_(bounds_ns.size() + 1) {}

void Histogram::observe(nanoseconds value) noexcept {
  const std::int64_t ns = std::max<std::int64_t>(value.count(), 0);
  std::size_t i = 0;
  for (const std::int64_t bound : bounds_) i += ns > bound ? 1 : 0;
  buckets_[i].fetch_add(1, std::memory_order_relaxed);
  sum_.fetch_add(ns, std::memory_order_relaxed);
}

std::int64_t Histogram::bucket(std::size_t i) const noexcept {
  return buckets_[i].load(std::memory_order_relaxed);
}

std::int64_t Histogram::sum_ns() const noexcept { return sum_.load(std::memory_order_relaxed); }

std::int64_t Histogram::count() const noexcept {
  std::int64_t count = 0;
  for (const auto& bucket : buckets_) count += bucket.load(std::memory_order_relaxed);
  return count;
}

nanoseconds Histogram::quantile(double q) const noexcept {
  const std::int64_t total = count();
  if (total == 0 || bounds_.empty()) return nanoseconds{0};
  const double rank = std::clamp(q, 0.0, 1.0) * static_cast<double>(total);
  double below = 0;
  for (std::size_t i = 0; i < bounds_.size(); ++i) {
    const auto here = static_cast<double>(bucket(i));
    if (here > 0 && below + here >= rank) {
      const double low = i == 0 ? 0.0 : static_cast<double>(bounds_[i - 1]);
      const double width = static_cast<double>(bounds_[i]) - low;
      return nanoseconds{static_cast<std::int64_t>(low + width * (rank - below) / here)};
    }
    below += here;
  }
  return nanoseconds{bounds_.back()};  // above the last bound nothing is known but that
}

template <class Series>
Family<Series>::Family(std::string name, std::string help, Kind kind, std::vector<std::string> labels,
                       Scale scale, std::span<const std::int64_t> bounds, std::size_t max_series)
    : name_(std::move(name)),
      help_(std::move(help)),
      kind_(kind),
      labels_(std::move(labels)),
      scale_(scale),
      bounds_(bounds),
      max_series_(max_series) {}

template <class Series>
Series& Family<Series>::with(std::initializer_list<std::string_view> label_values) {
  if (label_values.size() != labels_.size()) throw std::logic_error("wrong number of labels for " + name_);
  const std::lock_guard lock(mutex_);
  if (const auto found = index_.find(label_values); found != index_.end()) return *found->second;
  if (other_ != nullptr) return *other_;
  std::vector<std::string> values(label_values.begin(), label_values.end());
  const bool full = index_.size() >= max_series_;
  if (full) {
    values.assign(labels_.size(), std::string(kOther));
    if (const auto found = index_.find(values); found != index_.end()) return *(other_ = found->second);
  }
  Series* series = nullptr;
  if constexpr (std::is_same_v<Series, Histogram>) {
    series = &series_.emplace_back(bounds_);
  } else {
    series = &series_.emplace_back();
  }
  index_.emplace(std::move(values), series);
  if (full) other_ = series;
  return *series;
}

template <class Series>
std::size_t Family<Series>::size() const {
  const std::lock_guard lock(mutex_);
  return index_.size();
}

template <class Series>
void Family<Series>::write(std::string& out) const {
  out += "# HELP ";
  out += name_;
  out += ' ';
  append_help(out, help_);
  out += "\n# TYPE ";
  out += name_;
  out += ' ';
  out += name_of(kind_);
  out += '\n';

  visit([&](const std::vector<std::string>& values, const Series& series) {
    append_series(out, name_, label_pairs(labels_, values), series, scale_);
  });
}

template class Family<Counter>;
template class Family<Gauge>;
template class Family<Histogram>;

Metrics::Metrics()
    : budget_ratio("external_api_budget_ratio",
                   "Settled and held spend over the limit of a provider's budget, 0 to 1.", Kind::gauge,
                   {"provider", "budget_type"}, kMillionths),
      rate_limit_remaining("external_api_rate_limit_remaining",
                           "Calls or tokens left in a provider's limit now.", Kind::gauge,
                           {"provider", "limit_type"}, kUnits),
      circuit_state("external_api_circuit_breaker_state",
                    "A provider's circuit: 0 closed, 1 half-open, 2 open.", Kind::gauge, {"provider"},
                    kUnits),
      calls("external_api_calls_total", "Attempts at a provider, by the status that came back.",
            Kind::counter, {"provider", "endpoint", "status"}, kUnits),
      duration("external_api_duration_seconds",
               "Time of an attempt, from sending it to the end of the answer.", Kind::histogram,
               {"provider", "endpoint"}, kNano, kCallBounds),
      credit_used("external_api_credit_used_total", "What a provider's attempts cost, in USD.", Kind::counter,
                  {"provider", "credit_type"}, kNano),
      tokens("llm_tokens_total", "Tokens that language models billed.", Kind::counter,
             {"provider", "model", "token_type"}, kUnits),
      http_duration("http_request_duration_seconds",
                    "Time of a request to the gateway, from its first byte to its last.", Kind::histogram,
                    {"method", "endpoint", "status_code"}, kNano, kCallBounds),
      cache_hits("cache_hits_total", "Calls that a cache answered.", Kind::counter, {"cache_type"}, kUnits),
      cache_misses("cache_misses_total", "Calls that a cache was asked for and could not answer.",
                   Kind::counter, {"cache_type"}, kUnits),
      admissions("penstock_admissions_total",
                 "Decisions on attempts: admitted, made to wait or refused, and why.", Kind::counter,
                 {"provider", "decision", "reason"}, kUnits),
      queue_depth("penstock_queue_depth", "Calls that wait in a provider's line now.", Kind::gauge,
                  {"provider", "lane"}, kUnits),
      queue_wait("penstock_queue_wait_seconds", "Time that calls waited in a provider's line.",
                 Kind::histogram, {"provider", "lane"}, kNano, kWaitBounds),
      overhead("penstock_gateway_overhead_seconds", "A call's time less its provider's.", Kind::histogram, {},
               kNano, kOverheadBounds),
      overrun("penstock_budget_overrun_usd_total",
              "Spend that a provider billed above the estimate it was admitted with.", Kind::counter,
              {"provider"}, kNano),
      state_degraded("penstock_state_degraded",
                     "1 while a store cannot be reached and its rules for that apply.", Kind::gauge,
                     {"store"}, kUnits),
      journal_sync("penstock_journal_sync_seconds", "Time of one fsync of the journal.", Kind::histogram, {},
                   kNano, kSyncBounds),
      journal_unapplied("penstock_journal_unapplied_bytes",
                        "Journal files that the ledger's database does not have all of yet.", Kind::gauge, {},
                        kUnits),
      ledger_behind("penstock_ledger_behind_seconds",
                    "For how long there has been something in the journal that the database lacks.",
                    Kind::gauge, {}, kNano),
      journal_lost("penstock_journal_lost_records_total",
                   "Ends of attempts and calls that the journal could not take; the attempts count at their "
                   "estimate.",
                   Kind::counter, {}, kUnits),
      build_info("penstock_build_info", "1, with the version that runs.", Kind::gauge, {"version"}, kUnits),
      unmetered("penstock_unmetered_total", "Answers without readable usage, charged at their bound.",
                Kind::counter, {"provider", "endpoint"}, kUnits),
      retries("penstock_retries_total",
              "Retries of a provider's failed attempts: made, or refused by the retry budget.", Kind::counter,
              {"provider", "outcome"}, kUnits),
      reservations_expired("penstock_reservations_expired_total",
                           "Reservations that nobody settled in time; they count as spent at their estimate.",
                           Kind::counter, {}, kUnits),
      connections("penstock_connections", "Open connections: downstream from callers, upstream to providers.",
                  Kind::gauge, {"side"}, kUnits),
      connections_opened("penstock_connections_opened_total", "Connections opened since the start.",
                         Kind::counter, {"side"}, kUnits),
      clock_suspect("penstock_clock_suspect",
                    "1 while the wall clock has jumped and is not believed; budgets keep to their windows.",
                    Kind::gauge, {}, kUnits),
      log_lines_dropped("penstock_log_lines_dropped_total",
                        "Log lines lost because the log could not be written in time.", Kind::counter, {},
                        kUnits),
      learned_limit("penstock_learned_limit",
                    "A provider's own limit, as its answers tell it or its refusals taught it; 0: not known.",
                    Kind::gauge, {"provider", "limit_type"}, kUnits),
      concurrency_limit("penstock_concurrency_limit",
                        "Attempts that may be in flight at a provider, configured or learned; 0: any number.",
                        Kind::gauge, {"provider"}, kUnits) {
  // The series without labels cannot but exist: they show from the start, at zero.
  overhead.with({});
  journal_sync.with({});
  journal_unapplied.with({});
  ledger_behind.with({});
  journal_lost.with({});
  reservations_expired.with({});
  clock_suspect.with({});
  log_lines_dropped.with({});
}

std::string Metrics::exposition() const {
  std::string out;
  out.reserve(64 * 1024);
  for_each([&](const auto& family) { family.write(out); });
  return out;
}

}  // namespace penstock::observe
