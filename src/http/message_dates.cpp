// HTTP dates (RFC 9110 5.6.7) and Retry-After.

#include <algorithm>
#include <array>
#include <charconv>
#include <chrono>

#include "http/message_syntax.hpp"

namespace penstock::http {
namespace {

using namespace std::string_view_literals;

constexpr std::array kDays = {"Sun"sv, "Mon"sv, "Tue"sv, "Wed"sv, "Thu"sv, "Fri"sv, "Sat"sv};
constexpr std::array kLongDays = {"Sunday"sv,   "Monday"sv, "Tuesday"sv, "Wednesday"sv,
                                  "Thursday"sv, "Friday"sv, "Saturday"sv};
constexpr std::array kMonths = {"Jan"sv, "Feb"sv, "Mar"sv, "Apr"sv, "May"sv, "Jun"sv,
                                "Jul"sv, "Aug"sv, "Sep"sv, "Oct"sv, "Nov"sv, "Dec"sv};
constexpr std::int64_t kDayMilliseconds = 86'400'000;

/// Takes literals, names and fixed-width numbers off the front; the first mismatch makes all that follows
/// fail.
class Reader {
 public:
  explicit Reader(std::string_view text) : text_(text) {}

  Reader& literal(std::string_view expected) {
    is_good_ = is_good_ && text_.starts_with(expected);
    if (is_good_) text_.remove_prefix(expected.size());
    return *this;
  }
  template <std::size_t N>
  Reader& one_of(const std::array<std::string_view, N>& names, int& index) {
    if (!is_good_) return *this;
    for (std::size_t i = 0; i < N; ++i) {
      if (text_.starts_with(names[i])) {
        text_.remove_prefix(names[i].size());
        index = static_cast<int>(i);
        return *this;
      }
    }
    is_good_ = false;
    return *this;
  }
  Reader& digits(std::size_t width, int& value) {
    is_good_ = is_good_ && text_.size() >= width && std::ranges::all_of(text_.substr(0, width), [](char c) {
                 return syntax::is(c, syntax::Class::digit);
               });
    if (!is_good_) return *this;
    value = 0;
    for (const char c : text_.substr(0, width)) value = value * 10 + (c - '0');
    text_.remove_prefix(width);
    return *this;
  }
  /// asctime pads the day with a blank.
  Reader& padded_day(int& value) {
    return text_.starts_with(' ') ? literal(" ").digits(1, value) : digits(2, value);
  }
  [[nodiscard]] bool is_at_end() const { return is_good_ && text_.empty(); }

 private:
  std::string_view text_;
  bool is_good_ = true;
};

struct DateParts {
  int weekday = 0;  // not checked against the date: receivers go by the date
  int day = 0;
  int month = 0;  // from 0
  int year = 0;
  int hour = 0;
  int minute = 0;
  int second = 0;
};

std::optional<std::int64_t> to_unix_seconds(const DateParts& parts) {
  using namespace std::chrono;
  const year_month_day date{year{parts.year}, month{static_cast<unsigned>(parts.month) + 1},
                            day{static_cast<unsigned>(parts.day)}};
  if (!date.ok() || parts.hour > 23 || parts.minute > 59 || parts.second > 60) return std::nullopt;
  const auto days = sys_days{date}.time_since_epoch();
  return seconds{days}.count() + parts.hour * 3600 + parts.minute * 60 + parts.second;
}

}  // namespace

std::string format_http_date(std::int64_t unix_seconds) {
  using namespace std::chrono;
  const sys_seconds time{seconds{unix_seconds}};
  const sys_days midnight = floor<days>(time);
  const year_month_day date{midnight};
  const hh_mm_ss clock{time - midnight};
  std::string out;
  out.reserve(29);
  const auto two = [&out](unsigned value) {
    out += static_cast<char>('0' + value / 10 % 10);
    out += static_cast<char>('0' + value % 10);
  };
  const auto year = static_cast<unsigned>(static_cast<int>(date.year()));
  out += kDays[weekday{midnight}.c_encoding()];
  out += ", ";
  two(static_cast<unsigned>(date.day()));
  out += ' ';
  out += kMonths[static_cast<unsigned>(date.month()) - 1];
  out += ' ';
  two(year / 100);
  two(year % 100);
  out += ' ';
  two(static_cast<unsigned>(clock.hours().count()));
  out += ':';
  two(static_cast<unsigned>(clock.minutes().count()));
  out += ':';
  two(static_cast<unsigned>(clock.seconds().count()));
  out += " GMT";
  return out;
}

std::optional<std::int64_t> parse_http_date(std::string_view text) {
  DateParts p;
  const auto clock = [&p](Reader& reader) -> Reader& {
    return reader.digits(2, p.hour).literal(":").digits(2, p.minute).literal(":").digits(2, p.second);
  };
  Reader imf(text);
  imf.one_of(kDays, p.weekday).literal(", ").digits(2, p.day).literal(" ").one_of(kMonths, p.month);
  imf.literal(" ").digits(4, p.year).literal(" ");
  if (clock(imf).literal(" GMT").is_at_end()) return to_unix_seconds(p);

  Reader rfc850(text);
  rfc850.one_of(kLongDays, p.weekday).literal(", ").digits(2, p.day).literal("-").one_of(kMonths, p.month);
  rfc850.literal("-").digits(2, p.year).literal(" ");
  if (clock(rfc850).literal(" GMT").is_at_end()) {
    p.year += p.year < 70
                  ? 2000
                  : 1900;  // without a clock to count 50 years from, the Unix epoch parts the centuries
    return to_unix_seconds(p);
  }

  Reader asctime(text);
  asctime.one_of(kDays, p.weekday)
      .literal(" ")
      .one_of(kMonths, p.month)
      .literal(" ")
      .padded_day(p.day)
      .literal(" ");
  if (clock(asctime).literal(" ").digits(4, p.year).is_at_end()) return to_unix_seconds(p);
  return std::nullopt;
}

std::optional<std::int64_t> parse_retry_after_ms(std::string_view value, std::int64_t now_unix_seconds) {
  value = syntax::trim(value);
  if (value.empty()) return std::nullopt;
  if (!syntax::is(value.front(), syntax::Class::digit)) {
    const auto date = parse_http_date(value);
    if (!date) return std::nullopt;
    const std::int64_t seconds =
        std::clamp<std::int64_t>(*date - now_unix_seconds, 0, kDayMilliseconds / 1000);
    return seconds * 1000;
  }
  if (value.ends_with('s')) value.remove_suffix(1);  // "56s", as durations are written elsewhere
  std::int64_t milliseconds = 0;
  std::size_t at = 0;
  for (; at < value.size() && syntax::is(value[at], syntax::Class::digit); ++at) {
    milliseconds = std::min(milliseconds * 10 + (value[at] - '0') * 1000, kDayMilliseconds);
  }
  if (at < value.size() && value[at] == '.') {
    std::int64_t scale = 100;
    for (++at; at < value.size() && syntax::is(value[at], syntax::Class::digit); ++at, scale /= 10) {
      milliseconds += (value[at] - '0') * scale;
    }
  }
  if (at != value.size()) return std::nullopt;
  return std::min(milliseconds, kDayMilliseconds);
}

}  // namespace penstock::http
