#include "policy/clock_guard.hpp"

#include <algorithm>

namespace penstock::policy {
namespace {

nanoseconds offset_of(MonotonicTime mono, WallTime wall) noexcept {
  return wall.time_since_epoch() - mono.time_since_epoch();
}

nanoseconds distance(nanoseconds a, nanoseconds b) noexcept { return std::chrono::abs(a - b); }

}  // namespace

std::string_view ClockGuard::to_string(Trust trust) noexcept {
  switch (trust) {
    case Trust::trusted: return "trusted";
    case Trust::suspect: return "suspect";
    case Trust::refuted: return "refuted";
  }
  return "trusted";
}

ClockGuard::ClockGuard(ClockReading first) noexcept
    : last_(first.mono),
      asleep_(first.asleep),
      offset_(offset_of(first.mono, first.wall)),
      anchor_(offset_) {}

void ClockGuard::observe(ClockReading reading) noexcept {
  if (reading.mono < last_) return;
  const nanoseconds elapsed = reading.mono - last_;
  last_ = reading.mono;
  // Sleep moves the wall clock and not the monotonic one: that much is expected.
  const nanoseconds slept = std::max(nanoseconds{0}, reading.asleep - asleep_);
  asleep_ += slept;
  offset_ += slept;
  anchor_ += slept;

  const nanoseconds measured = offset_of(reading.mono, reading.wall);
  if (distance(measured, anchor_) <= kJump) {
    const nanoseconds slew = elapsed / 1'000'000 * kSlewPerMillion;
    anchor_ = std::clamp(measured, anchor_ - slew, anchor_ + slew);
    suspicion_.reset();
    follow(measured, reading.mono);
    return;
  }
  if (suspicion_) suspicion_->offset += slept;
  if (!suspicion_ || distance(measured, suspicion_->offset) > kJump)
    suspicion_ = Suspicion{.offset = measured, .since = reading.mono, .for_it = {}, .against_it = {}};
  suspicion_->offset = measured;
  if (!suspicion_->is_refuted && reading.mono - suspicion_->since >= kPatience) believe(reading.mono);
}

void ClockGuard::confirm(ClockSource source, WallTime said, MonotonicTime now) noexcept {
  if (!suspicion_) return;
  const nanoseconds offset = offset_of(now, said);
  const nanoseconds from_wall = distance(offset, suspicion_->offset);
  const nanoseconds from_ours = distance(offset, offset_);
  if (std::min(from_wall, from_ours) > kJump) return;  // an answer out of a cache, or as wrong as ours
  const bool agrees = from_wall <= from_ours;
  auto& same = agrees ? suspicion_->for_it : suspicion_->against_it;
  auto& other = agrees ? suspicion_->against_it : suspicion_->for_it;
  if (other == source) other.reset();  // it changed its mind
  const bool are_two = same && *same != source;
  if (!same) same = source;
  if (agrees) {
    if (are_two) believe(now);
    return;
  }
  suspicion_->since = now;
  if (are_two) suspicion_->is_refuted = true;
}

void ClockGuard::follow(nanoseconds offset, MonotonicTime now) noexcept {
  if (offset < offset_) not_before_ = std::max(not_before_, WallTime{now.time_since_epoch() + offset_});
  offset_ = offset;
}

void ClockGuard::believe(MonotonicTime now) noexcept {
  follow(suspicion_->offset, now);
  anchor_ = suspicion_->offset;
  suspicion_.reset();
}

ClockGuard::Trust ClockGuard::trust() const noexcept {
  if (!suspicion_) return Trust::trusted;
  return suspicion_->is_refuted ? Trust::refuted : Trust::suspect;
}

ClockGuard::Terms ClockGuard::terms() const noexcept {
  Terms terms{.offset = offset_, .not_before = not_before_, .doubtful_offset = {}};
  if (trust() == Trust::suspect) terms.doubtful_offset = suspicion_->offset;
  return terms;
}

Now ClockGuard::at(MonotonicTime now, const Terms& terms) noexcept {
  const WallTime wall = std::max(WallTime{now.time_since_epoch() + terms.offset}, terms.not_before);
  Now out{.mono = now, .wall = wall};
  if (terms.doubtful_offset)
    out.doubtful_ahead =
        std::max(nanoseconds{0}, WallTime{now.time_since_epoch() + *terms.doubtful_offset} - wall);
  return out;
}

Now ClockGuard::at(MonotonicTime now) const noexcept { return at(now, terms()); }

}  // namespace penstock::policy
