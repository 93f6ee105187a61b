#include "gateway/guarded_clock.hpp"

#include <ctime>

namespace penstock::gateway {
namespace {

nanoseconds read_clock(clockid_t id) noexcept {
  timespec time{};
  clock_gettime(id, &time);
  return seconds{time.tv_sec} + nanoseconds{time.tv_nsec};
}

}  // namespace

policy::ClockReading read_machine_clocks() noexcept {
  // A thread that is stopped in between must not look like a jump. On a busy machine the third try will do.
  constexpr std::chrono::milliseconds kTogether{10};
  policy::ClockReading reading;
  for (int i = 0; i < 3; ++i) {
    const MonotonicTime before = std::chrono::steady_clock::now();
    reading.wall = std::chrono::system_clock::now();
    const nanoseconds since_boot = read_clock(CLOCK_BOOTTIME);
    reading.mono = std::chrono::steady_clock::now();
    reading.asleep =
        since_boot - reading.mono.time_since_epoch();  // a little too low: never sleep that was none
    if (reading.mono - before < kTogether) break;
  }
  return reading;
}

GuardedClock::GuardedClock(Read read) : read_(std::move(read)), guard_(read_()) { tell(); }

void GuardedClock::tick() {
  const std::scoped_lock lock(mutex_);
  guard_.observe(read_());
  tell();
}

void GuardedClock::confirm(policy::ClockSource source, std::int64_t said, MonotonicTime mono) {
  constexpr std::int64_t kMost = 200LL * 366 * 86'400;  // beyond it nanoseconds could not hold the difference
  if (said < 0 || said > kMost) return;
  const std::scoped_lock lock(mutex_);
  guard_.confirm(source, WallTime{seconds{said}}, mono);
  tell();
}

void GuardedClock::tell() noexcept {
  const policy::ClockGuard::Terms terms = guard_.terms();
  not_before_.store(terms.not_before.time_since_epoch().count(), std::memory_order_relaxed);
  offset_.store(terms.offset.count(), std::memory_order_release);
  doubtful_offset_.store(terms.doubtful_offset.value_or(kNone).count(), std::memory_order_release);
  wants_sources_.store(guard_.trust() != policy::ClockGuard::Trust::trusted, std::memory_order_relaxed);
}

policy::ClockGuard::Trust GuardedClock::trust() const {
  const std::scoped_lock lock(mutex_);
  return guard_.trust();
}

}  // namespace penstock::gateway
