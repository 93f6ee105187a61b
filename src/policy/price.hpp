#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/money.hpp"

namespace penstock::policy {

/// Nano-dollars per million tokens: integers, so that finer prices than a nano-dollar a token stay exact
/// until the one rounding per attempt. 0.15 USD per million tokens == 150'000'000.
struct ModelPrice {
  std::int64_t input = 0;
  std::int64_t output = 0;
  std::optional<std::int64_t> cached_input{};  ///< tokens read from the provider's cache; none: as input
  std::optional<std::int64_t> cache_write{};   ///< tokens written to it; none: as input
  std::int64_t max_output_tokens = 0;          ///< the model's own most; 0: not known
  std::int64_t max_input_tokens = 0;           ///< the model's context; 0: not known
  friend bool operator==(const ModelPrice&, const ModelPrice&) = default;
};

/// A price for what the answer says was used: `quantity` found by JSON pointer (RFC 6901) or header, times
/// `per_unit`.
struct UnitPrice {
  std::string name{};
  std::string pointer{};  ///< "/billing/credits"; or empty
  std::string header{};   ///< "X-Credits-Used"; or empty
  NanoUsd per_unit{};
  std::int64_t max_nano_units =
      1'000'000'000;  ///< the most one call can use, in billionths of a unit: reserved before
  friend bool operator==(const UnitPrice&, const UnitPrice&) = default;
};

/// What an attempt at a provider's endpoint costs: the sum of all parts that are set.
struct PriceList {
  NanoUsd per_call{};
  std::vector<UnitPrice> units{};
  std::map<std::string, ModelPrice, std::less<>> models{};
  std::optional<ModelPrice> default_model{};  ///< for models that `models` does not name
  bool charge_failures = false;               ///< whether per_call is due for answers with a status >= 400
  friend bool operator==(const PriceList&, const PriceList&) = default;
  [[nodiscard]] bool has_models() const noexcept { return !models.empty() || default_model.has_value(); }
  /// The price of a model, or default_model, or nullptr. A dated name ("gpt-4o-mini-2024-07-18") finds its
  /// undated one.
  [[nodiscard]] const ModelPrice* find_model(std::string_view name) const noexcept;
};

/// What an answer says was used. Tokens: `input` includes neither cached nor written ones.
struct Usage {
  bool known = false;  ///< the answer held a usable usage block (for token prices)
  std::int64_t input_tokens = 0;
  std::int64_t cached_input_tokens = 0;
  std::int64_t cache_write_tokens = 0;
  std::int64_t output_tokens = 0;
  /// In the order of PriceList::units, in billionths of a unit; -1: the answer did not say.
  std::vector<std::int64_t> nano_units{};
  [[nodiscard]] std::int64_t total_tokens() const noexcept {
    return input_tokens + cached_input_tokens + cache_write_tokens + output_tokens;
  }
};

/// What an attempt can use at most, known before it is sent.
struct UsageBound {
  std::int64_t input_tokens = 0;
  std::int64_t output_tokens = 0;  ///< for all choices together
};

/// The most that an attempt can cost, in one rounding up. Errors: nothing when it is above kMaxNanoUsd
/// (refuse the call). `model` may be nullptr where the list has no model prices.
[[nodiscard]] std::optional<NanoUsd> estimate_cost(const PriceList& prices, const ModelPrice* model,
                                                   UsageBound bound) noexcept;

/// Token counts above this are absurd: more than any model takes or gives in one call.
inline constexpr std::int64_t kMaxPlausibleTokens = 1'000'000'000;
/// A billion units, in billionths: more than any one call can use.
inline constexpr std::int64_t kMaxPlausibleNanoUnits = 1'000'000'000'000'000'000;

/// What it did cost. Parts that the answer did not tell are charged at their bound. Negative or absurd counts
/// count as not told. `estimated` tells whether any part was.
struct Cost {
  NanoUsd amount{};
  bool estimated = false;
};
[[nodiscard]] Cost actual_cost(const PriceList& prices, const ModelPrice* model, UsageBound bound,
                               const Usage& usage) noexcept;

}  // namespace penstock::policy
