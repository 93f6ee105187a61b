#include "limits.hpp"

#include <ctime>

#include "text.hpp"

namespace penstock::mock {

namespace {

constexpr std::int64_t kSecondNs = 1'000'000'000;

void append_decimal(std::string& out, std::int64_t number, std::int64_t unit, std::string_view suffix) {
  append(out, number / unit);
  if (std::int64_t rest = number % unit; rest != 0) {
    std::string digits;
    for (unit /= 10; unit > 0; unit /= 10) {
      digits += static_cast<char>('0' + rest / unit);
      rest %= unit;
    }
    digits.resize(digits.find_last_not_of('0') + 1);
    append(out, ".", digits);
  }
  out += suffix;
}

// Anthropic rounds what is left of tokens to the nearest thousand.
std::int64_t thousands(std::int64_t tokens, std::int64_t limit) {
  return limit < 10'000 ? tokens : (tokens + 500) / 1000 * 1000;
}

void openai_headers(std::string& out, std::string_view what, const TokenBucket& bucket) {
  if (bucket.limit() == 0) return;
  append(out, "x-ratelimit-limit-", what, ": ", bucket.limit(), "\r\nx-ratelimit-remaining-", what, ": ",
         bucket.remaining(), "\r\nx-ratelimit-reset-", what, ": ",
         go_duration(bucket.wait_ns(bucket.limit())), "\r\n");
}

void anthropic_headers(std::string& out, std::string_view what, const TokenBucket& bucket,
                       std::int64_t unix_ns) {
  if (bucket.limit() == 0) return;
  const bool tokens = what == "tokens";
  append(out, "anthropic-ratelimit-", what, "-limit: ", bucket.limit(), "\r\nanthropic-ratelimit-", what,
         "-remaining: ", tokens ? thousands(bucket.remaining(), bucket.limit()) : bucket.remaining(),
         "\r\nanthropic-ratelimit-", what, "-reset: ", rfc3339(unix_ns + bucket.wait_ns(bucket.limit())),
         "\r\n");
}

}  // namespace

std::string go_duration(std::int64_t ns) {
  ns = (ns + 999'999) / 1'000'000 * 1'000'000;  // whole milliseconds, never promising too early
  std::string out;
  if (ns == 0) return "0s";
  if (ns < kSecondNs) {
    append(out, ns / 1'000'000, "ms");
    return out;
  }
  const std::int64_t minute = 60 * kSecondNs;
  if (ns >= 60 * minute) append(out, ns / (60 * minute), "h");
  if (ns >= minute) append(out, ns / minute % 60, "m");
  append_decimal(out, ns % minute, kSecondNs, "s");
  return out;
}

std::string rfc3339(std::int64_t unix_ns) {
  const auto seconds = static_cast<std::time_t>((unix_ns + kSecondNs - 1) / kSecondNs);
  std::tm utc{};
  gmtime_r(&seconds, &utc);
  char text[32];
  return {text, std::strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%SZ", &utc)};
}

void RateLimits::set(LimitSettings settings) {
  settings_ = std::move(settings);
  pairs_.clear();
  active_ = settings_.requests_per_minute > 0 || settings_.tokens_per_minute > 0;
}

void RateLimits::clear() { set({}); }

RateLimits::Verdict RateLimits::take(std::string_view credential, std::int64_t tokens, std::int64_t now_ns,
                                     std::int64_t now_unix_ns, std::string& headers) {
  // Past the bound, strangers share one bucket: memory stays flat, and no limit is widened.
  std::string name(pairs_.size() < kMaxCredentials ? credential : "");
  if (pairs_.size() >= kMaxCredentials && pairs_.contains(std::string(credential))) name = credential;
  Pair& pair = pairs_
                   .try_emplace(std::move(name), Pair{{settings_.requests_per_minute, now_ns},
                                                      {settings_.tokens_per_minute, now_ns}})
                   .first->second;
  pair.requests.refill(now_ns);
  pair.tokens.refill(now_ns);

  Verdict verdict;
  const bool no_request = settings_.requests_per_minute > 0 && !pair.requests.has(1);
  const bool no_tokens = settings_.tokens_per_minute > 0 && !pair.tokens.has(tokens);
  if (no_request || no_tokens) {
    const TokenBucket& short_of = no_request ? pair.requests : pair.tokens;
    const std::int64_t wanted = no_request ? 1 : tokens;
    verdict = {false, no_request, short_of.wait_ns(wanted), short_of.limit(), short_of.remaining(), wanted};
    if (no_request && no_tokens) verdict.wait_ns = std::max(verdict.wait_ns, pair.tokens.wait_ns(tokens));
  } else {
    if (settings_.requests_per_minute > 0) pair.requests.take(1);
    if (settings_.tokens_per_minute > 0) pair.tokens.take(tokens);
  }

  switch (settings_.style) {
    case LimitStyle::openai:
      openai_headers(headers, "requests", pair.requests);
      openai_headers(headers, "tokens", pair.tokens);
      break;
    case LimitStyle::anthropic:
      anthropic_headers(headers, "requests", pair.requests, now_unix_ns);
      anthropic_headers(headers, "tokens", pair.tokens, now_unix_ns);
      break;
    case LimitStyle::github: {
      const TokenBucket& bucket = pair.requests;
      const std::int64_t full_at = now_unix_ns + bucket.wait_ns(bucket.limit());
      append(headers, "x-ratelimit-limit: ", bucket.limit(),
             "\r\nx-ratelimit-remaining: ", bucket.remaining(),
             "\r\nx-ratelimit-used: ", bucket.limit() - bucket.remaining(),
             "\r\nx-ratelimit-reset: ", (full_at + kSecondNs - 1) / kSecondNs,
             "\r\nx-ratelimit-resource: core\r\n");
      break;
    }
    case LimitStyle::silent: return verdict;
  }
  if (!verdict.admitted) {
    append(headers, "retry-after: ", (verdict.wait_ns + kSecondNs - 1) / kSecondNs, "\r\n");
    if (settings_.style == LimitStyle::openai)
      append(headers, "retry-after-ms: ", (verdict.wait_ns + 999'999) / 1'000'000, "\r\n");
  }
  return verdict;
}

}  // namespace penstock::mock
