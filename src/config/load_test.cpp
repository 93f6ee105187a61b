#include "config/load.hpp"

#include <filesystem>

#include "config/key.hpp"
#include "config/testing.hpp"

namespace penstock::config {
namespace {

using namespace std::chrono_literals;
using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::EndsWith;
using testing::good;
using ::testing::HasSubstr;
using testing::mistake_of;
using testing::mistakes_of;
using ::testing::Not;
using ::testing::StartsWith;
using testing::with;
using testing::with_provider;
using testing::World;

const std::string kHash = format_hash(hash_key("pk_one"));

TEST(Load, TheLedgerHasADirectoryBesideTheFileUnlessToldOtherwise) {
  const std::string rest = "providers: {p: {base_url: https://api.example.com}}\n";
  World world;
  world.variables["DB_PASSWORD"] = "s3cret";
  const auto read = [&](const std::string& ledger) {
    auto config = parse_config(ledger + rest, "etc/f.yaml", world.sources());
    EXPECT_TRUE(config.has_value());
    return config ? config->ledger : Ledger{};
  };
  EXPECT_EQ(read("").directory, "etc/penstock-data");
  EXPECT_EQ(read("ledger: {directory: data}\n").directory, "etc/data");
  EXPECT_EQ(read("").database, Ledger::Database::sqlite);
  EXPECT_EQ(read("ledger: {database: none}\n").database, Ledger::Database::none);
  const Ledger all = read(
      "ledger: {directory: /d, database: 'postgresql://p:${DB_PASSWORD}@h/n', sync: always, sync_interval: "
      "5ms, "
      "max_journal: 2MiB, retention_days: 7}\n");
  EXPECT_EQ(all.directory, "/d");
  EXPECT_EQ(all.database, Ledger::Database::postgresql);
  EXPECT_EQ(all.url.reveal(), "postgresql://p:s3cret@h/n");
  EXPECT_EQ(all.sync, Ledger::Sync::always);
  EXPECT_EQ(all.sync_interval, 5ms);
  EXPECT_EQ(all.max_journal_bytes, 2U << 20U);
  EXPECT_EQ(all.retention_days, 7);
}

TEST(Load, ReadsEveryField) {
  World world;
  world.files = {{"tls/chain.pem", "x"},
                 {"tls/key.pem", "x"},
                 {"ca.pem", "x"},
                 {"/run/secret", "s3cret\r\n"},
                 {"prices.json", R"({"m2": {"input_cost_per_token": 1e-6, "litellm_provider": "x"}})"}};
  const Config config = good(
      R"(
listen: {address: "[::]:9090", tls: {certificate: tls/chain.pem, key: tls/key.pem}, workers: 2, max_connections: 100, max_header: 16KiB,
         max_body: 1MiB, header_timeout: 1s, body_timeout: 2s, idle_timeout: 3s, write_timeout: 4s, shutdown_timeout: 5s}
log: {level: debug, calls: refused}
trusted_proxies: [10.0.0.0/8, "::1"]
anonymous: true
budget_status: 402
inbound: {limit: 10/second, overrides: [{path: /p/a/**, methods: [GET, POST], limit: 20/minute}], exempt: [/health]}
providers:
  a:
    base_url: http://10.0.0.1:8000/v1
    allow_private: true
    credential: {header: x-api-key, file: /run/secret}
    tls: {ca_file: ca.pem, server_name: Inner.example.com}
    timeouts: {connect: 1s, first_byte: 2s, between_bytes: 3s, total: 4s}
    limits: [500/minute, 90000 tokens/minute]
    concurrency: 64
    circuit: {failure_ratio: 0.25, min_calls: 5, window: 30s, slow_ratio: 0.5, slow_after: 1s, cooldown: 2s, max_cooldown: 3s,
              half_open_trials: 4, half_open_timeout: 5s}
    retry: {max_attempts: 3, unsafe_methods: true, statuses: [500], backoff: 1s, max_backoff: 2s, budget_ratio: 0.5, budget_per_second: 0}
    wait: {max: 2m, default: 3s, lane: batch, max_waiting: 7, max_bytes: 8KiB}
    budgets: [{window: daily, limit_usd: 20, mode: warn, time_zone: America/New_York}, {window: monthly, limit_usd: "0.000000001", override: {limit_usd: 0, until: 2026-12-01T08:30:00Z, reason: "pause, please"}}, {window: daily, limit_usd: 1, override: {limit_usd: 2, until: 1999-01-01}}]
    api: openai
    stream_usage: inject
    on_disconnect: cancel
    drain: {timeout: 1s, bytes: 1KiB}
    default_max_output_tokens: 7
    max_metered: 2KiB
    charge_unknown: false
    prices:
      per_call_usd: 0.005
      charge_failures: true
      units: [{name: credits, pointer: /billing/credits, usd_per_unit: 0.01, max_per_call: 2.5}, {name: rows, header: X-Rows, usd_per_unit: 1}]
      models: {m1: {input_usd_per_million: 0.15, output_usd_per_million: 0.6, cached_input_usd_per_million: 0.075,
                    cache_write_usd_per_million: 0.2, max_output_tokens: 8, max_input_tokens: 9}}
      default_model: {input_usd_per_million: 1, output_usd_per_million: 2}
      litellm_file: prices.json
      litellm_provider: x
    endpoints: [{name: chat, path: /chat, methods: [POST], limits: 5/10s, prices: {per_call_usd: 1}}]
  b: {base_url: https://b.example.com, credential: {query: key, value: "a$$b${OPENAI_API_KEY}"}}
routes:
  r: {strategy: weighted, targets: [{provider: a, weight: 3}, {provider: b}], fallback: false, wait: {max: 1m, default: 0s, lane: interactive}, limits: 1/second, concurrency: 2,
      budgets: [{window: daily, limit_usd: 1}]}
teams: {t: {limits: 1/second, concurrency: 3, budgets: [{window: daily, limit_usd: 2}]}}
consumers: {c: {team: t, limits: 2/second, concurrency: 4, budgets: [{window: daily, limit_usd: 3}], allow: [provider:a, route:r]}}
keys: {k: {consumer: c, hash: ")" +
          kHash +
          R"(", expires: 2027-01-01, revoked: true, limits: 3/second, budgets: [{window: daily, limit_usd: 4}]}}
)",
      world);

  EXPECT_EQ(config.listen.address, "::");
  EXPECT_EQ(config.listen.port, 9090);
  EXPECT_EQ(config.listen.tls->certificate_file, "tls/chain.pem");
  EXPECT_EQ(config.listen.workers, 2U);
  EXPECT_EQ(config.listen.max_connections, 100U);
  EXPECT_EQ(config.listen.max_header_bytes, 16384U);
  EXPECT_EQ(config.listen.max_body_bytes, 1048576U);
  EXPECT_EQ(config.listen.header_timeout, 1s);
  EXPECT_EQ(config.listen.body_timeout, 2s);
  EXPECT_EQ(config.listen.idle_timeout, 3s);
  EXPECT_EQ(config.listen.write_timeout, 4s);
  EXPECT_EQ(config.listen.shutdown_timeout, 5s);
  EXPECT_EQ(config.log.level, LogLevel::debug);
  EXPECT_EQ(config.log.calls, CallLog::refused);
  ASSERT_EQ(config.trusted_proxies.size(), 2U);
  EXPECT_TRUE(config.anonymous);
  EXPECT_TRUE(config.budget_status_402);
  EXPECT_EQ(config.inbound.limit, (policy::LimitSpec{10, 1s, policy::LimitUnit::calls}));
  ASSERT_EQ(config.inbound.overrides.size(), 1U);
  EXPECT_THAT(config.inbound.overrides[0].methods, ElementsAre("GET", "POST"));
  EXPECT_THAT(config.inbound.exempt, ElementsAre("/health"));

  ASSERT_EQ(config.providers.size(), 2U);
  const Provider& a = config.providers[0];
  EXPECT_EQ(a.place.line, 10);
  EXPECT_EQ(a.place.column, 3);
  EXPECT_FALSE(a.base_url.tls);
  EXPECT_EQ(a.base_url.host, "10.0.0.1");
  EXPECT_EQ(a.base_url.port, 8000);
  EXPECT_EQ(a.base_url.path, "/v1");
  EXPECT_EQ(a.credential.header, "x-api-key");
  EXPECT_EQ(a.credential.value.reveal(), "s3cret");  // no scheme for other fields, no line break
  EXPECT_EQ(a.tls.ca_file, "ca.pem");
  EXPECT_EQ(a.tls.server_name, "inner.example.com");
  EXPECT_EQ(a.timeouts.connect, 1s);
  EXPECT_EQ(a.timeouts.first_byte, 2s);
  EXPECT_EQ(a.timeouts.between_bytes, 3s);
  EXPECT_EQ(a.timeouts.total, 4s);
  EXPECT_THAT(a.limits, ElementsAre(policy::LimitSpec{500, 60s, policy::LimitUnit::calls},
                                    policy::LimitSpec{90000, 60s, policy::LimitUnit::tokens}));
  EXPECT_EQ(a.concurrency, 64U);
  EXPECT_EQ(a.circuit, (policy::CircuitSpec{.failure_ratio = 0.25,
                                            .min_calls = 5,
                                            .window = 30s,
                                            .slow_ratio = 0.5,
                                            .slow_after = 1s,
                                            .cooldown = 2s,
                                            .max_cooldown = 3s,
                                            .half_open_trials = 4,
                                            .half_open_timeout = 5s}));
  EXPECT_EQ(a.retry, (policy::RetrySpec{.max_attempts = 3,
                                        .unsafe_methods = true,
                                        .statuses = {500},
                                        .backoff = 1s,
                                        .max_backoff = 2s,
                                        .budget_ratio = 0.5,
                                        .budget_per_second = 0}));
  EXPECT_EQ(
      a.wait,
      (Wait{.max = 2min, .usual = 3s, .lane = policy::WaitLane::batch, .max_waiting = 7, .max_bytes = 8192}));
  EXPECT_THAT(
      a.budgets,
      ElementsAre(
          policy::BudgetSpec{
              policy::BudgetWindow::daily, {20 * kNanoPerUsd}, policy::BudgetMode::warn, "America/New_York"},
          policy::BudgetSpec{
              policy::BudgetWindow::monthly,
              {1},
              policy::BudgetMode::hard,
              "UTC",
              policy::BudgetOverride{
                  {}, WallTime{std::chrono::sys_days{2026y / 12 / 1}} + 8h + 30min, "pause, please"}},
          // One that has lapsed is good, and without effect.
          policy::BudgetSpec{policy::BudgetWindow::daily,
                             {kNanoPerUsd},
                             policy::BudgetMode::hard,
                             "UTC",
                             policy::BudgetOverride{
                                 {2 * kNanoPerUsd}, WallTime{std::chrono::sys_days{1999y / 1 / 1}}, ""}}));
  EXPECT_EQ(a.api, Api::openai);
  EXPECT_EQ(a.stream_usage, StreamUsage::inject);
  EXPECT_EQ(a.on_disconnect, OnDisconnect::cancel);
  EXPECT_EQ(a.drain_timeout, 1s);
  EXPECT_EQ(a.drain_bytes, 1024U);
  EXPECT_EQ(a.default_max_output_tokens, 7);
  EXPECT_EQ(a.max_metered_bytes, 2048U);
  EXPECT_FALSE(a.charge_unknown);
  policy::PriceList prices;
  prices.per_call = {5'000'000};
  prices.charge_failures = true;
  prices.units = {{.name = "credits",
                   .pointer = "/billing/credits",
                   .header = "",
                   .per_unit = {10'000'000},
                   .max_nano_units = 2'500'000'000},
                  {.name = "rows",
                   .pointer = "",
                   .header = "X-Rows",
                   .per_unit = {kNanoPerUsd},
                   .max_nano_units = 1'000'000'000}};
  prices.models = {{"m1",
                    {.input = 150'000'000,
                     .output = 600'000'000,
                     .cached_input = 75'000'000,
                     .cache_write = 200'000'000,
                     .max_output_tokens = 8,
                     .max_input_tokens = 9}},
                   {"m2", {.input = 1'000'000'000}}};
  prices.default_model = policy::ModelPrice{.input = 1'000'000'000, .output = 2'000'000'000};
  EXPECT_EQ(a.prices, prices);
  ASSERT_EQ(a.endpoints.size(), 1U);
  EXPECT_EQ(a.endpoints[0].name, "chat");
  EXPECT_EQ(a.endpoints[0].path, "/chat");
  EXPECT_THAT(a.endpoints[0].methods, ElementsAre("POST"));
  EXPECT_EQ(a.endpoints[0].limits.size(), 1U);
  EXPECT_EQ(a.endpoints[0].prices->per_call.count, kNanoPerUsd);
  const Provider& b = config.providers[1];
  EXPECT_EQ(b.credential.header, "");
  EXPECT_EQ(b.credential.query, "key");
  EXPECT_EQ(b.credential.value.reveal(), "a$bsk-canary-1f7d");

  const Route& route = config.routes.at(0);
  EXPECT_EQ(route.strategy, Strategy::weighted);
  ASSERT_EQ(route.targets.size(), 2U);
  EXPECT_EQ(route.targets[0].weight, 3U);
  EXPECT_EQ(route.targets[1].weight, 1U);
  EXPECT_FALSE(route.fallback);
  EXPECT_EQ(route.wait.max, 1min);
  EXPECT_EQ(route.wait.usual, 0s);
  EXPECT_EQ(route.wait.lane, policy::WaitLane::interactive);
  EXPECT_EQ(route.concurrency, 2U);
  EXPECT_EQ(route.limits.size() + route.budgets.size(), 2U);
  EXPECT_EQ(config.teams.at(0).concurrency, 3U);
  EXPECT_EQ(config.teams[0].limits.size() + config.teams[0].budgets.size(), 2U);
  const Consumer& consumer = config.consumers.at(0);
  EXPECT_EQ(consumer.team, "t");
  EXPECT_EQ(consumer.concurrency, 4U);
  EXPECT_EQ(consumer.limits.size() + consumer.budgets.size(), 2U);
  EXPECT_THAT(consumer.allow, ElementsAre("provider:a", "route:r"));
  const Key& key = config.keys.at(0);
  EXPECT_EQ(key.consumer, "c");
  EXPECT_EQ(key.sha256, hash_key("pk_one"));
  EXPECT_EQ(key.expires, WallTime{std::chrono::sys_days{std::chrono::year{2027} / 1 / 1}});
  EXPECT_TRUE(key.revoked);
  EXPECT_EQ(key.limits.size() + key.budgets.size(), 2U);
}

TEST(Load, OrderOfTheFileIsKept) {
  const Config config = good(
      "providers: {z: {base_url: https://a.com}, a: {base_url: https://a.com}, m: {base_url: "
      "https://a.com}}");
  ASSERT_EQ(config.providers.size(), 3U);
  EXPECT_EQ(config.providers[0].name + config.providers[1].name + config.providers[2].name, "zam");
}

TEST(Load, EmptyPartsAreNoMistake) {
  const Config config = good(with("routes:\nteams:\nconsumers:\n  alice:\nkeys:\nlog:\nlisten: {}"));
  EXPECT_EQ(config.consumers.size(), 1U);
}

TEST(Load, AnEmptyFileSaysWhatItNeeds) {
  EXPECT_EQ(mistake_of(""),
            "f.yaml:1:1: the file is empty; expected at least providers; see examples/penstock.yaml for a "
            "beginning");
  EXPECT_EQ(
      mistake_of("log: {level: info}"),
      "f.yaml:1:1: no providers: at least one is needed; expected providers: {NAME: {base_url: https://…}}");
  EXPECT_THAT(mistake_of("log: {}\nproviders:\n"), StartsWith("f.yaml:2:1: no providers"));
  EXPECT_THAT(mistake_of("providers: {}\n"), StartsWith("f.yaml:1:1: no providers"));
  EXPECT_THAT(mistake_of("just text\n"),
              StartsWith("f.yaml:1:1: the file must be a mapping, not a single value"));
  EXPECT_THAT(mistake_of("- a\n"), StartsWith("f.yaml:1:1: the file must be a mapping, not a list"));
}

TEST(Load, TheListenersCertificateNeedsBothFiles) {
  World world;
  world.files["c.pem"] = "x";
  EXPECT_EQ(mistake_of(with("listen: {tls: {certificate: c.pem}}"), world),
            "f.yaml:2:10: tls of listen has no key; expected the path of a PEM file");
}

TEST(LoadCredential, SchemeIsBearerForAuthorizationOnly) {
  const auto value = [](std::string_view credential) {
    return good(with_provider("credential: " + std::string(credential)))
        .providers.at(0)
        .credential.value.reveal();
  };
  EXPECT_EQ(value("{value: \"${OPENAI_API_KEY}\"}"), "Bearer sk-canary-1f7d");
  EXPECT_EQ(value("{header: authorization, value: x}"), "Bearer x");
  EXPECT_EQ(value("{header: x-api-key, value: x}"), "x");
  EXPECT_EQ(value("{header: x-api-key, scheme: Key, value: x}"), "Key x");
  EXPECT_EQ(value("{scheme: \"\", value: Basic x}"), "Basic x");
  EXPECT_EQ(value("{scheme: Basic, value: x}"), "Basic x");
  EXPECT_EQ(value("{query: key, value: x}"), "x");
}

// Only there: a URL or a name with ${…} is what it says.
TEST(LoadCredential, VariablesAreReplacedOnlyInValues) {
  const std::string mistake = mistake_of("providers: {p: {base_url: \"https://${OPENAI_API_KEY}.com\"}}");
  EXPECT_THAT(mistake, Not(HasSubstr("canary")));
  EXPECT_THAT(mistake, HasSubstr("its host is not a host name"));
}

// G10: whatever is wrong with a secret, no message holds it.
TEST(LoadCredential, SecretsAreNeverShown) {
  World world;
  world.variables["BROKEN"] = "canary\nline";
  world.files["secret"] = "canary\x01";
  for (const char* further :
       {"credential: canary", "credential: [canary]", "credential: {value: [canary]}",
        "credential: {value: {canary: x}}", "credential: {value: \"${BROKEN}\"}",
        "credential: {file: secret}", "credential: {value: \"canary ${\"}",
        "credential: {value: \"canary$\"}", "credential: {vlaue: canary}", "credential: {value: &canary x}",
        "credential: {value: !canary x}", "credential: {value: *canary}", "credential: {value: canary: x}",
        "credential: {canary-token: x}", "credential: {value: \"Bearer canary\"}"}) {
    const auto mistakes = mistakes_of(with_provider(further), world);
    EXPECT_FALSE(mistakes.empty()) << further;
    for (const std::string& mistake : mistakes) EXPECT_THAT(mistake, Not(HasSubstr("canary"))) << further;
  }
  for (const char* yaml : {"providers: {p: {base_url: \"https://canary@a.com\"}}",
                           "providers: {p: {base_url: \"https://u:canary@a.com\"}}",
                           "providers: {p: {base_url: \"https://a.com?key=canary\"}}",
                           "providers: {p: {base_url: \"a.com?key=canary\"}}"}) {
    EXPECT_THAT(mistake_of(yaml), Not(HasSubstr("canary"))) << yaml;
  }
  for (const char* key : {"hash: pk_canary", "hash: canary", "value: canary", "hash: [canary]"}) {
    for (const std::string& mistake :
         mistakes_of(with("consumers: {a: {}}\nkeys: {k: {consumer: a, " + std::string(key) + "}}"))) {
      EXPECT_THAT(mistake, Not(HasSubstr("canary"))) << key;
    }
  }
}

TEST(LoadPrices, OwnModelsWinOverLiteLlms) {
  World world;
  world.files["x/prices.json"] =
      R"({"m": {"input_cost_per_token": 9e-6}, "openai/n": {"input_cost_per_token": 1.5e-7, "litellm_provider": "openai"}})";
  const std::string yaml = with_provider(
      "prices: {models: {m: {input_usd_per_million: 1, output_usd_per_million: 2}}, litellm_file: "
      "prices.json}");
  const auto config =
      parse_config(yaml, "x/f.yaml", world.sources());  // the path starts at the file's folder
  ASSERT_TRUE(config) << ::testing::PrintToString(testing::lines(config.error()));
  const policy::PriceList& prices = config->providers.at(0).prices;
  EXPECT_EQ(prices.models.at("m").input, 1'000'000'000);
  EXPECT_EQ(prices.models.at("n").input, 150'000'000);
  EXPECT_EQ(prices.models.at("openai/n").input, 150'000'000);
}

TEST(LoadPrices, ABrokenPriceFileIsToldOnceAndAMistypedProviderHinted) {
  World world;
  world.files["broken.json"] = "{\"m\": ";
  world.files["good.json"] = R"({"m": {"input_cost_per_token": 9e-6, "litellm_provider": "openai"}})";
  EXPECT_THAT(
      mistake_of(with_provider("prices: {litellm_file: broken.json}\n    endpoints: [{name: a, path: /a, "
                               "prices: {litellm_file: broken.json}}]"),
                 world),
      StartsWith("f.yaml:4:28: litellm_file in prices of provider \"p\": \"broken.json\" is not valid JSON"));
  EXPECT_THAT(mistake_of(with_provider("prices: {litellm_file: good.json, litellm_provider: opnai}"), world),
              AllOf(HasSubstr("has no model with a price per token"), EndsWith("did you mean \"openai\"?")));
}

TEST(Load, AllMistakesAtOnceInTheOrderOfTheFile) {
  const auto mistakes = mistakes_of(testing::source_file("tests/integration/data/bad.yaml"));
  EXPECT_THAT(
      mistakes,
      ElementsAre(
          StartsWith("f.yaml:3:15: max_header in listen: \"32kb\" is not a size"),
          StartsWith("f.yaml:7:5: unknown field \"limts\" in provider \"openai\""),
          StartsWith("f.yaml:8:14: limits in provider \"openai\": \"90000 tokens/minut\" is not a limit"),
          StartsWith("f.yaml:9:18: concurrency in provider \"openai\": \"many\" is not a whole number"),
          StartsWith("f.yaml:10:27: max_attempts in retry of provider \"openai\": \"9\" is out of range"),
          StartsWith("f.yaml:11:25: value in credential of provider \"openai\": the value (not shown) needs "
                     "the environment variable PENSTOCK_TEST_UNSET_KEY"),
          StartsWith(
              "f.yaml:14:26: provider in targets[0] of route \"chat\": there is no provider \"opnai\""),
          StartsWith("f.yaml:17:3: \"research\" stands here twice"),
          StartsWith("f.yaml:20:15: consumer in key \"ci\": there is no consumer \"nobody\""),
          StartsWith("f.yaml:21:11: hash in key \"ci\": the value (not shown) is a key itself")));
  for (const std::string& mistake : mistakes) EXPECT_THAT(mistake, HasSubstr("; ")) << "no hint";
}

TEST(Load, MistakesAreBounded) {
  std::string yaml = "providers: {p: {base_url: https://a.com}}\n";
  for (int i = 0; i < 500; ++i) yaml += "field" + std::to_string(i) + ": x\n";
  EXPECT_EQ(mistakes_of(yaml).size(), 100U);
}

TEST(Load, ExampleIsGood) {
  World world;
  world.variables = {{"OPENAI_API_KEY", "a"}, {"ANTHROPIC_API_KEY", "b"}, {"GEOCODER_KEY", "c"}};
  const Config config = good(testing::source_file("examples/penstock.yaml"), world);
  EXPECT_EQ(config.providers.size(), 3U);
}

TEST(Load, ReadsRealFilesAndSaysWhyNot) {
  const std::string folder = ::testing::TempDir() + "penstock-load-test";
  std::filesystem::create_directories(folder);
  {
    std::ofstream(folder + "/key") << "s3cret\n";
  }
  {
    std::ofstream(folder + "/f.yaml")
        << "providers: {p: {base_url: https://a.com, credential: {file: key}}}\n";
  }
  const auto config = load_config(folder + "/f.yaml", real_sources());
  ASSERT_TRUE(config) << ::testing::PrintToString(testing::lines(config.error()));
  EXPECT_EQ(config->providers[0].credential.value.reveal(), "Bearer s3cret");
  EXPECT_THAT(testing::lines(load_config(folder + "/nowhere.yaml", real_sources()).error()),
              ElementsAre(folder + "/nowhere.yaml:1:1: cannot be read: No such file or directory"));
  EXPECT_THAT(testing::lines(load_config(folder, real_sources()).error()),
              ElementsAre(folder + ":1:1: cannot be read: Is a directory"));
  std::filesystem::remove_all(folder);
}

}  // namespace
}  // namespace penstock::config
