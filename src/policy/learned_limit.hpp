#pragma once

#include <array>
#include <cstdint>
#include <optional>

#include "base/time.hpp"
#include "policy/limit_headers.hpp"

namespace penstock::policy {

/// What the answer to one attempt tells about its provider's limits.
struct LimitSigns {
  enum class Answer : std::uint8_t {
    good,
    rate_limited,  ///< 429, and GitHub's 403 with nothing remaining
    overloaded,    ///< 529, or no answer in time
    other,
  };
  Answer answer = Answer::other;
  LimitReadings readings{};
  std::optional<nanoseconds> retry_after;  ///< >= 0; as told, jitter is added here
  bool is_daily = false;                   ///< the limit of a day is used up, not that of a minute
  std::uint64_t random = 0;                ///< uniform over all 64-bit values
};

/// The limit of one kind of calls at one provider, as its answers tell it. Three gates, each of which an
/// attempt must pass:
///
///   told  what the limit fields say is left, less what was started since the request that they answer,
///         less a margin; refilled as they say. Nothing learned ever lifts a limit that is configured: it is
///         asked beside it.
///   hold  after a refusal: nothing starts before Retry-After (and up to a tenth more, so that not all come
///         back at once), then one attempt as a probe, then all.
///   rate  where refusals come that no field explains: additive increase, multiplicative decrease of calls
///         per second, found from what had passed.
///
/// Answers overtake each other: a reading counts only if its request was sent after the one that was heard
/// last. No gate stays shut for longer than kMaxHold (kMaxDailyHold for a daily quota) without a probe.
///
/// Pure: the caller passes `now`. Not thread-safe: its owner serialises.
/// Source: docs/decisions/0010-learned-limits.md
class LearnedLimit {
 public:
  using Costs = std::array<std::int64_t, kLimitDimensions>;

  static constexpr std::chrono::minutes kMaxHold{10};
  static constexpr std::chrono::hours kMaxDailyHold{1};
  /// A probe that is not answered by then is followed by the next.
  static constexpr seconds kProbeFor{2};
  /// After a refusal that tells no time, where nothing is known about the rate.
  static constexpr seconds kBlindHold{1};
  /// Fewer attempts than this tell no rate.
  static constexpr std::uint64_t kMinMeasured = 5;
  /// A rate that met no refusal for so long is forgotten.
  static constexpr std::chrono::minutes kRateKept{10};

  /// What was started before an attempt; comes back with its answer.
  struct Ticket {
    std::uint64_t sequence = 0;
    Costs started{};  ///< of all attempts up to and with this one
    std::int64_t tokens = 0;
    bool is_probe = false;
  };
  /// A retry has waited out the time that it was told: no jitter holds it.
  enum class Attempt : std::uint8_t { first, retry };

  /// Zero: now. Never more than the longest hold, and tight for what is known.
  [[nodiscard]] nanoseconds wait_for(const Costs& costs, Attempt attempt, MonotonicTime now) noexcept;
  /// Pre: wait_for(…) == 0.
  Ticket take(const Costs& costs, MonotonicTime now) noexcept;
  /// `share`: of what is left this process takes so much (1/n of n replicas), in (0, 1].
  void learn(const Ticket& ticket, const LimitSigns& signs, double share, MonotonicTime now) noexcept;
  /// The attempt is over; one that ended well and told nothing new ends its probe.
  void end(const Ticket& ticket, bool well) noexcept;
  /// Everything that was learned, but not what was started.
  void forget() noexcept;

  /// For people: the limit as told, or the learned rate per minute. Nothing: neither is known.
  struct View {
    std::int64_t limit = 0;      ///< 0: not told
    std::int64_t remaining = 0;  ///< now, by our count
  };
  [[nodiscard]] std::optional<View> view(LimitDimension dimension, MonotonicTime now) noexcept;

 private:
  /// A reading, counted on.
  struct Told {
    std::uint64_t heard = 0;  ///< the sequence of the request whose answer it is; 0: none
    bool active = false;
    std::int64_t limit = 0;   ///< as told; 0: not
    double most = 0;          ///< `level` at most; 0: no such bound
    double level = 0;         ///< may start now; below zero: debt
    double per_ns = 0;        ///< refill
    MonotonicTime at{};       ///< of `level`
    MonotonicTime full_at{};  ///< where all comes back at once; max(): it does not
    MonotonicTime until{};    ///< then it is too old to be believed
  };

  void hear(Told& told, const LimitReading& reading, const Ticket& ticket, std::size_t dimension,
            double share, MonotonicTime now) noexcept;
  void advance(Told& told, MonotonicTime now) noexcept;
  [[nodiscard]] nanoseconds told_wait(Told& told, std::int64_t cost, MonotonicTime now) noexcept;
  [[nodiscard]] nanoseconds hold_wait(Attempt attempt, MonotonicTime now) const noexcept;
  [[nodiscard]] nanoseconds rate_wait(MonotonicTime now) noexcept;
  void refused(const Ticket& ticket, const LimitSigns& signs, MonotonicTime now) noexcept;
  void hold(nanoseconds wait, std::uint64_t random, MonotonicTime now) noexcept;
  [[nodiscard]] nanoseconds burst() const noexcept;
  void decrease_rate(MonotonicTime now) noexcept;
  void advance_rate(MonotonicTime now) noexcept;
  void count_start(MonotonicTime now) noexcept;
  [[nodiscard]] double measured_rate(MonotonicTime now) const noexcept;

  std::uint64_t started_ = 0;
  Costs started_costs_{};
  bool is_open_ = true;  ///< no gate is active: nothing to ask
  std::array<Told, kLimitDimensions> told_{};

  // hold
  bool holds_ = false;  ///< until a probe has come back
  MonotonicTime told_until_{};
  MonotonicTime held_until_{};  ///< with the jitter
  MonotonicTime probe_until_{};

  // rate, in calls per second
  double rate_ = 0;  ///< 0: none
  double rate_after_decrease_ = 0;
  MonotonicTime rate_at_{};            ///< of `rate_`
  MonotonicTime decreased_at_{};       ///< the time, and
  std::uint64_t decreased_after_ = 0;  ///< the last start before the last decrease
  MonotonicTime next_start_{};         ///< the theoretical arrival time of GCRA

  /// Starts in the current half of a window and in the one before.
  struct Half {
    MonotonicTime began{};
    std::int64_t started = 0;
    std::int64_t refused = 0;
  };
  Half half_;
  Half half_before_;
};

}  // namespace penstock::policy
