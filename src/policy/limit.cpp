#include "policy/limit.hpp"

#include <algorithm>
#include <array>
#include <cassert>
#include <charconv>
#include <limits>
#include <optional>

namespace penstock::policy {
namespace {

constexpr nanoseconds kMinPeriod = seconds{1};
constexpr nanoseconds kMaxPeriod = std::chrono::days{31};
/// Exact in every backend, Lua's doubles too.
constexpr std::int64_t kMaxAmount = (std::int64_t{1} << 53) - 1;

/// The long name stands for one of the unit ("100/minute"), the short one follows a number ("5/10s").
struct PeriodUnit {
  std::string_view short_name;
  std::string_view long_name;
  nanoseconds length;
};
// Largest first: to_string takes the first that divides the period.
constexpr std::array<PeriodUnit, 5> kPeriodUnits{{
    {"d", "day", std::chrono::days{1}},
    {"h", "hour", std::chrono::hours{1}},
    {"m", "minute", std::chrono::minutes{1}},
    {"s", "second", seconds{1}},
    {"ms", "millisecond", milliseconds{1}},
}};

std::unexpected<std::string> not_a_limit(std::string_view problem) {
  return std::unexpected(std::string(problem) +
                         "; expected a limit like 100/minute, 5/10s or 90000 tokens/minute");
}

void skip_spaces(std::string_view& text) {
  while (!text.empty() && text.front() == ' ') text.remove_prefix(1);
}

/// Takes the digits at the front; nothing when there are none or too many.
std::optional<std::int64_t> take_number(std::string_view& text) {
  std::int64_t value = 0;
  if (text.empty() || text.front() < '0' || text.front() > '9') return std::nullopt;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc{}) return std::nullopt;
  text.remove_prefix(static_cast<std::size_t>(end - text.data()));
  return value;
}

std::string_view take_word(std::string_view& text) {
  std::size_t length = 0;
  while (length < text.size() && text[length] >= 'a' && text[length] <= 'z') ++length;
  const std::string_view word = text.substr(0, length);
  text.remove_prefix(length);
  return word;
}

std::optional<nanoseconds> length_of_unit(std::string_view word) {
  if (word == "min") return std::chrono::minutes{1};
  if (word == "sec") return seconds{1};
  for (const PeriodUnit& unit : kPeriodUnits) {
    if (word == unit.short_name || word == unit.long_name) return unit.length;
    if (word.ends_with('s') && word.substr(0, word.size() - 1) == unit.long_name) return unit.length;
  }
  return std::nullopt;
}

}  // namespace

std::expected<LimitSpec, std::string> parse_limit(std::string_view text) {
  LimitSpec spec;
  skip_spaces(text);
  const auto amount = take_number(text);
  if (!amount) return not_a_limit("a limit starts with a whole number");
  if (*amount < 1 || *amount > kMaxAmount) return not_a_limit("a limit is from 1 to 9007199254740991");
  spec.amount = *amount;

  skip_spaces(text);
  if (const std::string_view word = take_word(text); word == "tokens" || word == "token") {
    spec.unit = LimitUnit::tokens;
  } else if (!word.empty() && word != "calls" && word != "call") {
    return not_a_limit("a limit counts calls or tokens");
  }

  skip_spaces(text);
  if (!text.starts_with('/')) return not_a_limit("a limit has one / before its period");
  text.remove_prefix(1);
  skip_spaces(text);
  std::int64_t count = 1;
  if (!text.empty() && text.front() >= '0' && text.front() <= '9') {
    const auto number = take_number(text);
    if (!number || *number > kMaxPeriod / milliseconds{1})
      return not_a_limit("a limit's period is from 1s to 31d");
    count = *number;
    skip_spaces(text);
  }
  const auto length = length_of_unit(take_word(text));
  skip_spaces(text);
  if (!length || !text.empty()) return not_a_limit("a limit's period is in s, m, h or d");
  if (count > kMaxPeriod / *length || *length * count < kMinPeriod)
    return not_a_limit("a limit's period is from 1s to 31d");
  spec.period = *length * count;
  return spec;
}

std::string to_string(const LimitSpec& spec) {
  std::string text = std::to_string(spec.amount);
  if (spec.unit == LimitUnit::tokens) text += " tokens";
  text += '/';
  for (const PeriodUnit& unit : kPeriodUnits) {
    if (spec.period % unit.length != nanoseconds{0}) continue;
    if (spec.period == unit.length) return text += unit.long_name;
    return (text += std::to_string(spec.period / unit.length)) += unit.short_name;
  }
  return (text += std::to_string(spec.period.count())) += "ns";  // no configuration makes this
}

WindowLimit::WindowLimit(LimitSpec spec) : spec_(spec), buckets_(kRing, 0) {
  assert(spec.amount > 0 && spec.period > nanoseconds{0});
  bucket_length_ = (spec_.period + nanoseconds{kAge - 1}) / kAge;
  start_at(0);
}

std::int64_t& WindowLimit::at(std::int64_t bucket) noexcept {
  return buckets_[static_cast<std::size_t>(bucket) % kRing];
}

MonotonicTime WindowLimit::expiry_of(std::int64_t bucket) const noexcept {
  return MonotonicTime{bucket_length_ * (bucket + kAge + 1)};
}

void WindowLimit::start_at(std::int64_t bucket) noexcept {
  current_ = bucket;
  current_end_ = MonotonicTime{bucket_length_ * (bucket + 1)};
}

void WindowLimit::advance(MonotonicTime now) noexcept {
  if (now < current_end_) return;
  const std::int64_t bucket = now.time_since_epoch() / bucket_length_;
  if (bucket - current_ > kAge) {
    if (sum_ != 0) std::ranges::fill(buckets_, 0);
    sum_ = 0;
  } else if (sum_ != 0) {
    for (std::int64_t entered = current_ + 1; entered <= bucket; ++entered) {
      std::int64_t& oldest = at(entered);  // its slot is that of the one which leaves
      sum_ -= oldest;
      oldest = 0;
    }
  }
  start_at(bucket);
}

nanoseconds WindowLimit::wait_for(std::int64_t cost, MonotonicTime now) noexcept {
  assert(cost >= 0);
  if (cost > spec_.amount) return nanoseconds::max();
  advance(now);
  std::int64_t excess = sum_ - (spec_.amount - cost);
  if (excess <= 0) return nanoseconds{0};
  std::int64_t bucket = std::max<std::int64_t>(0, current_ - kAge);
  for (; bucket < current_; ++bucket) {
    excess -= at(bucket);
    if (excess <= 0) break;
  }
  return expiry_of(bucket) - now;
}

WindowLimit::Ticket WindowLimit::take(std::int64_t cost, MonotonicTime now) noexcept {
  advance(now);
  assert(cost >= 0 && cost <= spec_.amount - sum_);
  at(current_) += cost;
  sum_ += cost;
  return {current_ + ticket_offset_};
}

void WindowLimit::count_past(std::int64_t cost, MonotonicTime when) noexcept {
  advance(when);
  cost = std::clamp<std::int64_t>(cost, 0, std::numeric_limits<std::int64_t>::max() - sum_);
  at(current_) += cost;
  sum_ += cost;
}

void WindowLimit::correct(Ticket ticket, std::int64_t delta, MonotonicTime now) noexcept {
  advance(now);
  std::int64_t number = ticket.bucket;
  if (number <= carried_to_) {
    if (number < carried_from_) return;
    number = carried_to_ + 1;
  }
  const std::int64_t bucket = number - ticket_offset_;
  if (bucket > current_ || bucket < current_ - kAge) return;
  std::int64_t& count = at(bucket);
  delta = std::clamp(delta, -count, std::numeric_limits<std::int64_t>::max() - sum_);
  count += delta;
  sum_ += delta;
}

std::int64_t WindowLimit::used(MonotonicTime now) noexcept {
  advance(now);
  return sum_;
}

std::int64_t WindowLimit::remaining(MonotonicTime now) noexcept {
  return std::max<std::int64_t>(0, spec_.amount - used(now));
}

nanoseconds WindowLimit::reset_after(MonotonicTime now) noexcept {
  advance(now);
  if (sum_ == 0) return nanoseconds{0};
  std::int64_t newest = current_;
  while (at(newest) == 0) --newest;
  return expiry_of(newest) - now;
}

void WindowLimit::reconfigure(LimitSpec spec, MonotonicTime now) {
  assert(spec.amount > 0 && spec.period > nanoseconds{0});
  advance(now);
  const LimitSpec old = spec_;
  spec_ = spec;
  if (spec.period == old.period && spec.unit == old.unit) return;
  const bool keeps_counts = spec.unit == old.unit;
  carried_to_ = current_ + ticket_offset_;
  carried_from_ = keeps_counts ? carried_to_ - kAge : carried_to_ + 1;
  bucket_length_ = (spec_.period + nanoseconds{kAge - 1}) / kAge;
  start_at(now.time_since_epoch() / bucket_length_);
  ticket_offset_ = carried_to_ + 1 - current_;
  std::ranges::fill(buckets_, 0);
  if (!keeps_counts) sum_ = 0;
  at(current_) = sum_;
}

}  // namespace penstock::policy
