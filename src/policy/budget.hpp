#pragma once

#include <cstdint>
#include <expected>
#include <string>
#include <string_view>

#include "base/money.hpp"
#include "base/time.hpp"

namespace penstock::policy {

enum class BudgetWindow : std::uint8_t { daily, monthly };
enum class BudgetMode : std::uint8_t { hard, warn };

[[nodiscard]] std::string_view to_string(BudgetWindow window) noexcept;

/// USD per calendar window in an IANA time zone.
struct BudgetSpec {
  BudgetWindow window = BudgetWindow::daily;
  NanoUsd limit{};
  BudgetMode mode = BudgetMode::hard;
  std::string time_zone = "UTC";
  friend bool operator==(const BudgetSpec&, const BudgetSpec&) = default;
};

/// [start, end) as absolute instants; days of 23 and 25 hours and months of 28 to 31 days included.
struct WindowSpan {
  WallTime start{};
  WallTime end{};
  friend bool operator==(const WindowSpan&, const WindowSpan&) = default;
};

/// Whether the machine's tz database knows the zone.
[[nodiscard]] bool is_known_time_zone(std::string_view name);
/// Pre: the zone is known. Costs a microsecond or more: owners keep the result until its end.
[[nodiscard]] WindowSpan window_at(BudgetWindow window, std::string_view time_zone, WallTime now);

/// One budget of one subject: `settled + held <= limit` for a hard one, at every moment (G1).
///
/// A reservation is pinned to the window in which it was made; the window only moves forward, so that a clock
/// that jumps back cannot reopen one. Reservations of the window before the current one can still end; those
/// of older windows are counted in `stray()`. What a provider bills beyond a reservation is kept apart as
/// `overrun`: it is never part of `settled`, but it is spent, so new reservations must fit beside it. Pure;
/// not thread-safe.
class Budget {
 public:
  /// Names the window of a reservation: its start.
  struct Pin {
    WallTime window_start{};
  };

  explicit Budget(BudgetSpec spec);

  /// Adds what the current window has cost before this budget was made. Pre: advance was called.
  void count_past(NanoUsd settled, NanoUsd overrun) noexcept;
  /// Moves to the window of `now` if that is later. Every other member speaks of the window of the last call.
  void advance(WallTime now);
  /// Whether `estimate` (>= 0) fits. A `warn` budget always says yes.
  [[nodiscard]] bool may_reserve(NanoUsd estimate) const noexcept;
  Pin reserve(NanoUsd estimate) noexcept;            ///< pre: may_reserve(estimate)
  void release(Pin pin, NanoUsd reserved) noexcept;  ///< it never left: nothing was spent
  /// Returns the overrun: what `actual` is beyond `reserved` (a provider billed more than its stated most).
  NanoUsd settle(Pin pin, NanoUsd reserved, NanoUsd actual) noexcept;
  /// A late settlement of what was already charged at `charged` (an expired lease). Returns the overrun, as
  /// settle.
  NanoUsd correct(Pin pin, NanoUsd charged, NanoUsd actual) noexcept;

  [[nodiscard]] NanoUsd settled() const noexcept { return current_.settled; }
  [[nodiscard]] NanoUsd held() const noexcept { return current_.held; }
  [[nodiscard]] NanoUsd overrun() const noexcept { return current_.overrun; }
  /// All that the window has cost: settled and overrun.
  [[nodiscard]] NanoUsd spent() const noexcept { return current_.settled + current_.overrun; }
  /// Net spend (settlements and corrections) of windows too old to be kept.
  [[nodiscard]] NanoUsd stray() const noexcept { return stray_; }
  [[nodiscard]] WindowSpan span() const noexcept { return current_.span; }
  [[nodiscard]] const BudgetSpec& spec() const noexcept { return spec_; }
  /// A new limit or mode holds at once; a new window or zone takes effect when the current window ends, and
  /// its first window starts there.
  void reconfigure(BudgetSpec spec);

 private:
  struct Window {
    WindowSpan span{WallTime::min(), WallTime::min()};  ///< so: before the first advance
    NanoUsd settled{};
    NanoUsd held{};
    NanoUsd overrun{};
  };
  Window* window_of(Pin pin) noexcept;

  BudgetSpec spec_;
  BudgetSpec next_;  ///< differs from spec_ while a changed window or zone waits for the current window's end
  Window current_{};
  Window previous_{};
  NanoUsd stray_{};
};

}  // namespace penstock::policy
