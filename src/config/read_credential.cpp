// Credentials: the one place where secrets enter. No message shows a value, nor an unknown name that might be
// one (G10).
#include <algorithm>

#include "config/fields.hpp"

namespace penstock::config {

namespace {

constexpr std::size_t kMostSecretBytes = 16 * 1024;

bool is_visible(char c) { return c > 0x20 && c < 0x7F; }

bool may_begin_variable(char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_'; }
bool is_variable_character(char c) { return may_begin_variable(c) || (c >= '0' && c <= '9'); }

}  // namespace

Parsed<std::string> substitute(std::string_view text, const Sources& sources) {
  std::string out;
  for (std::size_t i = 0; i < text.size(); ++i) {
    if (text[i] != '$') {
      out += text[i];
      continue;
    }
    const std::string_view rest = text.substr(i + 1);
    if (rest.starts_with('$')) {
      out += '$';
      ++i;
      continue;
    }
    const std::size_t end = rest.find('}');
    const std::string_view name =
        rest.starts_with('{') && end != std::string_view::npos ? rest.substr(1, end - 1) : "";
    if (name.empty() || name.size() > 128 || !may_begin_variable(name.front()) ||
        !std::ranges::all_of(name, is_variable_character)) {
      return std::unexpected(Complaint{"holds a $ that begins no ${NAME}", "write $$ for a plain $"});
    }
    const auto value = sources.environment ? sources.environment(name) : std::nullopt;
    if (!value)
      return std::unexpected(
          Complaint{fmt::format("needs the environment variable {}, which is not set", name),
                    fmt::format("export {}=…", name)});
    if (value->empty())
      return std::unexpected(
          Complaint{fmt::format("needs the environment variable {}, which is empty", name), {}});
    out += *value;
    i += end + 1;
  }
  return out;
}

namespace {

Parsed<std::string> check_secret(std::string secret) {
  if (secret.empty()) return std::unexpected(Complaint{"is empty", {}});
  if (secret.size() > kMostSecretBytes) return std::unexpected(Complaint{"is longer than 16 KiB", {}});
  const bool is_ok = std::ranges::all_of(secret, [](char c) { return is_visible(c) || c == ' '; });
  if (!is_ok || secret.front() == ' ' || secret.back() == ' ') {
    return std::unexpected(
        Complaint{"holds a character that no request can carry, or begins or ends with a space",
                  "is there a line break in it?"});
  }
  return secret;
}

Parsed<std::string> parse_scheme(std::string_view text) {
  // Empty is allowed: the value alone.
  if (text.size() <= 64 && std::ranges::all_of(text, is_visible)) return std::string(text);
  return std::unexpected(Complaint{"is not an authentication scheme; expected one word such as Bearer", {}});
}

Parsed<std::string> parse_query_name(std::string_view text) {
  const auto is_ok = [](char c) { return is_variable_character(c) || c == '-' || c == '.'; };
  if (!text.empty() && text.size() <= 128 && std::ranges::all_of(text, is_ok)) return std::string(text);
  return std::unexpected(Complaint{"is not the name of a query parameter", {}});
}

bool is_same_word(std::string_view a, std::string_view b) {
  return a.size() == b.size() && edit_distance(a, b) == 0;
}

/// Reads the secret from whichever of the two is there; returns that one if it was good.
const Node* read_source(Fields& fields, const Node* value, const Node* file, std::string& secret) {
  Reader& reader = fields.reader();
  if (value != nullptr) {
    const auto parse = [&](std::string_view text) -> Parsed<std::string> {
      auto substituted = substitute(text, reader.sources);
      return substituted ? check_secret(std::move(*substituted)) : substituted;
    };
    return fields.parse_into(*value, value->key, secret, parse, Show::nothing) ? value : nullptr;
  }
  if (file == nullptr) return nullptr;
  auto content = reader.read_file(reader.resolve(file->text), file->mark, fields.what(file->key));
  if (!content) return nullptr;
  while (content->ends_with('\n') || content->ends_with('\r')) content->pop_back();
  const auto parse = [&](std::string_view) { return check_secret(std::move(*content)); };
  return fields.parse_into(*file, file->key, secret, parse, Show::nothing) ? file : nullptr;
}

}  // namespace

void read_secret(Fields& fields, std::string_view field, std::string_view file_field, Secret& out) {
  const Node* const value = fields.scalar(field);
  const Node* const file = fields.scalar(file_field);
  if (value != nullptr && file != nullptr) {
    fields.reader().mistakes.add(file->key_mark,
                                 fmt::format("{} stands beside {}", fields.what(file_field), field),
                                 "keep one of them");
    return;
  }
  std::string secret;
  if (read_source(fields, value, file, secret) != nullptr) out = Secret(std::move(secret));
}

void read_credential(Reader& reader, const Node& node, const std::string& owner, Credential& out) {
  Fields fields(reader, node, kCredential, fmt::format("credential of {}", owner), Fields::Names::hidden);
  const Node* query = fields.value("query", out.query, parse_query_name);
  const Node* header = fields.value("header", out.header, parse_header_name);
  std::string scheme;
  const Node* scheme_node = fields.value("scheme", scheme, parse_scheme);
  const Node* value = fields.scalar("value");
  const Node* file = fields.scalar("file");

  if (query != nullptr && header != nullptr) {
    fields.complain(*query, "query", {.text = "stands beside header", .hint = "keep one of them"});
  }
  if (query != nullptr && scheme_node != nullptr) {
    fields.complain(*scheme_node, "scheme", {.text = "means nothing with query", .hint = "remove it"});
  }
  if (query != nullptr) {
    out.header.clear();
  } else if (scheme_node == nullptr && is_same_word(out.header, "authorization")) {
    scheme = "Bearer";
  }
  const bool is_mapping = node.kind == Node::Kind::mapping || node.kind == Node::Kind::null;
  if (is_mapping && fields.find("value") == nullptr && fields.find("file") == nullptr) {
    reader.mistakes.add(fields.mark(), fmt::format("{} has neither value nor file", fields.where()),
                        "expected value: ${NAME}, or file: PATH");
    return;
  }
  if (value != nullptr && file != nullptr) {
    reader.mistakes.add(file->key_mark, fmt::format("{} stands beside value", fields.what("file")),
                        "keep one of them");
    return;
  }

  std::string secret;
  const Node* const source = read_source(fields, value, file, secret);
  if (source == nullptr) return;
  if (!scheme.empty() && secret.size() > scheme.size() && secret[scheme.size()] == ' ' &&
      is_same_word(std::string_view(secret).substr(0, scheme.size()), scheme)) {
    fields.complain(
        *source, source->key,
        {.text = fmt::format("already begins with the scheme {}, which would be sent twice", scheme),
         .hint = "remove it from the value"},
        Show::nothing);
    return;
  }
  out.value = Secret(scheme.empty() ? secret : fmt::format("{} {}", scheme, secret));
}

}  // namespace penstock::config
