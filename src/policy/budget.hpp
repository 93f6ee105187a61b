#pragma once

#include <cstdint>
#include <expected>
#include <optional>
#include <string>
#include <string_view>

#include "base/money.hpp"
#include "base/time.hpp"

namespace penstock::policy {

enum class BudgetWindow : std::uint8_t { daily, monthly };
enum class BudgetMode : std::uint8_t { hard, warn };

[[nodiscard]] std::string_view to_string(BudgetWindow window) noexcept;

/// Another limit until an instant, at which it ends by itself.
struct BudgetOverride {
  NanoUsd limit{};
  WallTime until{};    ///< the first instant at which it holds no more
  std::string reason;  ///< the operator's words; may be empty
  friend bool operator==(const BudgetOverride&, const BudgetOverride&) = default;
};

/// USD per calendar window in an IANA time zone.
struct BudgetSpec {
  BudgetWindow window = BudgetWindow::daily;
  NanoUsd limit{};
  BudgetMode mode = BudgetMode::hard;
  std::string time_zone = "UTC";
  std::optional<BudgetOverride> temporary = std::nullopt;

  /// The limit in force.
  [[nodiscard]] NanoUsd limit_at(WallTime now) const noexcept {
    return temporary && now < temporary->until ? temporary->limit : limit;
  }
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

/// "20 USD daily hard UTC", and what holds for a time: "..., 50 USD until 2026-12-01T00:00:00Z (launch)".
[[nodiscard]] std::string to_string(const BudgetSpec& spec);

/// One budget of one subject: `settled + held <= limit` for a hard one, at every moment (G1).
///
/// A reservation is pinned to the window in which it was made; the window only moves forward, so that a clock
/// that jumps back cannot reopen one. Reservations of the window before the current one can still end; those
/// of older windows are counted in `stray()`. What a provider bills beyond a reservation is kept apart as
/// `overrun`: it is never part of `settled`, but it is spent, so new reservations must fit beside it.
///
/// While a forward jump of the wall clock is doubted, a reservation must also fit, and is also counted, in
/// the window that the jumped clock names: if that turns out right, it begins with what was held meanwhile.
///
/// Pure; not thread-safe.
class Budget {
 public:
  /// Names the windows of a reservation by their numbers within this budget.
  struct Pin {
    std::uint32_t window = 0;
    std::uint32_t doubtful = 0;  ///< 0: the wall clock was not in doubt
  };

  explicit Budget(BudgetSpec spec);

  /// Adds what the current window has cost before this budget was made. Pre: advance was called.
  void count_past(NanoUsd settled, NanoUsd overrun) noexcept;
  /// Moves to the window of `now` if that is later, and takes the limit in force then. `doubtful_ahead`: as
  /// in Now. Every other member speaks of the moment of the last call.
  void advance(WallTime now, nanoseconds doubtful_ahead = nanoseconds{0});
  /// Whether `estimate` (>= 0) fits. A `warn` budget always says yes.
  [[nodiscard]] bool may_reserve(NanoUsd estimate) const noexcept;
  /// When `estimate`, which does not fit now, may fit for a reason that is known today;
  /// nanoseconds::max(): never. Pre: as advanced to `now`.
  [[nodiscard]] nanoseconds wait_for(NanoUsd estimate, WallTime now) const noexcept;
  Pin reserve(NanoUsd estimate) noexcept;  ///< pre: may_reserve(estimate)
  /// Holds a reservation of the current window that was made before this budget was, whether it fits or not.
  Pin take_over(NanoUsd reserved) noexcept;
  /// Of something that the current window counts already, as a part of what `count_past` added.
  [[nodiscard]] Pin pin() const noexcept { return {.window = current_.number, .doubtful = 0}; }
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
  /// The limit in force: the override's, while there is one.
  [[nodiscard]] NanoUsd limit() const noexcept { return limit_; }
  [[nodiscard]] const BudgetSpec& spec() const noexcept { return spec_; }
  /// A new limit, override or mode holds at once; a new window or zone takes effect when the current window
  /// ends, and its first window starts there. Advances to `now`.
  void reconfigure(BudgetSpec spec, WallTime now);

 private:
  struct Window {
    WindowSpan span{WallTime::min(), WallTime::min()};  ///< so: before the first advance
    std::uint32_t number = 0;
    NanoUsd settled{};
    NanoUsd held{};
    NanoUsd overrun{};
  };
  /// What a doubted wall clock says.
  struct Doubt {
    Window window;
    NanoUsd limit{};
  };
  [[nodiscard]] static bool fits(const Window& window, NanoUsd estimate, NanoUsd limit) noexcept;
  [[nodiscard]] Window window_after_current(WallTime now);
  void change(WallTime now);
  void consider(WallTime doubtful_now);
  Window* find(std::uint32_t number) noexcept;
  /// Calls `f` with each window that counts the reservation. False: the one that it was made in is gone.
  template <class F>
  bool for_windows(Pin pin, F f) noexcept;

  BudgetSpec spec_;
  BudgetSpec next_;  ///< differs from spec_ while a changed window or zone waits for the current window's end
  NanoUsd limit_{};
  WallTime changes_at_ = WallTime::min();  ///< the window or an override ends: whichever is first
  Window current_{};
  Window previous_{};
  std::optional<Doubt> doubt_;
  std::uint32_t last_number_ = 0;
  NanoUsd stray_{};
};

}  // namespace penstock::policy
