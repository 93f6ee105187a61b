#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <deque>
#include <functional>
#include <initializer_list>
#include <map>
#include <mutex>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/time.hpp"

/// A registry of our own, because money must stay an exact integer and an observation must take no lock
/// (docs/decisions/0004-own-metrics-registry.md).
namespace penstock::observe {

/// How a raw integer becomes the number in the exposition: value / 10^decimals, written exactly.
struct Scale {
  int decimals = 0;  ///< 9 for nano-dollars in USD, 9 for nanoseconds in seconds
};

class Counter {
 public:
  void add(std::int64_t amount = 1) noexcept { value_.fetch_add(amount, std::memory_order_relaxed); }
  [[nodiscard]] std::int64_t value() const noexcept { return value_.load(std::memory_order_relaxed); }

 private:
  std::atomic<std::int64_t> value_{0};
};

class Gauge {
 public:
  void set(std::int64_t value) noexcept { value_.store(value, std::memory_order_relaxed); }
  void add(std::int64_t amount) noexcept { value_.fetch_add(amount, std::memory_order_relaxed); }
  [[nodiscard]] std::int64_t value() const noexcept { return value_.load(std::memory_order_relaxed); }

 private:
  std::atomic<std::int64_t> value_{0};
};

/// Durations in fixed buckets. The bucket is found by a short branch-free scan; sums are nanoseconds.
class Histogram {
 public:
  explicit Histogram(std::span<const std::int64_t> bounds_ns);
  void observe(nanoseconds value) noexcept;
  [[nodiscard]] std::span<const std::int64_t> bounds() const noexcept { return bounds_; }
  [[nodiscard]] std::int64_t bucket(
      std::size_t i) const noexcept;  ///< not cumulative; bounds().size() is +Inf
  [[nodiscard]] std::int64_t sum_ns() const noexcept;
  [[nodiscard]] std::int64_t count() const noexcept;
  /// An estimate by linear interpolation within the bucket; zero when nothing was observed.
  [[nodiscard]] nanoseconds quantile(double q) const noexcept;

 private:
  std::span<const std::int64_t> bounds_;
  std::vector<std::atomic<std::int64_t>> buckets_;
  std::atomic<std::int64_t> sum_{0};
};

enum class Kind : std::uint8_t { counter, gauge, histogram };

/// Compares lists of label values without making strings of views.
struct LabelLess {
  using is_transparent = void;
  template <class A, class B>
  bool operator()(const A& a, const B& b) const noexcept {
    return std::lexicographical_compare(a.begin(), a.end(), b.begin(), b.end(),
                                        std::less<std::string_view>{});
  }
};

/// All series of one name. `with` is for set-up, not for the call's way: callers keep the reference, which
/// stays valid as long as the registry. Above `max_series` every label becomes "other", so that the number of
/// series has a bound.
template <class Series>
class Family {
 public:
  Family(std::string name, std::string help, Kind kind, std::vector<std::string> labels, Scale scale,
         std::span<const std::int64_t> bounds = {}, std::size_t max_series = 10'000);
  /// As many values as labels, in their order; anything else is a bug and throws std::logic_error.
  Series& with(std::initializer_list<std::string_view> label_values);
  void write(std::string& out) const;  ///< HELP, TYPE and every series in the text exposition format
  /// Calls `f(label_values, series)` for every series, in the order of their labels. For reports: it copies
  /// pointers.
  template <class F>
  void visit(F&& f) const;
  [[nodiscard]] const std::string& name() const noexcept { return name_; }
  [[nodiscard]] Kind kind() const noexcept { return kind_; }
  [[nodiscard]] const std::vector<std::string>& labels() const noexcept { return labels_; }
  [[nodiscard]] const std::string& help() const noexcept { return help_; }
  [[nodiscard]] Scale scale() const noexcept { return scale_; }
  [[nodiscard]] std::span<const std::int64_t> bounds() const noexcept { return bounds_; }
  [[nodiscard]] std::size_t size() const;  ///< series made so far

 private:
  std::string name_;
  std::string help_;
  Kind kind_;
  std::vector<std::string> labels_;
  Scale scale_;
  std::span<const std::int64_t> bounds_;
  std::size_t max_series_;
  mutable std::mutex mutex_;
  std::map<std::vector<std::string>, Series*, LabelLess> index_;
  std::deque<Series> series_;
  Series* other_ = nullptr;  ///< set once the family is full
};

template <class Series>
template <class F>
void Family<Series>::visit(F&& f) const {
  // Only the pointers are taken under the lock: nothing is ever erased, and `f` may take its time.
  std::vector<std::pair<const std::vector<std::string>*, const Series*>> all;
  {
    const std::lock_guard lock(mutex_);
    all.reserve(index_.size());
    for (const auto& [values, series] : index_) all.emplace_back(&values, series);
  }
  for (const auto& [values, series] : all) f(*values, *series);
}

/// The catalogue: every metric of the gateway, once. Source: contracts/metrics.yaml (a test compares names,
/// kinds and labels).
struct Metrics {
  Metrics();
  Family<Gauge> budget_ratio;  ///< external_api_budget_ratio{provider,budget_type}; raw: parts per million
  Family<Gauge> rate_limit_remaining;  ///< external_api_rate_limit_remaining{provider,limit_type}
  Family<Gauge> circuit_state;         ///< external_api_circuit_breaker_state{provider}
  Family<Counter> calls;               ///< external_api_calls_total{provider,endpoint,status}
  Family<Histogram> duration;          ///< external_api_duration_seconds{provider,endpoint}
  Family<Counter> credit_used;      ///< external_api_credit_used_total{provider,credit_type}; raw: nano-USD
  Family<Counter> tokens;           ///< llm_tokens_total{provider,model,token_type}
  Family<Histogram> http_duration;  ///< http_request_duration_seconds{method,endpoint,status_code}
  Family<Counter> cache_hits;       ///< cache_hits_total{cache_type}
  Family<Counter> cache_misses;     ///< cache_misses_total{cache_type}
  Family<Counter> admissions;       ///< penstock_admissions_total{provider,decision,reason}
  Family<Gauge> queue_depth;        ///< penstock_queue_depth{provider,lane}
  Family<Histogram> queue_wait;     ///< penstock_queue_wait_seconds{provider,lane}
  Family<Histogram> overhead;       ///< penstock_gateway_overhead_seconds
  Family<Counter> overrun;          ///< penstock_budget_overrun_usd_total{provider}; raw: nano-USD
  Family<Gauge> state_degraded;     ///< penstock_state_degraded{store}
  Family<Histogram> journal_sync;   ///< penstock_journal_sync_seconds
  Family<Gauge> journal_unapplied;  ///< penstock_journal_unapplied_bytes
  Family<Gauge> ledger_behind;      ///< penstock_ledger_behind_seconds; raw: nanoseconds
  Family<Counter> journal_lost;     ///< penstock_journal_lost_records_total
  Family<Gauge> build_info;         ///< penstock_build_info{version}
  Family<Counter> unmetered;  ///< penstock_unmetered_total{provider,endpoint}: answers charged at their bound
  Family<Counter> retries;    ///< penstock_retries_total{provider,outcome}
  Family<Counter> reservations_expired;  ///< penstock_reservations_expired_total
  Family<Gauge> connections;             ///< penstock_connections{side}: downstream, upstream
  Family<Counter> connections_opened;    ///< penstock_connections_opened_total{side}
  Family<Gauge> clock_suspect;           ///< penstock_clock_suspect: 1 while the wall clock is not believed
  Family<Counter> log_lines_dropped;     ///< penstock_log_lines_dropped_total
  Family<Gauge> learned_limit;           ///< penstock_learned_limit{provider,limit_type}
  Family<Gauge> concurrency_limit;       ///< penstock_concurrency_limit{provider}

  [[nodiscard]] std::string exposition() const;

  /// Calls `f(family)` for each family, in the order of the catalogue.
  template <class F>
  void for_each(F&& f) const {
    f(budget_ratio), f(rate_limit_remaining), f(circuit_state), f(calls), f(duration), f(credit_used),
        f(tokens);
    f(http_duration), f(cache_hits), f(cache_misses), f(admissions), f(queue_depth), f(queue_wait),
        f(overhead);
    f(overrun), f(state_degraded), f(journal_sync), f(journal_unapplied), f(ledger_behind), f(journal_lost),
        f(build_info), f(unmetered), f(retries), f(reservations_expired);
    f(connections), f(connections_opened), f(clock_suspect), f(log_lines_dropped), f(learned_limit),
        f(concurrency_limit);
  }
};

extern template class Family<Counter>;
extern template class Family<Gauge>;
extern template class Family<Histogram>;

}  // namespace penstock::observe
