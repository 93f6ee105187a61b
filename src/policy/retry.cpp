#include "policy/retry.hpp"

#include <algorithm>
#include <cassert>
#include <cmath>
#include <limits>

namespace penstock::policy {
namespace {

constexpr std::int64_t kOneRetry = 1'000;
/// Far above every sensible setting; keeps the sums of a busy second within int64.
constexpr double kMostPerSecond = 1e6;
constexpr double kMostRatio = 1e3;

std::int64_t thousandths(double value, double most) {
  return value > 0 ? std::llround(std::min(value, most) * static_cast<double>(kOneRetry)) : 0;
}

}  // namespace

RetryBudget::RetryBudget(double ratio, double per_second) {
  reconfigure(ratio, per_second);
  saved_.fill(per_second_);
  balance_ = per_second_ * static_cast<std::int64_t>(kSeconds);
}

void RetryBudget::advance(MonotonicTime now) noexcept {
  const std::int64_t second = now.time_since_epoch() / seconds{1};
  if (second <= second_) return;
  if (second - second_ >= static_cast<std::int64_t>(kSeconds)) {
    saved_.fill(per_second_);
    balance_ = per_second_ * static_cast<std::int64_t>(kSeconds);
  } else {
    for (std::int64_t entered = second_ + 1; entered <= second; ++entered) {
      std::int64_t& oldest = saved_[static_cast<std::size_t>(entered) % kSeconds];
      balance_ += per_second_ - oldest;
      oldest = per_second_;
    }
  }
  second_ = second;
}

void RetryBudget::deposit(MonotonicTime now) noexcept {
  advance(now);
  saved_[static_cast<std::size_t>(second_) % kSeconds] += per_first_attempt_;
  balance_ += per_first_attempt_;
}

bool RetryBudget::try_withdraw(MonotonicTime now) noexcept {
  advance(now);
  if (balance_ < kOneRetry) return false;
  balance_ -= kOneRetry;
  std::int64_t due = kOneRetry;
  for (std::size_t age = kSeconds; due > 0; --age) {
    assert(age > 0);
    std::int64_t& oldest = saved_[(static_cast<std::size_t>(second_) + kSeconds - (age - 1)) % kSeconds];
    const std::int64_t paid = std::min(oldest, due);
    oldest -= paid;
    due -= paid;
  }
  return true;
}

void RetryBudget::reconfigure(double ratio, double per_second) noexcept {
  per_first_attempt_ = thousandths(ratio, kMostRatio);
  per_second_ = thousandths(per_second, kMostPerSecond);
}

nanoseconds backoff_before(std::uint32_t attempt, const RetrySpec& spec, std::uint64_t random,
                           std::optional<nanoseconds> retry_after) noexcept {
  milliseconds ceiling = std::max(milliseconds{0}, spec.backoff);
  for (; attempt > 1 && ceiling < spec.max_backoff && ceiling.count() > 0; --attempt) ceiling *= 2;
  ceiling = std::clamp(ceiling, milliseconds{0}, std::max(milliseconds{0}, spec.max_backoff));
  const auto choices = static_cast<std::uint64_t>(nanoseconds{ceiling}.count()) + 1;
  const nanoseconds jitter{
      static_cast<std::int64_t>((static_cast<unsigned __int128>(random) * choices) >> 64)};
  if (!retry_after || *retry_after <= nanoseconds{0}) return jitter;
  return *retry_after > nanoseconds::max() - jitter ? nanoseconds::max() : *retry_after + jitter;
}

bool is_idempotent(std::string_view method) noexcept {
  return method == "GET" || method == "HEAD" || method == "OPTIONS" || method == "TRACE" || method == "PUT" ||
         method == "DELETE";
}

}  // namespace penstock::policy
