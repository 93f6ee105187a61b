#pragma once

#include <string>
#include <string_view>

namespace penstock {

/// A configured name (provider, endpoint, consumer, ...), kept once for the life of the process: a record of
/// a call copies a pointer instead of text. Only for names from the configuration: what callers type would
/// grow the table without a bound.
class Name {
 public:
  Name() noexcept = default;
  explicit Name(
      std::string_view text);  ///< finds or keeps the text; takes a lock: for set-up, not for a call's way

  [[nodiscard]] std::string_view view() const noexcept { return *text_; }
  friend bool operator==(Name a, Name b) noexcept { return a.text_ == b.text_; }

 private:
  static const std::string kEmpty;
  const std::string* text_ = &kEmpty;
};

}  // namespace penstock
