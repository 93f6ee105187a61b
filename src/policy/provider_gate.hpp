#pragma once

#include <cstdint>
#include <optional>
#include <utility>
#include <vector>

#include "base/time.hpp"
#include "policy/adaptive_concurrency.hpp"
#include "policy/learned_limit.hpp"

namespace penstock::policy {

/// What of a provider's answers is heeded.
struct GateSpec {
  bool learns_limits = false;
  bool adapts_concurrency = false;
  double share = 1;  ///< of what the provider has left: 1/n for one of n replicas, (0, 1]
  friend bool operator==(const GateSpec&, const GateSpec&) = default;
};

/// All that one process has learned about one provider: a limit for each class of calls, since providers
/// count models apart, and how many attempts it takes at once. Each replica learns from its own answers; what
/// is left by them already counts what the others used.
///
/// Pure: the caller passes `now`. Not thread-safe: its owner serialises.
class ProviderGate {
 public:
  /// Classes beyond these share one limit. They come from the configuration, not from callers.
  static constexpr std::size_t kMaxClasses = 64;

  struct Ask {
    std::uint32_t limit_class = 0;
    std::int64_t tokens = 0;        ///< all of the estimate
    std::int64_t input_tokens = 0;  ///< of it
    LearnedLimit::Attempt attempt = LearnedLimit::Attempt::first;
  };
  struct Ticket {
    std::uint64_t number = 0;
    std::uint32_t place = 0;  ///< in the list of classes
    LearnedLimit::Ticket limit;
  };

  /// How long until the attempt may start; zero: now.
  [[nodiscard]] nanoseconds wait_for(const Ask& ask, MonotonicTime now) noexcept;
  /// Counts the start. Pre: wait_for(…) == 0. Each ticket is ended once.
  Ticket take(const Ask& ask, MonotonicTime now);
  /// What the head of the answer says; between `take` and `end`, any number of times.
  void learn(const Ticket& ticket, const LimitSigns& signs, MonotonicTime now) noexcept;
  enum class Ending : std::uint8_t { well, otherwise };
  void end(const Ticket& ticket, Ending ending) noexcept;
  /// What is no longer heeded is forgotten; tickets stay good.
  void reconfigure(const GateSpec& spec) noexcept;

  /// The lowest limit of all classes.
  [[nodiscard]] std::optional<LearnedLimit::View> limit(LimitDimension dimension, MonotonicTime now) noexcept;
  [[nodiscard]] std::optional<std::uint32_t> concurrency() const noexcept { return concurrency_.limit(); }
  [[nodiscard]] std::uint32_t in_flight() const noexcept { return concurrency_.in_flight(); }

 private:
  /// Nobody knows when a running attempt ends: an honest guess that keeps callers from hammering.
  static constexpr seconds kConcurrencyWait{1};

  [[nodiscard]] std::size_t find(std::uint32_t limit_class) const noexcept;

  GateSpec spec_;
  AdaptiveConcurrency concurrency_;
  std::vector<std::pair<std::uint32_t, LearnedLimit>> limits_;
};

}  // namespace penstock::policy
