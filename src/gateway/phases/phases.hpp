#pragma once

#include <boost/container/static_vector.hpp>

#include "base/async.hpp"
#include "gateway/call.hpp"

/// The phases of a call, one file each. Those that never wait are plain functions; the others are coroutines.
namespace penstock::gateway {

/// Who calls: Authorization: Bearer pk_…, X-Penstock-Key, or a provider SDK's own key field when it holds a
/// pk_ key.
[[nodiscard]] Step authenticate(Call& call);

/// The caller's inbound limit, from local memory.
[[nodiscard]] Step limit_caller(Call& call);

/// Path to provider or route, and whether this caller may use it. Checks the steering headers.
[[nodiscard]] Step match_route(Call& call);

/// Reads the body where it decides the cost or can be kept for a retry; a large one that does not is streamed
/// later.
[[nodiscard]] Awaitable<Step> read_request_body(Call& call);
/// The same where the whole body has come with the head; false where it has not.
[[nodiscard]] bool take_request_body(Call& call);

/// All that an attempt counts for: its provider, then what is its own.
using Subjects = boost::container::static_vector<store::SubjectId, store::kMaxSubjects>;
[[nodiscard]] Subjects subjects_of(const Call& call, const Attempt& attempt);

enum class Patience : std::uint8_t { none, line };
struct Admission {
  bool is_retry = false;
  Patience patience = Patience::none;
};
/// Prices the attempt and holds that, in one atomic step over all subjects. Without patience `Step::wait`
/// says that asking again with it may help; with it the call waits for its turn first.
[[nodiscard]] Awaitable<Step> admit(Call& call, Attempt& attempt, Admission how);

/// How long the call may still wait at this provider after a refusal for `reason`.
[[nodiscard]] nanoseconds time_to_wait(const Call& call, const ProviderPlan& provider, Reason reason);
/// The call as those who wait see it. `own` lives as long as the result is used.
[[nodiscard]] ProviderLine::Arrival arrival_of(const Call& call, const Attempt& attempt,
                                               std::span<const store::SubjectId> own, MonotonicTime now);
/// Waits for the call's turn and reserves. Errors: those of reserve; policy_queue_full,
/// policy_deadline_exceeded, caller_cancelled.
[[nodiscard]] Awaitable<std::expected<void, store::Refusal>> wait_turn(Call& call, const Attempt& attempt,
                                                                       store::ReservationRequest request);

/// Whether a failed attempt may be followed by another; asked once a failure is known, because a yes spends
/// retry budget.
class RetryDecision {
 public:
  RetryDecision(Call& call, const Attempt& attempt, std::uint32_t attempts_at_target, bool has_fallback)
      : call_(call),
        attempt_(attempt),
        attempts_at_target_(attempts_at_target),
        has_fallback_(has_fallback) {}

  /// `unsent`: nothing reached the provider, so repeating is safe and free. `retry_after`: what the provider
  /// asked for.
  [[nodiscard]] bool may_follow(bool unsent, std::optional<nanoseconds> retry_after);
  /// Whether an answer with this status is held back for another attempt rather than passed on.
  [[nodiscard]] bool may_replace(int status, std::optional<nanoseconds> retry_after);

  enum class Next : std::uint8_t { none, same_target, next_target };
  [[nodiscard]] Next next() const noexcept { return next_; }
  [[nodiscard]] nanoseconds wait() const noexcept { return wait_; }

 private:
  Call& call_;
  const Attempt& attempt_;
  std::uint32_t attempts_at_target_;
  bool has_fallback_;
  Next next_ = Next::none;
  nanoseconds wait_{};
};

/// How an attempt went.
enum class Outcome : std::uint8_t {
  replied,  ///< the provider's answer went to the caller, or the caller left: the call ends here
  failed,   ///< nothing was passed on; `call.refusal` says why, `decision.next()` what may follow
};
/// Sends the request and passes the answer on as it comes, metered. The attempt's reservation is settled when
/// it ends, whatever happens.
[[nodiscard]] Awaitable<Outcome> forward(Call& call, Attempt& attempt, RetryDecision& decision);

/// Ends the attempt's reservation: what it cost, what its tokens were, what it says about the provider's
/// health.
void settle(Call& call, Attempt& attempt, policy::CircuitBreaker::Outcome outcome);

/// Metrics, ledger and log line. Never waits.
void record(Call& call);

/// Replies to a call that has no provider's answer.
[[nodiscard]] Awaitable<void> respond(Call& call);

/// The fields that every answer of a call carries: Penstock-Call, -Provider, -Waited, the caller's limit.
void append_answer_fields(Call& call, std::string& head);

}  // namespace penstock::gateway
