#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <mutex>

namespace penstock::gateway {

/// Metric series that differ in a small number (a status, a reason), made when first used and then found without a lock. Beyond `N`
/// different numbers the last place is shared.
template <class Series, std::size_t N = 24>
class SeriesByNumber {
 public:
  template <class Make>
  Series& get(std::uint32_t number, Make&& make) {
    for (std::size_t i = 0; i < N; ++i) {
      Series* const series = places_[i].series.load(std::memory_order_acquire);
      if (series == nullptr) break;
      if (places_[i].number == number) return *series;
    }
    const std::scoped_lock lock(mutex_);
    for (std::size_t i = 0; i < N; ++i) {
      Series* series = places_[i].series.load(std::memory_order_relaxed);
      if (series != nullptr && (places_[i].number == number || i + 1 == N)) return *series;
      if (series != nullptr) continue;
      places_[i].number = number;
      series = &make();
      places_[i].series.store(series, std::memory_order_release);
      return *series;
    }
    return *places_[N - 1].series.load();
  }

 private:
  struct Place {
    std::uint32_t number = 0;
    std::atomic<Series*> series{nullptr};
  };
  std::array<Place, N> places_{};
  std::mutex mutex_;
};

}  // namespace penstock::gateway
