#pragma once

#include <atomic>
#include <deque>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include <boost/unordered/unordered_flat_map.hpp>

#include "base/name.hpp"
#include "base/result.hpp"
#include "config/config.hpp"
#include "gateway/meter/request_facts.hpp"
#include "gateway/provider_line.hpp"
#include "gateway/series.hpp"
#include "http/client.hpp"
#include "observe/metrics.hpp"
#include "policy/clock_guard.hpp"
#include "policy/price.hpp"
#include "store/directory.hpp"
#include "store/shared_state.hpp"

/// A configuration made ready for calls: every look-up that can be done once is done here. Immutable, but for
/// series made on first use. Replaced as a whole by a reload; a call keeps the one it began with.
namespace penstock::gateway {

struct ProviderPlan;

/// Token counters of one model of one provider, made on first use.
struct ModelPlan {
  Name name;  ///< the price entry's name: a closed set, unlike what callers type
  const policy::ModelPrice* price = nullptr;
  std::uint32_t limit_class = 0;  ///< providers limit models apart
  mutable SeriesByNumber<observe::Counter, 4> tokens;
};

struct EndpointPlan {
  Name name;  ///< "other" for what no pattern matches
  const config::Endpoint* config = nullptr;
  const policy::PriceList* prices = nullptr;
  std::string label;                        ///< of http_request_duration_seconds: "/p/openai/chat"
  std::optional<store::SubjectId> subject;  ///< where it has limits
  std::uint32_t limit_class = 0;            ///< where no model is known
  bool reads_request = false;               ///< the body bounds the cost: it is read whole before admission
  bool reads_answer = false;                ///< the body tells the cost
  observe::Histogram* duration = nullptr;
  observe::Counter* unmetered = nullptr;
  mutable SeriesByNumber<observe::Counter> calls;             // by status
  mutable SeriesByNumber<observe::Histogram> http_durations;  // by method and status
};

struct ProviderPlan {
  std::size_t index = 0;  ///< of the workers' pools
  Name name;
  const config::Provider* config = nullptr;
  store::SubjectId subject = 0;
  std::deque<EndpointPlan> endpoints;  // the last one is "other"
  std::string host_field;              ///< "Host: …\r\n"
  std::string credential_field;        ///< "Authorization: …\r\n" or empty; a secret
  std::string credential_query;        ///< "key=…" or empty; a secret
  http::Upstream upstream;
  nanoseconds lease{};
  policy::ClockSource clock_source = 0;  ///< its `Date` tells the time where ours is in doubt; 0: not asked
  mutable std::atomic<MonotonicTime> asked_time{};
  policy::GateSpec gate;
  /// Until then (steady clock, ns) every answer is told to the state, not only those that speak of limits: a
  /// hold waits for the first good one.
  mutable std::atomic<std::int64_t> attentive_until{0};
  observe::Counter* admitted = nullptr;
  observe::Counter* credit_actual = nullptr;
  observe::Counter* credit_estimated = nullptr;
  observe::Counter* retried = nullptr;
  observe::Counter* retry_refused = nullptr;
  std::shared_ptr<ProviderLine> line;
  mutable SeriesByNumber<observe::Counter> refused;  // by reason
  mutable SeriesByNumber<observe::Counter> waited;   // by reason
  boost::unordered_flat_map<const policy::ModelPrice*, std::unique_ptr<ModelPlan>> models;

  [[nodiscard]] const EndpointPlan& endpoint_of(std::string_view method,
                                                std::string_view path) const noexcept;
  [[nodiscard]] const ModelPlan* model_of(const policy::ModelPrice* price) const noexcept;
};

struct RoutePlan {
  Name name;
  const config::Route* config = nullptr;
  std::optional<store::SubjectId> subject;  ///< where it has budgets or limits
  std::vector<const ProviderPlan*> targets;
  std::vector<std::uint32_t> weights;
  std::uint32_t total_weight = 0;
};

class Snapshot {
 public:
  /// Declares every subject to `state` and every provider to `lines`. Errors: TLS files that cannot be read.
  [[nodiscard]] static Result<std::shared_ptr<const Snapshot>> make(config::Config given,
                                                                    store::SharedState& state,
                                                                    ProviderLines& lines,
                                                                    observe::Metrics& metrics, Now now);

  config::Config config;
  std::deque<ProviderPlan> providers;
  std::deque<RoutePlan> routes;
  boost::unordered_flat_map<std::string_view, const ProviderPlan*> provider_by_name;
  boost::unordered_flat_map<std::string_view, const RoutePlan*> route_by_name;
  boost::unordered_flat_map<store::SubjectId, const ProviderPlan*> provider_by_subject;
  std::vector<std::pair<store::KeyHash, store::KeyEntry>> keys;  ///< for the directory
  std::vector<store::SubjectSpec> subjects;  ///< as declared; what store::budget_changes compares
};

}  // namespace penstock::gateway
