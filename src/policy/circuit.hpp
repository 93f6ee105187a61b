#pragma once

#include <cstdint>
#include <optional>
#include <string_view>
#include <vector>

#include "base/time.hpp"

namespace penstock::policy {

/// When a provider counts as sick, and how it is tried again.
struct CircuitSpec {
  double failure_ratio = 0.5;          ///< opens at this share of failures or more, (0, 1]
  std::int64_t min_calls = 10;         ///< ... among at least so many results in the window
  seconds window{60};                  ///< 1 s to 600 s, in one-second buckets
  double slow_ratio = 0.8;             ///< opens at this share of slow first bytes or more
  milliseconds slow_after{20'000};     ///< a first byte later than this is slow
  milliseconds cooldown{5'000};        ///< first wait of an open circuit; doubles with every reopening ...
  milliseconds max_cooldown{120'000};  ///< ... up to this
  std::uint32_t half_open_trials = 3;  ///< exactly so many trial calls; all must succeed to close
  milliseconds half_open_timeout{120'000};  ///< trials that never report cannot wedge it: back to open
  friend bool operator==(const CircuitSpec&, const CircuitSpec&) = default;
};

/// Decides whether an attempt may go to one provider.
///
///   closed --failures--> open --cooldown--> half_open --all trials succeed--> closed
///                         ^                     |
///                         '------ failure ------'
///
/// Pure: no clock, lock, log or I/O. The caller passes `now` and must report every permit once. Not
/// thread-safe. 429 and other 4xx are not failures: the caller reports them as `neutral`, which the window
/// does not count. Trials that all succeed but whose first bytes are slow at slow_ratio or more reopen it.
class CircuitBreaker {
 public:
  enum class State : std::uint8_t { closed, half_open, open };  ///< the gauge's 0, 1, 2
  enum class Outcome : std::uint8_t {
    success,
    failure,  ///< connect, TLS, reset, timeout, 500/502/503/504/529, stream aborted by the provider
    neutral,  ///< an answer that says nothing about health (429, other 4xx): frees a trial's slot and counts
              ///< as a good trial
    abandoned,  ///< never sent or the caller left: frees a trial's slot, counts as nothing
  };
  /// Proof of admission. `epoch` ties a late report to the state in which it was admitted.
  struct Permit {
    std::uint32_t epoch = 0;
  };

  explicit CircuitBreaker(CircuitSpec spec);

  [[nodiscard]] std::optional<Permit> try_admit(MonotonicTime now) noexcept;
  /// `first_byte` is the time to the first byte of the answer (zero: none), for the slow ratio.
  void report(Permit permit, Outcome outcome, nanoseconds first_byte, MonotonicTime now) noexcept;

  /// The state as an admission at `now` would find it (an open one whose cooldown is over is half_open).
  [[nodiscard]] State state(MonotonicTime now) const noexcept;
  /// Time until an attempt may be admitted again; zero when it may now. While all trials are in flight: the
  /// time left of half_open_timeout.
  [[nodiscard]] nanoseconds retry_after(MonotonicTime now) const noexcept;
  [[nodiscard]] std::int64_t failure_count(MonotonicTime now) noexcept;  ///< in the window
  [[nodiscard]] std::int64_t call_count(
      MonotonicTime now) noexcept;  ///< successes and failures in the window
  /// Keeps the state and the results that the new window still covers.
  void reconfigure(CircuitSpec spec);

 private:
  struct Bucket {
    std::int32_t calls = 0;
    std::int32_t failures = 0;
    std::int32_t slow = 0;
  };

  /// The wait of an open circuit that was reopened so many times.
  [[nodiscard]] nanoseconds cooldown_after(std::uint32_t reopenings) const noexcept;
  /// Trials are in flight, and none was admitted for half_open_timeout: they will not report any more.
  [[nodiscard]] bool trials_are_lost(MonotonicTime now) const noexcept;
  [[nodiscard]] bool has_free_trial() const noexcept;
  /// Makes the changes of state that only time brings.
  void catch_up(MonotonicTime now) noexcept;
  void open_at(MonotonicTime when, std::uint32_t reopenings) noexcept;
  void close() noexcept;
  void report_trial(Outcome outcome, bool is_slow, MonotonicTime now) noexcept;
  void advance_window(MonotonicTime now) noexcept;
  void clear_window() noexcept;
  [[nodiscard]] bool is_sick() const noexcept;

  CircuitSpec spec_;
  State state_ = State::closed;
  std::uint32_t epoch_ = 0;  ///< grows with every change of state
  // Open.
  MonotonicTime opened_at_{};
  std::uint32_t reopenings_ = 0;  ///< without having closed in between
  // Half-open.
  std::uint32_t trials_in_flight_ = 0;
  std::uint32_t good_trials_ = 0;
  std::uint32_t slow_trials_ = 0;  ///< of the good ones
  MonotonicTime last_trial_at_{};
  // The window of results: a ring with one bucket a second, and its totals.
  std::vector<Bucket> ring_;
  std::size_t slot_ = 0;     ///< of the current second
  std::int64_t second_ = 0;  ///< the current one, since the clock's epoch
  std::int64_t calls_ = 0;
  std::int64_t failures_ = 0;
  std::int64_t slow_ = 0;
};

[[nodiscard]] std::string_view to_string(CircuitBreaker::State state) noexcept;

}  // namespace penstock::policy
