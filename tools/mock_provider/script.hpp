// What a call can be told to do, and where it is told: one call (query, X-Mock header) or later ones (admin).
#pragma once

#include <cstdint>
#include <optional>
#include <random>
#include <string>
#include <string_view>
#include <vector>

#include "mock_provider.hpp"
#include "wire.hpp"

namespace penstock::mock {

using Random = std::mt19937_64;

struct Latency {
  enum class Shape : std::uint8_t { constant, exponential, uniform };
  Shape shape = Shape::constant;
  double a_us = 0, b_us = 0;  // constant and exponential: a is the mean; uniform: from a to b
  [[nodiscard]] std::int64_t draw_ns(Random& random) const;
};

/// The keys of README.md; what is not set has no value.
struct Rules {
  Latency latency;
  std::int64_t chunks = 0, gap_us = 0;
  int status = 0;
  double error_rate = -1;
  std::string error_code, retry_after, headers;
  std::optional<std::int64_t> prompt_tokens, completion_tokens, credits;
  std::int64_t cached_tokens = 0, reasoning_tokens = 0;
  std::int64_t cut_after_bytes = -1, stall_after_bytes = -1;
  std::optional<bool> bill;
  Fault fault = Fault::none;
  bool no_usage = false, over_max = false, extra_usage = false, stamp = false, sse_error = false;
  bool cut_before_head = false, cut_reset = false;

  explicit Rules(const Options& options);
  enum class Set : std::uint8_t { done, unknown_key, bad_value };
  Set set(std::string_view key, std::string_view value);
};

/// Rules for later calls, by path prefix. The first that matches and has calls left applies.
class Scripts {
 public:
  struct Script {
    std::string match;
    std::vector<std::pair<std::string, std::string>> rules;
    std::int64_t times_left = -1;  // -1: for ever
  };
  static constexpr std::size_t kMax = 1000;
  [[nodiscard]] bool add(Script script);
  void clear() { scripts_.clear(); }
  [[nodiscard]] bool empty() const { return scripts_.empty(); }
  void apply(std::string_view path, Rules& rules);

 private:
  std::vector<Script> scripts_;
};

/// Query keys that are not ours are ignored, as the provider's own parameters stand there too.
void apply_query(std::string_view query, Rules& rules);
/// Returns what is wrong, or nothing: a typo in X-Mock must not make a test pass.
[[nodiscard]] std::string apply_header(std::string_view x_mock, Rules& rules);

}  // namespace penstock::mock
