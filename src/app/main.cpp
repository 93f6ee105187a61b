#include <cstdio>
#include <iostream>

#include <CLI/CLI.hpp>

#include "app/demo.hpp"
#include "app/ledger_commands.hpp"
#include "app/process.hpp"
#include "config/key.hpp"
#include "config/load.hpp"

namespace {

using namespace penstock;

void print_mistakes(const std::vector<config::Mistake>& mistakes, std::FILE* out) {
  for (const config::Mistake& mistake : mistakes)
    std::fprintf(out, "%s\n", config::to_string(mistake).c_str());
  std::fprintf(out, "%zu mistake%s\n", mistakes.size(), mistakes.size() == 1 ? "" : "s");
}

int check(const std::string& path) {
  const auto loaded = config::load_config(path, config::real_sources());
  if (!loaded) {
    print_mistakes(loaded.error(), stderr);
    return 1;
  }
  std::printf("%s: valid; %zu providers, %zu routes, %zu consumers, %zu keys\n", path.c_str(),
              loaded->providers.size(), loaded->routes.size(), loaded->consumers.size(), loaded->keys.size());
  return 0;
}

int serve(const std::string& path) {
  app::block_signals();
  auto loaded = config::load_config(path, config::real_sources());
  if (!loaded) {
    print_mistakes(loaded.error(), stderr);
    return 1;
  }
  const config::Listen listen = loaded->listen;
  app::Process process(std::move(*loaded), STDERR_FILENO);
  if (auto started = process.start(); !started) {
    std::fprintf(stderr, "penstock: %s: %s\n", started.error().message.c_str(),
                 started.error().detail.c_str());
    return 1;
  }
  std::printf("penstock %s listens on %s://%s:%u\n", PENSTOCK_VERSION, listen.tls ? "https" : "http",
              listen.address.c_str(), process.port());
  std::fflush(stdout);
  return app::serve_until_signalled(
      process, listen.shutdown_timeout, [&](app::Process& running) -> std::optional<config::Config> {
        auto again = config::load_config(path, config::real_sources());
        if (again) return std::move(*again);
        for (const config::Mistake& mistake : again.error())
          running.log_error("configuration refused; the last good one keeps serving",
                            config::to_string(mistake));
        return std::nullopt;
      });
}

int new_key() {
  const std::string key = config::make_key();
  std::printf(
      "key:  %s\nhash: %s\n\nGive the key to the consumer; it is shown only now. Put the hash into the "
      "configuration:\n\n"
      "keys:\n  NAME:\n    consumer: CONSUMER\n    hash: %s\n",
      key.c_str(), config::format_hash(config::hash_key(key)).c_str(),
      config::format_hash(config::hash_key(key)).c_str());
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  CLI::App app{
      "Penstock: a gateway for paid, rate-limited HTTP APIs. It keeps budgets and limits, and shows what "
      "calls cost."};
  app.require_subcommand(1);
  app.footer(
      "Examples:\n  penstock demo\n  penstock check --config penstock.yaml\n  penstock serve --config "
      "penstock.yaml");

  std::string path;
  auto* serve_command =
      app.add_subcommand("serve", "Run the gateway; SIGHUP reloads its configuration, SIGTERM stops it");
  serve_command->add_option("-c,--config", path, "The configuration file (docs/configure.md)")
      ->required()
      ->type_name("FILE");
  auto* check_command =
      app.add_subcommand("check", "Validate a configuration file and exit: 0 valid, 1 with every mistake");
  check_command->add_option("-c,--config", path, "The configuration file")->required()->type_name("FILE");

  app::DemoOptions demo;
  auto* demo_command = app.add_subcommand(
      "demo", "Run the gateway with mock providers and gentle traffic, without any set-up");
  demo_command->add_option("-p,--port", demo.port, "Where to listen on 127.0.0.1; 0 takes a free port")
      ->capture_default_str();
  demo_command->add_flag("--quiet", demo.quiet, "No sample traffic");
  demo_command->add_flag("--log", demo.log_calls, "Print a JSON line for each call");

  auto* key_command = app.add_subcommand("key", "Keys of consumers");
  key_command->require_subcommand(1);
  auto* key_new =
      key_command->add_subcommand("new", "Make a key; prints it once, with the hash for the configuration");

  auto* ledger_command = app.add_subcommand("ledger", "What was spent (docs/ledger.md)");
  ledger_command->require_subcommand(1);
  std::string url;
  auto* verify_command =
      ledger_command->add_subcommand("verify", "Recompute every balance; 0 where everything agrees");
  verify_command->add_option("-c,--config", path, "The configuration file")->required()->type_name("FILE");
  verify_command->add_option("--url", url, "A running gateway that must agree: http://127.0.0.1:8080")
      ->type_name("URL");
  app::ExportOptions exported;
  auto* export_command = ledger_command->add_subcommand("export", "Write calls or attempts, oldest first");
  export_command->add_option("-c,--config", path, "The configuration file")->required()->type_name("FILE");
  export_command->add_option("--format", exported.format, "csv or ndjson")
      ->transform(CLI::CheckedTransformer(std::map<std::string, app::ExportFormat>{
          {"csv", app::ExportFormat::csv}, {"ndjson", app::ExportFormat::ndjson}}));
  export_command->add_option("--what", exported.what, "calls or attempts")
      ->transform(CLI::CheckedTransformer(std::map<std::string, app::ExportWhat>{
          {"calls", app::ExportWhat::calls}, {"attempts", app::ExportWhat::attempts}}));
  export_command->add_option("--from", exported.from, "The first day (UTC), such as 2026-11-01")
      ->type_name("WHEN");
  export_command->add_option("--to", exported.to, "The day after the last one")->type_name("WHEN");
  auto* version_command = app.add_subcommand("version", "Print the version");

  CLI11_PARSE(app, argc, argv);
  try {
    if (serve_command->parsed()) return serve(path);
    if (check_command->parsed()) return check(path);
    if (demo_command->parsed()) return app::run_demo(demo);
    if (key_new->parsed()) return new_key();
    if (verify_command->parsed() || export_command->parsed()) {
      const auto loaded = config::load_config(path, config::real_sources());
      if (!loaded) return print_mistakes(loaded.error(), stderr), 1;
      return verify_command->parsed() ? app::verify_ledger(*loaded, url)
                                      : app::print_ledger(*loaded, exported);
    }
    if (version_command->parsed()) std::printf("penstock %s\n", PENSTOCK_VERSION);
    return 0;
  } catch (const std::exception& error) {
    std::fprintf(stderr, "penstock: %s\n", error.what());
    return 1;
  }
}
