#pragma once

#include <atomic>
#include <expected>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <variant>
#include <vector>

#include "base/async.hpp"
#include "http/transport.hpp"
#include "observe/metrics.hpp"
#include "policy/line.hpp"
#include "store/shared_state.hpp"

namespace penstock::gateway {

/// One provider's waiting line, shared by all workers: policy::WaitingLine under a lock.
///
/// Only the one whose turn it is asks the shared state, on its own worker; the others sleep. Whoever changes
/// something wakes the next by a post to its worker, and one of those that wait keeps the timer of the next
/// gate, so that nothing polls and no timer belongs to nobody. Holds no money: budgets are asked by the same
/// reservation that starts the call. Thread-safe; outlives its calls by shared ownership.
class ProviderLine {
  struct Waiter;

 public:
  struct Arrival {
    policy::WaitLane lane = policy::WaitLane::standard;
    std::uint64_t consumer = 0;
    std::span<const store::SubjectId> own;  ///< beside the provider; lives as long as the call waits
    MonotonicTime deadline{};
    std::uint64_t bytes = 0;
    std::int64_t tokens = 0;
    bool waits_for_circuit = false;
  };

  /// A call's place. Its destructor gives it up, whatever became of the call. Belongs to one worker's thread.
  class Place {
   public:
    Place(std::shared_ptr<ProviderLine> line, const Arrival& arrival, Executor executor, http::Timer& timer);
    ~Place();
    Place(const Place&) = delete;
    Place& operator=(const Place&) = delete;

    /// Errors: policy_queue_full; policy_deadline_exceeded where the gateway stops.
    [[nodiscard]] std::expected<void, store::Refusal> enter(MonotonicTime now);

    struct Sleep {
      MonotonicTime until{};  ///< look again then, or when the timer is cancelled
    };
    struct Turn {};  ///< ask the state now, then say `started` or `refused`
    using Look = std::variant<Sleep, Turn, store::Refusal>;
    [[nodiscard]] Look look(MonotonicTime now);
    void started(MonotonicTime now);
    void refused(const store::Refusal& refusal, MonotonicTime now);
    /// For others on this thread who end the sleep early, until the place is given up: null then.
    [[nodiscard]] std::shared_ptr<http::Timer*> timer() const;

   private:
    std::shared_ptr<ProviderLine> line_;
    Arrival arrival_;
    std::shared_ptr<Waiter> waiter_;
  };

  ProviderLine(std::string_view provider, policy::LineSpec spec, observe::Metrics& metrics,
               std::atomic<std::size_t>& all_waiting);
  ProviderLine(const ProviderLine&) = delete;
  ProviderLine& operator=(const ProviderLine&) = delete;

  /// Nobody waits: the usual case, told without a lock.
  [[nodiscard]] bool empty() const noexcept { return waiting_.load(std::memory_order_relaxed) == 0; }

  /// What keeps a call that arrives from asking the state at once: those who wait already.
  struct HeldBack {
    Reason reason{};         ///< of those
    nanoseconds gate{};      ///< that no settlement opens; zero: none
    nanoseconds estimate{};  ///< of the wait, at least
  };
  [[nodiscard]] std::optional<HeldBack> holds_back(const Arrival& arrival, MonotonicTime now);
  /// A call passed by those who wait in lower lanes.
  void passed(policy::WaitLane lane);

  /// An attempt ended that counted for these subjects: there may be room.
  void settled(std::span<const store::SubjectId> subjects, MonotonicTime now);

  /// Limits may have changed: everything is asked again.
  void reconfigure(policy::LineSpec spec, MonotonicTime now);
  /// Sends everybody away, and all who come later.
  void close();

 private:
  enum class State : std::uint8_t { waiting, turn, out };
  struct Waiter {
    explicit Waiter(Executor its_executor, http::Timer& its_timer)
        : executor(its_executor), timer(std::make_shared<http::Timer*>(&its_timer)) {}
    Executor executor;
    std::shared_ptr<http::Timer*> timer;  // the pointer is its own thread's alone
    // Under the line's lock:
    policy::WaitingLine::Id id = 0;
    policy::WaitLane lane{};
    MonotonicTime entered{};
    bool waits_for_circuit = false;
    State state = State::waiting;
    store::Refusal refusal;  // of `out`
  };
  class Session;

  void take_out(policy::WaitingLine::Id id, const store::Refusal& refusal, MonotonicTime now,
                Session& session);
  void forget(policy::WaitingLine::Id id, MonotonicTime now);
  void pump(MonotonicTime now, Waiter* self, Session& session);
  [[nodiscard]] policy::WaitingLine::Arrival policy_arrival(const Arrival& arrival) const noexcept;

  std::mutex mutex_;
  policy::WaitingLine line_;
  std::unordered_map<policy::WaitingLine::Id, std::shared_ptr<Waiter>> waiters_;
  policy::WaitingLine::Id trying_ = 0;  // whose turn it is; 0: nobody's
  bool settled_meanwhile_ = false;      // while it asks
  Waiter* timekeeper_ = nullptr;        // of waiters_: wakes at ...
  MonotonicTime wakes_at_{};
  bool closed_ = false;
  std::atomic<std::size_t> waiting_{0};
  std::atomic<bool> wants_settlements_{false};
  std::atomic<std::size_t>& all_waiting_;
  std::array<observe::Gauge*, policy::kWaitLanes> depth_{};
  std::array<observe::Histogram*, policy::kWaitLanes> waited_{};
};

/// The lines of all providers, by name: they go on over reloads.
class ProviderLines {
 public:
  explicit ProviderLines(observe::Metrics& metrics) : metrics_(metrics) {}

  struct Wanted {
    std::string_view provider;
    policy::LineSpec spec;
  };
  /// Takes the providers of a configuration and returns their lines in that order. Calls that wait for one
  /// that is gone are refused.
  [[nodiscard]] std::vector<std::shared_ptr<ProviderLine>> declare(std::span<const Wanted> all,
                                                                   MonotonicTime now);
  /// The process stops: nobody waits any more.
  void close();
  [[nodiscard]] bool anyone_waits() const noexcept {
    return all_waiting_.load(std::memory_order_relaxed) != 0;
  }

 private:
  observe::Metrics& metrics_;
  std::atomic<std::size_t> all_waiting_{0};
  std::mutex mutex_;
  std::map<std::string, std::shared_ptr<ProviderLine>, std::less<>> lines_;
};

}  // namespace penstock::gateway
