#include "policy/budget.hpp"

#include <algorithm>
#include <cassert>
#include <limits>
#include <stdexcept>
#include <utility>

#include <date/tz.h>

namespace penstock::policy {
namespace {

/// nullptr for UTC itself, which needs no tz database (reading it costs milliseconds, and small images have
/// none).
const date::time_zone* find_zone(std::string_view name) {
  if (name == "UTC" || name == "Etc/UTC") return nullptr;
  return date::locate_zone(name);
}

/// When a local day begins. A midnight that the clocks skip: with the jump. One that they pass twice: the
/// first time.
WallTime start_of(const date::time_zone* zone, date::local_days day) {
  const date::local_seconds midnight{day};
  if (zone == nullptr) return WallTime{midnight.time_since_epoch()};
  const date::local_info info = zone->get_info(midnight);
  if (info.result == date::local_info::nonexistent) return info.first.end;
  return WallTime{midnight.time_since_epoch() - info.first.offset};
}

date::local_days first_day_of_window(BudgetWindow window, date::local_days day) {
  if (window == BudgetWindow::daily) return day;
  const date::year_month_day ymd{day};
  return date::local_days{ymd.year() / ymd.month() / 1};
}

date::local_days first_day_of_next_window(BudgetWindow window, date::local_days first) {
  if (window == BudgetWindow::daily) return first + date::days{1};
  return date::local_days{date::year_month_day{first} + date::months{1}};
}

/// For amounts >= 0. Only a `warn` budget, which has no limit to stop it, can come near the end of int64.
void add(NanoUsd& total, NanoUsd amount) {
  assert(amount.count >= 0);
  constexpr auto kMost = std::numeric_limits<std::int64_t>::max();
  total.count = amount.count > kMost - total.count ? kMost : total.count + amount.count;
}

/// Never below zero: were an owner to end a reservation twice, that must not make room in the budget.
void subtract(NanoUsd& total, NanoUsd amount) {
  assert(amount.count >= 0 && amount <= total);
  total.count = std::max<std::int64_t>(0, total.count - amount.count);
}

}  // namespace

std::string_view to_string(BudgetWindow window) noexcept {
  return window == BudgetWindow::daily ? "daily" : "monthly";
}

bool is_known_time_zone(std::string_view name) {
  try {
    find_zone(name);
    return true;
  } catch (const std::runtime_error&) {  // the only way that the library has to say no
    return false;
  }
}

WindowSpan window_at(BudgetWindow window, std::string_view time_zone, WallTime now) {
  const date::time_zone* zone = find_zone(time_zone);
  const auto second = date::floor<seconds>(now);
  const date::local_seconds local =
      zone == nullptr ? date::local_seconds{second.time_since_epoch()} : zone->to_local(second);
  date::local_days first = first_day_of_window(window, date::floor<date::days>(local));
  WindowSpan span{.start = start_of(zone, first), .end = {}};
  for (;;) {
    first = first_day_of_next_window(window, first);
    span.end = start_of(zone, first);
    if (now < span.end) return span;
    // Clocks that go back over midnight name the old date again: it is the new day's window all the same.
    span.start = span.end;
  }
}

std::string to_string(const BudgetSpec& spec) {
  std::string out = format_usd(spec.limit) + " USD " + std::string(to_string(spec.window)) +
                    (spec.mode == BudgetMode::hard ? " hard " : " warn ") + spec.time_zone;
  if (spec.temporary) {
    const auto until = date::floor<seconds>(spec.temporary->until);
    out += ", " + format_usd(spec.temporary->limit) + " USD until " + date::format("%FT%TZ", until);
    if (!spec.temporary->reason.empty()) out += " (" + spec.temporary->reason + ")";
  }
  return out;
}

Budget::Budget(BudgetSpec spec) : spec_(std::move(spec)), next_(spec_), limit_(spec_.limit) {}

void Budget::advance(WallTime now, nanoseconds doubtful_ahead) {
  if (now >= changes_at_) change(now);
  if (doubtful_ahead > nanoseconds{0} || doubt_) consider(now + doubtful_ahead);
}

Budget::Window Budget::window_after_current(WallTime now) {
  const WindowSpan span = window_at(next_.window, next_.time_zone, now);
  // After a change of window or zone the calendar's window may have begun before the old one ended.
  return {.span = {.start = std::max(span.start, current_.span.end), .end = span.end},
          .number = ++last_number_,
          .settled = {},
          .held = {},
          .overrun = {}};
}

void Budget::change(WallTime now) {
  if (now >= current_.span.end) {
    // The doubted clock was right, or time has come to where it was: what was held meanwhile goes on there.
    const bool was_doubted = doubt_ && now >= doubt_->window.span.start && now < doubt_->window.span.end;
    previous_ = std::exchange(current_, was_doubted ? doubt_->window : window_after_current(now));
    doubt_.reset();
    spec_ = next_;
  }
  limit_ = spec_.limit_at(now);
  changes_at_ = current_.span.end;
  if (spec_.temporary && now < spec_.temporary->until)
    changes_at_ = std::min(changes_at_, spec_.temporary->until);
}

void Budget::consider(WallTime doubtful_now) {
  if (doubtful_now < current_.span.end) {
    doubt_.reset();  // the clock is believed again, or names the same window
    return;
  }
  if (!doubt_ || doubtful_now < doubt_->window.span.start || doubtful_now >= doubt_->window.span.end)
    doubt_ = Doubt{.window = window_after_current(doubtful_now), .limit = {}};
  doubt_->limit = next_.limit_at(doubtful_now);
}

void Budget::count_past(NanoUsd settled, NanoUsd overrun) noexcept {
  add(current_.settled, settled);
  add(current_.overrun, overrun);
}

bool Budget::fits(const Window& window, NanoUsd estimate, NanoUsd limit) noexcept {
  const auto total = static_cast<__int128>(window.settled.count) + window.held.count + window.overrun.count;
  return total + estimate.count <= limit.count;
}

bool Budget::may_reserve(NanoUsd estimate) const noexcept {
  if (spec_.mode == BudgetMode::warn) return true;
  assert(estimate.count >= 0);
  return fits(current_, estimate, limit_) && (!doubt_ || fits(doubt_->window, estimate, doubt_->limit));
}

nanoseconds Budget::wait_for(NanoUsd estimate, WallTime now) const noexcept {
  constexpr nanoseconds kUntilBelieved = std::chrono::minutes{1};  // nobody knows: about when to ask again
  if (fits(current_, estimate, limit_)) return kUntilBelieved;
  // An override that lowers the limit ends within the window.
  if (changes_at_ < current_.span.end && fits(current_, estimate, spec_.limit)) return changes_at_ - now;
  if (estimate > limit_ && estimate > next_.limit_at(current_.span.end)) return nanoseconds::max();
  return current_.span.end - now;
}

Budget::Pin Budget::reserve(NanoUsd estimate) noexcept {
  assert(may_reserve(estimate));
  return take_over(estimate);
}

Budget::Pin Budget::take_over(NanoUsd reserved) noexcept {
  add(current_.held, reserved);
  if (!doubt_) return {.window = current_.number, .doubtful = 0};
  add(doubt_->window.held, reserved);
  return {.window = current_.number, .doubtful = doubt_->window.number};
}

void Budget::release(Pin pin, NanoUsd reserved) noexcept {
  for_windows(pin, [&](Window& window) { subtract(window.held, reserved); });
}

NanoUsd Budget::settle(Pin pin, NanoUsd reserved, NanoUsd actual) noexcept {
  const NanoUsd overrun = std::max(NanoUsd{}, actual - reserved);
  const bool is_kept = for_windows(pin, [&](Window& window) {
    subtract(window.held, reserved);
    add(window.settled, std::min(actual, reserved));
    add(window.overrun, overrun);
  });
  if (!is_kept) stray_ += actual;
  return overrun;
}

NanoUsd Budget::correct(Pin pin, NanoUsd charged, NanoUsd actual) noexcept {
  const NanoUsd overrun = std::max(NanoUsd{}, actual - charged);
  const bool is_kept = for_windows(pin, [&](Window& window) {
    subtract(window.settled, std::max(NanoUsd{}, charged - actual));
    add(window.overrun, overrun);
  });
  if (!is_kept) stray_ += actual - charged;
  return overrun;
}

void Budget::reconfigure(BudgetSpec spec, WallTime now) {
  spec_.limit = spec.limit;
  spec_.mode = spec.mode;
  spec_.temporary = spec.temporary;
  next_ = std::move(spec);
  change(now);
}

Budget::Window* Budget::find(std::uint32_t number) noexcept {
  if (number == current_.number) return &current_;
  if (number == previous_.number) return &previous_;
  if (doubt_ && number == doubt_->window.number) return &doubt_->window;
  return nullptr;
}

template <class F>
bool Budget::for_windows(Pin pin, F f) noexcept {
  Window* const window = find(pin.window);
  if (window != nullptr) f(*window);
  if (pin.doubtful != 0)
    if (Window* const doubtful = find(pin.doubtful)) f(*doubtful);
  return window != nullptr;
}

}  // namespace penstock::policy
