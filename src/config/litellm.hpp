#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "config/values.hpp"
#include "policy/price.hpp"

/// LiteLLM's public price file: one JSON object of models, prices in USD per token.
///
/// Numbers are taken from their text, not through a double: 1.5e-07 USD a token is exactly 150'000'000
/// nano-USD per million. Where the file gives several prices for the same tokens (long prompts, reasoning),
/// the dearest stands for all: an estimate may be too high, never too low.
namespace penstock::config {

struct LiteLlmFile {
  struct Entry {
    std::string name;
    std::string provider;  ///< `litellm_provider`
    policy::ModelPrice price;
  };
  std::vector<Entry> entries;  ///< those with token prices, in the order of the file
};

[[nodiscard]] Parsed<LiteLlmFile> parse_litellm(std::string_view json);

/// Adds the entries of `provider` (empty: all) that `models` does not hold yet, first under their own names,
/// then those named "provider/model" without that prefix too. A short name that would mean two prices is left
/// out. Returns how many entries matched.
std::size_t add_litellm(const LiteLlmFile& file, std::string_view provider,
                        std::map<std::string, policy::ModelPrice, std::less<>>& models);

}  // namespace penstock::config
