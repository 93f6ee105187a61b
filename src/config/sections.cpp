// The tables of fields. A field that stands here but is not read fails an assertion in Fields; one that is
// not in contracts/config.schema.json or docs/configure.md fails a test.
#include <array>

#include "config/fields.hpp"

namespace penstock::config {

namespace {

using namespace std::string_view_literals;

constexpr std::array kConfigFields{
    "listen"sv,    "log"sv,    "trusted_proxies"sv, "anonymous"sv, "budget_status"sv, "inbound"sv, "ledger"sv,
    "providers"sv, "routes"sv, "teams"sv,           "consumers"sv, "keys"sv,          "state"sv};
constexpr std::array kListenFields{
    "address"sv,      "tls"sv,           "workers"sv,         "max_connections"sv,
    "max_header"sv,   "max_body"sv,      "header_timeout"sv,  "body_timeout"sv,
    "idle_timeout"sv, "write_timeout"sv, "shutdown_timeout"sv};
constexpr std::array kListenTlsFields{"certificate"sv, "key"sv};
constexpr std::array kLogFields{"level"sv, "calls"sv};
constexpr std::array kStateFields{"redis"sv,   "user"sv,    "password"sv, "password_file"sv, "domain"sv,
                                  "replica"sv, "on_lost"sv, "timeout"sv,  "allow_volatile"sv};
constexpr std::array kInboundFields{"limit"sv, "overrides"sv, "exempt"sv};
constexpr std::array kInboundOverrideFields{"path"sv, "methods"sv, "limit"sv};
constexpr std::array kLedgerFields{"directory"sv,     "database"sv,    "sync"sv,
                                   "sync_interval"sv, "max_journal"sv, "retention_days"sv};
constexpr std::array kProviderFields{"base_url"sv,
                                     "allow_private"sv,
                                     "credential"sv,
                                     "tls"sv,
                                     "timeouts"sv,
                                     "limits"sv,
                                     "concurrency"sv,
                                     "circuit"sv,
                                     "retry"sv,
                                     "budgets"sv,
                                     "api"sv,
                                     "stream_usage"sv,
                                     "on_disconnect"sv,
                                     "drain"sv,
                                     "default_max_output_tokens"sv,
                                     "max_metered"sv,
                                     "charge_unknown"sv,
                                     "prices"sv,
                                     "endpoints"sv,
                                     "learn_limits"sv,
                                     "adaptive_concurrency"sv,
                                     "wait"sv};
constexpr std::array kCredentialFields{"header"sv, "query"sv, "scheme"sv, "value"sv, "file"sv};
constexpr std::array kUpstreamTlsFields{"ca_file"sv, "server_name"sv};
constexpr std::array kTimeoutsFields{"connect"sv, "first_byte"sv, "between_bytes"sv, "total"sv};
constexpr std::array kCircuitFields{"failure_ratio"sv, "min_calls"sv,        "window"sv,
                                    "slow_ratio"sv,    "slow_after"sv,       "cooldown"sv,
                                    "max_cooldown"sv,  "half_open_trials"sv, "half_open_timeout"sv};
constexpr std::array kRetryFields{"max_attempts"sv, "unsafe_methods"sv, "statuses"sv,         "backoff"sv,
                                  "max_backoff"sv,  "budget_ratio"sv,   "budget_per_second"sv};
constexpr std::array kWaitFields{"max"sv, "default"sv, "lane"sv, "max_waiting"sv, "max_bytes"sv};
constexpr std::array kRouteWaitFields{"max"sv, "default"sv, "lane"sv};
constexpr std::array kDrainFields{"timeout"sv, "bytes"sv};
constexpr std::array kBudgetFields{"window"sv, "limit_usd"sv, "mode"sv, "time_zone"sv, "override"sv};
constexpr std::array kBudgetOverrideFields{"limit_usd"sv, "until"sv, "reason"sv};
constexpr std::array kEndpointFields{"name"sv, "path"sv, "methods"sv, "limits"sv, "prices"sv};
constexpr std::array kPricesFields{"per_call_usd"sv,  "charge_failures"sv, "units"sv,           "models"sv,
                                   "default_model"sv, "litellm_file"sv,    "litellm_provider"sv};
constexpr std::array kUnitFields{"name"sv, "pointer"sv, "header"sv, "usd_per_unit"sv, "max_per_call"sv};
constexpr std::array kModelFields{
    "input_usd_per_million"sv,       "output_usd_per_million"sv, "cached_input_usd_per_million"sv,
    "cache_write_usd_per_million"sv, "max_output_tokens"sv,      "max_input_tokens"sv};
constexpr std::array kRouteFields{"strategy"sv, "targets"sv,     "fallback"sv, "wait"sv,
                                  "limits"sv,   "concurrency"sv, "budgets"sv};
constexpr std::array kTargetFields{"provider"sv, "weight"sv};
constexpr std::array kTeamFields{"limits"sv, "concurrency"sv, "budgets"sv};
constexpr std::array kConsumerFields{"team"sv, "limits"sv, "concurrency"sv, "budgets"sv, "allow"sv};
constexpr std::array kKeyFields{"consumer"sv, "hash"sv, "expires"sv, "revoked"sv, "limits"sv, "budgets"sv};

}  // namespace

constexpr Section kConfig{"config", kConfigFields};
constexpr Section kListen{"listen", kListenFields};
constexpr Section kListenTls{"listen_tls", kListenTlsFields};
constexpr Section kLog{"log", kLogFields};
constexpr Section kState{"state", kStateFields};
constexpr Section kInbound{"inbound", kInboundFields};
constexpr Section kInboundOverride{"inbound_override", kInboundOverrideFields};
constexpr Section kLedger{"ledger", kLedgerFields};
constexpr Section kProvider{"provider", kProviderFields};
constexpr Section kCredential{"credential", kCredentialFields};
constexpr Section kUpstreamTls{"tls", kUpstreamTlsFields};
constexpr Section kTimeouts{"timeouts", kTimeoutsFields};
constexpr Section kCircuit{"circuit", kCircuitFields};
constexpr Section kRetry{"retry", kRetryFields};
constexpr Section kWait{"wait", kWaitFields};
constexpr Section kRouteWait{"route_wait", kRouteWaitFields};
constexpr Section kDrain{"drain", kDrainFields};
constexpr Section kBudget{"budget", kBudgetFields};
constexpr Section kBudgetOverride{"budget_override", kBudgetOverrideFields};
constexpr Section kEndpoint{"endpoint", kEndpointFields};
constexpr Section kPrices{"prices", kPricesFields};
constexpr Section kUnit{"unit", kUnitFields};
constexpr Section kModel{"model", kModelFields};
constexpr Section kRoute{"route", kRouteFields};
constexpr Section kTarget{"target", kTargetFields};
constexpr Section kTeam{"team", kTeamFields};
constexpr Section kConsumer{"consumer", kConsumerFields};
constexpr Section kKey{"key", kKeyFields};

std::span<const Section* const> sections() noexcept {
  static constexpr std::array kAll{
      &kConfig, &kListen,    &kListenTls,  &kLog,         &kState,          &kInbound,  &kInboundOverride,
      &kLedger, &kProvider,  &kCredential, &kUpstreamTls, &kTimeouts,       &kCircuit,  &kRetry,
      &kWait,   &kRouteWait, &kDrain,      &kBudget,      &kBudgetOverride, &kEndpoint, &kPrices,
      &kUnit,   &kModel,     &kRoute,      &kTarget,      &kTeam,           &kConsumer, &kKey};
  return kAll;
}

}  // namespace penstock::config
