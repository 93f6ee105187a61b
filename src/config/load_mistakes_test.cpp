// Every kind of mistake, with its exact place, its text and its hint.
#include "config/key.hpp"
#include "config/load.hpp"
#include "config/testing.hpp"

namespace penstock::config {
namespace {

using ::testing::EndsWith;
using testing::mistake_of;
using ::testing::StartsWith;
using testing::with;
using testing::with_provider;

const std::string kHash = format_hash(hash_key("pk_one"));

struct Case {
  std::string yaml;
  std::string mistake;  ///< the beginning of the only one, after the file's name
  std::string hint;     ///< its end
};

std::ostream& operator<<(std::ostream& out, const Case& one) { return out << one.yaml; }

class LoadMistake : public ::testing::TestWithParam<Case> {};

TEST_P(LoadMistake, HasItsPlaceTextAndHint) {
  const std::string mistake = mistake_of(GetParam().yaml);
  EXPECT_THAT(mistake, StartsWith("f.yaml:" + GetParam().mistake));
  EXPECT_THAT(mistake, EndsWith(GetParam().hint));
}

INSTANTIATE_TEST_SUITE_P(
    Fields, LoadMistake,
    ::testing::Values(
        Case{with("lissten: {}"), R"(2:1: unknown field "lissten" in the file; expected one of listen, log,)",
             R"(did you mean "listen"?)"},
        Case{with("listen: {adress: x}"), R"(2:10: unknown field "adress" in listen; expected one of)",
             R"(did you mean "address"?)"},
        Case{with_provider("limts: [1/minute]"),
             R"(4:5: unknown field "limts" in provider "p"; expected one of)", R"(did you mean "limits"?)"},
        Case{with_provider("timeouts: {conect: 1s}"),
             R"(4:16: unknown field "conect" in timeouts of provider "p")", R"(did you mean "connect"?)"},
        Case{with_provider("prices: {models: {m: {input_usd_per_million: 1, output_usd_per_million: 1, "
                           "max_tokens: 2}}}"),
             R"(4:80: unknown field "max_tokens" in model "m" in prices of provider "p")",
             "or max_input_tokens"},
        Case{with("routes: {r: {targets: [{provider: p, wieght: 1}]}}"),
             R"(2:38: unknown field "wieght" in targets[0] of route "r")", R"(did you mean "weight"?)"}));

INSTANTIATE_TEST_SUITE_P(
    Types, LoadMistake,
    ::testing::Values(
        Case{with("listen: 8080"), "2:9: listen must be a mapping, not a single value", "shutdown_timeout"},
        Case{with("anonymous: \"true\""), R"(2:12: anonymous in the file: "true" is text, not a boolean)",
             "remove the quotes"},
        Case{with("anonymous: yes"),
             R"(2:12: anonymous in the file: "yes" is not a boolean; expected true or false)",
             R"(did you mean "true"?)"},
        Case{with("anonymous: [true]"), "2:12: anonymous in the file must be a single value, not a list",
             "list"},
        Case{with("anonymous:"), "2:1: anonymous in the file has no value", "give it one, or remove it"},
        Case{with("trusted_proxies: 10.0.0.0/8"),
             "2:18: trusted_proxies in the file must be a list, not a single value", "value"},
        Case{with("teams: [a, b]"), "2:8: teams in the file must be a mapping, not a list", "list"},
        Case{with_provider("limits: {a: 1/minute}"),
             R"(4:13: limits in provider "p" must be a list, not a mapping)", "mapping"},
        Case{with_provider("concurrency: many"),
             R"(4:18: concurrency in provider "p": "many" is not a whole number; expected 1 to 1000000)",
             "digits"},
        Case{with_provider("circuit: {failure_ratio: 50%}"),
             R"(4:30: failure_ratio in circuit of provider "p": "50%" is not a number)", "0.5 for 50%"}));

INSTANTIATE_TEST_SUITE_P(
    Values, LoadMistake,
    ::testing::Values(
        Case{with("listen: {address: \"localhost:8080\"}"),
             R"(2:19: address in listen: "localhost:8080" is not an address)", R"("127.0.0.1:8080"?)"},
        Case{with("listen: {max_header: 32kb}"), R"(2:22: max_header in listen: "32kb" is not a size)",
             R"(did you mean "32KiB"?)"},
        Case{with("ledger: {database: mysql://u:secret@h/d}"),
             "2:20: database in ledger: the value (not shown) is no database; expected sqlite, none, or "
             "postgresql://",
             "${NAME}"},
        Case{with("ledger: {sync: sometimes}"), R"(2:16: sync in ledger: "sometimes" is not known)", ""},
        Case{with("listen: {max_header: 1}"),
             R"(2:22: max_header in listen: "1" is out of range; expected 1KiB to 1MiB)",
             "the least is 1KiB"},
        Case{with("listen: {idle_timeout: 48h}"),
             R"(2:24: idle_timeout in listen: "48h" is out of range; expected 100ms to 24h)",
             "the most is 24h"},
        Case{with("listen: {idle_timeout: 5 sec}"),
             R"(2:24: idle_timeout in listen: "5 sec" is not a duration)", R"(did you mean "5s"?)"},
        Case{with("log: {calls: some}"),
             R"(2:14: calls in log: "some" is not known; expected all, refused or none)", ""},
        Case{with("log: {level: warning}"),
             R"(2:14: level in log: "warning" is not known; expected debug, info, warn or error)", "error"},
        Case{with("log: {level: wran}"), R"(2:14: level in log: "wran" is not known)",
             R"(did you mean "warn"?)"},
        Case{with("trusted_proxies: [10.0.0.1/8]"),
             R"(2:19: trusted_proxies in the file: "10.0.0.1/8" has bits set)",
             R"(did you mean "10.0.0.0/8"?)"},
        Case{with("budget_status: 403"),
             R"(2:16: budget_status in the file: "403" is not known; expected 429 or 402)",
             R"(did you mean "402"?)"},
        Case{with("inbound: {limit: 60/minut}"), R"(2:18: limit in inbound: "60/minut" is not a limit)",
             R"(did you mean "60/minute"?)"},
        Case{with("inbound: {limit: 60 tokens/minute}"),
             R"(2:18: limit in inbound: "60 tokens/minute" counts tokens)", "may count tokens"},
        Case{with("inbound: {overrides: [{path: p/x, limit: 1/minute}]}"),
             R"(2:30: path in overrides[0] of inbound: "p/x" is not a path pattern)",
             R"(did you mean "/p/x"?)"},
        Case{with("inbound: {overrides: [{path: /p/x}]}"), "2:23: overrides[0] of inbound has no limit",
             "limit"},
        Case{with("inbound: {exempt: [/a/**/b]}"),
             R"(2:20: exempt in inbound: "/a/**/b" is not a path pattern)", "one segment"},
        Case{"providers: {Open AI: {base_url: https://a.com}}", R"(1:13: providers: "Open AI" is not a name)",
             R"(did you mean "open-ai"?)"},
        Case{"providers: {a: {api: openai}}", R"(1:13: provider "a" has no base_url)",
             "https://api.example.com"},
        Case{"providers:\n  a:\n", R"(2:3: provider "a" has no base_url)", ""},
        Case{"providers: {a: {base_url: api.openai.com}}",
             R"(1:27: base_url in provider "a": "api.openai.com" is not a base URL)",
             R"("https://api.openai.com"?)"},
        Case{"providers: {a: {base_url: http://example.com}}",
             R"(1:27: base_url in provider "a": "http://example.com" is plain HTTP)",
             "allow_private: true if the network is your own"},
        Case{"providers: {a: {base_url: https://127.0.0.1}}",
             R"(1:27: base_url in provider "a": "https://127.0.0.1" is a private address)",
             "allow_private: true if it is meant"},
        Case{with_provider("limits: [60/minute, 70/60s]"),
             R"(4:25: limits in provider "p": "70/60s" repeats a limit)", "keep the lower one"},
        Case{with_provider("retry: {max_attempts: 9}"),
             R"(4:27: max_attempts in retry of provider "p": "9" is out of range; expected 1 to 5)",
             "the most is 5"},
        Case{with_provider("retry: {statuses: [200]}"),
             R"(4:24: statuses in retry of provider "p": "200" is out of range)", "the least is 400"},
        Case{with_provider("wait: {max: 11m}"),
             R"(4:17: max in wait of provider "p": "11m" is out of range; expected 0s to 10m)",
             "the most is 10m"},
        Case{with_provider("wait: {default: 6m}"),
             R"(4:21: default in wait of provider "p" (6m) is above max (5m))", ""},
        Case{
            with_provider("wait: {lane: slow}"),
            R"(4:18: lane in wait of provider "p": "slow" is not known; expected interactive, standard or batch)",
            ""},
        Case{with_provider("retry: {backoff: 10s}"),
             R"(4:22: max_backoff in retry of provider "p" (4s) is below backoff (10s))", ""},
        Case{with_provider("circuit: {cooldown: 10s, max_cooldown: 5s}"),
             R"(4:44: max_cooldown in circuit of provider "p" (5s) is below cooldown (10s))", ""},
        Case{with_provider("circuit: {window: 1500ms}"),
             R"(4:23: window in circuit of provider "p": "1500ms" must be whole seconds)", ""},
        Case{
            with_provider("api: opnai"),
            R"(4:10: api in provider "p": "opnai" is not known; expected generic, openai, anthropic or gemini)",
            R"(did you mean "openai"?)"},
        Case{with_provider("stream_usage: inject"),
             R"(4:19: stream_usage in provider "p": "inject" is only possible with api: openai)", ""},
        Case{with_provider("tls: {ca_file: nowhere.pem}"),
             R"(4:20: ca_file in tls of provider "p": cannot read "nowhere.pem": No such file)",
             "directory"}));

INSTANTIATE_TEST_SUITE_P(
    Money, LoadMistake,
    ::testing::Values(
        Case{
            with_provider("budgets: [{window: weekly, limit_usd: 1}]"),
            R"(4:24: window in budgets[0] of provider "p": "weekly" is not known; expected daily or monthly)",
            "monthly"},
        Case{with_provider("budgets: [{window: daily}]"),
             R"(4:15: budgets[0] of provider "p" has no limit_usd)", ""},
        Case{with_provider("budgets: [{window: daily, limit_usd: $20}]"),
             R"(4:42: limit_usd in budgets[0] of provider "p": "$20" is not an amount in USD)",
             R"(did you mean "20"?)"},
        Case{with_provider("budgets: [{window: daily, limit_usd: 0}]"),
             R"(4:42: limit_usd in budgets[0] of provider "p": "0" must be above 0)", ""},
        Case{with_provider("budgets: [{window: daily, limit_usd: 1, time_zone: Europe/Berlim}]"),
             R"(4:56: time_zone in budgets[0] of provider "p": "Europe/Berlim" is not a known IANA)",
             R"("Europe/Berlin"?)"},
        Case{with_provider("budgets: [{window: daily, limit_usd: 1, override: {limit_usd: 2}}]"),
             R"(4:45: override of budgets[0] of provider "p" has no until)", "2026-12-01T00:00:00Z"},
        Case{
            with_provider("budgets: [{window: daily, limit_usd: 1, override: {limit_usd: 2, until: never}}]"),
            R"(4:77: until in override of budgets[0] of provider "p": "never" is not a date)", ""},
        Case{with_provider("budgets: [{window: daily, limit_usd: 1, override: {limit_usd: 2, until: "
                           "2026-12-01, why: x}}]"),
             R"(4:89: unknown field "why" in override of budgets[0] of provider "p")", ""},
        Case{with_provider(
                 "budgets: [{window: daily, limit_usd: 1, override: {limit_usd: 2, until: 2026-12-01, "
                 "reason: " +
                 std::string(201, 'x') + "}}]"),
             R"(4:97: reason in override of budgets[0] of provider "p": "xxxx)", ""},
        Case{with_provider("budgets: [{window: daily, limit_usd: 1}, {window: daily, limit_usd: 2}]"),
             R"(4:46: budgets[1] of provider "p" repeats one of the same window)", "keep the lower one"},
        Case{with_provider("prices: {per_call_usd: 0.0000000001}"),
             R"(4:28: per_call_usd in prices of provider "p": "0.0000000001" is not an amount)", ""},
        Case{with_provider("prices: {models: {m: {input_usd_per_million: 1}}}"),
             R"(4:23: model "m" in prices of provider "p" has no output_usd_per_million)",
             "write 0 if there is none"},
        Case{with_provider("prices: {units: [{name: u, usd_per_unit: 1}]}"),
             R"(4:22: units[0] in prices of provider "p" needs either pointer or header)", ""},
        Case{with_provider("prices: {units: [{name: u, pointer: $.a.b, usd_per_unit: 1}]}"),
             R"(4:41: pointer in units[0] in prices of provider "p": "$.a.b" is not a JSON pointer)",
             R"("/a/b"?)"},
        Case{with_provider(
                 "prices: {units: [{name: u, pointer: /a, usd_per_unit: 9000000, max_per_call: 2}]}"),
             R"(4:59: usd_per_unit in units[0] in prices of provider "p": "9000000" times max_per_call)", ""},
        Case{with_provider("prices: {litellm_provider: x}"),
             R"(4:32: litellm_provider in prices of provider "p": "x" means nothing without litellm_file)",
             ""},
        Case{with_provider("prices: {litellm_file: no.json}"),
             R"(4:28: litellm_file in prices of provider "p": cannot read "no.json")", "directory"}));

INSTANTIATE_TEST_SUITE_P(
    References, LoadMistake,
    ::testing::Values(
        Case{with("routes: {r: {targets: [{provider: q1}]}}"),
             R"(2:35: provider in targets[0] of route "r": there is no provider "q1")", "known are p"},
        Case{"providers: {openai: {base_url: https://a.com}}\nroutes: {r: {targets: [{provider: opnai}]}}",
             R"(2:35: provider in targets[0] of route "r": there is no provider "opnai")",
             R"(did you mean "openai"?)"},
        Case{with("routes: {r: {targets: []}}"), R"(2:23: targets in route "r" is empty)",
             "at least one provider"},
        Case{with("routes: {r: {}}"), R"(2:10: route "r" has no targets)", ""},
        Case{with("routes: {r: {targets: [{provider: p}, {provider: p}]}}"),
             R"(2:50: provider in targets[1] of route "r": "p" is already a target)", ""},
        Case{with("consumers: {c: {team: nobody}}"),
             R"(2:23: team in consumer "c": there is no team "nobody")", "there is no team in the file"},
        Case{with("consumers: {c: {allow: [route:chat]}}"),
             R"(2:25: allow in consumer "c": there is no route "chat")", ""},
        Case{with("consumers: {c: {allow: [rout:chat]}}"),
             R"(2:25: allow in consumer "c": "rout:chat" is not known; expected provider:NAME or route:NAME)",
             R"("route:chat"?)"},
        Case{with("consumers: {c: {allow: []}}"), R"(2:24: allow in consumer "c" is empty)",
             "remove it to allow everything"},
        Case{with("consumers: {alice: {}}\nkeys: {k: {consumer: alcie, hash: \"" + kHash + "\"}}"),
             R"(3:22: consumer in key "k": there is no consumer "alcie")", R"(did you mean "alice"?)"},
        Case{with("consumers: {a: {}}\nkeys: {k: {consumer: a}}"), R"(3:8: key "k" has no hash)",
             "penstock key new"},
        Case{with("consumers: {a: {}}\nkeys: {k: {consumer: a, hash: \"" + kHash + "\", expires: soon}}"),
             R"(3:115: expires in key "k": "soon" is not a date)", ""},
        Case{with("consumers: {a: {}}\nkeys:\n  k: {consumer: a, hash: \"" + kHash +
                  "\"}\n  l: {consumer: a, hash: \"" + kHash + "\"}"),
             R"(5:3: key "l" has the same hash as key "k" in line 4)", "penstock key new"},
        Case{
            with_provider("endpoints: [{name: a, path: /a}, {name: a, path: /b}]"),
            R"(4:45: name in endpoints[1] of provider "p": "a" is the name of an earlier endpoint in line 4)",
            ""},
        Case{with_provider("endpoints: [{name: other, path: /a}]"),
             R"(4:24: name in endpoints[0] of provider "p": "other" is reserved)", ""},
        Case{with_provider("endpoints: [{name: a, path: /a, methods: [GET]}, {name: b, path: /a}]"),
             R"(4:70: path in endpoints[1] of provider "p": "/a" never matches)", ""},
        Case{with_provider("endpoints: [{name: a, path: /a, methods: [get]}]"),
             R"(4:47: methods in endpoints[0] of provider "p": "get" is not a method)",
             R"(did you mean "GET"?)"},
        Case{with_provider("base_url: https://b.com"),
             R"(4:5: "base_url" stands here twice; the first is in line 3)", "keep one of them"}));

INSTANTIATE_TEST_SUITE_P(
    Credentials, LoadMistake,
    ::testing::Values(
        Case{
            with_provider("credential: {value: \"${NOWHERE}\"}"),
            R"(4:25: value in credential of provider "p": the value (not shown) needs the environment variable NOWHERE, which is not set)",
            ""},
        Case{
            with_provider("credential: {value: \"canary$x\"}"),
            R"(4:25: value in credential of provider "p": the value (not shown) holds a $ that begins no ${NAME})",
            "write $$ for a plain $"},
        Case{with_provider("credential: {value: \"canary\\nx\"}"),
             R"(4:25: value in credential of provider "p": the value (not shown) holds a character)", ""},
        Case{
            with_provider("credential: {value: \"Bearer canary\"}"),
            R"(4:25: value in credential of provider "p": the value (not shown) already begins with the scheme Bearer)",
            ""},
        Case{with_provider("credential: {value: \"\"}"),
             R"(4:25: value in credential of provider "p": the value (not shown) is empty)", ""},
        Case{with_provider("credential: {value: canary, file: x}"),
             R"(4:33: file in credential of provider "p" stands beside value)", ""},
        Case{with_provider("credential: {header: x-api-key}"),
             R"(4:5: credential of provider "p" has neither value nor file)", ""},
        Case{with_provider("credential:"), R"(4:5: credential of provider "p" has neither value nor file)",
             ""},
        Case{with_provider("credential: canary"),
             R"(4:17: credential of provider "p" must be a mapping, not a single value)", ""},
        Case{with_provider("credential: {value: canary, valeu: x}"),
             R"(4:33: unknown field "valeu" in credential of provider "p")", R"(did you mean "value"?)"},
        Case{with_provider("credential: {value: x, sk-canary: x}"),
             R"(4:28: unknown field (not shown) in credential of provider "p")", ""},
        Case{with_provider("credential: {value: x, header: a, query: b}"),
             R"(4:46: query in credential of provider "p": "b" stands beside header)", ""},
        Case{with_provider("credential: {value: x, query: b, scheme: c}"),
             R"(4:46: scheme in credential of provider "p": "c" means nothing with query)", ""},
        Case{
            with_provider("credential: {value: x, header: Host}"),
            R"(4:36: header in credential of provider "p": "Host" is a header field that the gateway itself sets)",
            ""},
        Case{with_provider("credential: {file: nowhere}"),
             R"(4:24: file in credential of provider "p": cannot read "nowhere": No such file or directory)",
             ""}));

}  // namespace
}  // namespace penstock::config
