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

Budget::Budget(BudgetSpec spec) : spec_(spec), next_(std::move(spec)) {}

void Budget::advance(WallTime now) {
  if (now < current_.span.end) return;
  const WindowSpan span = window_at(next_.window, next_.time_zone, now);
  // After a change of window or zone the calendar's window may have begun before the old one ended. Starts
  // must differ, for they name windows.
  Window entered{.span = {.start = std::max(span.start, current_.span.end), .end = span.end}};
  previous_ = std::exchange(current_, entered);
  spec_ = next_;
}

void Budget::count_past(NanoUsd settled, NanoUsd overrun) noexcept {
  add(current_.settled, settled);
  add(current_.overrun, overrun);
}

bool Budget::may_reserve(NanoUsd estimate) const noexcept {
  if (spec_.mode == BudgetMode::warn) return true;
  assert(estimate.count >= 0);
  const auto total =
      static_cast<__int128>(current_.settled.count) + current_.held.count + current_.overrun.count;
  return total + estimate.count <= spec_.limit.count;
}

Budget::Pin Budget::reserve(NanoUsd estimate) noexcept {
  assert(may_reserve(estimate));
  add(current_.held, estimate);
  return {current_.span.start};
}

void Budget::release(Pin pin, NanoUsd reserved) noexcept {
  if (Window* window = window_of(pin)) subtract(window->held, reserved);
}

NanoUsd Budget::settle(Pin pin, NanoUsd reserved, NanoUsd actual) noexcept {
  const NanoUsd overrun = std::max(NanoUsd{}, actual - reserved);
  if (Window* window = window_of(pin)) {
    subtract(window->held, reserved);
    add(window->settled, std::min(actual, reserved));
    add(window->overrun, overrun);
  } else {
    stray_ += actual;
  }
  return overrun;
}

NanoUsd Budget::correct(Pin pin, NanoUsd charged, NanoUsd actual) noexcept {
  const NanoUsd overrun = std::max(NanoUsd{}, actual - charged);
  if (Window* window = window_of(pin)) {
    subtract(window->settled, std::max(NanoUsd{}, charged - actual));
    add(window->overrun, overrun);
  } else {
    stray_ += actual - charged;
  }
  return overrun;
}

void Budget::reconfigure(BudgetSpec spec) {
  spec_.limit = spec.limit;
  spec_.mode = spec.mode;
  next_ = std::move(spec);
  if (current_.span == Window{}.span) spec_ = next_;  // nothing has begun yet
}

Budget::Window* Budget::window_of(Pin pin) noexcept {
  if (pin.window_start == current_.span.start) return &current_;
  if (pin.window_start == previous_.span.start) return &previous_;
  return nullptr;
}

}  // namespace penstock::policy
