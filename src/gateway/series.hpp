#pragma once

#include <array>
#include <atomic>
#include <cassert>
#include <cstdint>
#include <mutex>
#include <optional>
#include <type_traits>

namespace penstock::gateway {

/// Metric series that differ in a small number (a status, a reason), made when first used and then found
/// without a lock. There are at most `N` of them; all further numbers share one more, which `make` makes for
/// no number and labels "other".
template <class Series, std::size_t N = 24>
class SeriesByNumber {
 public:
  /// `make(std::optional<std::uint32_t>)` returns the series of a number, or of all that have no place; it is
  /// called once for each. Where the numbers are a closed set that always fits, `make()` does.
  template <class Make>
  Series& get(std::uint32_t number, Make&& make) {
    if (Series* const known = find(number)) return *known;
    const std::scoped_lock lock(mutex_);
    for (Place& place : places_) {
      Series* series = place.series.load(std::memory_order_relaxed);
      if (series != nullptr && place.number == number) return *series;
      if (series != nullptr) continue;
      place.number = number;
      series = &made(make, number);
      place.series.store(series, std::memory_order_release);
      return *series;
    }
    Series* other = other_.load(std::memory_order_relaxed);
    if (other == nullptr) {
      other = &made(make, std::nullopt);
      other_.store(other, std::memory_order_release);
    }
    return *other;
  }

 private:
  struct Place {
    std::uint32_t number = 0;
    std::atomic<Series*> series{nullptr};
  };

  template <class Make>
  static Series& made(Make& make, std::optional<std::uint32_t> number) {
    if constexpr (std::is_invocable_v<Make&>) {
      assert(number.has_value());
      return make();
    } else {
      return make(number);
    }
  }

  Series* find(std::uint32_t number) const noexcept {
    for (const Place& place : places_) {
      Series* const series = place.series.load(std::memory_order_acquire);
      if (series == nullptr) return nullptr;
      if (place.number == number) return series;
    }
    return other_.load(std::memory_order_acquire);  // once it is there, all places are taken
  }

  std::array<Place, N> places_{};
  std::atomic<Series*> other_{nullptr};
  std::mutex mutex_;
};

}  // namespace penstock::gateway
