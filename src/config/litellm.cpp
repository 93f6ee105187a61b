#include "config/litellm.hpp"

#include <map>
#include <optional>

#include <fmt/format.h>
#include <simdjson.h>

namespace penstock::config {

namespace {

using simdjson::ondemand::json_type;

constexpr int kNanoPerMillionOfOne = 15;  // USD a token × 10^9 nano × 10^6 tokens

struct Found {
  std::optional<std::int64_t> input;
  std::optional<std::int64_t> output;
  std::optional<std::int64_t> cached_input;
  std::optional<std::int64_t> cache_write;
  std::int64_t max_output_tokens = 0;
  std::int64_t max_tokens = 0;
  std::int64_t max_input_tokens = 0;
  std::string provider;
  std::string mode;
};

std::string_view trimmed(std::string_view token) {
  while (!token.empty() && std::string_view(" \t\r\n").contains(token.back())) token.remove_suffix(1);
  return token;
}

/// "input_cost_per_token_above_200k_tokens" is a dearer tier of "input_cost_per_token". Prices above a time
/// ("…_above_1hr") are of another kind and not read.
bool is_price_of(std::string_view field, std::string_view base) {
  if (!field.starts_with(base)) return false;
  const std::string_view rest = field.substr(base.size());
  return rest.empty() || (rest.starts_with("_above_") && rest.ends_with("_tokens"));
}

std::optional<std::int64_t>* price_field(Found& found, std::string_view field) {
  if (is_price_of(field, "input_cost_per_token")) return &found.input;
  if (is_price_of(field, "output_cost_per_token") || field == "output_cost_per_reasoning_token")
    return &found.output;
  if (is_price_of(field, "cache_read_input_token_cost")) return &found.cached_input;
  if (is_price_of(field, "cache_creation_input_token_cost")) return &found.cache_write;
  return nullptr;
}

std::int64_t* count_field(Found& found, std::string_view field) {
  if (field == "max_output_tokens") return &found.max_output_tokens;
  if (field == "max_tokens") return &found.max_tokens;
  if (field == "max_input_tokens") return &found.max_input_tokens;
  return nullptr;
}

/// Whether the value was good, or of no interest.
bool take(Found& found, std::string_view field, simdjson::ondemand::value value) {
  if (field == "litellm_provider" || field == "mode") {
    if (value.type() != json_type::string) return false;
    (field == "mode" ? found.mode : found.provider) = std::string(std::string_view(value.get_string()));
    return true;
  }
  std::optional<std::int64_t>* price = price_field(found, field);
  std::int64_t* count = count_field(found, field);
  if (price == nullptr && count == nullptr) return true;
  const json_type type = value.type();
  if (type == json_type::null) return true;
  // Some versions of the file hold numbers as strings.
  const std::string_view text = type == json_type::string   ? std::string_view(value.get_string())
                                : type == json_type::number ? trimmed(value.raw_json_token())
                                                            : std::string_view();
  if (count != nullptr) {
    const auto number = parse_scaled(text, 0);  // not a count: the model's bound is not known
    if (number && number->is_exact) *count = number->value;
    return true;
  }
  const auto number = parse_scaled(text, kNanoPerMillionOfOne);
  if (!number) return false;
  *price = std::max(price->value_or(0), number->value);
  return true;
}

policy::ModelPrice price_of(const Found& found) {
  // `max_tokens` is the older name of max_output_tokens; embedders use it for their input.
  const bool generates = found.mode != "embedding" && found.mode != "rerank";
  const std::int64_t older = generates ? found.max_tokens : 0;
  return {.input = found.input.value_or(0),
          .output = found.output.value_or(0),
          .cached_input = found.cached_input,
          .cache_write = found.cache_write,
          .max_output_tokens = found.max_output_tokens > 0 ? found.max_output_tokens : older,
          .max_input_tokens = found.max_input_tokens};
}

}  // namespace

Parsed<LiteLlmFile> parse_litellm(std::string_view json) {
  LiteLlmFile file;
  std::string at;
  try {
    const simdjson::padded_string padded(json);
    simdjson::ondemand::parser parser;
    simdjson::ondemand::document document = parser.iterate(padded);
    for (auto entry : document.get_object()) {
      at = std::string(std::string_view(entry.unescaped_key()));
      if (at == "sample_spec" || entry.value().type() != json_type::object) continue;
      Found found;
      for (auto field : entry.value().get_object()) {
        const std::string name(std::string_view(field.unescaped_key()));
        if (!take(found, name, field.value())) {
          return std::unexpected(Complaint{
              fmt::format("is not a price file: {} of model {} has no usable value", shown(name), shown(at)),
              {}});
        }
      }
      if (!found.input && !found.output) continue;
      file.entries.push_back({.name = at, .provider = found.provider, .price = price_of(found)});
    }
    if (document.current_location().error() != simdjson::OUT_OF_BOUNDS)
      return std::unexpected(Complaint{"is not a price file: there is text after its end", {}});
  } catch (const simdjson::simdjson_error& error) {
    return std::unexpected(
        Complaint{fmt::format("is not valid JSON{}: {}", at.empty() ? "" : fmt::format(" near {}", shown(at)),
                              simdjson::error_message(error.error())),
                  {}});
  }
  if (file.entries.empty())
    return std::unexpected(
        Complaint{"holds no model with a price per token", "expected LiteLLM's model_prices file"});
  return file;
}

std::size_t add_litellm(const LiteLlmFile& file, std::string_view provider,
                        std::map<std::string, policy::ModelPrice, std::less<>>& models) {
  std::size_t matched = 0;
  std::map<std::string_view, std::optional<policy::ModelPrice>> short_names;  // nothing: ambiguous
  for (const auto& entry : file.entries) {
    if (!provider.empty() && entry.provider != provider) continue;
    ++matched;
    models.emplace(entry.name, entry.price);
    const std::string_view name = entry.name;
    if (entry.provider.empty() || !name.starts_with(entry.provider + "/")) continue;
    const auto [known, is_new] = short_names.emplace(name.substr(entry.provider.size() + 1), entry.price);
    if (!is_new && known->second != entry.price) known->second.reset();
  }
  for (const auto& [name, price] : short_names) {
    if (price && !name.empty()) models.emplace(name, *price);
  }
  return matched;
}

}  // namespace penstock::config
