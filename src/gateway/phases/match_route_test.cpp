#include "gateway/testing.hpp"

namespace penstock::gateway {
namespace {

using namespace std::chrono_literals;

using testing::Gateway;

constexpr std::string_view kConfig = R"(
anonymous: true
providers:
  a: {base_url: "http://a.example.com", allow_private: true}
  b: {base_url: "http://b.example.com", allow_private: true}
  c: {base_url: "http://c.example.com", allow_private: true}
  priced: {base_url: "http://d.example.com", allow_private: true, endpoints: [{name: x, path: /v1/x, prices: {per_call_usd: 1}}]}
routes:
  ordered: {targets: [{provider: b}, {provider: a}, {provider: c}]}
  single: {targets: [{provider: b}, {provider: a}], fallback: false}
  weighted: {strategy: weighted, targets: [{provider: a, weight: 6}, {provider: b, weight: 3}, {provider: c, weight: 1}]}
)";

class MatchRouteTest : public ::testing::Test {
 protected:
  Gateway gateway_{kConfig};

  std::string match(const std::string& target, const std::string& fields = {},
                    const std::string& method = "GET") {
    Call& call = gateway_.call(method + " " + target + " HTTP/1.1\nHost: x\n" + fields);
    const Step step = match_route(call);
    last_ = &call;
    return testing::outcome(step, call);
  }
  std::string targets() {
    std::string out;
    for (const ProviderPlan* target : last_->targets) out += target->config->name;
    return out;
  }
  Call* last_ = nullptr;
};

TEST_F(MatchRouteTest, AProvidersPathIsWhatFollowsItsName) {
  EXPECT_EQ(match("/p/a/v1/x?q=1"), "ok");
  EXPECT_EQ(targets(), "a");
  EXPECT_EQ(last_->path, "/v1/x");
  EXPECT_EQ(match("/p/a"), "ok");
  EXPECT_EQ(last_->path, "/");
  EXPECT_EQ(match("/p/a/"), "ok");
  EXPECT_EQ(last_->path, "/");
  EXPECT_EQ(last_->route, nullptr);
}

TEST_F(MatchRouteTest, NamesThatAreNotConfiguredAreNotFound) {
  for (const char* target :
       {"/p/", "/p//a", "/p/nobody/x", "/p/A/x", "/p/ordered/x", "/r/a/x", "/r/", "/p/a%2fx", "/p/../a"})
    EXPECT_EQ(match(target), "404") << target;
}

TEST_F(MatchRouteTest, ARouteTriesItsTargetsInOrder) {
  EXPECT_EQ(match("/r/ordered/v1/x"), "ok");
  EXPECT_EQ(targets(), "bac");
  EXPECT_EQ(last_->path, "/v1/x");
  EXPECT_EQ(last_->route->config->name, "ordered");
  EXPECT_EQ(match("/r/single/v1/x"), "ok");
  EXPECT_EQ(targets(), "b");
}

// By weight: the first by 6:3:1, and all of them as fallback, each once.
TEST_F(MatchRouteTest, WeightsDecideWhoIsTriedFirst) {
  gateway_.worker.random.seed(7);
  std::map<std::string, int> firsts;
  std::map<std::string, int> seconds_after_a;
  for (int i = 0; i < 10'000; ++i) {
    ASSERT_EQ(match("/r/weighted/x"), "ok");
    const std::string order = targets();
    std::string sorted = order;
    std::ranges::sort(sorted);
    ASSERT_EQ(sorted, "abc");
    ++firsts[order.substr(0, 1)];
    if (order[0] == 'a') ++seconds_after_a[order.substr(1, 1)];
  }
  // 5 standard deviations are about 250.
  EXPECT_NEAR(firsts["a"], 6'000, 250);
  EXPECT_NEAR(firsts["b"], 3'000, 250);
  EXPECT_NEAR(firsts["c"], 1'000, 150);
  EXPECT_NEAR(seconds_after_a["b"], 4'500, 300);  // 3:1 of what is left
}

TEST_F(MatchRouteTest, PathsThatCouldClimbAreRefused) {
  for (const char* path : {"/..",          "/../x",         "/v1/..",         "/v1/../x",
                           "/.",           "/./x",          "/v1/%2e%2e/x",   "/v1/.%2E/x",
                           "/v1/%2e",      "/v1/..%2fx",    "/v1/%2e%2e%2Fx", "/v1%2f..%2fx",
                           "/v1%2f%2e%2e", "/v1/..\\x",     "/v1\\..\\x",     "/v1/..%5cx",
                           "/v1%5C..%5cx", "/v1/..;x/y",    "/v1/..;/y",      "/v1/.;a=b",
                           "/v1/..%3bx/y", "/v1/%2e%2e;x/y"})
    EXPECT_EQ(match("/p/a" + std::string(path)), "400") << path;
}

// A server may take these for /v1/x, which has a price of its own.
TEST_F(MatchRouteTest, WhereAPathDecidesThePriceItHasOneSpelling) {
  for (const char* path : {"//v1/x", "/v1//x", "/v1/%78", "/%56%31/x", "/v1/%x", "/v1/x%"}) {
    EXPECT_EQ(match("/p/priced" + std::string(path)), "400") << path;
    EXPECT_EQ(match("/p/a" + std::string(path)), "ok") << path;
  }
  for (const char* path : {"/v1/x", "/v1/a%20b", "/v1/a%2Fb", "/v1/x/"})
    EXPECT_EQ(match("/p/priced" + std::string(path)), "ok") << path;
}

TEST_F(MatchRouteTest, DotsInNamesAreFine) {
  for (const char* path :
       {"/v1.0/x", "/.well-known/x", "/...", "/a..b", "/..a", "/a%2eb", "/x.", "/v1/models/gpt-4.1",
        "/%2e%2e%2e/x", "/a;..;b", "/a;v=..", "/%zz", "/%", "/%2", "/a%2fb"})
    EXPECT_EQ(match("/p/a" + std::string(path)), "ok") << path;
}

TEST_F(MatchRouteTest, SteeringFieldsAreCheckedBeforeAnythingIsSpent) {
  for (const char* good :
       {"Penstock-Lane: batch", "Penstock-Lane: INTERACTIVE", "Penstock-Wait: 2s", "Penstock-Wait: 500ms",
        "Penstock-Wait: 0", "Penstock-Wait: 1m", "Penstock-Cache: bypass", "Penstock-Cache: refresh",
        "Penstock-Tag: nightly_1.a:b-c"})
    EXPECT_EQ(match("/p/a/x", std::string(good) + "\n"), "ok") << good;
  for (const char* bad : {"Penstock-Lane: fast", "Penstock-Lane:", "Penstock-Wait: soon", "Penstock-Wait: 2h",
                          "Penstock-Wait: s", "Penstock-Wait:", "Penstock-Wait: -1s",
                          "Penstock-Wait: 1000000000000", "Penstock-Cache: maybe", "Penstock-Cache: only",
                          "Penstock-Tag:", "Penstock-Tag: a b", "Penstock-Tag: a\"b"})
    EXPECT_EQ(match("/p/a/x", std::string(bad) + "\n"), "400") << bad;
  EXPECT_EQ(match("/p/a/x", "Penstock-Tag: " + std::string(64, 'x') + "\n"), "ok");
  EXPECT_EQ(last_->tag, std::string(64, 'x'));
  EXPECT_EQ(match("/p/a/x", "Penstock-Tag: " + std::string(65, 'x') + "\n"), "400");
}

TEST_F(MatchRouteTest, WaitAndLaneAreRead) {
  const std::pair<const char*, milliseconds> waits[] = {{"0", 0ms}, {"0s", 0ms},  {"500ms", 500ms},
                                                        {"2s", 2s}, {"3m", 3min}, {"99999999m", 24h}};
  for (const auto& [text, wait] : waits) {
    EXPECT_EQ(match("/p/a/x", "Penstock-Wait: " + std::string(text) + "\n"), "ok") << text;
    EXPECT_EQ(last_->wait_asked, wait) << text;
  }
  EXPECT_EQ(match("/p/a/x", "Penstock-Lane: Batch\n"), "ok");
  EXPECT_EQ(last_->lane_asked, policy::WaitLane::batch);
  EXPECT_EQ(match("/p/a/x"), "ok");
  EXPECT_EQ(last_->wait_asked, std::nullopt);
  EXPECT_EQ(last_->lane_asked, std::nullopt);
  for (const char* bad : {"5", "1.5s", "+1s", "2 s", "1h", "ms"})
    EXPECT_EQ(match("/p/a/x", "Penstock-Wait: " + std::string(bad) + "\n"), "400") << bad;
}

TEST_F(MatchRouteTest, AllowListsNameProvidersAndRoutesApart) {
  const auto with_allow = [&](std::vector<std::string> allow, const std::string& target) {
    Call& call = gateway_.call("GET " + target + " HTTP/1.1\nHost: x\n");
    auto entry = std::make_shared<store::KeyEntry>();
    entry->allow = std::move(allow);
    call.key = entry;
    const Step step = match_route(call);
    return testing::outcome(step, call);
  };
  EXPECT_EQ(with_allow({}, "/p/a/x"), "ok");
  EXPECT_EQ(with_allow({"provider:a"}, "/p/a/x"), "ok");
  EXPECT_EQ(with_allow({"provider:a"}, "/p/b/x"), "403");
  EXPECT_EQ(with_allow({"route:a"}, "/p/a/x"), "403");
  EXPECT_EQ(with_allow({"provider:aa", "provider:", "provider:b"}, "/p/a/x"), "403");
  EXPECT_EQ(with_allow({"provider:a", "route:ordered"}, "/r/ordered/x"), "ok");
  // A route's targets are the operator's choice: the route is what is allowed.
  EXPECT_EQ(with_allow({"provider:b"}, "/r/ordered/x"), "403");
}

}  // namespace
}  // namespace penstock::gateway
