#pragma once

#include <cstdint>
#include <expected>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "base/async.hpp"
#include "base/ids.hpp"
#include "base/money.hpp"
#include "base/reason.hpp"
#include "base/time.hpp"
#include "policy/budget.hpp"
#include "policy/circuit.hpp"
#include "policy/limit.hpp"
#include "policy/provider_gate.hpp"
#include "policy/retry.hpp"

namespace penstock::store {

/// What a budget or limit is for. An endpoint is a part of a provider with limits of its own.
enum class SubjectKind : std::uint8_t { provider, endpoint, route, team, consumer, key };
[[nodiscard]] std::string_view to_string(SubjectKind kind) noexcept;

/// A subject's place in the state; stays the same over reloads for the same kind and name.
using SubjectId = std::uint32_t;

/// A subject may have at most so many limits and budgets each, so that a hold has a fixed size and needs no
/// allocation. The configuration refuses more.
inline constexpr std::size_t kMaxLimits = 4;
inline constexpr std::size_t kMaxBudgets = 4;

struct SubjectSpec {
  SubjectKind kind = SubjectKind::provider;
  std::string name;  ///< "openai"; an endpoint's is "openai/chat"
  std::vector<policy::LimitSpec> limits;
  std::optional<std::uint32_t> concurrency;
  std::vector<policy::BudgetSpec> budgets;
  std::optional<policy::CircuitSpec> circuit;
  std::optional<policy::RetrySpec> retry;  ///< providers: the retry budget
  policy::GateSpec gate{};                 ///< providers: what of their answers is heeded
};

struct ReservationRequest {
  AttemptId id;
  std::span<const SubjectId>
      subjects;             ///< all that the attempt counts for; at most kMaxSubjects; lives until the answer
  NanoUsd estimate{};       ///< >= 0, held against every budget
  std::int64_t tokens = 0;  ///< >= 0, counted in every token limit
  nanoseconds lease{};      ///< how long the hold stands without a settlement
  bool is_retry = false;    ///< retries do not add to the provider's retry budget
  Now now;
  std::uint32_t limit_class = 0;  ///< what the provider counts apart: a model, else an endpoint
  std::int64_t input_tokens = 0;  ///< of `tokens`
};
inline constexpr std::size_t kMaxSubjects = 6;

struct Refusal {
  Reason reason = Reason::gateway_error;
  SubjectId subject = 0;      ///< the first that said no
  nanoseconds retry_after{};  ///< when it may fit; nanoseconds::max(): never
  bool opens_early = false;   ///< a settlement may make room before that: concurrency, tokens, trials;
                              ///< told only where nothing else stands in the way
};

/// How a reservation ends.
enum class Ending : std::uint8_t {
  actual,    ///< what it cost is known
  estimate,  ///< it may have been billed; charged at the estimate
  released,  ///< it never left, or is known to be free
};

struct Settlement {
  AttemptId id;
  Ending ending = Ending::estimate;
  NanoUsd cost{};            ///< of `actual`, >= 0
  std::int64_t tokens = -1;  ///< really used; -1: as estimated
  policy::CircuitBreaker::Outcome outcome = policy::CircuitBreaker::Outcome::abandoned;
  nanoseconds first_byte{};  ///< zero: none
  Now now;
};

/// What the answer to an attempt tells about its provider's limits.
struct Lesson {
  AttemptId id;
  policy::LimitSigns signs;
  MonotonicTime now;
};

/// What an operator sees of a subject.
struct BudgetView {
  policy::BudgetSpec spec;  ///< its limit: the one in force, an override's while there is one
  NanoUsd settled{};
  NanoUsd held{};
  NanoUsd overrun{};
  policy::WindowSpan span;
};
struct LimitView {
  policy::LimitSpec spec;
  std::int64_t used = 0;
  std::int64_t remaining = 0;
};
/// Of all classes of calls the lowest.
struct LearnedView {
  policy::LimitDimension dimension{};
  std::int64_t limit = 0;  ///< as the provider tells it, or found, per minute; 0: only `remaining` is known
  std::int64_t remaining = 0;
};
struct SubjectView {
  SubjectId id = 0;
  SubjectKind kind = SubjectKind::provider;
  std::string name;
  std::vector<BudgetView> budgets;
  std::vector<LimitView> limits;
  std::uint32_t in_flight = 0;
  std::optional<std::uint32_t> concurrency;
  policy::CircuitBreaker::State circuit = policy::CircuitBreaker::State::closed;
  std::int64_t circuit_failures = 0;
  std::int64_t starts_this_minute = 0;  ///< attempts of the last 60 s
  std::int64_t starts_today = 0;        ///< attempts of this UTC day
  std::vector<LearnedView> learned{};   ///< from the provider's answers
  std::optional<std::uint32_t> learned_concurrency{};
};

class History;

/// Counters, holds and circuits of all subjects, shared by all workers (and replicas, where the backend is
/// shared).
///
/// A reservation ends exactly once (G3): settled, or expired by its lease, which charges the estimate; a
/// settlement that comes after that corrects the charge, once. Thread-safe.
class SharedState {
 public:
  struct Listener {
    std::function<void(SubjectId, policy::CircuitBreaker::State)> circuit_changed;
    std::function<void(SubjectId, NanoUsd)> overrun;  ///< a provider billed more than the estimate
    std::function<void(AttemptId)> lease_expired;     ///< charged at its estimate
  };

  SharedState() = default;
  SharedState(const SharedState&) = delete;
  SharedState& operator=(const SharedState&) = delete;
  virtual ~SharedState() = default;

  /// Called before the first reservation; callbacks may come from any thread, under a lock: they only set
  /// metrics.
  virtual void listen(Listener listener) = 0;

  /// What budgets and limits that are new to the state have counted before; null: nothing. Outlives the
  /// state.
  virtual void set_history(const History* history) = 0;

  /// Takes the subjects of a configuration, whole. Known ones (kind and name) keep their counts; others start
  /// with what the history tells; those that are gone are forgotten when nothing is held for them. Returns
  /// the ids in the order of `specs`.
  virtual std::vector<SubjectId> declare(std::span<const SubjectSpec> specs, Now now) = 0;

  /// Holds `estimate` and counts the attempt for every subject, in one atomic step: circuit, budgets,
  /// concurrency, limits.
  ///
  /// Errors: policy_circuit_open, policy_budget_exceeded, policy_rate_limited (limits, concurrency, what the
  ///         provider's answers taught, and its own Retry-After): nothing was held; policy_state_unavailable:
  ///         no answer in time; may or may not be held.
  /// Retry:  safe with the same id: the first one wins.
  /// Source: docs/decisions/0002-reserve-then-settle.md
  [[nodiscard]] virtual Awaitable<std::expected<void, Refusal>> reserve(ReservationRequest request) = 0;

  /// Ends a reservation. Never waits: a remote backend queues it. Unknown and already settled ids change
  /// nothing.
  virtual void settle(const Settlement& settlement) noexcept = 0;

  /// Heeds what an answer tells, between the attempt's reservation and its settlement; never waits. Each
  /// replica learns from its own answers, in its own memory. Unknown and settled ids change nothing.
  virtual void learn(const Lesson& lesson) noexcept { (void)lesson; }

  /// A provider said 429: nothing starts for it before `until`. Never shortens an earlier pause; capped by
  /// the caller.
  virtual void pause(SubjectId provider, MonotonicTime until) noexcept = 0;

  /// Whether the provider's retry budget allows one more attempt; takes it if so.
  [[nodiscard]] virtual bool try_retry(SubjectId provider, MonotonicTime now) noexcept = 0;

  /// Ends what has outlived its lease. Called about once a second.
  virtual void reap(Now now) = 0;

  /// What stands in the state now, of the subjects in `only` (empty: of all), in the order of their ids. Ids
  /// that are forgotten or unknown are left out.
  [[nodiscard]] virtual std::vector<SubjectView> view(Now now, std::span<const SubjectId> only) = 0;
};

}  // namespace penstock::store
