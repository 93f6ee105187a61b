#include <cstdlib>
#include <set>

#include "store/contract/shared_state_testing.hpp"
#include "store/memory/memory_state.hpp"
#include "store/redis/redis_testing.hpp"

/// The server's functions and the policies in C++ are two writings of one algorithm: the same random
/// operations must bring the same decisions and leave the same picture.
namespace penstock::store::contract {
namespace {

std::string text_of(const std::expected<void, Refusal>& decision) {
  if (decision) return "yes";
  const Refusal& no = decision.error();
  std::string text = std::string(info(no.reason).name) + " " + std::to_string(no.subject);
  // A trial that the server then refused has been begun and given back, which memory does not need to do: the
  // time until lost trials are given up may differ.
  if (no.reason != Reason::policy_circuit_open) text += " " + std::to_string(no.retry_after.count());
  return text;
}

std::vector<SubjectSpec> random_specs(policy::Random& random) {
  std::vector<SubjectSpec> specs;
  for (const SubjectKind kind : {SubjectKind::provider, SubjectKind::endpoint, SubjectKind::route,
                                 SubjectKind::team, SubjectKind::consumer, SubjectKind::key}) {
    SubjectSpec spec = subject(kind, "same");
    const auto mode = random.chance(80) ? policy::BudgetMode::hard : policy::BudgetMode::warn;
    if (random.chance(60)) spec.budgets.push_back(daily(random.between(0, 5000), mode));
    if (random.chance(40)) spec.budgets.push_back(monthly(random.between(100, 9000)));
    // No second one of a window: after a reload the server knows those by their order, memory by what they
    // resemble.
    if (random.chance(50)) std::ranges::reverse(spec.budgets);
    if (random.chance(30)) spec.concurrency = static_cast<std::uint32_t>(random.between(1, 8));
    // Periods of whole microseconds per bucket, so that both round alike.
    if (random.chance(40)) spec.limits.push_back(calls(random.between(1, 20), 6s));
    if (random.chance(30)) spec.limits.push_back(calls(random.between(1, 200), 1min));
    if (random.chance(40)) spec.limits.push_back(tokens(random.between(1, 600), 12s));
    if (kind == SubjectKind::provider && random.chance(50)) {
      spec.circuit.emplace();
      spec.circuit->min_calls = random.between(2, 8);
      spec.circuit->cooldown = 2s;
      spec.circuit->half_open_trials = static_cast<std::uint32_t>(random.between(1, 3));
    }
    if (random.chance(85)) specs.push_back(std::move(spec));
  }
  return specs;
}

// ALGORITHMS: Lua against C++. PENSTOCK_OPERATIONS=100000 runs so many per seed.
TEST(RedisDifferentialTest, DecidesAsMemoryDoes) {
  const RedisServer server;
  const char* const wanted = std::getenv("PENSTOCK_OPERATIONS");
  const int operations = wanted == nullptr ? 700 : std::atoi(wanted);
  int admitted = 0;
  int refused = 0;
  policy::for_each_seed(5, [&](policy::Random& random) {
    MemoryState memory;
    const auto redis = started(tests_options(server, new_domain()));
    Caller ask_memory(memory);
    Caller ask_redis(*redis);
    Now now{MonotonicTime{1'000h}, kDay};
    std::vector<SubjectSpec> specs;
    std::vector<SubjectId> ids;
    std::uint64_t last = 0;
    std::set<std::uint64_t> ended;  // these may not begin again
    const auto reload = [&] {
      specs = random_specs(random);
      ids = memory.declare(specs, now);
      ASSERT_EQ(redis->declare(specs, now), ids);
    };
    const auto lines = [&](SharedState& state) {
      std::string all;
      for (const SubjectView& each : state.view(now, {})) all += line_of(each) + "\n";
      return all;
    };
    ASSERT_NO_FATAL_FAILURE(reload());
    for (int step = 0; step < operations; ++step) {
      SCOPED_TRACE("step " + std::to_string(step));
      const std::int64_t dice = random.between(1, 1000);
      if (dice <= 450) {
        std::vector<SubjectId> subjects;
        for (const SubjectId id : ids)
          if (random.chance(50)) subjects.push_back(id);
        const ReservationRequest request{
            .id = {3, random.chance(95) ? ++last
                                        : static_cast<std::uint64_t>(
                                              random.between(1, 1 + static_cast<std::int64_t>(last)))},
            .subjects = subjects,
            .estimate = {random.between(0, 400)},
            .tokens = random.between(0, 60),
            .lease = seconds{random.between(1, 60)},
            .is_retry = random.chance(20),
            .now = now};
        last = std::max(last, request.id.sequence);
        if (ended.contains(request.id.sequence)) continue;
        const auto by_memory = ask_memory.reserve(request);
        const auto by_redis = ask_redis.reserve(request);
        ASSERT_EQ(text_of(by_redis), text_of(by_memory));
        ++(by_memory ? admitted : refused);
      } else if (dice <= 780) {
        const Settlement end{.id = {3, static_cast<std::uint64_t>(random.between(
                                           std::max<std::int64_t>(1, static_cast<std::int64_t>(last) - 20),
                                           static_cast<std::int64_t>(last) + 1))},
                             .ending = static_cast<Ending>(random.between(0, 2)),
                             .cost = {random.between(0, 500)},
                             .tokens = random.between(-1, 90),
                             .outcome = static_cast<CircuitOutcome>(random.between(0, 3)),
                             .first_byte = {},
                             .now = now};
        ended.insert(end.id.sequence);
        memory.settle(end);
        redis->settle(end);
        if (end.id.sequence > last) last = end.id.sequence;  // it may not be reserved after its end
      } else if (dice <= 800 && !ids.empty()) {
        const MonotonicTime until = now.mono + milliseconds{random.between(0, 5000)};
        const SubjectId provider =
            ids[static_cast<std::size_t>(random.between(0, static_cast<std::int64_t>(ids.size()) - 1))];
        memory.pause(provider, until);
        redis->pause(provider, until);
      } else if (dice <= 985) {
        const milliseconds time{random.chance(5) ? random.between(0, 90'000'000) : random.between(0, 3'000)};
        now = {now.mono + time, now.wall + time};
        memory.reap(now);
        redis->reap(now);
      } else {
        ASSERT_NO_FATAL_FAILURE(reload());
      }
      if (step % 5 == 0) {
        ASSERT_EQ(lines(*redis), lines(memory));
      }
    }
  });
  std::printf("%d admitted, %d refused\n", admitted, refused);
}

}  // namespace
}  // namespace penstock::store::contract
