#include "policy/circuit.hpp"

#include <algorithm>
#include <cassert>
#include <utility>

namespace penstock::policy {
namespace {

constexpr seconds kMinWindow{1};
constexpr seconds kMaxWindow{600};

CircuitSpec within_bounds(CircuitSpec spec) {
  spec.window = std::clamp(spec.window, kMinWindow, kMaxWindow);
  spec.half_open_trials = std::max(spec.half_open_trials, std::uint32_t{1});
  spec.min_calls = std::max(spec.min_calls, std::int64_t{1});
  return spec;
}

std::size_t buckets_of(const CircuitSpec& spec) { return static_cast<std::size_t>(spec.window.count()); }

std::int64_t second_of(MonotonicTime time) { return time.time_since_epoch() / seconds{1}; }

/// part / whole >= ratio, where the ratio may be a decimal that a double holds a little too high (0.07 of 100
/// is 7).
bool reaches(std::int64_t part, std::int64_t whole, double ratio) {
  return static_cast<double>(part) >= ratio * static_cast<double>(whole) - 1e-9;
}

}  // namespace

CircuitBreaker::CircuitBreaker(CircuitSpec spec) : spec_(within_bounds(spec)), ring_(buckets_of(spec_)) {}

std::optional<CircuitBreaker::Permit> CircuitBreaker::try_admit(MonotonicTime now) noexcept {
  catch_up(now);
  if (state_ == State::closed) return Permit{epoch_};
  if (state_ == State::open || !has_free_trial()) return std::nullopt;
  ++trials_in_flight_;
  last_trial_at_ = now;
  return Permit{epoch_};
}

void CircuitBreaker::report(Permit permit, Outcome outcome, nanoseconds first_byte,
                            MonotonicTime now) noexcept {
  catch_up(now);
  if (permit.epoch != epoch_) return;  // admitted before the last change of state: no longer evidence
  const bool is_slow = first_byte > spec_.slow_after;
  const bool counts = outcome == Outcome::success || outcome == Outcome::failure;
  if (counts) {
    advance_window(now);
    Bucket& bucket = ring_[slot_];
    ++bucket.calls;
    ++calls_;
    if (outcome == Outcome::failure) ++bucket.failures, ++failures_;
    if (is_slow) ++bucket.slow, ++slow_;
  }
  if (state_ == State::half_open) {
    report_trial(outcome, is_slow, now);
  } else if (counts && is_sick()) {
    open_at(now, 0);
  }
}

void CircuitBreaker::report_trial(Outcome outcome, bool is_slow, MonotonicTime now) noexcept {
  assert(trials_in_flight_ > 0);
  --trials_in_flight_;
  if (outcome == Outcome::abandoned) return;  // the caller left: says nothing about the provider
  if (outcome == Outcome::failure) return open_at(now, reopenings_ + 1);
  ++good_trials_;
  if (is_slow && outcome == Outcome::success) ++slow_trials_;
  if (good_trials_ < spec_.half_open_trials) return;
  if (slow_trials_ > 0 && reaches(slow_trials_, good_trials_, spec_.slow_ratio))
    return open_at(now, reopenings_ + 1);
  close();
}

CircuitBreaker::State CircuitBreaker::state(MonotonicTime now) const noexcept {
  if (trials_are_lost(now)) {
    const MonotonicTime reopened_at = last_trial_at_ + spec_.half_open_timeout;
    return now >= reopened_at + cooldown_after(reopenings_ + 1) ? State::half_open : State::open;
  }
  if (state_ == State::open && now >= opened_at_ + cooldown_after(reopenings_)) return State::half_open;
  return state_;
}

nanoseconds CircuitBreaker::retry_after(MonotonicTime now) const noexcept {
  constexpr nanoseconds kNow{0};
  if (trials_are_lost(now)) {
    const MonotonicTime reopened_at = last_trial_at_ + spec_.half_open_timeout;
    return std::max(kNow, reopened_at + cooldown_after(reopenings_ + 1) - now);
  }
  if (state_ == State::open) return std::max(kNow, opened_at_ + cooldown_after(reopenings_) - now);
  if (state_ == State::closed || has_free_trial()) return kNow;
  return last_trial_at_ + spec_.half_open_timeout - now;
}

std::int64_t CircuitBreaker::failure_count(MonotonicTime now) noexcept {
  advance_window(now);
  return failures_;
}

std::int64_t CircuitBreaker::call_count(MonotonicTime now) noexcept {
  advance_window(now);
  return calls_;
}

void CircuitBreaker::reconfigure(CircuitSpec spec) {
  spec_ = within_bounds(spec);
  const std::vector<Bucket> old = std::exchange(ring_, std::vector<Bucket>(buckets_of(spec_)));
  const std::size_t old_slot = slot_;
  clear_window();
  slot_ = 0;
  for (std::size_t age = 0; age < std::min(old.size(), ring_.size()); ++age) {
    const Bucket& kept = old[(old_slot + old.size() - age) % old.size()];
    ring_[(ring_.size() - age) % ring_.size()] = kept;
    calls_ += kept.calls;
    failures_ += kept.failures;
    slow_ += kept.slow;
  }
  // Fewer trials are asked for than have succeeded: without this nobody would be left to close it.
  if (state_ == State::half_open && good_trials_ >= spec_.half_open_trials) close();
}

nanoseconds CircuitBreaker::cooldown_after(std::uint32_t reopenings) const noexcept {
  milliseconds cooldown = spec_.cooldown;
  for (; reopenings > 0 && cooldown < spec_.max_cooldown && cooldown.count() > 0; --reopenings) cooldown *= 2;
  return std::min(cooldown, spec_.max_cooldown);
}

bool CircuitBreaker::trials_are_lost(MonotonicTime now) const noexcept {
  return state_ == State::half_open && trials_in_flight_ > 0 &&
         now >= last_trial_at_ + spec_.half_open_timeout;
}

bool CircuitBreaker::has_free_trial() const noexcept {
  return trials_in_flight_ + good_trials_ < spec_.half_open_trials;
}

void CircuitBreaker::catch_up(MonotonicTime now) noexcept {
  if (state_ == State::closed) return;
  // When it was due, not when it was noticed: state() tells the same without changing anything.
  if (trials_are_lost(now)) open_at(last_trial_at_ + spec_.half_open_timeout, reopenings_ + 1);
  if (state_ == State::open && now >= opened_at_ + cooldown_after(reopenings_)) {
    state_ = State::half_open;
    ++epoch_;
    trials_in_flight_ = good_trials_ = slow_trials_ = 0;
  }
}

void CircuitBreaker::open_at(MonotonicTime when, std::uint32_t reopenings) noexcept {
  state_ = State::open;
  ++epoch_;
  opened_at_ = when;
  reopenings_ = reopenings;
}

void CircuitBreaker::close() noexcept {
  state_ = State::closed;
  ++epoch_;
  clear_window();
  std::ranges::fill(ring_, Bucket{});
}

void CircuitBreaker::advance_window(MonotonicTime now) noexcept {
  const std::int64_t second = second_of(now);
  if (second <= second_) return;
  if (second - second_ >= static_cast<std::int64_t>(ring_.size())) {
    std::ranges::fill(ring_, Bucket{});
    clear_window();
  } else {
    for (; second_ < second; ++second_) {
      slot_ = slot_ + 1 == ring_.size() ? 0 : slot_ + 1;
      Bucket& oldest = ring_[slot_];
      calls_ -= oldest.calls;
      failures_ -= oldest.failures;
      slow_ -= oldest.slow;
      oldest = {};
    }
  }
  second_ = second;
}

void CircuitBreaker::clear_window() noexcept { calls_ = failures_ = slow_ = 0; }

bool CircuitBreaker::is_sick() const noexcept {
  if (calls_ < spec_.min_calls) return false;
  return (failures_ > 0 && reaches(failures_, calls_, spec_.failure_ratio)) ||
         (slow_ > 0 && reaches(slow_, calls_, spec_.slow_ratio));
}

std::string_view to_string(CircuitBreaker::State state) noexcept {
  switch (state) {
    case CircuitBreaker::State::closed: return "closed";
    case CircuitBreaker::State::half_open: return "half_open";
    case CircuitBreaker::State::open: return "open";
  }
  return "closed";
}

}  // namespace penstock::policy
