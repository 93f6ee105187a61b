#include "call.hpp"

#include <simdjson.h>

namespace penstock::mock {

namespace dom = simdjson::dom;

struct CallReader::Parser {
  dom::parser json;
  dom::element root;

  bool parse(std::string_view body) {
    return json.parse(body.data(), body.size(), true).get(root) == simdjson::SUCCESS && root.is_object();
  }
};

namespace {

// Bytes of everything that is said: strings, and `content`, `parts` and `text` of the objects around them.
// That covers messages, system, instructions, input, contents and systemInstruction of the three dialects.
std::int64_t said_bytes(dom::element node, int depth = 0) {
  if (depth > 8) return 0;
  std::int64_t bytes = 0;
  if (std::string_view text; node.get(text) == simdjson::SUCCESS) {
    bytes = static_cast<std::int64_t>(text.size());
  } else if (dom::array list; node.get(list) == simdjson::SUCCESS) {
    for (const dom::element item : list) bytes += said_bytes(item, depth + 1);
  } else if (dom::object object; node.get(object) == simdjson::SUCCESS) {
    for (const auto& [key, value] : object)
      if (key == "content" || key == "parts" || key == "text") bytes += said_bytes(value, depth + 1);
  }
  return bytes;
}

std::int64_t integer(dom::element node, std::int64_t otherwise) {
  std::int64_t number = 0;
  return node.get(number) == simdjson::SUCCESS && number >= 0 ? number : otherwise;
}

bool is_true(dom::element node) {
  bool value = false;
  return node.get(value) == simdjson::SUCCESS && value;
}

std::string_view string(dom::element node) {
  std::string_view text;
  return node.get(text) == simdjson::SUCCESS ? text : std::string_view{};
}

std::string as_text(dom::element node) {
  if (node.is_string()) return std::string(string(node));
  return simdjson::minify(node);
}

}  // namespace

CallReader::CallReader() : parser_(std::make_unique<Parser>()) {}
CallReader::~CallReader() = default;

bool CallReader::read(std::string_view body, Call& call) {
  if (!parser_->parse(body)) return false;
  for (const auto& [key, value] : dom::object(parser_->root)) {
    if (key == "messages" || key == "system" || key == "input" || key == "instructions" ||
        key == "contents" || key == "systemInstruction" || key == "system_instruction") {
      call.content_bytes += said_bytes(value);
    } else if (key == "model") {
      call.model = string(value);
    } else if (key == "stream") {
      call.stream = is_true(value);
    } else if (key == "max_tokens" || key == "max_completion_tokens" || key == "max_output_tokens") {
      call.max_tokens = integer(value, call.max_tokens);
    } else if (key == "n") {
      call.choices = std::clamp<std::int64_t>(integer(value, 1), 1, 16);
    } else if (key == "stream_options") {
      dom::element include;
      if (value["include_usage"].get(include) == simdjson::SUCCESS) call.include_usage = is_true(include);
    } else if (key == "generationConfig" || key == "generation_config") {
      dom::element most;
      if (value["maxOutputTokens"].get(most) == simdjson::SUCCESS) call.max_tokens = integer(most, -1);
    }
  }
  return true;
}

bool CallReader::read_embedding(std::string_view body, Call& call) {
  if (!read(body, call)) return false;
  for (const auto& [key, value] : dom::object(parser_->root)) {
    if (key == "dimensions") call.dimensions = integer(value, -1);
    if (key == "encoding_format") call.base64 = string(value) == "base64";
    if (key != "input") continue;
    dom::array list;
    if (value.get(list) != simdjson::SUCCESS) {
      call.inputs.emplace_back(string(value));
      continue;
    }
    for (const dom::element item : list)  // strings, or lists of tokens
      if (call.inputs.size() < 2048) call.inputs.push_back(as_text(item));
  }
  return true;
}

bool CallReader::read_members(std::string_view body, Members& members) {
  if (body.empty()) return true;
  if (!parser_->parse(body)) return false;
  for (const auto& [key, value] : dom::object(parser_->root)) {
    dom::object nested;
    if (value.get(nested) != simdjson::SUCCESS) {
      members.emplace_back(key, as_text(value));
      continue;
    }
    for (const auto& [name, inner] : nested)
      members.emplace_back(std::string(key) + "." + std::string(name), as_text(inner));
  }
  return true;
}

}  // namespace penstock::mock
