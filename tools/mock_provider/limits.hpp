// Rate limits of the fake provider: true token buckets, one pair per credential, in integers.
#pragma once

#include <algorithm>
#include <cstdint>
#include <string>
#include <string_view>
#include <unordered_map>

namespace penstock::mock {

/// Refills continuously at `per_minute`, holds at most a minute's worth. Exact: the level is counted in
/// units * nanoseconds-per-minute, so that no refill is lost to rounding.
class TokenBucket {
 public:
  static constexpr std::int64_t kMinuteNs = 60'000'000'000;
  static constexpr std::int64_t kMaxPerMinute = 100'000'000;  // keeps the level within int64

  TokenBucket(std::int64_t per_minute, std::int64_t now_ns)
      : per_minute_(per_minute), level_(per_minute * kMinuteNs), filled_at_(now_ns) {}
  void refill(std::int64_t now_ns) {
    const std::int64_t elapsed = std::clamp<std::int64_t>(now_ns - filled_at_, 0, kMinuteNs);
    level_ = std::min(level_ + elapsed * per_minute_, per_minute_ * kMinuteNs);
    filled_at_ = now_ns;
  }
  [[nodiscard]] bool has(std::int64_t units) const { return units <= level_ / kMinuteNs; }
  void take(std::int64_t units) { level_ -= units * kMinuteNs; }
  [[nodiscard]] std::int64_t remaining() const { return level_ / kMinuteNs; }
  [[nodiscard]] std::int64_t limit() const { return per_minute_; }
  /// Time until `units` are there (a full bucket at most), rounded up.
  [[nodiscard]] std::int64_t wait_ns(std::int64_t units) const {
    const std::int64_t missing = std::min(units, per_minute_) * kMinuteNs - level_;
    return missing <= 0 ? 0 : (missing + per_minute_ - 1) / per_minute_;
  }

 private:
  std::int64_t per_minute_, level_, filled_at_;
};

enum class LimitStyle : std::uint8_t { openai, anthropic, github, silent };  // silent: no word of it

struct LimitSettings {
  std::int64_t requests_per_minute = 0;  // 0: no such limit
  std::int64_t tokens_per_minute = 0;
  LimitStyle style = LimitStyle::openai;
  int status = 429;         // GitHub also says 403
  std::string match = "/";  // path prefix
};

class RateLimits {
 public:
  void set(LimitSettings settings);
  void clear();
  [[nodiscard]] bool applies_to(std::string_view path) const {
    return active_ && path.starts_with(settings_.match);
  }

  struct Verdict {
    bool admitted = true;
    bool by_requests = false;  // else by tokens
    std::int64_t wait_ns = 0;
    std::int64_t limit = 0, remaining = 0, requested = 0;
  };
  /// Takes one request and `tokens` of `credential`, or nothing; appends the limit headers either way.
  Verdict take(std::string_view credential, std::int64_t tokens, std::int64_t now_ns,
               std::int64_t now_unix_ns, std::string& headers);
  [[nodiscard]] const LimitSettings& settings() const { return settings_; }

 private:
  struct Pair {
    TokenBucket requests, tokens;
  };
  static constexpr std::size_t kMaxCredentials = 10'000;
  bool active_ = false;
  LimitSettings settings_;
  std::unordered_map<std::string, Pair> pairs_;
};

/// As Go prints durations: 6m0s, 1.5s, 12ms.
[[nodiscard]] std::string go_duration(std::int64_t ns);
/// RFC 3339 in UTC, whole seconds, rounded up.
[[nodiscard]] std::string rfc3339(std::int64_t unix_ns);

}  // namespace penstock::mock
