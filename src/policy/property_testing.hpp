#pragma once

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <random>
#include <string>
#include <vector>

#include <gtest/gtest.h>

namespace penstock::policy {

/// SplitMix64 (Steele, Lea, Flood 2014): the same numbers on every machine, which the standard's
/// distributions are not.
class Random {
 public:
  explicit Random(std::uint64_t seed) : state_(seed) {}

  std::uint64_t next() {
    std::uint64_t z = (state_ += 0x9E3779B97F4A7C15);
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EB;
    return z ^ (z >> 31);
  }
  /// Uniform in [low, high].
  std::int64_t between(std::int64_t low, std::int64_t high) {
    const auto range = static_cast<std::uint64_t>(high - low) + 1;
    return low + static_cast<std::int64_t>(range == 0 ? next() : next() % range);
  }
  bool chance(int percent) { return between(1, 100) <= percent; }

 private:
  std::uint64_t state_;
};

/// A fixed set and one that no run has had before; PENSTOCK_SEED=n in the environment: only n.
inline std::vector<std::uint64_t> property_seeds(std::uint64_t fixed) {
  if (const char* only = std::getenv("PENSTOCK_SEED")) return {std::strtoull(only, nullptr, 10)};
  std::vector<std::uint64_t> seeds;
  for (std::uint64_t seed = 1; seed <= fixed; ++seed) seeds.push_back(seed);
  std::random_device device;
  seeds.push_back((std::uint64_t{device()} << 32) | device());
  return seeds;
}

/// Runs `body(Random&)` for every seed; a failure names its seed.
template <class Body>
void for_each_seed(std::uint64_t fixed, Body body) {
  const auto seeds = property_seeds(fixed);
  std::printf("seeds: 1 to %d and %llu (PENSTOCK_SEED=n runs one)\n", static_cast<int>(fixed),
              static_cast<unsigned long long>(seeds.back()));
  for (const std::uint64_t seed : seeds) {
    SCOPED_TRACE("PENSTOCK_SEED=" + std::to_string(seed));
    Random random(seed);
    body(random);
    if (testing::Test::HasFatalFailure() || testing::Test::HasNonfatalFailure()) return;
  }
}

}  // namespace penstock::policy
