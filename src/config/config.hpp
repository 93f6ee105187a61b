#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "base/money.hpp"
#include "base/time.hpp"
#include "policy/budget.hpp"
#include "policy/circuit.hpp"
#include "policy/limit.hpp"
#include "policy/line.hpp"
#include "policy/price.hpp"
#include "policy/retry.hpp"

/// The configuration file as typed values, complete and valid: every reference resolves, every default is
/// filled in. Described by contracts/config.schema.json and docs/configure.md. Names of things match
/// [a-z0-9][a-z0-9_.-]{0,63}.
namespace penstock::config {

/// The place of a value in its file, for messages and for the console. Lines and columns from 1.
struct Place {
  std::string file;
  int line = 0;
  int column = 0;
};

/// A secret: never printed, logged or compared by accident.
class Secret {
 public:
  Secret() = default;
  explicit Secret(std::string value) : value_(std::move(value)) {}
  [[nodiscard]] const std::string& reveal() const noexcept { return value_; }
  [[nodiscard]] bool empty() const noexcept { return value_.empty(); }

 private:
  std::string value_;
};

struct ListenTls {
  std::string certificate_file;  ///< PEM chain
  std::string key_file;          ///< PEM
  friend bool operator==(const ListenTls&, const ListenTls&) = default;
};

struct Listen {
  std::string address = "127.0.0.1";
  std::uint16_t port = 8080;
  std::optional<ListenTls> tls;
  std::uint32_t workers = 0;                        ///< 0: one per core
  std::uint32_t max_connections = 10'000;           ///< over all workers; more are closed at once
  std::uint64_t max_header_bytes = 32 * 1024;       ///< request line and fields
  std::uint64_t max_body_bytes = 32 * 1024 * 1024;  ///< of one request
  milliseconds header_timeout{10'000};              ///< from the first byte to the end of the head
  milliseconds body_timeout{30'000};                ///< between two reads of a body
  milliseconds idle_timeout{75'000};                ///< between two calls on a connection
  milliseconds write_timeout{30'000};               ///< a reader that takes nothing for so long is cut
  milliseconds shutdown_timeout{10'000};            ///< what is running gets so long to finish
  friend bool operator==(const Listen&, const Listen&) = default;
};

struct Credential {
  std::string header = "Authorization";  ///< the request field that carries it; empty when `query` is set
  std::string query;                     ///< or the query parameter
  Secret value;  ///< the whole field value, scheme included ("Bearer sk-…"); empty: none is sent
};

struct UpstreamTls {
  std::string ca_file;      ///< PEM; empty: the system's
  std::string server_name;  ///< SNI and verified name; empty: the URL's host
};

struct Timeouts {
  milliseconds connect{5'000};         ///< name, TCP and TLS together
  milliseconds first_byte{60'000};     ///< from the last byte sent to the head of the answer
  milliseconds between_bytes{60'000};  ///< of the answer
  milliseconds total{600'000};         ///< of one attempt; also bounds the lease
};

/// How a provider tells usage, and which bound a request sets.
enum class Api : std::uint8_t { generic, openai, anthropic, gemini };

enum class OnDisconnect : std::uint8_t { drain, cancel };
enum class StreamUsage : std::uint8_t { as_sent, inject };
/// automatic: where neither limits nor concurrency are configured.
enum class AdaptiveConcurrency : std::uint8_t { automatic, always, never };

struct BaseUrl {
  bool tls = false;
  std::string host;  ///< name or address, without brackets
  std::uint16_t port = 0;
  std::string path;  ///< prefix without a trailing slash; may be empty
};

/// A path pattern of a provider with its own price or limits. `*` stands for one segment, a last `**` for all
/// that follows.
struct Endpoint {
  std::string name;
  std::string path;                  ///< "/v1/chat/completions", "/v1beta/models/*", "/files/**"
  std::vector<std::string> methods;  ///< upper case; empty: any
  std::vector<policy::LimitSpec> limits;
  std::optional<policy::PriceList> prices;  ///< instead of the provider's
  Place place;
};

/// Calls that cannot start now but may soon wait for their turn in their provider's line.
struct Wait {
  milliseconds max{300'000};   ///< the most that a caller may ask for; 0: nobody waits
  milliseconds usual{10'000};  ///< where the caller does not say; <= max
  policy::WaitLane lane = policy::WaitLane::standard;  ///< where the caller does not say
  std::uint32_t max_waiting = 1'000;                   ///< calls in the line
  std::uint64_t max_bytes = 64ULL << 20U;              ///< of their bodies
  friend bool operator==(const Wait&, const Wait&) = default;
};

/// What a route says instead of its providers.
struct RouteWait {
  std::optional<milliseconds> max;
  std::optional<milliseconds> usual;
  std::optional<policy::WaitLane> lane;
};

struct Provider {
  std::string name;
  BaseUrl base_url;
  bool allow_private = false;  ///< loopback, private and link-local addresses too
  Credential credential;
  UpstreamTls tls;
  Timeouts timeouts;
  std::vector<policy::LimitSpec> limits;
  std::optional<std::uint32_t> concurrency;  ///< attempts in flight at most
  bool learn_limits = true;                  ///< heed what answers tell about the provider's own limits
  AdaptiveConcurrency adaptive_concurrency = AdaptiveConcurrency::automatic;
  policy::CircuitSpec circuit;
  policy::RetrySpec retry;
  Wait wait;
  std::vector<policy::BudgetSpec> budgets;
  Api api = Api::generic;
  StreamUsage stream_usage = StreamUsage::as_sent;
  OnDisconnect on_disconnect = OnDisconnect::drain;
  milliseconds drain_timeout{30'000};
  std::uint64_t drain_bytes = 4 * 1024 * 1024;
  std::int64_t default_max_output_tokens = 4'096;     ///< the bound where neither request nor model says one
  std::uint64_t max_metered_bytes = 4 * 1024 * 1024;  ///< a JSON answer above this is charged at its bound
  bool charge_unknown =
      true;  ///< failed after it was sent, outcome unknown: charge the estimate (false: assume unbilled)
  std::vector<Endpoint> endpoints;
  policy::PriceList prices;
  Place place;
};

struct Target {
  std::string provider;
  std::uint32_t weight = 1;
  Place place;
};

enum class Strategy : std::uint8_t { ordered, weighted };

/// Targets are tried in order (or by weight, the rest as fallback). Path and query go to the target
/// unchanged.
struct Route {
  std::string name;
  Strategy strategy = Strategy::ordered;
  std::vector<Target> targets;
  bool fallback = true;  ///< go on to the next target when one refuses or fails
  RouteWait wait;
  std::vector<policy::LimitSpec> limits;
  std::optional<std::uint32_t> concurrency;
  std::vector<policy::BudgetSpec> budgets;
  Place place;
};

struct Team {
  std::string name;
  std::vector<policy::LimitSpec> limits;
  std::optional<std::uint32_t> concurrency;
  std::vector<policy::BudgetSpec> budgets;
  Place place;
};

struct Consumer {
  std::string name;
  std::string team;  ///< empty: none
  std::vector<policy::LimitSpec> limits;
  std::optional<std::uint32_t> concurrency;
  std::vector<policy::BudgetSpec> budgets;
  std::vector<std::string> allow;  ///< "provider:openai", "route:chat"; empty: everything
  Place place;
};

struct Key {
  std::string name;
  std::string consumer;
  std::array<std::uint8_t, 32> sha256{};  ///< of the whole key text, `pk_…`
  std::optional<WallTime> expires;
  bool revoked = false;
  std::vector<policy::LimitSpec> limits;
  std::vector<policy::BudgetSpec> budgets;
  Place place;
};

/// Inbound limits, per key (per client address where there is no key).
struct InboundOverride {
  std::string path;                  ///< pattern as in Endpoint, of the gateway's own path: "/p/geocoder/**"
  std::vector<std::string> methods;  ///< empty: any
  policy::LimitSpec limit;
  Place place;
};
struct Inbound {
  policy::LimitSpec limit{100, std::chrono::minutes{1}, policy::LimitUnit::calls};
  std::vector<InboundOverride> overrides;  ///< the first that matches counts, in a count of its own
  std::vector<std::string> exempt{"/health", "/health/**", "/metrics"};
};

/// A block of addresses: IPv4 as IPv4-mapped IPv6.
struct Network {
  std::array<std::uint8_t, 16> address{};
  int prefix_length = 128;
};

/// What is remembered durably, and how hard.
struct Ledger {
  enum class Database : std::uint8_t {
    none,  ///< nothing is kept: budgets and limits begin anew with every start
    sqlite,
    postgresql,
  };
  enum class Sync : std::uint8_t { interval, always };

  std::string directory = "penstock-data";  ///< of the journal and of SQLite's file; resolved
  Database database = Database::sqlite;
  Secret url;                      ///< of postgresql: it may hold a password
  Sync sync = Sync::interval;      ///< always: an attempt waits until its reservation is on disk
  milliseconds sync_interval{10};  ///< what a power failure may lose, at most
  std::uint64_t max_journal_bytes = 4ULL << 30U;  ///< not yet applied to the database
  std::int64_t retention_days = 90;               ///< of calls and attempts; totals stay
};

enum class CallLog : std::uint8_t { all, refused, none };
enum class LogLevel : std::uint8_t { debug, info, warn, error };

struct Log {
  LogLevel level = LogLevel::info;
  CallLog calls = CallLog::all;
};

/// What a replica does with limits while the shared state is gone.
enum class OnLost : std::uint8_t { share, closed };

/// Where counters, holds and limits live. Without `redis`: in this process.
struct State {
  std::string redis;  ///< redis://host:port/database or rediss://…, without user and password; empty: none
  std::string user;   ///< empty: the server's default user
  Secret password;
  std::string domain = "default";  ///< replicas of one domain share
  std::string replica;  ///< stays the same over restarts, differs between replicas; empty: the host's name
  OnLost on_lost = OnLost::share;
  milliseconds timeout{250};    ///< of one command
  bool allow_volatile = false;  ///< hard budgets although the server may forget them
};

struct Config {
  Listen listen;
  Log log;
  State state;
  Inbound inbound;
  Ledger ledger;
  std::vector<Network> trusted_proxies;
  bool anonymous = false;           ///< calls without a key are allowed, limited by address
  bool budget_status_402 = false;   ///< refuse budgets with 402 instead of 429
  std::vector<Provider> providers;  ///< all in the order of the file
  std::vector<Route> routes;
  std::vector<Team> teams;
  std::vector<Consumer> consumers;
  std::vector<Key> keys;
};

}  // namespace penstock::config
