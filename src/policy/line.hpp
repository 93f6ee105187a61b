#pragma once

#include <array>
#include <compare>
#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <span>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "base/reason.hpp"
#include "base/time.hpp"
#include "policy/limit.hpp"

namespace penstock::policy {

/// A priority class of the waiting line, the highest first.
enum class WaitLane : std::uint8_t { interactive, standard, batch };
inline constexpr std::size_t kWaitLanes = 3;
inline constexpr std::array<WaitLane, kWaitLanes> kAllWaitLanes{WaitLane::interactive, WaitLane::standard,
                                                                WaitLane::batch};
/// So many calls of a lane start in one round while all lanes have some: a lower lane is delayed, not
/// starved.
inline constexpr std::array<std::uint32_t, kWaitLanes> kLaneWeights{8, 4, 1};
[[nodiscard]] std::string_view to_string(WaitLane lane) noexcept;

struct LineSpec {
  std::size_t max_calls = 1'000;
  std::uint64_t max_bytes = 64ULL << 20U;  ///< of the waiting calls' bodies
  std::vector<LimitSpec> limits;           ///< the provider's: what the line can drain at most, for estimates
};

/// Who starts next at one provider, of the calls that cannot start now.
///
/// Between lanes weighted deficit round robin; a call is one unit, so the deficit is a number of calls.
/// Within a lane consumers take turns (start-time fair queueing: Goyal, Vin, Cheng 1996). Within a consumer
/// the earliest deadline goes first, then the earlier arrival.
///
/// A gate says that nothing that counts for a subject starts before a time. A gate of the provider stops the
/// whole line, one of a caller's own subject (key, consumer, team, route) or of an endpoint only those calls
/// that count for it.
///
/// Pure: no clock, lock or I/O; it holds no money and no limits either. Not thread-safe. Entering, leaving
/// and choosing take O(log n).
class WaitingLine {
 public:
  using Id = std::uint64_t;  ///< in the order of arrival, from 1
  using Subject = std::uint32_t;

  struct Arrival {
    WaitLane lane = WaitLane::standard;
    std::uint64_t consumer = 0;
    /// What the call counts for beside the provider; the same in the same order for calls of one kind.
    std::span<const Subject> own;
    MonotonicTime deadline{};
    std::uint64_t bytes = 0;
    std::int64_t tokens = 0;
  };
  struct Gate {
    Reason reason = Reason::policy_rate_limited;
    MonotonicTime until{};
    bool opens_early = false;  ///< a settlement may make room before `until`
  };

  explicit WaitingLine(LineSpec spec);
  WaitingLine(const WaitingLine&) = delete;
  WaitingLine& operator=(const WaitingLine&) = delete;

  /// Takes a place. Where the line is full, calls of lower lanes make room, those with the latest deadlines
  /// first: they are taken out and added to `displaced`. Nothing: full, and nobody of a lower lane is there.
  [[nodiscard]] std::optional<Id> enter(const Arrival& arrival, std::vector<Id>& displaced);
  /// Gives the place up, whatever the reason; false: there was none (any more).
  bool leave(Id id);
  /// Takes out everybody whose deadline is at `by` or before it.
  void expire(MonotonicTime by, std::vector<Id>& expired);

  /// Whose turn it is: the one that may try to start. The same one until something changes.
  [[nodiscard]] std::optional<Id> next(MonotonicTime now);
  /// It has started: charges its lane and consumer, and takes it out.
  void start(Id id, MonotonicTime now);
  /// It was refused for `subject`: a gate there. It stays in line.
  void block(Id id, Subject subject, Gate gate);
  /// While `next` has nobody: when a gate opens. MonotonicTime::max(): never by time alone.
  [[nodiscard]] MonotonicTime next_opening() const;

  /// A settlement made room at these subjects: opens their gates if they open early.
  void open(std::span<const Subject> subjects);
  void open_all();
  /// Whether a settlement could open something.
  [[nodiscard]] bool has_early_gate() const noexcept { return early_gates_ > 0; }

  /// What keeps a call that would not wait from passing by those who do; nothing: only lower lanes wait for
  /// what it needs, and its lane's share of this round is not used up. `until` is the gate's or `now`.
  [[nodiscard]] std::optional<Gate> holds_back(WaitLane lane, std::span<const Subject> own,
                                               MonotonicTime now);
  /// One passed by: counts against its lane's share.
  void passed(WaitLane lane) noexcept;

  /// How long a call that arrives now would wait at least: its gates, and those ahead of it at the fastest
  /// that the provider's limits allow (without limits: at the rate of the latest starts).
  [[nodiscard]] nanoseconds estimate(const Arrival& arrival, MonotonicTime now) const;

  [[nodiscard]] std::size_t size() const noexcept { return waiters_.size(); }
  [[nodiscard]] std::size_t size(WaitLane lane) const noexcept;
  [[nodiscard]] std::uint64_t bytes() const noexcept { return bytes_; }
  /// A smaller bound takes nobody out.
  void reconfigure(LineSpec spec) { spec_ = std::move(spec); }

 private:
  struct Place {
    MonotonicTime deadline{};
    Id id = 0;
    friend auto operator<=>(const Place&, const Place&) = default;
  };
  struct Consumer;
  /// Calls of one consumer that count for the same subjects, so that a gate stops all of them or none.
  struct Flow {
    Consumer* consumer = nullptr;
    std::vector<Subject> own;
    std::set<Place> queue;
    std::optional<Subject> stopped_by;
  };
  using Turn = std::pair<std::uint64_t, std::uint64_t>;  // virtual time, then the consumer's number
  struct Consumer {
    std::size_t lane = 0;
    std::uint64_t name = 0;
    Turn turn;
    std::map<std::vector<Subject>, Flow> flows;
    std::map<Place, Flow*> ready;  // the heads of flows that no gate is known to stop
  };
  struct Lane {
    std::unordered_map<std::uint64_t, Consumer> consumers;
    std::map<Turn, Consumer*> ready;  // those with a ready flow
    std::set<Place> deadlines;        // of all its calls
    std::uint64_t virtual_time = 0;   // of the last start
    std::uint32_t credit = 0;         // starts left in this round
  };
  struct Waiter {
    Flow* flow = nullptr;
    MonotonicTime deadline{};
    std::uint64_t bytes = 0;
    std::int64_t tokens = 0;
  };
  struct OwnGate {
    Gate gate;
    std::set<Flow*> flows;  // that it is known to stop
  };

  [[nodiscard]] static Lane& lane_of(std::array<Lane, kWaitLanes>& lanes, const Flow& flow) noexcept {
    return lanes[flow.consumer->lane];
  }
  [[nodiscard]] bool make_room(const Arrival& arrival, std::vector<Id>& displaced);
  void set_ready(Flow& flow);
  void set_not_ready(Flow& flow);
  void release(MonotonicTime now);
  void open_own(std::unordered_map<Subject, OwnGate>::iterator gate);
  void open_line() noexcept;
  [[nodiscard]] Lane* choose_lane() noexcept;
  [[nodiscard]] static std::int64_t earlier_in(const std::set<Place>& queue, MonotonicTime deadline);
  [[nodiscard]] std::int64_t ahead_of(const Arrival& arrival) const;

  LineSpec spec_;
  Id last_id_ = 0;
  std::uint64_t last_consumer_ = 0;
  std::uint64_t bytes_ = 0;
  std::int64_t tokens_ = 0;
  std::array<Lane, kWaitLanes> lanes_;
  std::unordered_map<Id, Waiter> waiters_;
  std::optional<std::pair<Subject, Gate>> line_gate_;
  std::unordered_map<Subject, OwnGate> own_gates_;
  std::set<std::pair<MonotonicTime, Subject>> openings_;  // of own_gates_
  std::size_t early_gates_ = 0;
  std::optional<MonotonicTime> last_start_;  // none since the line was empty
  nanoseconds gap_{};                        // between starts, smoothed
};

}  // namespace penstock::policy
