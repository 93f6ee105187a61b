#include "policy/limit_headers.hpp"

#include <algorithm>
#include <charconv>
#include <chrono>
#include <span>

namespace penstock::policy {
namespace {

/// A longer wait is a mistake or an attack; providers' windows are a day at most.
constexpr nanoseconds kMaxReset = std::chrono::hours{24};
/// A reset of nothing would make the rate infinite, and RFC 3339 without a fraction is up to a second early.
constexpr nanoseconds kMinReset = seconds{1};
/// Exact in every backend; nobody's limit is larger.
constexpr std::int64_t kMaxAmount = (std::int64_t{1} << 53) - 1;
constexpr std::size_t kMaxName = 48;
/// Anthropic rounds what is left of tokens to the nearest thousand.
constexpr std::int64_t kAnthropicRounding = 500;

constexpr char lower(char c) noexcept { return c >= 'A' && c <= 'Z' ? static_cast<char>(c | 0x20) : c; }

bool is_digit(char c) noexcept { return c >= '0' && c <= '9'; }

bool starts_with(std::string_view name, std::string_view prefix) noexcept {
  return name.size() >= prefix.size() && std::ranges::equal(name.substr(0, prefix.size()), prefix, {}, lower);
}

std::string_view trim(std::string_view text) noexcept {
  while (!text.empty() && (text.front() == ' ' || text.front() == '\t')) text.remove_prefix(1);
  while (!text.empty() && (text.back() == ' ' || text.back() == '\t')) text.remove_suffix(1);
  return text;
}

bool take(std::string_view& text, std::string_view prefix) noexcept {
  if (!text.starts_with(prefix)) return false;
  text.remove_prefix(prefix.size());
  return true;
}

/// Digits at the front, of at most `most`.
std::optional<std::int64_t> take_digits(std::string_view& text, std::int64_t most) noexcept {
  std::int64_t value = 0;
  if (text.empty() || !is_digit(text.front())) return std::nullopt;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc{} || value > most) return std::nullopt;
  text.remove_prefix(static_cast<std::size_t>(end - text.data()));
  return value;
}

/// Nanoseconds of ".25" seconds; digits below them are passed over. Nothing: a point without digits.
std::optional<std::int64_t> take_fraction(std::string_view& text) noexcept {
  if (!take(text, ".")) return 0;
  if (text.empty() || !is_digit(text.front())) return std::nullopt;
  std::int64_t value = 0;
  std::int64_t scale = 100'000'000;
  while (!text.empty() && is_digit(text.front())) {
    value += (text.front() - '0') * scale;
    scale /= 10;
    text.remove_prefix(1);
  }
  return value;
}

/// An amount: "60", "59.5" (rounded down), and the first of "100, 100;w=60".
std::optional<std::int64_t> parse_amount(std::string_view text) noexcept {
  text = trim(text.substr(0, text.find_first_of(",;")));
  const auto value = take_digits(text, kMaxAmount);
  if (!value || !take_fraction(text) || !text.empty()) return std::nullopt;
  return value;
}

/// "6m0s", "1.5s", "12ms", each unit once or more; a number without a unit is seconds.
std::optional<nanoseconds> parse_go_duration(std::string_view text) noexcept {
  struct Unit {
    std::string_view name;
    std::int64_t length;
  };
  constexpr std::int64_t kSecond = 1'000'000'000;
  static constexpr std::array<Unit, 8> kUnits{{{"ms", 1'000'000},
                                               {"us", 1'000},
                                               {"\xC2\xB5s", 1'000},
                                               {"ns", 1},
                                               {"d", 86'400 * kSecond},
                                               {"h", 3'600 * kSecond},
                                               {"m", 60 * kSecond},
                                               {"s", kSecond}}};
  __int128 sum = 0;
  bool is_first = true;
  if (text.empty()) return std::nullopt;
  while (!text.empty()) {
    const auto whole = take_digits(text, kMaxAmount);
    if (!whole) return std::nullopt;
    const auto fraction = take_fraction(text);
    if (!fraction) return std::nullopt;
    const auto* const unit =
        std::ranges::find_if(kUnits, [&](const Unit& each) { return take(text, each.name); });
    if (unit == kUnits.end() && !(is_first && text.empty())) return std::nullopt;
    const std::int64_t length = unit == kUnits.end() ? kSecond : unit->length;
    sum += static_cast<__int128>(*whole) * length + static_cast<__int128>(*fraction) * length / kSecond;
    if (sum > kMaxReset.count()) return std::nullopt;
    is_first = false;
  }
  return nanoseconds{static_cast<std::int64_t>(sum)};
}

/// "2026-01-01T00:00:00Z", with a fraction and an offset where they stand.
std::optional<WallTime> parse_rfc3339(std::string_view text) noexcept {
  const auto number = [&](std::size_t digits, std::int64_t most) -> std::int64_t {
    if (text.size() < digits) return -1;
    std::string_view part = text.substr(0, digits);
    const auto value = take_digits(part, most);
    if (!value || !part.empty()) return -1;
    text.remove_prefix(digits);
    return *value;
  };
  const auto separator = [&](std::string_view any) {
    if (text.empty() || any.find(text.front()) == std::string_view::npos) return false;
    text.remove_prefix(1);
    return true;
  };
  const std::int64_t year = number(4, 2200);
  if (year < 1970 || !separator("-")) return std::nullopt;
  const std::int64_t month = number(2, 12);
  if (month < 1 || !separator("-")) return std::nullopt;
  const std::int64_t day = number(2, 31);
  if (day < 1 || !separator("Tt ")) return std::nullopt;
  const std::int64_t hour = number(2, 23);
  if (hour < 0 || !separator(":")) return std::nullopt;
  const std::int64_t minute = number(2, 59);
  if (minute < 0 || !separator(":")) return std::nullopt;
  const std::int64_t second = number(2, 60);
  const auto fraction = take_fraction(text);
  if (second < 0 || !fraction) return std::nullopt;
  const std::chrono::year_month_day date{std::chrono::year{static_cast<int>(year)},
                                         std::chrono::month{static_cast<unsigned>(month)},
                                         std::chrono::day{static_cast<unsigned>(day)}};
  if (!date.ok()) return std::nullopt;
  WallTime at = std::chrono::sys_days{date} + std::chrono::hours{hour} + std::chrono::minutes{minute} +
                seconds{second} + nanoseconds{*fraction};
  if (text == "Z" || text == "z") return at;
  if (text.empty()) return std::nullopt;
  const bool is_east = text.front() == '+';
  if (!separator("+-")) return std::nullopt;
  const std::int64_t hours = number(2, 23);
  if (hours < 0 || !separator(":")) return std::nullopt;
  const std::int64_t minutes = number(2, 59);
  if (minutes < 0 || !text.empty()) return std::nullopt;
  const std::chrono::minutes offset{hours * 60 + minutes};
  return is_east ? at - offset : at + offset;
}

}  // namespace

std::string_view to_string(LimitDimension dimension) noexcept {
  switch (dimension) {
    case LimitDimension::requests: return "requests";
    case LimitDimension::tokens: return "tokens";
    case LimitDimension::input_tokens: return "input_tokens";
    case LimitDimension::output_tokens: return "output_tokens";
  }
  return "requests";
}

std::optional<LimitHeaders::Reset> LimitHeaders::parse_reset(std::string_view text) noexcept {
  text = trim(text);
  // From here on a number is a time since 1970, in seconds or milliseconds: no wait is that long.
  constexpr std::int64_t kEpochFrom = 1'000'000'000;
  constexpr std::int64_t kMillisecondsFrom = 1'000'000'000'000;
  if (text.size() > 8 && text[4] == '-') {
    const auto at = parse_rfc3339(text);
    return at ? std::optional(Reset{.at = at}) : std::nullopt;
  }
  std::string_view rest = text;
  if (const auto number = take_digits(rest, kMillisecondsFrom * 10);
      number && *number >= kEpochFrom && take_fraction(rest) && rest.empty()) {
    const nanoseconds since = *number >= kMillisecondsFrom ? nanoseconds{milliseconds{*number}}
                              : *number < kEpochFrom * 9   ? nanoseconds{seconds{*number}}
                                                           : nanoseconds{-1};
    return since < nanoseconds{0} ? std::nullopt : std::optional(Reset{.at = WallTime{since}});
  }
  const auto after = parse_go_duration(text);
  return after ? std::optional(Reset{.after = *after, .at = {}}) : std::nullopt;
}

bool LimitHeaders::concerns(std::string_view name) noexcept {
  if (name.size() < 9 || name.size() > kMaxName) return false;
  switch (lower(name.front())) {
    case 'x': return starts_with(name, "x-ratelimit-");
    case 'a': return starts_with(name, "anthropic-ratelimit-");
    case 'r': return starts_with(name, "ratelimit");
    default: return false;
  }
}

void LimitHeaders::add(std::string_view name, std::string_view value) noexcept {
  if (!concerns(name)) return;
  std::array<char, kMaxName> buffer{};
  std::ranges::transform(name, buffer.begin(), lower);
  std::string_view rest{buffer.data(), name.size()};
  empty_ = false;
  if (take(rest, "anthropic-ratelimit-")) return add_anthropic(rest, value);
  if (rest == "ratelimit") return add_items(value, left_);
  if (rest == "ratelimit-policy") return add_items(value, policies_);
  if (take(rest, "x-ratelimit-") || take(rest, "ratelimit-")) add_openai(rest, value);
}

void LimitHeaders::add_openai(std::string_view rest, std::string_view value) noexcept {
  const std::size_t dash = rest.find('-');
  const std::string_view what = rest.substr(0, dash);
  const std::string_view of = dash == std::string_view::npos ? std::string_view{} : rest.substr(dash + 1);
  if (of.empty()) return tell(Group::plain, what, value);
  if (of == "requests") return tell(Group::openai_requests, what, value);
  if (of == "tokens") return tell(Group::openai_tokens, what, value);
  if (of == "project-tokens") return tell(Group::openai_project_tokens, what, value);
}

void LimitHeaders::add_anthropic(std::string_view rest, std::string_view value) noexcept {
  if (take(rest, "requests-")) return tell(Group::anthropic_requests, rest, value);
  if (take(rest, "tokens-")) return tell(Group::anthropic_tokens, rest, value);
  if (take(rest, "input-tokens-")) return tell(Group::anthropic_input_tokens, rest, value);
  if (take(rest, "output-tokens-")) return tell(Group::anthropic_output_tokens, rest, value);
}

void LimitHeaders::tell(Group group, std::string_view what, std::string_view value) noexcept {
  Told& told = told_[static_cast<std::size_t>(group)];
  if (what == "reset") {
    if (const auto reset = parse_reset(value)) told.reset = *reset;
    return;
  }
  const bool is_limit = what == "limit";
  if (!is_limit && what != "remaining") return;
  const auto amount = parse_amount(value);
  if (!amount || (is_limit && *amount == 0)) told.absurd = true;
  (is_limit ? told.limit : told.remaining) = amount.value_or(-1);
}

/// A list of items, or the drafts' older form: limit=100, remaining=50, reset=5.
void LimitHeaders::add_items(std::string_view value, Items& items) noexcept {
  while (!value.empty()) {
    std::size_t end = 0;
    for (bool quoted = false; end < value.size() && (quoted || value[end] != ','); ++end)
      if (value[end] == '"') quoted = !quoted;
    std::string_view item = trim(value.substr(0, end));
    if (const std::size_t equals = item.find('='); equals < item.find_first_of(";\""))
      tell(Group::plain, item.substr(0, equals), item.substr(equals + 1));
    else if (!item.empty())
      add_item(item, items);
    value.remove_prefix(std::min(value.size(), end + 1));
  }
}

void LimitHeaders::add_item(std::string_view text, Items& items) noexcept {
  if (items.size == kItems) return;
  Item item;
  std::size_t semicolon = text.find(';');
  item.name = trim(text.substr(0, semicolon));
  while (semicolon != std::string_view::npos) {
    text.remove_prefix(semicolon + 1);
    semicolon = text.find(';');
    const std::string_view parameter = trim(text.substr(0, semicolon));
    const std::size_t equals = parameter.find('=');
    if (equals == std::string_view::npos) continue;
    const std::string_view key = parameter.substr(0, equals);
    const std::string_view value = parameter.substr(equals + 1);
    if (key == "r" || key == "q") item.amount = parse_amount(value).value_or(-1);
    if (key == "t" || key == "w") item.seconds = parse_amount(value).value_or(-1);
    if (key == "penstock-unit" && value == "\"tokens\"") item.dimension = LimitDimension::tokens;
    if (key == "qu" && value != "\"requests\"" && value != "\"request\"") item.dimension = std::nullopt;
  }
  if (item.amount >= 0) items.all[items.size++] = item;
}

LimitReadings LimitHeaders::readings(WallTime unix_now) const noexcept {
  LimitReadings out;
  const auto offer = [&](LimitDimension dimension, const LimitReading& reading) {
    auto& place = out[static_cast<std::size_t>(dimension)];
    if (!place || reading.remaining < place->remaining) place = reading;
  };
  const auto clamped = [](nanoseconds reset) {
    return reset > kMaxReset ? nanoseconds{0} : std::max(reset, kMinReset);
  };
  for (std::size_t i = 0; i < kGroups; ++i) {
    const Told& told = told_[i];
    if (told.absurd || told.remaining < 0 || (told.limit >= 0 && told.remaining > told.limit)) continue;
    LimitReading reading{.limit = std::max<std::int64_t>(0, told.limit), .remaining = told.remaining};
    if (told.reset.at) {
      reading.reset = clamped(*told.reset.at - unix_now);
    } else if (told.reset.after >= nanoseconds{0}) {
      reading.reset = clamped(told.reset.after);
    }
    const auto group = static_cast<Group>(i);
    if (group != Group::plain) reading.refill = LimitReading::Refill::gradual;
    switch (group) {
      case Group::openai_requests:
      case Group::anthropic_requests:
      case Group::plain: offer(LimitDimension::requests, reading); break;
      case Group::openai_tokens:
      case Group::openai_project_tokens: offer(LimitDimension::tokens, reading); break;
      case Group::anthropic_tokens:
        reading.rounding = kAnthropicRounding;
        offer(LimitDimension::tokens, reading);
        break;
      case Group::anthropic_input_tokens:
        reading.rounding = kAnthropicRounding;
        offer(LimitDimension::input_tokens, reading);
        break;
      case Group::anthropic_output_tokens:
        reading.rounding = kAnthropicRounding;
        offer(LimitDimension::output_tokens, reading);
        break;
    }
  }
  for (std::size_t i = 0; i < left_.size; ++i) {
    const Item& left = left_.all[i];
    const auto policies = std::span(policies_.all).first(policies_.size);
    const auto policy = std::ranges::find(policies, left.name, &Item::name);
    LimitReading reading{.remaining = left.amount};
    auto dimension = left.dimension;
    if (policy != policies.end()) {
      if (policy->amount == 0 || policy->amount < left.amount) continue;
      reading.limit = policy->amount;
      dimension = policy->dimension;
    }
    if (left.seconds >= 0 && left.seconds <= kMaxReset / seconds{1})
      reading.reset = clamped(seconds{left.seconds});
    if (dimension) offer(*dimension, reading);
  }
  return out;
}

}  // namespace penstock::policy
