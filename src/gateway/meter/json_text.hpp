#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <optional>
#include <string_view>
#include <utility>

#include <simdjson.h>

/// Reading JSON of strangers: one text at a time per thread, without exceptions. simdjson reads lazily, so
/// what is skipped is checked for balanced brackets and UTF-8 only; a reader that must not act on half a text
/// acts after its last step.
namespace penstock::gateway {

/// A parser and the padded copy that it reads. Both grow by doubling and are given back after a large text.
class JsonScratch {
 public:
  static JsonScratch& of_this_thread() noexcept;

  [[nodiscard]] simdjson::error_code parse(std::string_view text,
                                           simdjson::ondemand::document& document) noexcept;
  /// Where the copy of the text that was parsed last begins.
  [[nodiscard]] const char* text() const noexcept { return padded_.get(); }
  void trim() noexcept {
    if (capacity_ > kKeptBytes) release();
  }

 private:
  static constexpr std::size_t kKeptBytes = 128 * 1024;  // simdjson takes about six times as much beside
  void release() noexcept;

  std::size_t capacity_ = 0;
  std::unique_ptr<char[]> padded_;
  simdjson::ondemand::parser parser_;
};

/// Calls `read(object)` for a text that is one JSON object or array (`read` takes ondemand::value and returns
/// whether it came to the end of it without an error). True: the text was read whole and nothing follows it.
/// `read` must not parse another text.
template <class Read>
bool with_json(std::string_view text, Read&& read) {
  auto& scratch = JsonScratch::of_this_thread();
  bool whole = false;
  {
    simdjson::ondemand::document document;
    simdjson::ondemand::value root;
    whole = scratch.parse(text, document) == simdjson::SUCCESS &&
            document.get_value().get(root) == simdjson::SUCCESS && read(root) &&
            document.current_location().error() == simdjson::OUT_OF_BOUNDS;
  }
  scratch.trim();
  return whole;
}

/// Calls `visit(key, value)` for each member until it returns false. True: came to the end.
template <class Visit>
bool for_each_member(simdjson::ondemand::object object, Visit&& visit) {
  for (auto member : object) {
    simdjson::ondemand::field field;
    if (std::move(member).get(field) != simdjson::SUCCESS) return false;
    std::string_view key;
    if (field.unescaped_key().get(key) != simdjson::SUCCESS) return false;
    if (!visit(key, field.value())) return false;
  }
  return true;
}
template <class Visit>
bool for_each_member(simdjson::ondemand::value value, Visit&& visit) {
  simdjson::ondemand::object object;
  return value.get_object().get(object) == simdjson::SUCCESS && for_each_member(object, visit);
}

/// Calls `visit(value)` for each element until it returns false. True: came to the end.
template <class Visit>
bool for_each_element(simdjson::ondemand::value value, Visit&& visit) {
  simdjson::ondemand::array array;
  if (value.get_array().get(array) != simdjson::SUCCESS) return false;
  for (auto element : array) {
    simdjson::ondemand::value item;
    if (std::move(element).get(item) != simdjson::SUCCESS || !visit(item)) return false;
  }
  return true;
}

[[nodiscard]] bool is_type(simdjson::ondemand::value& value, simdjson::ondemand::json_type type) noexcept;
[[nodiscard]] bool is_null(simdjson::ondemand::value& value) noexcept;
[[nodiscard]] bool is_true(simdjson::ondemand::value& value) noexcept;

/// The text of a number or of a string that may hold one, without spaces around it; nothing for other types.
[[nodiscard]] std::optional<std::string_view> number_text(simdjson::ondemand::value value) noexcept;

/// A decimal (JSON's grammar, leading zeros allowed) as an integer of at most `most`. Nothing: negative,
/// above, or not a number.
[[nodiscard]] std::optional<std::int64_t> parse_whole(std::string_view text,
                                                      std::int64_t most) noexcept;  ///< exact only
[[nodiscard]] std::optional<std::int64_t> parse_up(std::string_view text,
                                                   std::int64_t most) noexcept;  ///< rounded up
[[nodiscard]] std::optional<std::int64_t> parse_nano(
    std::string_view text) noexcept;  ///< billionths, rounded up

/// The quantity that an RFC 6901 pointer finds below `root`, in billionths. Nothing: there is no such value,
/// or null; -1: it is not a quantity (negative, not a number, more than fits).
[[nodiscard]] std::optional<std::int64_t> find_nano(simdjson::ondemand::value root, std::string_view pointer);

}  // namespace penstock::gateway
