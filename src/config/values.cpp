#include "config/values.hpp"

#include <algorithm>
#include <array>
#include <charconv>
#include <chrono>
#include <limits>

#include <fmt/format.h>

#include "policy/budget.hpp"

namespace penstock::config {

namespace {

bool is_digit(char c) { return c >= '0' && c <= '9'; }
bool is_letter(char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'); }

std::string lower(std::string_view text) {
  std::string out(text);
  for (char& c : out) {
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
  }
  return out;
}

std::unexpected<Complaint> refuse(std::string text, std::string hint = {}) {
  return std::unexpected(Complaint{.text = std::move(text), .hint = std::move(hint)});
}

std::string suggest(std::string_view text) { return fmt::format("did you mean {}?", shown(text)); }

template <class T>
std::optional<T> whole_number(std::string_view text) {
  T value{};
  if (text.empty() || !std::ranges::all_of(text, is_digit)) return std::nullopt;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc{} || end != text.data() + text.size()) return std::nullopt;
  return value;
}

/// "32 KiB" as "32" and "KiB".
struct NumberAndUnit {
  std::string_view number;
  std::string_view unit;
};
NumberAndUnit split_unit(std::string_view text) {
  const auto end = static_cast<std::size_t>(std::ranges::find_if_not(text, is_digit) - text.begin());
  std::string_view unit = text.substr(end);
  while (!unit.empty() && unit.front() == ' ') unit.remove_prefix(1);
  return {text.substr(0, end), unit};
}

struct Spelling {
  std::string_view spelled;
  std::string_view meant;
};

/// The usual spelling of a unit that is nearly right.
std::string_view meant_unit(std::string_view unit, std::span<const Spelling> spellings) {
  const std::string spelled = lower(unit);
  for (const auto& [known, meant] : spellings) {
    if (spelled == known) return meant;
  }
  return {};
}

struct Unit {
  std::string_view name;
  std::uint64_t factor;
};
constexpr std::array<Unit, 4> kDurationUnits{{{"ms", 1}, {"s", 1'000}, {"m", 60'000}, {"h", 3'600'000}}};
constexpr std::array<Unit, 4> kSizeUnits{
    {{"", 1}, {"KiB", 1U << 10U}, {"MiB", 1U << 20U}, {"GiB", 1U << 30U}}};

constexpr std::array<Spelling, 20> kDurationSpellings{{
    {"ms", "ms"}, {"msec", "ms"}, {"millis", "ms"}, {"milliseconds", "ms"}, {"s", "s"},
    {"sec", "s"}, {"secs", "s"},  {"second", "s"},  {"seconds", "s"},       {"", "s"},
    {"m", "m"},   {"min", "m"},   {"mins", "m"},    {"minute", "m"},        {"minutes", "m"},
    {"h", "h"},   {"hr", "h"},    {"hrs", "h"},     {"hour", "h"},          {"hours", "h"},
}};
constexpr std::array<Spelling, 12> kSizeSpellings{{
    {"b", ""},
    {"bytes", ""},
    {"k", "KiB"},
    {"kb", "KiB"},
    {"kib", "KiB"},
    {"ki", "KiB"},
    {"m", "MiB"},
    {"mb", "MiB"},
    {"mib", "MiB"},
    {"mi", "MiB"},
    {"g", "GiB"},
    {"gb", "GiB"},
}};

template <std::size_t N>
std::optional<std::uint64_t> in_units(const NumberAndUnit& parts, const std::array<Unit, N>& units) {
  const auto number = whole_number<std::uint64_t>(parts.number);
  const auto unit = std::ranges::find(units, parts.unit, &Unit::name);
  // Far above every bound of a field, far below the end of int64.
  constexpr std::uint64_t kMost = std::uint64_t{1} << 53U;
  if (!number || unit == units.end() || *number > kMost / unit->factor) return std::nullopt;
  return *number * unit->factor;
}

template <std::size_t N>
std::string in_largest_unit(std::uint64_t value, const std::array<Unit, N>& units) {
  for (auto unit = units.rbegin(); unit != units.rend(); ++unit) {
    if (value != 0 && value % unit->factor == 0) return fmt::format("{}{}", value / unit->factor, unit->name);
  }
  return fmt::format("{}{}", value, units.front().name);
}

template <std::size_t N>
std::string unit_hint(const NumberAndUnit& parts, const std::array<Spelling, N>& spellings,
                      const auto& units) {
  const std::string repaired = fmt::format("{}{}", parts.number, meant_unit(parts.unit, spellings));
  return in_units(split_unit(repaired), units) ? suggest(repaired) : std::string();
}

}  // namespace

Parsed<bool> parse_boolean(std::string_view text) {
  if (text == "true") return true;
  if (text == "false") return false;
  const std::string spelled = lower(text);
  std::string hint;
  if (spelled == "yes" || spelled == "on" || spelled == "true" || spelled == "1") hint = suggest("true");
  if (spelled == "no" || spelled == "off" || spelled == "false" || spelled == "0") hint = suggest("false");
  constexpr std::array<std::string_view, 2> kBoth{"true", "false"};
  if (hint.empty()) hint = near_miss(text, kBoth);
  return refuse("is not a boolean; expected true or false", hint);
}

Parsed<std::int64_t> parse_integer(std::string_view text) {
  if (const auto value = whole_number<std::int64_t>(text)) return *value;
  std::string plain(text);
  std::erase_if(plain, [](char c) { return c == '_' || c == ',' || c == '\''; });
  const bool is_repaired = plain != text && whole_number<std::int64_t>(plain);
  return refuse("is not a whole number", is_repaired ? suggest(plain) : "write it in digits");
}

Parsed<double> parse_number(std::string_view text) {
  double value = 0;
  const bool is_plain = !text.empty() && text.size() <= 32 && is_digit(text.front()) &&
                        std::ranges::all_of(text, [](char c) { return is_digit(c) || c == '.'; });
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (is_plain && error == std::errc{} && end == text.data() + text.size()) return value;
  std::string hint;
  if (text.ends_with('%')) hint = "write a share, such as 0.5 for 50%";
  return refuse("is not a number", hint);
}

Parsed<milliseconds> parse_duration(std::string_view text) {
  const NumberAndUnit parts = split_unit(text);
  if (const auto value = in_units(parts, kDurationUnits); value && text.find(' ') == std::string_view::npos) {
    return milliseconds{static_cast<std::int64_t>(*value)};
  }
  return refuse("is not a duration; expected one like 250ms, 5s, 10m or 1h",
                unit_hint(parts, kDurationSpellings, kDurationUnits));
}

std::string format_duration(milliseconds duration) {
  return duration.count() == 0
             ? "0s"
             : in_largest_unit(static_cast<std::uint64_t>(duration.count()), kDurationUnits);
}

Parsed<std::uint64_t> parse_size(std::string_view text) {
  const NumberAndUnit parts = split_unit(text);
  if (const auto value = in_units(parts, kSizeUnits); value && text.find(' ') == std::string_view::npos)
    return *value;
  return refuse("is not a size; expected bytes or one like 32KiB, 4MiB or 1GiB",
                unit_hint(parts, kSizeSpellings, kSizeUnits));
}

std::string format_size(std::uint64_t bytes) { return in_largest_unit(bytes, kSizeUnits); }

Parsed<NanoUsd> parse_amount(std::string_view text) {
  if (const auto amount = parse_usd(text)) return *amount;
  std::string plain(text);
  std::erase_if(plain, [](char c) { return !is_digit(c) && c != '.'; });
  return refuse(
      "is not an amount in USD; expected a decimal such as 20 or 0.005, with at most 9 decimals, without "
      "sign or unit",
      !text.starts_with('-') && parse_usd(plain) && plain != text ? suggest(plain) : "");
}

std::optional<Scaled> parse_scaled(std::string_view text, int scale) {
  constexpr std::size_t kMostLength = 64;
  constexpr int kMostDigits = 36;  // 10^36 fits in 127 bits with room for one more digit
  if (text.empty() || text.size() > kMostLength) return std::nullopt;
  unsigned __int128 mantissa = 0;
  int digits = 0;
  int exponent = scale;
  bool any = false;
  bool after_point = false;
  std::size_t i = 0;
  for (; i < text.size() && (is_digit(text[i]) || (text[i] == '.' && !after_point)); ++i) {
    if (text[i] == '.') {
      if (!any) return std::nullopt;
      after_point = true;
      continue;
    }
    any = true;
    if (after_point) --exponent;
    if (digits == 0 && text[i] == '0') continue;
    if (++digits > kMostDigits) return std::nullopt;
    mantissa = mantissa * 10 + static_cast<unsigned>(text[i] - '0');
  }
  if (!any || text[i - 1] == '.') return std::nullopt;
  if (i < text.size()) {
    if (text[i] != 'e' && text[i] != 'E') return std::nullopt;
    ++i;
    const bool negative = i < text.size() && text[i] == '-';
    if (i < text.size() && (text[i] == '-' || text[i] == '+')) ++i;
    const auto power = whole_number<std::uint16_t>(text.substr(i));
    if (!power || *power > 400) return std::nullopt;
    exponent += negative ? -int{*power} : int{*power};
  }
  if (mantissa == 0) return Scaled{};
  constexpr unsigned __int128 kMost = std::numeric_limits<std::int64_t>::max();
  for (; exponent > 0; --exponent) {
    mantissa *= 10;
    if (mantissa > kMost) return std::nullopt;
  }
  bool is_exact = true;
  for (; exponent < 0 && mantissa > 0; ++exponent) {
    is_exact = is_exact && mantissa % 10 == 0;
    mantissa /= 10;
  }
  if (!is_exact) ++mantissa;
  if (mantissa > kMost) return std::nullopt;
  return Scaled{.value = static_cast<std::int64_t>(mantissa), .is_exact = is_exact};
}

Parsed<std::int64_t> parse_nano_units(std::string_view text) {
  const auto scaled = parse_scaled(text, 9);
  if (!scaled || !scaled->is_exact)
    return refuse("is not a quantity; expected a decimal such as 10 or 0.5, with at most 9 decimals");
  return scaled->value;
}

Parsed<policy::LimitSpec> read_limit(std::string_view text) {
  auto limit = policy::parse_limit(text);
  if (limit) return *limit;
  // Repairs each word on its own and keeps the result only if it reads as a limit.
  constexpr std::array<std::string_view, 9> kWords{"second", "minute", "hour", "day", "tokens",
                                                   "calls",  "s",      "m",    "h"};
  constexpr std::array<Spelling, 10> kSpellings{{{"sec", "second"},
                                                 {"secs", "second"},
                                                 {"min", "minute"},
                                                 {"mins", "minute"},
                                                 {"hr", "hour"},
                                                 {"hrs", "hour"},
                                                 {"seconds", "second"},
                                                 {"minutes", "minute"},
                                                 {"hours", "hour"},
                                                 {"days", "day"}}};
  std::string repaired;
  for (std::size_t i = 0; i < text.size() && text.size() <= 64;) {
    const std::size_t start = i;
    while (i < text.size() && is_letter(text[i])) ++i;
    const std::string_view word = text.substr(start, i - start);
    if (word.empty()) {
      repaired += text[i++];
      continue;
    }
    const std::string_view known = meant_unit(word, kSpellings);
    const std::string_view near = known.empty() ? nearest(word, kWords) : known;
    repaired += word == "per" ? "/" : near.empty() ? word : near;
  }
  return refuse(fmt::format("is not a limit: {}", limit.error()),
                repaired != text && policy::parse_limit(repaired) ? suggest(repaired) : "");
}

Parsed<std::string> parse_time_zone(std::string_view text) {
  if (policy::is_known_time_zone(text)) return std::string(text);
  constexpr std::array<std::string_view, 24> kCommon{"UTC",
                                                     "Europe/London",
                                                     "Europe/Berlin",
                                                     "Europe/Paris",
                                                     "Europe/Madrid",
                                                     "Europe/Rome",
                                                     "Europe/Amsterdam",
                                                     "Europe/Zurich",
                                                     "Europe/Warsaw",
                                                     "Europe/Athens",
                                                     "America/New_York",
                                                     "America/Chicago",
                                                     "America/Denver",
                                                     "America/Los_Angeles",
                                                     "America/Toronto",
                                                     "America/Sao_Paulo",
                                                     "Asia/Tokyo",
                                                     "Asia/Shanghai",
                                                     "Asia/Kolkata",
                                                     "Asia/Singapore",
                                                     "Asia/Dubai",
                                                     "Asia/Seoul",
                                                     "Australia/Sydney",
                                                     "Pacific/Auckland"};
  return refuse("is not a known IANA time zone; expected one such as UTC or America/New_York",
                near_miss(text, kCommon));
}

Parsed<WallTime> parse_expiry(std::string_view text) {
  constexpr std::string_view kExpected =
      "is not a date; expected one like 2027-01-01 or 2027-01-01T08:30:00Z (UTC)";
  constexpr std::string_view kShape = "0000-00-00T00:00:00Z";
  if (text.size() != 10 && text.size() != kShape.size()) return refuse(std::string(kExpected));
  for (std::size_t i = 0; i < text.size(); ++i) {
    if (kShape[i] == '0' ? !is_digit(text[i]) : text[i] != kShape[i]) return refuse(std::string(kExpected));
  }
  const auto at = [&](std::size_t start, std::size_t length) {
    return *whole_number<unsigned>(text.substr(start, length));
  };
  using namespace std::chrono;
  const year_month_day date{year{static_cast<int>(at(0, 4))}, month{at(5, 2)}, day{at(8, 2)}};
  // Nanoseconds since 1970 end in 2262.
  if (!date.ok() || date.year() < year{1970} || date.year() > year{2261})
    return refuse("is not a date of the years 1970 to 2261");
  WallTime time = sys_days{date};
  if (text.size() == kShape.size()) {
    if (at(11, 2) > 23 || at(14, 2) > 59 || at(17, 2) > 59) return refuse(std::string(kExpected));
    time += hours{at(11, 2)} + minutes{at(14, 2)} + seconds{at(17, 2)};
  }
  return time;
}

Parsed<std::string> parse_name(std::string_view text) {
  constexpr std::size_t kMostLength = 64;
  const auto is_ok = [](char c) {
    return is_digit(c) || (c >= 'a' && c <= 'z') || c == '_' || c == '.' || c == '-';
  };
  const auto may_begin = [](char c) { return is_digit(c) || (c >= 'a' && c <= 'z'); };
  if (!text.empty() && text.size() <= kMostLength && may_begin(text.front()) &&
      std::ranges::all_of(text, is_ok)) {
    return std::string(text);
  }
  std::string repaired = lower(text.substr(0, kMostLength));
  for (char& c : repaired) {
    if (!is_ok(c)) c = '-';
  }
  const bool is_repaired = !repaired.empty() && may_begin(repaired.front());
  return refuse(
      "is not a name; expected 1 to 64 of a-z, 0-9, \"_\", \".\" and \"-\", beginning with a letter or digit",
      is_repaired ? suggest(repaired) : "");
}

}  // namespace penstock::config
