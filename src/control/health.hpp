#pragma once

#include <atomic>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/time.hpp"
#include "observe/metrics.hpp"
#include "policy/circuit.hpp"
#include "policy/clock_guard.hpp"
#include "store/shared_state.hpp"

namespace penstock::control {

/// A provider as health reports it.
struct ProviderInfo {
  std::string name;
  store::SubjectId subject = 0;
  std::vector<std::string> endpoints;  ///< names, "other" included
};

/// How a store that can be out of reach is doing.
struct StoreStatus {
  enum class State : std::uint8_t {
    ok,
    degraded,  ///< out of reach or slow; its rules for that apply, and calls go on where they can
    closed,    ///< nothing may be admitted
  };
  State state = State::ok;
  std::string problem;                                        ///< for operators, without secrets; empty: none
  std::vector<std::pair<std::string, std::int64_t>> numbers;  ///< shown as they are named, in this order
  std::vector<std::pair<std::string, std::string>> texts;
};
/// Asked for every answer, from any thread.
using AskStore = std::function<StoreStatus()>;

struct Answer {
  int status = 200;
  std::string_view content_type;
  std::string body;
};

/// Health, and the gauges of providers. Thread-safe. Costs nothing upstream: no provider is called.
///
/// Latency and errors are those of the last 5 minutes: what the metrics count now, less what they counted
/// then. The window slides by `update`, so it is up to 15 s longer; it is shorter after a start, and for a
/// new provider.
class Health {
 public:
  Health(store::SharedState& state, observe::Metrics& metrics, std::string version);

  /// At start and reload. A provider that stays keeps its window of latency and errors. A series lives as
  /// long as its registry, so the gauges of what is gone are set to rest (nothing used, circuit closed):
  /// nothing may go on alarming. Those of budgets and limits follow with the next update.
  void set_providers(std::vector<ProviderInfo> providers);
  /// Before the first answer. A store that is not given is "not_configured".
  void set_stores(AskStore shared_state, AskStore ledger);
  /// From now on `ready` says 503, so that no new callers are sent here.
  void set_draining();
  /// Sets all gauges of providers and slides the window. Every 15 s.
  void update(Now now);
  /// Sets the gauge at once. May be called under the state's lock: it takes only a leaf lock, briefly.
  void circuit_changed(store::SubjectId subject, policy::CircuitBreaker::State state);

  /// Sets the gauge; /health says it.
  void clock_changed(policy::ClockGuard::Trust trust);

  /// `ready` says 503 while draining and while a store lets nothing be admitted; a degraded one is told, with
  /// 200: calls still go through, and every replica would be degraded at once.
  ///
  /// /health, /health/live, /health/ready, /health/providers, /health/redis, /health/database (also under
  /// /api/v1) and /metrics; nothing for other paths. `path` is without its query.
  [[nodiscard]] std::optional<Answer> answer(std::string_view path, Now now);

 private:
  /// Of a provider, since the process began; both histogram and counters only grow.
  struct Counts {
    std::vector<std::int64_t> durations;  ///< by bucket, of all endpoints
    std::int64_t attempts = 0;            ///< less those whose caller left
    std::int64_t errors = 0;              ///< of them: 5xx, or no whole answer
  };
  struct Snapshot {
    MonotonicTime at;
    Counts counts;
  };
  /// A gauge that was set, and what it is to say when its budget or limit is gone.
  struct SetGauge {
    observe::Gauge* gauge = nullptr;
    std::int64_t at_rest = 0;
  };
  struct Provider {
    std::string name;
    store::SubjectId subject = 0;
    std::vector<const observe::Histogram*> durations;  ///< also of endpoints that are gone: their counts stay
    std::vector<SetGauge> gauges;                      ///< of budgets and limits, as of the last update
    std::deque<Snapshot> snapshots;  ///< oldest first, never empty; the first is where the window begins
  };
  struct Circuit {
    store::SubjectId subject = 0;
    observe::Gauge* gauge = nullptr;
    std::uint64_t last_change = 0;  ///< a value of circuit_changes_
  };
  struct Recent;
  using Views = std::map<store::SubjectId, store::SubjectView>;

  [[nodiscard]] Views provider_views(Now now);
  [[nodiscard]] std::vector<Counts> count_all() const;
  void set_gauges(Provider& provider, const store::SubjectView& view);
  void set_circuits(const Views& views, std::uint64_t changes_seen);
  [[nodiscard]] Answer ready() const;
  [[nodiscard]] std::string health_json(Now now) const;
  [[nodiscard]] std::string providers_json(Now now);

  store::SharedState& state_;
  observe::Metrics& metrics_;
  const std::string version_;
  const MonotonicTime started_;
  std::atomic<bool> draining_{false};
  AskStore ask_shared_state_;
  AskStore ask_ledger_;
  std::atomic<policy::ClockGuard::Trust> clock_{policy::ClockGuard::Trust::trusted};

  // Neither lock is ever held while the state is asked: circuit_changed comes under the state's own lock.
  std::mutex mutex_;
  std::vector<Provider> providers_;

  std::mutex circuits_mutex_;  // apart from mutex_, so that a change of a circuit waits for no report
  std::vector<Circuit> circuits_;
  std::uint64_t circuit_changes_ = 0;
};

}  // namespace penstock::control
