#pragma once

#include <expected>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "config/config.hpp"

namespace penstock::config {

/// One mistake in the file. Prints as
///   penstock.yaml:12:7: unknown field "limts" in provider "openai"; expected one of …; did you mean
///   "limits"?
struct Mistake {
  Place place;
  std::string text;  ///< what is wrong with the offending text, what was expected
  std::string hint;  ///< a near miss or what to do; may be empty
};

/// `path:line:column: text; hint`, one line.
[[nodiscard]] std::string to_string(const Mistake& mistake);

/// Where values outside the file come from; tests pass their own.
struct Sources {
  std::function<std::optional<std::string>(std::string_view name)> environment;
  std::function<std::expected<std::string, std::string>(const std::string& path)>
      read_file;  ///< error: a sentence
};
[[nodiscard]] Sources real_sources();

/// Reads, checks and completes a configuration; all mistakes at once, sorted by place. `file` is only a name.
/// Relative paths inside are relative to the file's folder. Never throws for bad input.
[[nodiscard]] std::expected<Config, std::vector<Mistake>> parse_config(std::string_view yaml,
                                                                       const std::string& file,
                                                                       const Sources& sources);
[[nodiscard]] std::expected<Config, std::vector<Mistake>> load_config(const std::string& path,
                                                                      const Sources& sources);

/// Whether `path` (no query) matches a pattern of Endpoint.
[[nodiscard]] bool matches_path(std::string_view pattern, std::string_view path) noexcept;

}  // namespace penstock::config
