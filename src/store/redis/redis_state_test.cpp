#include "store/redis/redis_state.hpp"

#include "store/contract/shared_state_contract.hpp"
#include "store/contract/shared_state_properties.hpp"
#include "store/contract/shared_state_stress.hpp"
#include "store/redis/redis_testing.hpp"

namespace penstock::store::contract {
namespace {

/// One for all tests of the contract; each has a domain of its own.
RedisServer& server() {
  static RedisServer one;
  return one;
}

RedisOptions options_of(const RedisServer& redis, const std::string& domain,
                        const std::string& replica = "a") {
  RedisOptions options;
  options.url = redis.url();
  options.domain = domain;
  options.replica = replica;
  options.command_timeout = milliseconds{5'000};  // a sanitised build on a busy machine
  options.grace = milliseconds{0};
  options.tests_clock = true;
  return options;
}

std::unique_ptr<RedisState> started(RedisOptions options) {
  auto state = std::make_unique<RedisState>(std::move(options));
  const auto result = state->start();
  EXPECT_TRUE(result.has_value()) << (result ? "" : result.error().detail);
  return state;
}

const auto kRedis =
    testing::Values(StateBackend{"redis", [] { return started(options_of(server(), new_domain())); }});
const auto kName = [](const auto& test) { return test.param.name; };
INSTANTIATE_TEST_SUITE_P(Redis, SharedStateContract, kRedis, kName);
INSTANTIATE_TEST_SUITE_P(Redis, SharedStateProperties, kRedis, kName);
INSTANTIATE_TEST_SUITE_P(Redis, SharedStateStress, kRedis, kName);

}  // namespace
}  // namespace penstock::store::contract
