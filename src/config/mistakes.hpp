#pragma once

#include <initializer_list>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "config/load.hpp"

/// Inside of the configuration reader: how mistakes are collected and worded.
namespace penstock::config {

/// Line and column in bytes, both from 1.
struct Mark {
  int line = 1;
  int column = 1;
};

/// All mistakes of one file, bounded: a file of nonsense must not fill memory or the terminal.
class Mistakes {
 public:
  static constexpr std::size_t kMost = 100;

  explicit Mistakes(std::string file) : file_(std::move(file)) {}

  void add(Mark at, std::string text, std::string hint = {});
  [[nodiscard]] bool empty() const noexcept { return mistakes_.empty(); }
  [[nodiscard]] std::size_t size() const noexcept { return mistakes_.size(); }
  [[nodiscard]] const std::string& file() const noexcept { return file_; }
  /// Sorted by place.
  [[nodiscard]] std::vector<Mistake> take();

 private:
  std::string file_;
  std::vector<Mistake> mistakes_;
};

/// Text from the file, fit for one line: quoted, controls escaped, cut after 60 bytes.
[[nodiscard]] std::string shown(std::string_view text);

/// Insertions, deletions, substitutions and swaps of neighbours (optimal string alignment), without regard to
/// case.
[[nodiscard]] std::size_t edit_distance(std::string_view a, std::string_view b);

/// The candidate at most two edits away (and fewer than it has letters), the nearest first; empty when there
/// is none.
[[nodiscard]] std::string_view nearest(std::string_view text, std::span<const std::string_view> candidates);

/// `did you mean "…"?` of the nearest, or nothing.
[[nodiscard]] std::string near_miss(std::string_view text, std::span<const std::string_view> candidates);

/// `a, b or c`
[[nodiscard]] std::string list_of(std::span<const std::string_view> words,
                                  std::string_view last_joint = " or ");

}  // namespace penstock::config
