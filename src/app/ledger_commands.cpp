#include "app/ledger_commands.hpp"

#include <cstdio>
#include <map>
#include <thread>

#include <boost/asio/connect.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/read.hpp>
#include <boost/asio/write.hpp>
#include <fmt/format.h>
#include <simdjson.h>
#include <sys/socket.h>

#include "app/stores.hpp"
#include "observe/log.hpp"
#include "store/journal/ledger_writer.hpp"

namespace penstock::app {
namespace {

namespace asio = boost::asio;

constexpr int kAskSeconds = 10;
constexpr seconds kSettleWait{15};
constexpr std::size_t kMaxAnswer = 64U << 20U;

Error make_error(std::string message, std::string detail) {
  return refuse(Reason::gateway_error, std::move(message), std::move(detail)).error();
}

int say(const Error& error) {
  std::fprintf(stderr, "penstock: %s: %s\n", error.message.c_str(), error.detail.c_str());
  return 1;
}

/// The body of a GET of the gateway's own pages, which need no key. Plain HTTP.
Result<std::string> get(const std::string& url, const std::string& path) {
  constexpr std::string_view kScheme = "http://";
  if (!url.starts_with(kScheme))
    return refuse(Reason::caller_invalid, "cannot ask the gateway", "--url must begin with http://");
  std::string_view rest = std::string_view(url).substr(kScheme.size());
  rest = rest.substr(0, rest.find('/'));
  const std::size_t colon = rest.rfind(':');
  const std::string host(rest.substr(0, colon));
  const std::string port(colon == std::string_view::npos ? "80" : rest.substr(colon + 1));
  boost::system::error_code error;
  asio::io_context io;
  asio::ip::tcp::resolver resolver(io);
  asio::ip::tcp::socket socket(io);
  asio::connect(socket, resolver.resolve(host, port, error), error);
  const timeval bound{.tv_sec = kAskSeconds, .tv_usec = 0};
  if (!error) {
    ::setsockopt(socket.native_handle(), SOL_SOCKET, SO_RCVTIMEO, &bound, sizeof bound);
    asio::write(socket,
                asio::buffer("GET " + path + " HTTP/1.1\r\nHost: " + host + "\r\nConnection: close\r\n\r\n"),
                error);
  }
  std::string answer;
  if (!error) asio::read(socket, asio::dynamic_buffer(answer, kMaxAnswer), error);
  const std::size_t head = answer.find("\r\n\r\n");
  if (error != asio::error::eof || head == std::string::npos)
    return refuse(Reason::gateway_error, "cannot ask the gateway",
                  url + path + ": " + (error ? error.message() : "no answer"));
  return answer.substr(head + 4);
}

/// A member of a JSON object that is an amount, exactly as it is written.
std::optional<NanoUsd> amount(simdjson::ondemand::object& object, const std::string& name) {
  simdjson::ondemand::value value;
  if (object[name].get(value) != simdjson::SUCCESS) return std::nullopt;
  std::string_view text = value.raw_json_token();
  while (!text.empty() && text.back() == ' ') text.remove_suffix(1);
  return parse_usd(text);
}

struct Difference {
  std::string what;
  NanoUsd ledger;
  NanoUsd gateway;
};

/// Budgets of every provider, as the running gateway shows them and as the ledger adds them up.
Result<std::vector<Difference>> compare_budgets(const config::Config& config, store::LedgerDatabase& database,
                                                const std::string& url, int& compared) {
  const auto body = get(url, "/health/providers");
  if (!body) return std::unexpected(body.error());
  std::vector<Difference> differences;
  const WallTime now = std::chrono::system_clock::now();
  for (const config::Provider& provider : config.providers) {
    for (const policy::BudgetSpec& budget : provider.budgets) {
      // Parsed anew for each: an on-demand document is read once, in its order.
      simdjson::ondemand::parser parser;
      const simdjson::padded_string text(*body);
      simdjson::ondemand::document document;
      simdjson::ondemand::object shown;
      if (parser.iterate(text).get(document) != simdjson::SUCCESS ||
          document["providers"][provider.name]["budget"].get_object().get(shown) != simdjson::SUCCESS)
        return refuse(
            Reason::gateway_error, "cannot read the gateway's answer",
            "provider " + provider.name + " is not in /health/providers: is it this configuration's?");
      const std::string window(to_string(budget.window));
      const auto spent = amount(shown, window + "_spent_usd");
      const auto held = amount(shown, window + "_held_usd");
      if (!spent || !held) continue;  // two budgets of one window: the first is shown
      const store::Spent kept = database.spent(store::SubjectKind::provider, provider.name,
                                               policy::window_at(budget.window, budget.time_zone, now));
      ++compared;
      const NanoUsd ledger = kept.settled + kept.overrun;
      if (ledger != *spent + *held)
        differences.push_back(
            {"provider " + provider.name + ", " + window + " budget", ledger, *spent + *held});
    }
  }
  return differences;
}

/// Sum of a counter's series with this label, exactly.
NanoUsd sum_of(std::string_view exposition, std::string_view metric, const std::string& label) {
  NanoUsd sum{};
  for (std::size_t at = 0; at < exposition.size();) {
    const std::size_t end = std::min(exposition.find('\n', at), exposition.size());
    const std::string_view line = exposition.substr(at, end - at);
    at = end + 1;
    const std::size_t space = line.rfind(' ');
    if (!line.starts_with(metric) || line.size() <= metric.size() || line[metric.size()] != '{' ||
        line.find(label) == std::string_view::npos || space == std::string_view::npos)
      continue;
    sum += parse_usd(line.substr(space + 1)).value_or(NanoUsd{});
  }
  return sum;
}

/// What this process's attempts cost: its counter began with it, and its number stands in their ids.
Result<std::vector<Difference>> compare_counters(const config::Config& config,
                                                 store::LedgerDatabase& database, const std::string& url,
                                                 std::uint64_t epoch, int& compared) {
  const auto exposition = get(url, "/metrics");
  if (!exposition) return std::unexpected(exposition.error());
  std::map<std::string, NanoUsd, std::less<>> costs;
  auto done = database.for_each_attempt(WallTime{}, WallTime::max(), [&](const store::AttemptEntry& attempt) {
    if (attempt.id.epoch != epoch || !attempt.end || attempt.end->expired) return true;
    for (const store::SubjectRef& subject : attempt.subjects)
      if (subject.kind == store::SubjectKind::provider) costs[subject.name] += attempt.end->cost;
    return true;
  });
  if (!done) return std::unexpected(done.error());
  std::vector<Difference> differences;
  for (const config::Provider& provider : config.providers) {
    const NanoUsd told =
        sum_of(*exposition, "external_api_credit_used_total", "provider=\"" + provider.name + "\"");
    const NanoUsd kept = costs[provider.name];
    ++compared;
    if (told != kept)
      differences.push_back({"provider " + provider.name + ", external_api_credit_used_total", kept, told});
  }
  return differences;
}

struct Gateway {
  std::uint64_t epoch = 0;
  bool is_applied = false;  ///< the database has all that happened
};

Result<Gateway> ask_gateway(const std::string& url) {
  const auto body = get(url, "/health/database");
  if (!body) return std::unexpected(body.error());
  simdjson::dom::parser parser;
  simdjson::dom::element document;
  std::string_view epoch;
  Gateway gateway;
  std::int64_t applied = 0;
  if (parser.parse(*body).get(document) != simdjson::SUCCESS ||
      document["epoch"].get(epoch) != simdjson::SUCCESS ||
      document["up_to_date"].get(applied) != simdjson::SUCCESS)
    return refuse(Reason::gateway_error, "the gateway keeps no ledger", "/health/database answers " + *body);
  gateway.is_applied = applied == 1;
  gateway.epoch = std::strtoull(std::string(epoch).c_str(), nullptr, 16);
  return gateway;
}

/// Applies what a process that is gone left in its journal. Nothing when one runs: it does that itself.
Result<void> apply_journal(const config::Config& config, bool& is_running) {
  auto directory = store::DataDirectory::open(config.ledger.directory);
  is_running = !directory;
  if (is_running) return {};
  const std::string replica = directory->replica_name();
  auto database = ledger_database_of(config.ledger, replica);
  if (!database) return std::unexpected(database.error());
  store::Disk disk;
  auto journal = store::Journal::open(*directory, {.epoch = random_epoch()}, disk);
  if (!journal) return std::unexpected(journal.error());
  store::LedgerWriter writer(**journal, **database, {});
  if (auto recovered = writer.recover(std::chrono::system_clock::now()); !recovered) return recovered;
  const store::LedgerStatus status = writer.status(std::chrono::steady_clock::now());
  std::printf(
      "journal of replica %s: %llu records were not in the database, %llu open reservations charged\n",
      replica.c_str(), static_cast<unsigned long long>(status.recovered_records),
      static_cast<unsigned long long>(status.recovered_expired));
  (*journal)->close();
  writer.stop(kSettleWait);
  return {};
}

void print_differences(const std::vector<Difference>& differences) {
  for (const Difference& each : differences)
    std::printf("DIFFERS  %s: the ledger has %s, the gateway %s USD\n", each.what.c_str(),
                format_usd(each.ledger).c_str(), format_usd(each.gateway).c_str());
}

/// Against the running gateway. Returns the number of differences, or -1 where it could not be asked.
int compare_with_gateway(const config::Config& config, store::LedgerDatabase& database,
                         const std::string& url) {
  auto gateway = ask_gateway(url);
  for (const auto end = std::chrono::steady_clock::now() + kSettleWait;
       gateway && !gateway->is_applied && std::chrono::steady_clock::now() < end; gateway = ask_gateway(url))
    std::this_thread::sleep_for(milliseconds{50});
  if (!gateway) return say(gateway.error()), -1;
  if (!gateway->is_applied)
    std::printf("note: calls are running; what they cost meanwhile may show as a difference\n");
  int budgets = 0;
  int counters = 0;
  const auto of_budgets = compare_budgets(config, database, url, budgets);
  if (!of_budgets) return say(of_budgets.error()), -1;
  const auto of_counters = compare_counters(config, database, url, gateway->epoch, counters);
  if (!of_counters) return say(of_counters.error()), -1;
  print_differences(*of_budgets);
  print_differences(*of_counters);
  std::printf("gateway  %d budgets and %d counters compared\n", budgets, counters);
  return static_cast<int>(of_budgets->size() + of_counters->size());
}

}  // namespace

int verify_ledger(const config::Config& config, const std::string& url) {
  if (config.ledger.database == config::Ledger::Database::none)
    return say(make_error("there is no ledger", "ledger.database is none"));
  bool is_running = false;
  if (auto applied = apply_journal(config, is_running); !applied) return say(applied.error());
  if (is_running && url.empty())
    std::printf("note: a gateway runs on %s; with --url it is compared too\n",
                config.ledger.directory.c_str());
  const auto database = ledger_database_of(config.ledger, "verify");
  if (!database) return say(database.error());
  int differences = 0;
  if (!url.empty()) {
    differences = compare_with_gateway(config, **database, url);
    if (differences < 0) return 1;
  }
  const auto audit = (*database)->audit();
  if (!audit) return say(audit.error());
  for (const std::string& mistake : audit->mistakes) std::printf("MISTAKE  %s\n", mistake.c_str());
  std::printf(
      "ledger   %lld calls, %lld attempts (%lld open), %lld entries; reserved %s, spent %s, overrun %s USD\n",
      static_cast<long long>(audit->calls), static_cast<long long>(audit->attempts),
      static_cast<long long>(audit->open_attempts), static_cast<long long>(audit->entries),
      format_usd(audit->reserved).c_str(), format_usd(audit->spent).c_str(),
      format_usd(audit->overrun).c_str());
  const bool agrees = audit->mistakes.empty() && differences == 0;
  std::printf("%s\n", agrees ? "everything agrees" : "it does not agree");
  return agrees ? 0 : 1;
}

int print_ledger(const config::Config& config, const ExportOptions& options) {
  WallTime from{};
  WallTime to = WallTime::max();
  for (const auto& [text, place] : {std::pair{&options.from, &from}, std::pair{&options.to, &to}}) {
    if (text->empty()) continue;
    const auto moment = parse_moment(*text);
    if (!moment)
      return say(make_error("cannot read " + *text,
                            "expected a day such as 2026-11-24, or 2026-11-24T12:00:00Z (UTC)"));
    *place = *moment;
  }
  const auto database = ledger_database_of(config.ledger, "export");
  if (!database) return say(database.error());
  const auto done = export_ledger(
      **database, options.what, options.format, from, to,
      [](std::string_view text) { return std::fwrite(text.data(), 1, text.size(), stdout) == text.size(); });
  if (!done) return say(done.error());
  return std::fflush(stdout) == 0 ? 0 : 1;
}

}  // namespace penstock::app
