#include "policy/price.hpp"

#include <algorithm>

namespace penstock::policy {
namespace {

constexpr bool is_digit(char c) { return c >= '0' && c <= '9'; }

/// "gpt-4o-mini-2024-07-18", "claude-sonnet-4-20250514" and "claude-sonnet-4@20250514" without their dates;
/// other names as they are.
std::string_view without_date(std::string_view name) {
  for (const std::string_view pattern : {"-2000-00-00", "-20000000", "@20000000"}) {
    if (name.size() <= pattern.size()) continue;
    const std::string_view suffix = name.substr(name.size() - pattern.size());
    const bool matches =
        std::ranges::equal(suffix, pattern, [](char c, char p) { return p == '0' ? is_digit(c) : c == p; });
    if (matches && suffix[2] == '0') return name.substr(0, name.size() - pattern.size());
  }
  return name;
}

/// A sum of prices times quantities in billionths of a nano-dollar, so that only the end is rounded. Stops at
/// what is above kMaxNanoUsd.
class Sum {
 public:
  void add_call(NanoUsd price) { add(price.count, 1, kScale); }
  /// `price`: nano-dollars per million tokens.
  void add_tokens(std::int64_t price, std::int64_t tokens) { add(price, tokens, kScale / 1'000'000); }
  void add_units(NanoUsd price, std::int64_t nano_units) { add(price.count, nano_units, 1); }

  [[nodiscard]] std::optional<NanoUsd> rounded_up() const {
    const __int128 amount = (total_ + kScale - 1) / kScale;
    if (amount > kMaxNanoUsd.count) return std::nullopt;
    return NanoUsd{static_cast<std::int64_t>(amount)};
  }

 private:
  static constexpr std::int64_t kScale = 1'000'000'000;
  static constexpr __int128 kTooMuch = static_cast<__int128>(kMaxNanoUsd.count + 1) * kScale;

  void add(std::int64_t price, std::int64_t quantity, std::int64_t scale) {
    if (price <= 0 || quantity <= 0) return;
    // Within 2^53 * 2^63 * 10^3 (tokens) or 2^53 * 1 * 10^9 (calls), and kTooMuch: below 2^127.
    const __int128 part =
        price > kMaxNanoUsd.count ? kTooMuch : static_cast<__int128>(price) * quantity * scale;
    total_ = std::min(total_ + part, kTooMuch);
  }

  __int128 total_ = 0;
};

std::int64_t dearest_input(const ModelPrice& model) {
  return std::max(
      {model.input, model.cached_input.value_or(model.input), model.cache_write.value_or(model.input)});
}

void add_bound(Sum& sum, const ModelPrice& model, UsageBound bound) {
  sum.add_tokens(dearest_input(model), bound.input_tokens);
  sum.add_tokens(model.output, bound.output_tokens);
}

bool is_plausible(const Usage& usage) {
  for (const std::int64_t count :
       {usage.input_tokens, usage.cached_input_tokens, usage.cache_write_tokens, usage.output_tokens})
    if (count < 0 || count > kMaxPlausibleTokens) return false;
  return true;
}

}  // namespace

const ModelPrice* PriceList::find_model(std::string_view name) const noexcept {
  auto found = models.find(name);
  if (found == models.end()) found = models.find(without_date(name));
  if (found != models.end()) return &found->second;
  return default_model ? &*default_model : nullptr;
}

std::optional<NanoUsd> estimate_cost(const PriceList& prices, const ModelPrice* model,
                                     UsageBound bound) noexcept {
  Sum sum;
  sum.add_call(prices.per_call);
  if (model != nullptr) add_bound(sum, *model, bound);
  for (const UnitPrice& unit : prices.units) sum.add_units(unit.per_unit, unit.max_nano_units);
  return sum.rounded_up();
}

Cost actual_cost(const PriceList& prices, const ModelPrice* model, UsageBound bound,
                 const Usage& usage) noexcept {
  Sum sum;
  Cost cost;
  sum.add_call(prices.per_call);
  if (model != nullptr) {
    if (usage.known && is_plausible(usage)) {
      sum.add_tokens(model->input, usage.input_tokens);
      sum.add_tokens(model->cached_input.value_or(model->input), usage.cached_input_tokens);
      sum.add_tokens(model->cache_write.value_or(model->input), usage.cache_write_tokens);
      sum.add_tokens(model->output, usage.output_tokens);
    } else {
      add_bound(sum, *model, bound);
      cost.estimated = true;
    }
  }
  for (std::size_t i = 0; i < prices.units.size(); ++i) {
    const std::int64_t told = i < usage.nano_units.size() ? usage.nano_units[i] : -1;
    const bool is_told = told >= 0 && told <= kMaxPlausibleNanoUnits;
    sum.add_units(prices.units[i].per_unit, is_told ? told : prices.units[i].max_nano_units);
    if (!is_told) cost.estimated = true;
  }
  cost.amount = sum.rounded_up().value_or(kMaxNanoUsd);
  return cost;
}

}  // namespace penstock::policy
