// Any bytes as a configuration: no crash, no hang, mistakes that are well formed, and never a secret in them.
#include <cstdio>
#include <cstdlib>
#include <tuple>

#include "config/load.hpp"

namespace {

using penstock::config::Mistake;

constexpr std::string_view kSecret = "cAnArY-7b1e";

void insist(bool holds, std::string_view rule) {
  if (holds) return;
  std::fprintf(stderr, "broken rule: %.*s\n", static_cast<int>(rule.size()), rule.data());
  std::abort();
}

void check(const std::vector<Mistake>& mistakes, bool may_show_secret) {
  insist(!mistakes.empty() && mistakes.size() <= 100, "1 to 100 mistakes");
  auto last = std::tuple(0, 0);
  for (const Mistake& mistake : mistakes) {
    const auto place = std::tuple(mistake.place.line, mistake.place.column);
    insist(mistake.place.line >= 1 && mistake.place.column >= 1, "a place from 1:1 on");
    insist(place >= last, "in the order of the file");
    last = place;
    const std::string line = to_string(mistake);
    insist(line.find('\n') == std::string::npos, "one line each");
    insist(!mistake.text.empty() && line.size() < 2'000, "a bounded text");
    insist(may_show_secret || line.find(kSecret) == std::string::npos, "no secret in a mistake");
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  // What stands after a line of `%%%` is the content of every file that the configuration names.
  const std::size_t split = text.find("\n%%%\n");
  const std::string_view yaml = text.substr(0, split);
  const std::string file(split == std::string_view::npos ? std::string_view() : text.substr(split + 5));
  const penstock::config::Sources sources{
      .environment = [](std::string_view name) -> std::optional<std::string> {
        if (name == "UNSET") return std::nullopt;
        if (name == "BROKEN") return std::string(kSecret) + "\n";
        return std::string(kSecret);
      },
      .read_file = [&](const std::string&) -> std::expected<std::string, std::string> {
        if (file.empty()) return std::unexpected("No such file or directory");
        return file;
      }};
  const auto config = penstock::config::parse_config(yaml, "f.yaml", sources);
  if (!config) {
    // The fuzzer learns the secret from the comparison above and writes it into the text itself.
    check(config.error(), text.find(kSecret) != std::string_view::npos);
    return 0;
  }
  insist(!config->providers.empty(), "a good file has a provider");
  for (const auto& provider : config->providers) {
    insist(!provider.base_url.host.empty() && provider.base_url.port != 0, "a provider has a destination");
    for (const auto& endpoint : provider.endpoints) (void)penstock::config::matches_path(endpoint.path, text);
  }
  return 0;
}
