#include "gateway/meter/json_text.hpp"

#include <algorithm>
#include <limits>
#include <new>

namespace penstock::gateway {

namespace ondemand = simdjson::ondemand;
using simdjson::SUCCESS;

JsonScratch& JsonScratch::of_this_thread() noexcept {
  thread_local JsonScratch scratch;
  return scratch;
}

simdjson::error_code JsonScratch::parse(std::string_view text, ondemand::document& document) noexcept {
  if (text.empty()) return simdjson::EMPTY;
  if (text.size() > std::numeric_limits<std::uint32_t>::max() / 2) return simdjson::CAPACITY;
  if (text.size() > capacity_ || padded_ == nullptr) {
    const auto capacity = std::bit_ceil(std::max<std::size_t>(text.size(), 4096));
    padded_.reset(new (std::nothrow) char[capacity + simdjson::SIMDJSON_PADDING]);
    const auto error = padded_ == nullptr ? simdjson::MEMALLOC : parser_.allocate(capacity);
    if (error != SUCCESS) {
      release();
      return error;
    }
    capacity_ = capacity;
  }
  std::memcpy(padded_.get(), text.data(), text.size());
  std::memset(padded_.get() + text.size(), ' ', simdjson::SIMDJSON_PADDING);
  return parser_.iterate(padded_.get(), text.size(), text.size() + simdjson::SIMDJSON_PADDING).get(document);
}

void JsonScratch::release() noexcept {
  padded_.reset();
  parser_ = ondemand::parser{};
  capacity_ = 0;
}

bool is_type(ondemand::value& value, ondemand::json_type type) noexcept {
  ondemand::json_type found;
  return value.type().get(found) == SUCCESS && found == type;
}
bool is_null(ondemand::value& value) noexcept { return is_type(value, ondemand::json_type::null); }
bool is_true(ondemand::value& value) noexcept {
  bool is = false;
  return is_type(value, ondemand::json_type::boolean) && value.get_bool().get(is) == SUCCESS && is;
}

namespace {

std::string_view trimmed(std::string_view text) noexcept {
  constexpr std::string_view kSpace = " \t\r\n";
  const auto first = text.find_first_not_of(kSpace);
  if (first == std::string_view::npos) return {};
  return text.substr(first, text.find_last_not_of(kSpace) - first + 1);
}

bool is_digit(char c) noexcept { return c >= '0' && c <= '9'; }

std::string_view take_digits(std::string_view& text) noexcept {
  const auto end = std::find_if_not(text.begin(), text.end(), is_digit);
  const auto digits = text.substr(0, static_cast<std::size_t>(end - text.begin()));
  text.remove_prefix(digits.size());
  return digits;
}

enum class Rounding : std::uint8_t { exact, up };

/// text * 10^shift as an integer of at most `most` (< 2^63).
std::optional<std::int64_t> scale(std::string_view text, std::int64_t shift, Rounding rounding,
                                  std::int64_t most) noexcept {
  text = trimmed(text);
  const auto whole = take_digits(text);
  if (whole.empty()) return std::nullopt;
  std::string_view fraction;
  if (text.starts_with('.')) {
    text.remove_prefix(1);
    fraction = take_digits(text);
    if (fraction.empty()) return std::nullopt;
  }
  std::int64_t exponent = 0;
  if (text.starts_with('e') || text.starts_with('E')) {
    text.remove_prefix(1);
    const bool negative = text.starts_with('-');
    if (negative || text.starts_with('+')) text.remove_prefix(1);
    const auto digits = take_digits(text);
    if (digits.empty()) return std::nullopt;
    constexpr std::int64_t kFar = 1'000'000'000;  // further than any text is long
    for (const char c : digits) exponent = std::min(exponent * 10 + (c - '0'), kFar);
    if (negative) exponent = -exponent;
  }
  if (!text.empty()) return std::nullopt;

  // The digits before `point` (of whole and fraction, read as one) make the integer; what follows rounds it.
  const auto length = static_cast<std::int64_t>(whole.size() + fraction.size());
  const auto point = static_cast<std::int64_t>(whole.size()) + exponent + shift;
  const auto digit_at = [&](std::int64_t i) {
    const auto at = static_cast<std::size_t>(i);
    return (at < whole.size() ? whole[at] : fraction[at - whole.size()]) - '0';
  };
  __int128 value = 0;
  for (std::int64_t i = 0; i < std::min(length, point); ++i) {
    value = value * 10 + digit_at(i);
    if (value > most) return std::nullopt;
  }
  for (std::int64_t i = length; i < point && value != 0; ++i) {
    value *= 10;
    if (value > most) return std::nullopt;
  }
  for (std::int64_t i = std::max<std::int64_t>(point, 0); i < length; ++i) {
    if (digit_at(i) == 0) continue;
    if (rounding == Rounding::exact) return std::nullopt;
    ++value;
    break;
  }
  if (value > most) return std::nullopt;
  return static_cast<std::int64_t>(value);
}

/// Whether the key is what a reference token of a pointer means ("~1" is '/', "~0" is '~').
bool is_meant_by(std::string_view token, std::string_view key) noexcept {
  std::size_t at = 0;
  for (std::size_t i = 0; i < token.size(); ++i, ++at) {
    char c = token[i];
    if (c == '~') {
      if (++i == token.size()) return false;
      if (token[i] != '0' && token[i] != '1') return false;
      c = token[i] == '0' ? '~' : '/';
    }
    if (at >= key.size() || key[at] != c) return false;
  }
  return at == key.size();
}

}  // namespace

std::optional<std::string_view> number_text(ondemand::value value) noexcept {
  std::string_view text;
  if (is_type(value, ondemand::json_type::number)) return trimmed(value.raw_json_token());
  if (is_type(value, ondemand::json_type::string) && value.get_string().get(text) == SUCCESS)
    return trimmed(text);
  return std::nullopt;
}

std::optional<std::int64_t> parse_whole(std::string_view text, std::int64_t most) noexcept {
  return scale(text, 0, Rounding::exact, most);
}
std::optional<std::int64_t> parse_up(std::string_view text, std::int64_t most) noexcept {
  return scale(text, 0, Rounding::up, most);
}
std::optional<std::int64_t> parse_nano(std::string_view text) noexcept {
  return scale(text, 9, Rounding::up, std::numeric_limits<std::int64_t>::max());
}

std::optional<std::int64_t> find_nano(ondemand::value root, std::string_view pointer) {
  ondemand::value found = root;
  while (!pointer.empty()) {
    if (pointer.front() != '/') return std::nullopt;
    pointer.remove_prefix(1);
    const auto token = pointer.substr(0, pointer.find('/'));
    pointer.remove_prefix(token.size());
    ondemand::value next;
    bool is_found = false;
    if (is_type(found, ondemand::json_type::object)) {
      for_each_member(found, [&](std::string_view key, ondemand::value value) {
        is_found = is_meant_by(token, key);
        if (is_found) next = value;
        return !is_found;
      });
    } else if (is_type(found, ondemand::json_type::array)) {
      // An index has no leading zeros; "-" (past the end) finds nothing.
      if (token.empty() || (token.size() > 1 && token[0] == '0') || !std::ranges::all_of(token, is_digit))
        return std::nullopt;
      auto index = parse_whole(token, std::numeric_limits<std::int32_t>::max());
      if (!index) return std::nullopt;
      for_each_element(found, [&](ondemand::value value) {
        is_found = (*index)-- == 0;
        if (is_found) next = value;
        return !is_found;
      });
    }
    if (!is_found) return std::nullopt;
    found = next;
  }
  if (is_null(found)) return std::nullopt;
  const auto text = number_text(found);
  return text ? parse_nano(*text).value_or(-1) : -1;
}

}  // namespace penstock::gateway
