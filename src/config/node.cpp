#include "config/node.hpp"

#include <spanstream>
#include <unordered_map>

#include <fmt/format.h>
#include <simdjson.h>
#include <yaml-cpp/eventhandler.h>
#include <yaml-cpp/exceptions.h>
#include <yaml-cpp/parser.h>

namespace penstock::config {

namespace {

Mark from(const YAML::Mark& mark) {
  return mark.is_null() ? Mark{} : Mark{.line = mark.line + 1, .column = mark.column + 1};
}

Node node_at(const YAML::Mark& mark, Node::Kind kind) {
  Node node;
  node.kind = kind;
  node.mark = from(mark);
  return node;
}

/// Ends the reading; thrown through yaml-cpp, which knows no other way to stop.
struct Refused {
  Mark at;
  std::string text;
  std::string hint;
};

class TreeBuilder final : public YAML::EventHandler {
 public:
  explicit TreeBuilder(Mistakes& mistakes) : mistakes_(mistakes) {}

  void OnDocumentStart(const YAML::Mark& mark) override {
    if (++documents_ > 1)
      throw Refused{from(mark), "the file holds more than one YAML document", "remove the line ---"};
  }
  void OnDocumentEnd() override {}

  void OnNull(const YAML::Mark& mark, YAML::anchor_t anchor) override {
    check_properties(mark, {}, anchor);
    add(node_at(mark, Node::Kind::null));
  }

  void OnAlias(const YAML::Mark& mark, YAML::anchor_t) override {
    throw Refused{from(mark), "YAML aliases (*name) are not supported", "write the value out"};
  }

  void OnScalar(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor,
                const std::string& value) override {
    check_properties(mark, tag, anchor);
    Node node = node_at(mark, Node::Kind::scalar);
    node.quoted = tag == "!";
    node.text = value;
    add(std::move(node));
  }

  void OnSequenceStart(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor,
                       YAML::EmitterStyle::value) override {
    check_properties(mark, tag, anchor);
    open(node_at(mark, Node::Kind::sequence));
  }
  void OnSequenceEnd() override { close(); }

  void OnMapStart(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor,
                  YAML::EmitterStyle::value) override {
    check_properties(mark, tag, anchor);
    open(node_at(mark, Node::Kind::mapping));
  }
  void OnMapEnd() override {
    drop_repeated(stack_.back().node);
    close();
  }

  [[nodiscard]] Node take() { return std::move(root_); }

 private:
  struct Frame {
    Node node;
    bool has_key = false;  ///< of a mapping: the name was read, its value comes next
    std::string key;
    Mark key_mark;
  };

  static bool awaits_key(const Frame& frame) {
    return frame.node.kind == Node::Kind::mapping && !frame.has_key;
  }

  /// An unquoted password may begin with & or !: dropping the first word of it unseen would be worse than
  /// refusing, and its text is not shown.
  void check_properties(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor) {
    if (anchor != 0)
      mistakes_.add(from(mark), "YAML anchors (&name) are not supported", "remove it, or quote the text");
    if (tag.empty() || tag == "?" || tag == "!") return;
    mistakes_.add(from(mark), "YAML tags (!name) are not supported", "remove it, or quote the text");
  }

  void add(Node node) {
    if (++nodes_ > kMaxNodes)
      throw Refused{node.mark, fmt::format("the file holds more than {} values", kMaxNodes), {}};
    if (stack_.empty()) {
      root_ = std::move(node);
      return;
    }
    Frame& frame = stack_.back();
    if (awaits_key(frame)) {
      if (node.kind != Node::Kind::scalar) throw Refused{node.mark, "a field's name must be text", {}};
      frame.key = std::move(node.text);
      frame.key_mark = node.mark;
      frame.has_key = true;
      return;
    }
    if (frame.has_key) {
      node.key = std::move(frame.key);
      node.key_mark = frame.key_mark;
      if (node.kind == Node::Kind::null) node.mark = node.key_mark;  // yaml-cpp names the next token's place
      frame.has_key = false;
    }
    frame.node.children.push_back(std::move(node));
  }

  void open(Node node) {
    if (stack_.size() >= kMaxDepth)
      throw Refused{node.mark, fmt::format("nested deeper than {}", kMaxDepth), {}};
    if (!stack_.empty() && awaits_key(stack_.back()))
      throw Refused{node.mark, "a field's name must be text", {}};
    stack_.push_back({.node = std::move(node), .key = {}, .key_mark = {}});
  }

  void close() {
    Node node = std::move(stack_.back().node);
    stack_.pop_back();
    add(std::move(node));
  }

  void drop_repeated(Node& mapping) {
    std::unordered_map<std::string_view, int> line_of;
    std::vector<std::size_t> repeated;
    for (std::size_t i = 0; i < mapping.children.size(); ++i) {
      const Node& child = mapping.children[i];
      const auto [first, is_new] = line_of.emplace(child.key, child.key_mark.line);
      if (is_new) continue;
      repeated.push_back(i);
      mistakes_.add(
          child.key_mark,
          fmt::format("{} stands here twice; the first is in line {}", shown(child.key), first->second),
          "keep one of them");
    }
    if (repeated.empty()) return;
    std::vector<Node> kept;
    auto next = repeated.begin();
    for (std::size_t i = 0; i < mapping.children.size(); ++i) {
      if (next != repeated.end() && *next == i) {
        ++next;
      } else {
        kept.push_back(std::move(mapping.children[i]));
      }
    }
    mapping.children = std::move(kept);
  }

  Mistakes& mistakes_;
  std::vector<Frame> stack_;
  Node root_;
  std::size_t nodes_ = 0;
  int documents_ = 0;
};

/// yaml-cpp ends silently at byte 4 and accepts other encodings: neither may shorten a configuration unseen.
bool is_clean_text(std::string_view yaml, Mistakes& mistakes) {
  Mark at;
  for (const char c : yaml) {
    const auto byte = static_cast<unsigned char>(c);
    if ((byte < 0x20 && c != '\n' && c != '\r' && c != '\t') || byte == 0x7F) {
      mistakes.add(at, fmt::format("control character 0x{:02x}", unsigned{byte}),
                   "the file must be plain UTF-8 text");
      return false;
    }
    at = c == '\n' ? Mark{.line = at.line + 1, .column = 1} : Mark{.line = at.line, .column = at.column + 1};
  }
  if (simdjson::validate_utf8(yaml.data(), yaml.size())) return true;
  mistakes.add({}, "the file is not valid UTF-8", "save it as UTF-8");
  return false;
}

}  // namespace

std::string_view name_of(Node::Kind kind) noexcept {
  switch (kind) {
    case Node::Kind::null: return "nothing";
    case Node::Kind::scalar: return "a single value";
    case Node::Kind::sequence: return "a list";
    case Node::Kind::mapping: return "a mapping";
  }
  return "";
}

std::optional<Node> read_yaml(std::string_view yaml, Mistakes& mistakes) {
  if (yaml.size() > kMaxConfigBytes) {
    mistakes.add({}, fmt::format("the file is larger than {} MiB", kMaxConfigBytes / (1024 * 1024)));
    return std::nullopt;
  }
  if (!is_clean_text(yaml, mistakes)) return std::nullopt;
  // yaml-cpp keeps some 230 bytes for every open bracket before it tells of the first one.
  if (std::ranges::count_if(yaml, [](char c) { return c == '[' || c == '{'; }) > std::ptrdiff_t{kMaxNodes}) {
    mistakes.add({}, fmt::format("the file holds more than {} values", kMaxNodes));
    return std::nullopt;
  }
  TreeBuilder builder(mistakes);
  try {
    std::ispanstream stream(std::span<const char>(yaml.data(), yaml.size()));
    YAML::Parser parser(stream);
    while (parser.HandleNextDocument(builder)) {
    }
    return builder.take();
  } catch (const Refused& refused) {
    mistakes.add(refused.at, refused.text, refused.hint);
  } catch (const YAML::Exception& error) {
    // What follows a colon in yaml-cpp's messages is text of the file, perhaps a secret.
    const std::string what = error.msg.substr(0, error.msg.find(':'));
    mistakes.add(from(error.mark), fmt::format("not valid YAML: {}", what),
                 "check the indentation, and quote text that holds \": \", \" #\" or starts with a sign");
  }
  return std::nullopt;
}

}  // namespace penstock::config
