#pragma once

#include <fstream>
#include <iterator>
#include <map>
#include <sstream>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "config/load.hpp"

/// What the tests of this folder share.
namespace penstock::config::testing {

/// A world of its own: variables and files by name.
struct World {
  std::map<std::string, std::string, std::less<>> variables{{"OPENAI_API_KEY", "sk-canary-1f7d"}};
  std::map<std::string, std::string, std::less<>> files;

  [[nodiscard]] Sources sources() const {
    return {.environment = [this](std::string_view name) -> std::optional<std::string> {
              const auto found = variables.find(name);
              return found == variables.end() ? std::nullopt : std::optional(found->second);
            },
            .read_file = [this](const std::string& path) -> std::expected<std::string, std::string> {
              const auto found = files.find(path);
              if (found == files.end()) return std::unexpected("No such file or directory");
              return found->second;
            }};
  }
};

inline std::vector<std::string> lines(const std::vector<Mistake>& mistakes) {
  std::vector<std::string> out;
  out.reserve(mistakes.size());
  for (const Mistake& mistake : mistakes) out.push_back(to_string(mistake));
  return out;
}

/// The mistakes of a file as lines; none when it is good.
inline std::vector<std::string> mistakes_of(std::string_view yaml, const World& world = {}) {
  const auto config = parse_config(yaml, "f.yaml", world.sources());
  return config ? std::vector<std::string>() : lines(config.error());
}

/// The only mistake of a file.
inline std::string mistake_of(std::string_view yaml, const World& world = {}) {
  const auto all = mistakes_of(yaml, world);
  EXPECT_EQ(all.size(), 1U) << ::testing::PrintToString(all);
  return all.empty() ? "" : all.front();
}

inline Config good(std::string_view yaml, const World& world = {}) {
  auto config = parse_config(yaml, "f.yaml", world.sources());
  EXPECT_TRUE(config.has_value()) << ::testing::PrintToString(
      lines(config ? std::vector<Mistake>() : config.error()));
  return config ? std::move(*config) : Config{};
}

/// A file with one provider `p` that has these further lines, indented by four.
inline std::string with_provider(std::string_view further) {
  return "providers:\n  p:\n    base_url: https://api.example.com\n    " + std::string(further) + "\n";
}
/// A file with one good provider and these further lines.
inline std::string with(std::string_view further) {
  return "providers: {p: {base_url: https://api.example.com}}\n" + std::string(further) + "\n";
}

inline std::string source_file(const std::string& path) {
  std::ifstream stream(std::string(PENSTOCK_SOURCE_DIR) + "/" + path);
  EXPECT_TRUE(stream.good()) << path;
  return {std::istreambuf_iterator<char>(stream), std::istreambuf_iterator<char>()};
}

}  // namespace penstock::config::testing
