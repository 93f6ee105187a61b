#pragma once

#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include <boost/container/small_vector.hpp>

#include "base/ids.hpp"
#include "base/result.hpp"
#include "gateway/meter/request_facts.hpp"
#include "gateway/worker.hpp"
#include "http/exchange.hpp"
#include "store/ledger.hpp"

namespace penstock::gateway {

/// One attempt, from its reservation to its settlement.
struct Attempt {
  AttemptId id;
  const ProviderPlan* provider = nullptr;
  const EndpointPlan* endpoint = nullptr;
  const ModelPlan* model = nullptr;
  policy::UsageBound bound;
  NanoUsd estimate{};
  NanoUsd cost{};
  bool cost_estimated = false;
  policy::Usage usage;
  store::Ending ending = store::Ending::released;
  int status = 0;  ///< the provider's; 0: no answer
  std::optional<Reason> reason;
  MonotonicTime began{};
  nanoseconds first_byte{};
  nanoseconds duration{};
};

/// One request of a consumer, from arrival to its record. Lives in the connection's coroutine.
struct Call {
  Call(http::Exchange& its_exchange, Worker& its_worker)
      : exchange(its_exchange),
        worker(its_worker),
        generation(its_worker.generation),
        snapshot(generation->snapshot.get()),
        services(its_worker.services) {}

  http::Exchange& exchange;
  Worker& worker;
  std::shared_ptr<const Generation> generation;  ///< the configuration that this call began with
  const Snapshot* snapshot;
  Services& services;
  CallId id{};
  Now now{};  ///< of the last decision

  // authenticate
  std::shared_ptr<const store::KeyEntry> key;      ///< null: anonymous
  http::FieldId key_field = http::FieldId::other;  ///< where it stood: never forwarded

  // limit
  bool limited = false;  ///< an inbound limit applied: its state is told in the answer
  policy::LimitSpec limit;
  store::CallerLimits::Answer limit_answer;

  // match
  const RoutePlan* route = nullptr;
  boost::container::small_vector<const ProviderPlan*, 4> targets;  ///< in the order of trying
  std::string_view path;  ///< for the provider, with its leading slash
  std::string_view tag;
  std::optional<milliseconds> wait_asked;      ///< Penstock-Wait
  std::optional<policy::WaitLane> lane_asked;  ///< Penstock-Lane

  // read
  std::string_view body;
  bool body_is_whole = false;  ///< it can be sent again
  std::string changed_body;    ///< with usage asked for, where a provider is configured so
  RequestFacts facts;
  std::optional<CallKind> facts_kind;  ///< what `facts` was read as: providers of a route may differ

  // attempts
  boost::container::small_vector<Attempt, 2> attempts;
  nanoseconds waited{};
  std::optional<Error> refusal;  ///< why there is no provider's answer

  [[nodiscard]] NanoUsd cost() const noexcept {
    NanoUsd sum{};
    for (const Attempt& attempt : attempts) sum += attempt.cost;
    return sum;
  }
};

/// What a phase decides about the rest of the way.
enum class Step : std::uint8_t {
  next,
  refuse,  ///< `call.refusal` says why; the way goes on with record and respond
  wait,    ///< of admit: refused now, but waiting may mend it within the call's time
};

[[nodiscard]] inline Step refuse_call(Call& call, Error error) {
  call.refusal = std::move(error);
  return Step::refuse;
}

}  // namespace penstock::gateway
