#include "store/memory/memory_stores.hpp"

namespace penstock::store {

MemoryCallerLimits::MemoryCallerLimits(std::size_t max_callers)
    : max_in_stripe_(std::max<std::size_t>(1, max_callers / kStripes)) {}

CallerLimits::Answer MemoryCallerLimits::count(std::uint64_t caller, const policy::LimitSpec& limit,
                                               MonotonicTime now) {
  Stripe& stripe = stripes_[(caller * 0x9E3779B97F4A7C15ULL) >> 60];
  const std::scoped_lock lock(stripe.mutex);
  auto found = stripe.index.find(caller);
  if (found == stripe.index.end()) {
    if (stripe.recent.size() >= max_in_stripe_) {
      stripe.index.erase(stripe.recent.back().caller);
      stripe.recent.pop_back();
    }
    stripe.recent.push_front({caller, policy::WindowLimit(limit)});
    found = stripe.index.emplace(caller, stripe.recent.begin()).first;
  } else if (found->second != stripe.recent.begin()) {
    stripe.recent.splice(stripe.recent.begin(), stripe.recent, found->second);
  }
  policy::WindowLimit& window = found->second->limit;
  if (window.spec() != limit) window.reconfigure(limit, now);
  Answer answer;
  answer.retry_after = window.wait_for(1, now);
  answer.allowed = answer.retry_after == nanoseconds::zero();
  if (answer.allowed) window.take(1, now);
  answer.remaining = window.remaining(now);
  answer.reset_after = window.reset_after(now);
  return answer;
}

std::size_t MemoryCallerLimits::callers() const {
  std::size_t count = 0;
  for (const Stripe& stripe : stripes_) {
    const std::scoped_lock lock(stripe.mutex);
    count += stripe.recent.size();
  }
  return count;
}

void MemoryLedger::record(CallRecord call) {
  const std::scoped_lock lock(mutex_);
  total_ += call.cost;
  if (calls_.size() < max_calls_) {
    calls_.push_back(std::move(call));
    return;
  }
  calls_[next_] = std::move(call);
  next_ = (next_ + 1) % max_calls_;
}

std::vector<CallRecord> MemoryLedger::recent(std::size_t count) const {
  const std::scoped_lock lock(mutex_);
  std::vector<CallRecord> newest;
  for (std::size_t i = 0; i < std::min(count, calls_.size()); ++i)
    newest.push_back(calls_[(next_ + calls_.size() - 1 - i) % calls_.size()]);
  return newest;
}

NanoUsd MemoryLedger::total_cost() const {
  const std::scoped_lock lock(mutex_);
  return total_;
}

std::size_t MemoryDirectory::Hash::operator()(const KeyHash& hash) const noexcept {
  std::size_t value = 0;  // a hash of a random key is random already
  std::memcpy(&value, hash.data(), sizeof value);
  return value;
}

MemoryDirectory::MemoryDirectory(std::vector<std::pair<KeyHash, KeyEntry>> keys) {
  for (auto& [hash, entry] : keys) keys_.emplace(hash, std::make_shared<const KeyEntry>(std::move(entry)));
}

std::shared_ptr<const KeyEntry> MemoryDirectory::find_key(const KeyHash& hash) const {
  const auto found = keys_.find(hash);
  return found == keys_.end() ? nullptr : found->second;
}

}  // namespace penstock::store
