#include "gateway/snapshot.hpp"

#include <set>

#include "gateway/testing.hpp"

namespace penstock::gateway {
namespace {

using ::testing::ElementsAre;
using testing::Gateway;

constexpr std::string_view kConfig = R"(
providers:
  p:
    base_url: https://api.example.com:8443/base
    api: openai
    credential: {value: sk-canary}
    limits: [10/minute]
    timeouts: {total: 2m}
    drain: {timeout: 10s}
    prices:
      models: {m: {input_usd_per_million: 1, output_usd_per_million: 1}}
      default_model: {input_usd_per_million: 9, output_usd_per_million: 9}
    endpoints:
      - {name: files, path: /v1/files/**, methods: [GET], limits: [5/minute]}
      - {name: embed, path: /v1/embeddings, prices: {models: {e: {input_usd_per_million: 2, output_usd_per_million: 0}}}}
      - {name: any, path: /v1/*, prices: {per_call_usd: 0.5}}
  q: {base_url: "http://[2001:db8::1]:80", allow_private: true, credential: {query: key, value: k-canary}}
routes:
  free: {targets: [{provider: p}, {provider: q}]}
  held: {strategy: weighted, targets: [{provider: p, weight: 3}, {provider: q}], budgets: [{window: daily, limit_usd: 1}]}
teams:
  t: {limits: [7/minute]}
  idle: {}
consumers:
  alice: {team: t, budgets: [{window: daily, limit_usd: 5}], allow: ["provider:p"]}
  bob: {}
keys:
  alice-1: {consumer: alice, hash: "sha256:0100000000000000000000000000000000000000000000000000000000000001", limits: [3/minute]}
  alice-2: {consumer: alice, hash: "sha256:0100000000000000000000000000000000000000000000000000000000000002", revoked: true}
  bob-1: {consumer: bob, hash: "sha256:0300000000000000000000000000000000000000000000000000000000000003"}
)";

class SnapshotTest : public ::testing::Test {
 protected:
  Gateway gateway_{kConfig};
  const Snapshot& snapshot_ = gateway_.snapshot();

  std::string endpoint(std::string_view method, std::string_view path) {
    return std::string(gateway_.provider("p").endpoint_of(method, path).name.view());
  }
  const store::KeyEntry& key(std::string_view name) {
    for (const auto& [hash, entry] : snapshot_.keys)
      if (entry.key.view() == name) return entry;
    throw std::out_of_range("no such key");
  }
};

// Concurrency adapts by itself only where the operator has bounded nothing.
TEST(SnapshotGateTest, WhatIsHeededFollowsTheConfiguration) {
  const auto gate = [](std::string_view fields) {
    const Gateway gateway("providers: {p: {base_url: https://a.com" + std::string(fields) + "}}");
    const policy::GateSpec spec = gateway.provider("p").gate;
    EXPECT_EQ(gateway.state.declared.at(0).gate, spec);
    return std::string(spec.learns_limits ? "learns" : "") + (spec.adapts_concurrency ? " adapts" : "");
  };
  EXPECT_EQ(gate(""), "learns adapts");
  EXPECT_EQ(gate(", limits: [5/minute]"), "learns");
  EXPECT_EQ(gate(", concurrency: 5"), "learns");
  EXPECT_EQ(gate(", concurrency: 5, adaptive_concurrency: always"), "learns adapts");
  EXPECT_EQ(gate(", learn_limits: false, adaptive_concurrency: never"), "");
}

// Providers count models apart; where none is known, endpoints stand for them.
TEST_F(SnapshotTest, ModelsAndEndpointsAreLimitClassesOfTheirOwn) {
  const ProviderPlan& provider = gateway_.provider("p");
  std::set<std::uint32_t> classes;
  for (const EndpointPlan& plan : provider.endpoints) classes.insert(plan.limit_class);
  for (const auto& [price, model] : provider.models) classes.insert(model->limit_class);
  EXPECT_EQ(classes.size(), provider.endpoints.size() + 3);
  const Gateway again{kConfig};
  EXPECT_EQ(again.provider("p").endpoints[0].limit_class, provider.endpoints[0].limit_class);
}

// An attempt pays for every subject that it names: only those that can say no are declared.
TEST_F(SnapshotTest, DeclaresProvidersAndWhatHasABudgetOrLimit) {
  std::vector<std::string> declared;
  for (const auto& spec : gateway_.state.declared)
    declared.push_back(std::string(to_string(spec.kind)) + " " + spec.name);
  EXPECT_THAT(declared, ElementsAre("provider p", "endpoint p/files", "provider q", "route held", "team t",
                                    "consumer alice", "key alice-1"));
  const auto& p = gateway_.state.declared.front();
  EXPECT_EQ(p.limits.size(), 1U);
  EXPECT_TRUE(p.circuit.has_value());
  EXPECT_TRUE(p.retry.has_value());
}

TEST_F(SnapshotTest, IdsStandWhereTheirSubjectsAre) {
  const auto& state = gateway_.state;
  EXPECT_EQ(state.name(gateway_.provider("p").subject), "provider p");
  EXPECT_EQ(state.name(gateway_.provider("q").subject), "provider q");
  EXPECT_EQ(state.name(gateway_.provider("p").endpoints.front().subject.value()), "endpoint p/files");
  EXPECT_FALSE(gateway_.provider("p").endpoints.back().subject.has_value());
  EXPECT_EQ(state.name(snapshot_.route_by_name.at("held")->subject.value()), "route held");
  EXPECT_FALSE(snapshot_.route_by_name.at("free")->subject.has_value());
  EXPECT_EQ(snapshot_.provider_by_subject.at(gateway_.provider("q").subject), &gateway_.provider("q"));
  std::vector<std::string> names;
  for (const store::SubjectId id : key("alice-1").subjects) names.push_back(state.name(id));
  EXPECT_THAT(names, ElementsAre("key alice-1", "consumer alice", "team t"));
  EXPECT_EQ(key("alice-2").subjects.size(), 2U);
  EXPECT_TRUE(key("bob-1").subjects.empty());
  // With provider, endpoint and route no attempt names more subjects than a hold has room for.
  EXPECT_LE(key("alice-1").subjects.size() + 3, store::kMaxSubjects);
}

TEST_F(SnapshotTest, KeysKnowTheirOwnerAndAreCallersOfTheirOwn) {
  EXPECT_EQ(key("alice-1").consumer.view(), "alice");
  EXPECT_EQ(key("alice-1").team.view(), "t");
  EXPECT_THAT(key("alice-1").allow, ElementsAre("provider:p"));
  EXPECT_TRUE(key("alice-2").revoked);
  EXPECT_EQ(key("bob-1").team.view(), "");
  EXPECT_NE(key("alice-1").caller, key("bob-1").caller);
}

TEST_F(SnapshotTest, TheFirstEndpointThatMatchesCounts) {
  EXPECT_EQ(endpoint("GET", "/v1/files/a/b"), "files");
  EXPECT_EQ(endpoint("POST", "/v1/files/a/b"), "other");
  EXPECT_EQ(endpoint("POST", "/v1/embeddings"), "embed");
  EXPECT_EQ(endpoint("POST", "/v1/%65mbeddings"), "embed");  // another spelling of the same path
  EXPECT_EQ(endpoint("POST", "/v1/audio"), "any");
  EXPECT_EQ(endpoint("POST", "/v2/audio"), "other");
  EXPECT_EQ(endpoint("GET", "/"), "other");
}

TEST_F(SnapshotTest, PricesDecideWhatIsRead) {
  const ProviderPlan& p = gateway_.provider("p");
  const EndpointPlan& embed = p.endpoint_of("POST", "/v1/embeddings");
  EXPECT_TRUE(embed.reads_request && embed.reads_answer);
  const EndpointPlan& any = p.endpoint_of("POST", "/v1/audio");
  EXPECT_FALSE(any.reads_request || any.reads_answer);
  const EndpointPlan& other = p.endpoint_of("POST", "/v2");
  EXPECT_TRUE(other.reads_request && other.reads_answer);
  EXPECT_FALSE(gateway_.provider("q").endpoints.back().reads_answer);
}

// Labels come from configured names: what a caller types is never one.
TEST_F(SnapshotTest, ModelsAreKnownByTheirPrice) {
  const ProviderPlan& p = gateway_.provider("p");
  const policy::PriceList& prices = p.config->prices;
  EXPECT_EQ(p.model_of(prices.find_model("m"))->name.view(), "m");
  EXPECT_EQ(p.model_of(prices.find_model("anything else"))->name.view(), "other");
  EXPECT_EQ(p.model_of(p.endpoint_of("POST", "/v1/embeddings").prices->find_model("e"))->name.view(), "e");
  EXPECT_EQ(p.model_of(nullptr), nullptr);
  EXPECT_EQ(p.models.size(), 3U);
}

TEST_F(SnapshotTest, UpstreamsAreReadyToBeConnectedTo) {
  const ProviderPlan& p = gateway_.provider("p");
  EXPECT_EQ(p.host_field, "Host: api.example.com:8443\r\n");
  EXPECT_EQ(p.credential_field, "Authorization: Bearer sk-canary\r\n");
  EXPECT_NE(p.upstream.tls, nullptr);
  EXPECT_EQ(p.upstream.server_name, "api.example.com");
  EXPECT_EQ(p.lease, std::chrono::minutes{2} + seconds{10} + seconds{60});
  const ProviderPlan& q = gateway_.provider("q");
  EXPECT_EQ(q.host_field, "Host: [2001:db8::1]\r\n");
  EXPECT_EQ(q.credential_query, "key=k-canary");
  EXPECT_EQ(q.credential_field, "");
  EXPECT_EQ(q.upstream.tls, nullptr);
}

TEST_F(SnapshotTest, RoutesHaveTheirTargetsAndWeights) {
  const RoutePlan& held = *snapshot_.route_by_name.at("held");
  EXPECT_THAT(held.targets, ElementsAre(&gateway_.provider("p"), &gateway_.provider("q")));
  EXPECT_THAT(held.weights, ElementsAre(3, 1));
  EXPECT_EQ(held.total_weight, 4U);
}

// It was there when the file was checked, and is gone now.
TEST_F(SnapshotTest, ACertificateFileThatCannotBeReadIsNamed) {
  config::Config config = testing::config_of("providers: {p: {base_url: https://api.example.com}}\n");
  config.providers.front().tls.ca_file = "/nowhere/ca.pem";
  const auto made =
      Snapshot::make(std::move(config), gateway_.state, gateway_.services.lines, gateway_.metrics, {});
  ASSERT_FALSE(made.has_value());
  EXPECT_THAT(made.error().detail, ::testing::HasSubstr("/nowhere/ca.pem"));
}

}  // namespace
}  // namespace penstock::gateway
