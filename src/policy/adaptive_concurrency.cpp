#include "policy/adaptive_concurrency.hpp"

#include <algorithm>

namespace penstock::policy {
namespace {

constexpr double kDecrease = 0.9;

}  // namespace

bool AdaptiveConcurrency::may_start(MonotonicTime now) noexcept {
  if (limit_ == 0) return true;
  if (now - last_drop_ > kForgetAfter) {
    forget();
    return true;
  }
  return in_flight_ < static_cast<std::uint32_t>(limit_);
}

void AdaptiveConcurrency::succeeded() noexcept {
  if (limit_ == 0 || in_flight_ * 2.0 < limit_) return;
  limit_ += 1 / limit_;
  if (limit_ > kMost) forget();
}

void AdaptiveConcurrency::dropped(std::uint64_t number, MonotonicTime now) noexcept {
  last_drop_ = std::max(last_drop_, now);
  if (number <= decreased_at_) return;
  decreased_at_ = started_;
  limit_ = limit_ == 0 ? std::max<double>(kFirst, in_flight_ * kDecrease)
                       : std::max<double>(kLeast, limit_ * kDecrease);
}

std::optional<std::uint32_t> AdaptiveConcurrency::limit() const noexcept {
  return limit_ == 0 ? std::nullopt : std::optional(static_cast<std::uint32_t>(limit_));
}

}  // namespace penstock::policy
