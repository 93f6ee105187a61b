#include "config/load.hpp"

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <map>

#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include "config/fields.hpp"
#include "config/key.hpp"

namespace penstock::config {

namespace {

constexpr std::size_t kMaxFileBytes = 32 * 1024 * 1024;  // a price file has about 2 MiB

/// Reads the entries of a mapping of things by name. A bad name is told, and its thing read all the same.
template <class T>
void read_named(Fields& fields, std::string_view field, void (*read)(Reader&, const Node&, T&),
                std::vector<T>& out) {
  for (const Node& node : fields.entries(field)) {
    T thing{};
    thing.name = node.key;
    thing.place = fields.reader().place(node.key_mark);
    if (const auto name = parse_name(node.key); !name) {
      fields.reader().mistakes.add(node.key_mark,
                                   fmt::format("{}: {} {}", field, shown(node.key), name.error().text),
                                   name.error().hint);
    }
    read(fields.reader(), node, thing);
    out.push_back(std::move(thing));
  }
}

void read_config(Reader& reader, const Node& root, Config& out) {
  Fields fields(reader, root, kConfig, "the file");
  if (const Node* node = fields.find("listen")) read_listen(reader, *node, out.listen);
  if (const Node* node = fields.find("log")) read_log(reader, *node, out.log);
  if (const Node* node = fields.find("state")) read_state(reader, *node, out.state);
  if (const Node* list = fields.list("trusted_proxies")) {
    for (const Node& item : list->children) {
      Network network;
      if (fields.expect(item, Node::Kind::scalar, "trusted_proxies") &&
          fields.parse_into(item, "trusted_proxies", network, parse_network)) {
        out.trusted_proxies.push_back(network);
      }
    }
  }
  fields.boolean("anonymous", out.anonymous);
  fields.choice("budget_status", out.budget_status_402, {{"429", false}, {"402", true}});
  if (const Node* node = fields.find("inbound")) read_inbound(reader, *node, out.inbound);
  if (const Node* node = fields.find("ledger"); node != nullptr)
    read_ledger(reader, *node, out.ledger);
  else
    out.ledger.directory = reader.resolve(out.ledger.directory);
  read_named(fields, "providers", read_provider, out.providers);
  read_named(fields, "routes", read_route, out.routes);
  read_named(fields, "teams", read_team, out.teams);
  read_named(fields, "consumers", read_consumer, out.consumers);
  read_named(fields, "keys", read_key, out.keys);

  const Node* providers = fields.find("providers");
  if (root.kind != Node::Kind::null && root.kind != Node::Kind::mapping) return;
  if (root.kind == Node::Kind::null) {
    reader.mistakes.add({}, "the file is empty; expected at least providers",
                        "see examples/penstock.yaml for a beginning");
  } else if (providers == nullptr || providers->kind == Node::Kind::null ||
             (providers->kind == Node::Kind::mapping && providers->children.empty())) {
    reader.mistakes.add(providers == nullptr ? root.mark : providers->key_mark,
                        "no providers: at least one is needed",
                        "expected providers: {NAME: {base_url: https://…}}");
  }
}

void check_references(Reader& reader, const Config& config) {
  std::map<Referent, std::vector<std::string_view>> names;
  for (const Provider& provider : config.providers) names[Referent::provider].push_back(provider.name);
  for (const Route& route : config.routes) names[Referent::route].push_back(route.name);
  for (const Team& team : config.teams) names[Referent::team].push_back(team.name);
  for (const Consumer& consumer : config.consumers) names[Referent::consumer].push_back(consumer.name);
  std::map<Referent, std::set<std::string_view>> known;
  for (const auto& [referent, list] : names) known[referent] = {list.begin(), list.end()};
  for (const Reference& reference : reader.references) {
    if (known[reference.referent].contains(reference.name)) continue;
    const auto& candidates = names[reference.referent];
    std::string hint = near_miss(reference.name, candidates);
    constexpr std::size_t kMostNamed = 8;
    if (hint.empty() && candidates.empty())
      hint = fmt::format("there is no {} in the file", to_string(reference.referent));
    if (hint.empty() && candidates.size() <= kMostNamed)
      hint = fmt::format("known are {}", list_of(candidates, " and "));
    reader.mistakes.add(reference.mark,
                        fmt::format("{}: there is no {} {}", reference.what, to_string(reference.referent),
                                    shown(reference.name)),
                        hint);
  }
}

/// Two keys of one hash would be one key with two owners.
void check_hashes(Reader& reader, const Config& config) {
  std::map<KeyHash, const Key*> seen;
  for (const Key& key : config.keys) {
    if (key.sha256 == KeyHash{}) continue;  // missing or bad: told already
    const auto [first, is_new] = seen.emplace(key.sha256, &key);
    if (is_new) continue;
    reader.mistakes.add({.line = key.place.line, .column = key.place.column},
                        fmt::format("key {} has the same hash as key {} in line {}", shown(key.name),
                                    shown(first->second->name), first->second->place.line),
                        "make another with: penstock key new");
  }
}

std::string error_text(int error) { return std::generic_category().message(error); }

std::expected<std::string, std::string> read_whole_file(const std::string& path) {
  if (path.find('\0') != std::string::npos) return std::unexpected("not a path");
  const int descriptor = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (descriptor < 0) return std::unexpected(error_text(errno));
  std::string content;
  std::array<char, 64 * 1024> buffer{};
  ssize_t count = 0;
  while ((count = ::read(descriptor, buffer.data(), buffer.size())) != 0) {
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) break;
    content.append(buffer.data(), static_cast<std::size_t>(count));
    if (content.size() > kMaxFileBytes) break;
  }
  const int error = errno;
  ::close(descriptor);
  if (count < 0) return std::unexpected(error_text(error));
  if (content.size() > kMaxFileBytes)
    return std::unexpected(fmt::format("larger than {} MiB", kMaxFileBytes / (1024 * 1024)));
  return content;
}

/// The next character of a path; an escaped unreserved one stands for itself (RFC 3986 6.2.2.2), so that
/// /v1/%63hat cannot pass for another endpoint than /v1/chat.
struct PathCharacter {
  char value = 0;
  std::size_t length = 0;  ///< in the text; 0 at its end
};
PathCharacter path_character(std::string_view text) noexcept {
  if (text.empty()) return {};
  if (text[0] != '%' || text.size() < 3) return {.value = text[0], .length = 1};
  const auto hex = [](char c) {
    return c >= '0' && c <= '9'                     ? c - '0'
           : (c | 0x20) >= 'a' && (c | 0x20) <= 'f' ? (c | 0x20) - 'a' + 10
                                                    : -1;
  };
  const int high = hex(text[1]);
  const int low = hex(text[2]);
  if (high < 0 || low < 0) return {.value = '%', .length = 1};
  const auto c = static_cast<char>(high * 16 + low);
  const bool is_unreserved = (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') ||
                             c == '-' || c == '.' || c == '_' || c == '~';
  return is_unreserved ? PathCharacter{.value = c, .length = 3} : PathCharacter{.value = '%', .length = 1};
}

bool same_segment(std::string_view a, std::string_view b) noexcept {
  while (true) {
    const PathCharacter x = path_character(a);
    const PathCharacter y = path_character(b);
    if (x.length == 0 || y.length == 0) return x.length == y.length;
    if (x.value != y.value) return false;
    a.remove_prefix(x.length);
    b.remove_prefix(y.length);
  }
}

}  // namespace

Sources real_sources() {
  return {.environment = [](std::string_view name) -> std::optional<std::string> {
            const char* value = std::getenv(std::string(name).c_str());
            return value == nullptr ? std::nullopt : std::optional<std::string>(value);
          },
          .read_file = read_whole_file};
}

std::expected<Config, std::vector<Mistake>> parse_config(std::string_view yaml, const std::string& file,
                                                         const Sources& sources) {
  Mistakes mistakes(file);
  Config config;
  const std::size_t slash = file.rfind('/');
  Reader reader{.mistakes = mistakes,
                .sources = sources,
                .folder = file.substr(0, slash == std::string::npos ? 0 : slash + 1),
                .references = {},
                .price_files = {}};
  if (const auto root = read_yaml(yaml, mistakes)) {
    read_config(reader, *root, config);
    check_references(reader, config);
    check_hashes(reader, config);
  }
  if (mistakes.empty()) return config;
  return std::unexpected(mistakes.take());
}

std::expected<Config, std::vector<Mistake>> load_config(const std::string& path, const Sources& sources) {
  std::expected<std::string, std::string> content = std::unexpected("no files here");
  if (sources.read_file) content = sources.read_file(path);
  if (content) return parse_config(*content, path, sources);
  Mistakes mistakes(path);
  mistakes.add({}, fmt::format("cannot be read: {}", content.error()));
  return std::unexpected(mistakes.take());
}

bool matches_path(std::string_view pattern, std::string_view path) noexcept {
  while (!pattern.empty() && !path.empty()) {
    if (pattern.front() != '/' || path.front() != '/') return false;
    pattern.remove_prefix(1);
    path.remove_prefix(1);
    if (pattern == "**") return true;
    const std::string_view wanted = pattern.substr(0, pattern.find('/'));
    const std::string_view given = path.substr(0, path.find('/'));
    if (wanted == "*" ? given.empty() : !same_segment(wanted, given)) return false;
    pattern.remove_prefix(wanted.size());
    path.remove_prefix(given.size());
  }
  return pattern.empty() && path.empty();
}

}  // namespace penstock::config
