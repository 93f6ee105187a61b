#include "gateway/snapshot.hpp"

#include "config/load.hpp"
#include "http/tls.hpp"

namespace penstock::gateway {
namespace {

/// Stays the same over reloads, so that what was learned is found again.
std::uint32_t limit_class(std::string_view kind, std::string_view name) {
  return static_cast<std::uint32_t>(std::hash<std::string>{}(std::string(kind).append(name)));
}

policy::GateSpec gate_of(const config::Provider& provider) {
  using Adaptive = config::AdaptiveConcurrency;
  const bool is_limited = !provider.limits.empty() || provider.concurrency.has_value();
  return {.learns_limits = provider.learn_limits,
          .adapts_concurrency = provider.adaptive_concurrency == Adaptive::always ||
                                (provider.adaptive_concurrency == Adaptive::automatic && !is_limited)};
}

bool has_unit_pointers(const policy::PriceList& prices) {
  return std::ranges::any_of(prices.units,
                             [](const policy::UnitPrice& unit) { return !unit.pointer.empty(); });
}

void fill_endpoint(EndpointPlan& plan, const config::Provider& provider, const config::Endpoint* endpoint,
                   observe::Metrics& metrics) {
  plan.name = Name(endpoint == nullptr ? "other" : std::string_view(endpoint->name));
  plan.config = endpoint;
  plan.prices = endpoint != nullptr && endpoint->prices ? &*endpoint->prices : &provider.prices;
  plan.limit_class = limit_class("endpoint ", plan.name.view());
  plan.label = "/p/" + provider.name + "/" + std::string(plan.name.view());
  plan.reads_request = plan.prices->has_models();
  plan.reads_answer = plan.prices->has_models() || has_unit_pointers(*plan.prices);
  plan.duration = &metrics.duration.with({provider.name, plan.name.view()});
  plan.unmetered = &metrics.unmetered.with({provider.name, plan.name.view()});
}

/// Collects subjects and puts each one's id where it is wanted, once they are declared.
class Subjects {
 public:
  template <class Set>
  void add(store::SubjectSpec spec, Set set) {
    specs_.push_back(std::move(spec));
    setters_.emplace_back(std::move(set));
  }
  /// Only those that can say no: an attempt pays for every subject it names.
  template <class Set>
  void add_if_it_decides(store::SubjectSpec spec, Set set) {
    if (!spec.limits.empty() || !spec.budgets.empty() || spec.concurrency)
      add(std::move(spec), std::move(set));
  }
  /// Returns what was declared.
  std::vector<store::SubjectSpec> declare(store::SharedState& state, Now now) {
    const std::vector<store::SubjectId> ids = state.declare(specs_, now);
    for (std::size_t i = 0; i < ids.size(); ++i) setters_[i](ids[i]);
    return std::move(specs_);
  }

 private:
  std::vector<store::SubjectSpec> specs_;
  std::vector<std::function<void(store::SubjectId)>> setters_;
};

template <class Owner>
store::SubjectSpec subject_of(store::SubjectKind kind, const Owner& owner) {
  store::SubjectSpec spec;
  spec.kind = kind;
  spec.name = owner.name;
  spec.limits = owner.limits;
  if constexpr (requires { owner.concurrency; }) spec.concurrency = owner.concurrency;
  spec.budgets = owner.budgets;
  return spec;
}

void add_models(ProviderPlan& plan, const policy::PriceList& prices) {
  const auto add = [&](std::string_view name, const policy::ModelPrice& price) {
    auto& place = plan.models[&price];
    if (!place) place = std::make_unique<ModelPlan>();
    place->name = Name(name);
    place->price = &price;
    place->limit_class = limit_class("model ", name);
  };
  for (const auto& [name, price] : prices.models) add(name, price);
  if (prices.default_model) add("other", *prices.default_model);
}

/// Pre: the limits are declared, so that who waits is measured by the new ones.
void declare_lines(std::deque<ProviderPlan>& providers, ProviderLines& lines, MonotonicTime now) {
  std::vector<ProviderLines::Wanted> wanted;
  for (const ProviderPlan& plan : providers) {
    const config::Wait& wait = plan.config->wait;
    wanted.push_back(
        {.provider = plan.config->name,
         .spec = {
             .max_calls = wait.max_waiting, .max_bytes = wait.max_bytes, .limits = plan.config->limits}});
  }
  const auto declared = lines.declare(wanted, now);
  for (std::size_t i = 0; i < declared.size(); ++i) providers[i].line = declared[i];
}

Result<void> fill_upstream(ProviderPlan& plan, observe::Metrics& metrics) {
  const config::Provider& provider = *plan.config;
  http::Upstream& upstream = plan.upstream;
  upstream.host = provider.base_url.host;
  upstream.port = provider.base_url.port;
  upstream.allow_private = provider.allow_private;
  upstream.connect_timeout = provider.timeouts.connect;
  upstream.open = &metrics.connections.with({"upstream"});
  upstream.opened = &metrics.connections_opened.with({"upstream"});
  if (provider.base_url.tls) {
    auto tls = http::make_client_tls(provider.tls.ca_file);
    if (!tls) return std::unexpected(tls.error());
    upstream.tls = *tls;
    upstream.server_name =
        provider.tls.server_name.empty() ? provider.base_url.host : provider.tls.server_name;
  }
  const bool v6 = provider.base_url.host.find(':') != std::string::npos;
  plan.host_field = "Host: " + (v6 ? "[" + provider.base_url.host + "]" : provider.base_url.host);
  if (provider.base_url.port != (provider.base_url.tls ? 443 : 80))
    plan.host_field += ":" + std::to_string(provider.base_url.port);
  plan.host_field += "\r\n";
  const config::Credential& credential = provider.credential;
  if (!credential.value.empty()) {
    if (credential.query.empty())
      plan.credential_field = credential.header + ": " + credential.value.reveal() + "\r\n";
    else
      plan.credential_query = credential.query + "=" + credential.value.reveal();
  }
  // One machine is one source, whatever it is called here. What may be this machine shares its clock.
  if (!provider.allow_private)
    plan.clock_source =
        static_cast<policy::ClockSource>(std::hash<std::string>{}(provider.base_url.host)) | 1U;
  // An attempt that is still open after all its timeouts will not be settled any more.
  plan.lease = provider.timeouts.total + provider.drain_timeout + seconds{60};
  return {};
}

}  // namespace

const EndpointPlan& ProviderPlan::endpoint_of(std::string_view method, std::string_view path) const noexcept {
  for (const EndpointPlan& endpoint : endpoints) {
    if (endpoint.config == nullptr) return endpoint;
    const auto& methods = endpoint.config->methods;
    if (!methods.empty() && std::ranges::find(methods, method) == methods.end()) continue;
    if (config::matches_path(endpoint.config->path, path)) return endpoint;
  }
  return endpoints.back();
}

const ModelPlan* ProviderPlan::model_of(const policy::ModelPrice* price) const noexcept {
  const auto found = models.find(price);
  return found == models.end() ? nullptr : found->second.get();
}

Result<std::shared_ptr<const Snapshot>> Snapshot::make(config::Config given, store::SharedState& state,
                                                       ProviderLines& lines, observe::Metrics& metrics,
                                                       Now now) {
  auto snapshot = std::make_shared<Snapshot>();
  snapshot->config = std::move(given);
  const config::Config& all = snapshot->config;
  Subjects subjects;

  for (const config::Provider& provider : all.providers) {
    ProviderPlan& plan = snapshot->providers.emplace_back();
    plan.index = snapshot->providers.size() - 1;
    plan.config = &provider;
    plan.name = Name(provider.name);
    if (auto filled = fill_upstream(plan, metrics); !filled) return std::unexpected(filled.error());
    auto spec = subject_of(store::SubjectKind::provider, provider);
    spec.circuit = provider.circuit;
    spec.retry = provider.retry;
    spec.gate = plan.gate = gate_of(provider);
    subjects.add(std::move(spec), [&plan](store::SubjectId id) { plan.subject = id; });
    for (const config::Endpoint& endpoint : provider.endpoints) {
      EndpointPlan& made = plan.endpoints.emplace_back();
      fill_endpoint(made, provider, &endpoint, metrics);
      store::SubjectSpec limits{.kind = store::SubjectKind::endpoint,
                                .name = provider.name + "/" + endpoint.name,
                                .limits = endpoint.limits,
                                .concurrency = {},
                                .budgets = {},
                                .circuit = {},
                                .retry = {}};
      subjects.add_if_it_decides(std::move(limits), [&made](store::SubjectId id) { made.subject = id; });
    }
    fill_endpoint(plan.endpoints.emplace_back(), provider, nullptr, metrics);
    for (const EndpointPlan& endpoint : plan.endpoints) add_models(plan, *endpoint.prices);
    plan.admitted = &metrics.admissions.with({provider.name, "admit", ""});
    plan.credit_actual = &metrics.credit_used.with({provider.name, "actual"});
    plan.credit_estimated = &metrics.credit_used.with({provider.name, "estimated"});
    plan.retried = &metrics.retries.with({provider.name, "made"});
    plan.retry_refused = &metrics.retries.with({provider.name, "refused"});
    snapshot->provider_by_name.emplace(provider.name, &plan);
  }

  for (const config::Route& route : all.routes) {
    RoutePlan& plan = snapshot->routes.emplace_back();
    plan.config = &route;
    plan.name = Name(route.name);
    for (const config::Target& target : route.targets) {
      plan.targets.push_back(snapshot->provider_by_name.at(target.provider));
      plan.weights.push_back(target.weight);
      plan.total_weight += target.weight;
    }
    subjects.add_if_it_decides(subject_of(store::SubjectKind::route, route),
                               [&plan](store::SubjectId id) { plan.subject = id; });
    snapshot->route_by_name.emplace(route.name, &plan);
  }

  // Keys come last: their entries hold the ids of key, consumer and team.
  std::map<std::string_view, std::optional<store::SubjectId>> teams;
  std::map<std::string_view, std::optional<store::SubjectId>> consumers;
  std::map<std::string_view, std::optional<store::SubjectId>> keys;
  const auto into = [](std::optional<store::SubjectId>& place) {
    return [&place](store::SubjectId id) { place = id; };
  };
  for (const config::Team& team : all.teams)
    subjects.add_if_it_decides(subject_of(store::SubjectKind::team, team), into(teams[team.name]));
  for (const config::Consumer& consumer : all.consumers)
    subjects.add_if_it_decides(subject_of(store::SubjectKind::consumer, consumer),
                               into(consumers[consumer.name]));
  for (const config::Key& key : all.keys)
    subjects.add_if_it_decides(subject_of(store::SubjectKind::key, key), into(keys[key.name]));
  snapshot->subjects = subjects.declare(state, now);
  declare_lines(snapshot->providers, lines, now.mono);

  for (const ProviderPlan& plan : snapshot->providers)
    snapshot->provider_by_subject.emplace(plan.subject, &plan);
  for (const config::Key& key : all.keys) {
    const auto consumer = std::ranges::find(all.consumers, key.consumer, &config::Consumer::name);
    store::KeyEntry entry{.key = Name(key.name),
                          .consumer = Name(key.consumer),
                          .team = Name(consumer->team),
                          .expires = key.expires,
                          .revoked = key.revoked,
                          .allow = consumer->allow,
                          .caller = 0,
                          .subjects = {}};
    std::memcpy(&entry.caller, key.sha256.data(), sizeof entry.caller);
    for (const auto& subject : {keys[key.name], consumers[key.consumer], teams[consumer->team]})
      if (subject) entry.subjects.push_back(*subject);
    snapshot->keys.emplace_back(key.sha256, std::move(entry));
  }
  return snapshot;
}

}  // namespace penstock::gateway
