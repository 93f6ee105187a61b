#include "policy/learned_limit.hpp"

#include <algorithm>
#include <cmath>
#include <utility>

namespace penstock::policy {
namespace {

/// What is kept free for other replicas and other users of the same credential, which spend between two
/// readings.
constexpr std::int64_t kMarginPart = 50;
/// Rounding of what is left must not eat a small limit.
constexpr std::int64_t kRoundingPart = 10;
/// Where a reset is not told: providers count by the minute.
constexpr nanoseconds kUsualReset = std::chrono::minutes{1};
constexpr double kDecrease = 0.7;
/// Of the rate after the last decrease, each second.
constexpr double kIncreasePerSecond = 0.01;
constexpr double kLeastRate = 1.0 / 60;
/// A shorter time tells no rate. Too high a rate is lowered within a few round trips, too low a one takes
/// minutes to rise.
constexpr double kLeastMeasured = 0.1;
/// So much of a second's starts may come at once.
constexpr double kBurstSeconds = 1;
constexpr nanoseconds kHalfWindow = seconds{30};
constexpr double kNanosecondsPerSecond = 1e9;

double in_seconds(nanoseconds time) { return static_cast<double>(time.count()) / kNanosecondsPerSecond; }

/// ns as a duration, rounded up and kept within what is ever waited.
nanoseconds wait_of(double ns, nanoseconds most) {
  if (!(ns > 0)) return nanoseconds{1};
  return ns >= static_cast<double>(most.count()) ? most : nanoseconds{static_cast<std::int64_t>(ns) + 1};
}

}  // namespace

// ---- told

void LearnedLimit::hear(Told& told, const LimitReading& reading, const Ticket& ticket, std::size_t dimension,
                        double share, MonotonicTime now) noexcept {
  if (ticket.sequence <= told.heard) return;  // overtaken: what came after knows more
  told.heard = ticket.sequence;
  told.active = true;
  told.limit = reading.limit;
  const std::int64_t margin =
      reading.limit / kMarginPart + std::min(reading.rounding, reading.limit / kRoundingPart);
  const std::int64_t since = started_costs_[dimension] - ticket.started[dimension];
  told.most = reading.limit > 0 ? std::max(1.0, static_cast<double>(reading.limit - margin) * share) : 0;
  told.level = static_cast<double>(reading.remaining - margin) * share - static_cast<double>(since);
  told.at = now;
  const nanoseconds reset = reading.reset > nanoseconds{0} ? reading.reset : kUsualReset;
  const bool is_gradual =
      reading.refill == LimitReading::Refill::gradual && reading.limit > 0 && reading.reset > nanoseconds{0};
  if (!is_gradual) {
    told.per_ns = 0;
    told.full_at = now + reset;
  } else if (reading.limit > reading.remaining) {
    told.per_ns =
        static_cast<double>(reading.limit - reading.remaining) * share / static_cast<double>(reset.count());
    told.full_at = MonotonicTime::max();
  } else if (told.per_ns == 0) {  // full: what it refills with shows only once something is used
    told.per_ns = static_cast<double>(reading.limit) * share / static_cast<double>(kUsualReset.count());
    told.full_at = MonotonicTime::max();
  }
  told.until = now + kMaxHold;
  is_open_ = false;
}

void LearnedLimit::advance(Told& told, MonotonicTime now) noexcept {
  if (now >= told.until) {
    // Nobody has answered since. It may be wrong: one attempt finds out.
    told.active = false;
    if (told.level < 1 && !holds_) {
      holds_ = true;
      told_until_ = held_until_ = probe_until_ = told.until;
    }
    return;
  }
  if (now >= told.full_at) {
    told.full_at = MonotonicTime::max();
    if (told.most == 0) {
      told.active = false;
      return;
    }
    told.level = told.most;
  }
  if (now > told.at) {
    told.level += told.per_ns * static_cast<double>((now - told.at).count());
    if (told.most > 0) told.level = std::min(told.level, told.most);
    told.at = now;
  }
}

nanoseconds LearnedLimit::told_wait(Told& told, std::int64_t cost, MonotonicTime now) noexcept {
  advance(told, now);
  if (!told.active) return nanoseconds{0};
  // An estimate above the whole limit is the provider's to judge: it may use less.
  const double needed =
      told.most > 0 ? std::min(static_cast<double>(cost), told.most) : static_cast<double>(cost);
  // A billionth is what doubles lose on the way.
  if (told.level >= needed * (1 - 1e-9)) return nanoseconds{0};
  const nanoseconds left = std::min(told.until, told.full_at) - now;
  if (told.per_ns <= 0) return left;
  return wait_of((needed - told.level) / told.per_ns, left);
}

// ---- hold

void LearnedLimit::hold(nanoseconds wait, std::uint64_t random, MonotonicTime now) noexcept {
  const nanoseconds jitter{static_cast<std::int64_t>(
      (static_cast<unsigned __int128>(random) * static_cast<std::uint64_t>(wait.count() / 10 + 1)) >> 64)};
  if (!holds_ || now + wait > told_until_) told_until_ = now + wait;
  held_until_ = std::max(holds_ ? held_until_ : now, told_until_ + jitter);
  holds_ = true;
  probe_until_ = told_until_;
  is_open_ = false;
}

nanoseconds LearnedLimit::hold_wait(Attempt attempt, MonotonicTime now) const noexcept {
  if (!holds_) return nanoseconds{0};
  const MonotonicTime until = attempt == Attempt::retry ? told_until_ : held_until_;
  return std::max(nanoseconds{0}, std::max(until, probe_until_) - now);
}

// ---- rate

void LearnedLimit::count_start(MonotonicTime now) noexcept {
  if (now - half_.began >= kHalfWindow) {
    const bool is_next = now - half_.began < 2 * kHalfWindow;
    half_before_ = is_next ? half_ : Half{.began = now};
    half_ = Half{.began = is_next ? half_.began + kHalfWindow : now};
  }
  ++half_.started;
}

/// Of what the provider did not refuse: a first decrease from what was sent would be far too small.
double LearnedLimit::measured_rate(MonotonicTime now) const noexcept {
  const std::int64_t passed = half_.started + half_before_.started - half_.refused - half_before_.refused;
  return static_cast<double>(passed) / std::max(kLeastMeasured, in_seconds(now - half_before_.began));
}

void LearnedLimit::decrease_rate(MonotonicTime now) noexcept {
  advance_rate(now);
  const double measured = measured_rate(now);
  rate_ = std::max(kLeastRate, kDecrease * (rate_ > 0 ? std::min(rate_, measured) : measured));
  rate_after_decrease_ = rate_;
  rate_at_ = decreased_at_ = now;
  decreased_after_ = started_;
  next_start_ = std::max(next_start_, now + burst());  // nothing was saved up
  is_open_ = false;
}

void LearnedLimit::advance_rate(MonotonicTime now) noexcept {
  if (rate_ == 0 || now <= rate_at_) return;
  if (now - decreased_at_ > kRateKept) {
    rate_ = 0;
    return;
  }
  rate_ += rate_after_decrease_ * kIncreasePerSecond * in_seconds(now - rate_at_);
  rate_at_ = now;
}

nanoseconds LearnedLimit::rate_wait(MonotonicTime now) noexcept {
  advance_rate(now);
  if (rate_ == 0) return nanoseconds{0};
  return std::clamp(next_start_ - now - burst(), nanoseconds{0}, nanoseconds{kMaxHold});
}

/// How far ahead of its time a start may be.
nanoseconds LearnedLimit::burst() const noexcept {
  const double starts = std::max(1.0, rate_ * kBurstSeconds) - 1;
  return nanoseconds{static_cast<std::int64_t>(starts / rate_ * kNanosecondsPerSecond)};
}

// ---- all

nanoseconds LearnedLimit::wait_for(const Costs& costs, Attempt attempt, MonotonicTime now) noexcept {
  if (is_open_) return nanoseconds{0};
  nanoseconds wait = rate_wait(now);
  bool any = rate_ > 0;
  for (std::size_t i = 0; i < kLimitDimensions; ++i) {
    if (!told_[i].active) continue;
    wait = std::max(wait, told_wait(told_[i], costs[i], now));
    any = any || told_[i].active;
  }
  wait = std::max(wait, hold_wait(attempt, now));
  is_open_ = !any && !holds_;
  return wait;
}

LearnedLimit::Ticket LearnedLimit::take(const Costs& costs, MonotonicTime now) noexcept {
  Ticket ticket{.sequence = ++started_, .tokens = costs[static_cast<std::size_t>(LimitDimension::tokens)]};
  for (std::size_t i = 0; i < kLimitDimensions; ++i) {
    started_costs_[i] += costs[i];
    if (told_[i].active) told_[i].level -= static_cast<double>(costs[i]);
  }
  ticket.started = started_costs_;
  count_start(now);
  if (rate_ > 0)
    next_start_ =
        std::max(next_start_, now) + wait_of(kNanosecondsPerSecond / rate_, std::chrono::minutes{1});
  if (holds_) {
    ticket.is_probe = true;
    probe_until_ = now + kProbeFor;
  }
  return ticket;
}

void LearnedLimit::learn(const Ticket& ticket, const LimitSigns& signs, double share,
                         MonotonicTime now) noexcept {
  for (std::size_t i = 0; i < kLimitDimensions; ++i)
    if (signs.readings[i]) hear(told_[i], *signs.readings[i], ticket, i, share, now);
  if (signs.answer == LimitSigns::Answer::rate_limited) return refused(ticket, signs, now);
  if (ticket.is_probe && signs.answer != LimitSigns::Answer::other) holds_ = false;
}

void LearnedLimit::refused(const Ticket& ticket, const LimitSigns& signs, MonotonicTime now) noexcept {
  if (half_.refused < half_.started) ++half_.refused;
  const auto is_short = [&](LimitDimension dimension, std::int64_t cost) {
    const auto& reading = signs.readings[static_cast<std::size_t>(dimension)];
    return reading && reading->remaining < cost;
  };
  const bool is_explained = signs.is_daily || is_short(LimitDimension::requests, 1) ||
                            is_short(LimitDimension::tokens, ticket.tokens) ||
                            is_short(LimitDimension::input_tokens, ticket.tokens) ||
                            is_short(LimitDimension::output_tokens, 1);
  if (signs.is_daily)
    hold(kMaxDailyHold, signs.random, now);
  else if (signs.retry_after)
    hold(std::clamp(*signs.retry_after, nanoseconds{0}, nanoseconds{kMaxHold}), signs.random, now);
  if (is_explained) return;
  if (std::cmp_greater_equal(half_.started + half_before_.started, kMinMeasured)) {
    // Those that started before the last decrease had no chance to heed it, and the next few find a bucket
    // that is still empty: once per round trip and so many starts.
    if (decreased_after_ == 0 || ticket.sequence > decreased_after_ + kMinMeasured) decrease_rate(now);
  } else if (!signs.retry_after) {
    hold(nanoseconds{0}, 0, now);
    held_until_ = std::max(held_until_, now + kBlindHold);
  }
}

void LearnedLimit::end(const Ticket& ticket, bool well) noexcept {
  if (ticket.is_probe && well) holds_ = false;
}

void LearnedLimit::forget() noexcept {
  for (Told& told : told_) told = Told{};
  holds_ = false;
  rate_ = 0;
  is_open_ = true;
}

std::optional<LearnedLimit::View> LearnedLimit::view(LimitDimension dimension, MonotonicTime now) noexcept {
  std::optional<View> view;
  if (Told& told = told_[static_cast<std::size_t>(dimension)]; told.active) {
    advance(told, now);
    if (told.active)
      view = {.limit = told.limit,
              .remaining = std::max<std::int64_t>(0, std::llround(std::floor(told.level)))};
  }
  if (dimension != LimitDimension::requests) return view;
  advance_rate(now);
  if (rate_ == 0) return view;
  const auto per_minute = std::max<std::int64_t>(1, std::llround(rate_ * 60));
  if (!view || view->limit == 0 || view->limit > per_minute)
    view = {.limit = per_minute, .remaining = rate_wait(now) > nanoseconds{0} ? 0 : 1};
  return view;
}

}  // namespace penstock::policy
