#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "config/mistakes.hpp"

/// The YAML of a configuration as a plain tree with the place of everything.
///
/// Built from yaml-cpp's events rather than from its nodes, because only there can aliases be refused before
/// they are expanded ("billion laughs"), depth and size be bounded while reading, and repeated fields be
/// seen: yaml-cpp 0.7 keeps the last of them without a word.
namespace penstock::config {

struct Node {
  enum class Kind : std::uint8_t { null, scalar, sequence, mapping };
  Kind kind = Kind::null;
  bool quoted = false;  ///< a scalar in quotes or a block: text, whatever it looks like
  Mark mark;            ///< of the value; of its name when there is no value
  std::string text;     ///< of a scalar
  std::string key;      ///< the name under which it stands, in a mapping
  Mark key_mark;
  std::vector<Node> children;  ///< of a sequence or mapping, in the order of the file; names are unique
};

inline constexpr std::size_t kMaxConfigBytes = 4 * 1024 * 1024;
inline constexpr std::size_t kMaxDepth = 32;
inline constexpr std::size_t kMaxNodes = 500'000;  ///< about 100 bytes each

/// Nothing when the text cannot be read as one YAML document; then at least one mistake was added. Other
/// mistakes (repeated fields, tags) leave a usable tree. An empty document is a null node.
[[nodiscard]] std::optional<Node> read_yaml(std::string_view yaml, Mistakes& mistakes);

/// `text`, `a list`, `a mapping` or `nothing`, for messages.
[[nodiscard]] std::string_view name_of(Node::Kind kind) noexcept;

}  // namespace penstock::config
