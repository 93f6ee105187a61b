// Price lists, of providers and of their endpoints.
#include <algorithm>

#include "config/fields.hpp"
#include "config/litellm.hpp"

namespace penstock::config {

namespace {

constexpr std::int64_t kMostTokens = 100'000'000;  // of one model's context
constexpr std::size_t kMostUnits = 16;

Parsed<std::int64_t> parse_per_million(std::string_view text) {
  const auto amount = parse_amount(text);
  if (!amount) return std::unexpected(amount.error());
  return amount->count;
}

Parsed<std::optional<std::int64_t>> parse_optional_per_million(std::string_view text) {
  const auto amount = parse_per_million(text);
  if (!amount) return std::unexpected(amount.error());
  return *amount;
}

policy::ModelPrice read_model(Reader& reader, const Node& node, const std::string& where) {
  policy::ModelPrice price;
  Fields fields(reader, node, kModel, where);
  // Both are required: a forgotten price would be a free model.
  if (fields.require("input_usd_per_million") != nullptr)
    fields.value("input_usd_per_million", price.input, parse_per_million);
  if (fields.require("output_usd_per_million", "write 0 if there is none") != nullptr) {
    fields.value("output_usd_per_million", price.output, parse_per_million);
  }
  fields.value("cached_input_usd_per_million", price.cached_input, parse_optional_per_million);
  fields.value("cache_write_usd_per_million", price.cache_write, parse_optional_per_million);
  fields.integer("max_output_tokens", price.max_output_tokens, {.least = 1, .most = kMostTokens});
  fields.integer("max_input_tokens", price.max_input_tokens, {.least = 1, .most = kMostTokens});
  return price;
}

void read_unit(Reader& reader, const Node& node, const std::string& where,
               std::vector<policy::UnitPrice>& out) {
  policy::UnitPrice unit;
  Fields fields(reader, node, kUnit, where);
  const Node* name = nullptr;
  if (fields.require("name") != nullptr) name = fields.value("name", unit.name, parse_name);
  fields.value("pointer", unit.pointer, parse_json_pointer);
  fields.value("header", unit.header, parse_header_name);
  const bool has_pointer = fields.find("pointer") != nullptr;
  const bool has_header = fields.find("header") != nullptr;
  if (node.kind == Node::Kind::mapping && has_pointer == has_header) {
    reader.mistakes.add(fields.mark(), fmt::format("{} needs either pointer or header", where),
                        "expected pointer: /usage/credits, or header: X-Credits-Used");
  }
  const Node* price = nullptr;
  if (fields.require("usd_per_unit") != nullptr)
    price = fields.value("usd_per_unit", unit.per_unit, parse_amount);
  const Node* most = fields.value("max_per_call", unit.max_nano_units, parse_nano_units);
  if (most != nullptr && unit.max_nano_units == 0) {
    fields.complain(*most, "max_per_call", {.text = "must be above 0", .hint = "it is what a call reserves"});
  }
  constexpr __int128 kNano = 1'000'000'000;
  if (price != nullptr &&
      static_cast<__int128>(unit.per_unit.count) * unit.max_nano_units / kNano > kMaxNanoUsd.count) {
    fields.complain(*price, "usd_per_unit",
                    {.text = "times max_per_call is more than one call may ever cost", .hint = {}});
  }
  if (name != nullptr && std::ranges::find(out, unit.name, &policy::UnitPrice::name) != out.end()) {
    fields.complain(*name, "name", {.text = "is the name of an earlier unit", .hint = "choose another name"});
  }
  out.push_back(std::move(unit));
}

/// Reads a price file once, however many lists name it; mistakes are told once too.
std::shared_ptr<const LiteLlmFile> price_file(Fields& fields, const Node& node) {
  Reader& reader = fields.reader();
  const std::string path = reader.resolve(node.text);
  const auto known = reader.price_files.find(path);
  if (known != reader.price_files.end()) return known->second;
  std::shared_ptr<const LiteLlmFile>& slot = reader.price_files[path];
  const auto content = reader.read_file(path, node.mark, fields.what("litellm_file"));
  if (!content) return nullptr;
  auto parsed = parse_litellm(*content);
  if (!parsed) {
    fields.complain(node, "litellm_file", parsed.error());
    return nullptr;
  }
  return slot = std::make_shared<const LiteLlmFile>(std::move(*parsed));
}

void read_litellm(Fields& fields, policy::PriceList& out) {
  std::string provider;
  std::string path;
  fields.text("litellm_file", path);
  fields.text("litellm_provider", provider);
  const Node* file_node = path.empty() ? nullptr : fields.find("litellm_file");
  const Node* provider_node = provider.empty() ? nullptr : fields.find("litellm_provider");
  if (provider_node != nullptr && fields.find("litellm_file") == nullptr) {
    fields.complain(*provider_node, "litellm_provider",
                    {.text = "means nothing without litellm_file", .hint = {}});
  }
  if (file_node == nullptr) return;
  const auto file = price_file(fields, *file_node);
  if (file == nullptr || add_litellm(*file, provider, out.models) > 0 || provider_node == nullptr) return;
  std::vector<std::string_view> providers;
  for (const auto& entry : file->entries) providers.push_back(entry.provider);
  fields.complain(
      *provider_node, "litellm_provider",
      {.text = "has no model with a price per token in that file", .hint = near_miss(provider, providers)});
}

}  // namespace

void read_prices(Reader& reader, const Node& node, const std::string& owner, policy::PriceList& out) {
  Fields fields(reader, node, kPrices, fmt::format("prices of {}", owner));
  fields.value("per_call_usd", out.per_call, parse_amount);
  fields.boolean("charge_failures", out.charge_failures);
  if (const Node* list = fields.list("units")) {
    for (std::size_t i = 0; i < list->children.size(); ++i) {
      read_unit(reader, list->children[i], fmt::format("units[{}] in {}", i, fields.where()), out.units);
    }
    if (out.units.size() > kMostUnits) {
      reader.mistakes.add(list->mark,
                          fmt::format("{} has more than {} entries", fields.what("units"), kMostUnits));
    }
  }
  for (const Node& child : fields.entries("models")) {
    out.models.emplace(
        child.key,
        read_model(reader, child, fmt::format("model {} in {}", shown(child.key), fields.where())));
  }
  if (const Node* child = fields.find("default_model")) {
    out.default_model = read_model(reader, *child, fmt::format("default_model in {}", fields.where()));
  }
  read_litellm(fields, out);
}

}  // namespace penstock::config
