// The parser and contracts/config.schema.json know the same fields and the same defaults.
#include <set>

#include <simdjson.h>

#include "config/fields.hpp"
#include "config/testing.hpp"

namespace penstock::config {
namespace {

using simdjson::dom::element;
using simdjson::dom::object;

class Schema : public ::testing::Test {
 protected:
  Schema() : root_(parser_.parse(testing::source_file("contracts/config.schema.json"))) {}

  std::map<std::string, object> sections() {
    std::map<std::string, object> out{{"config", root_.get_object()}};
    for (const auto [name, definition] : object(root_["$defs"])) {
      object properties;
      if (definition["properties"].get(properties) == simdjson::SUCCESS)
        out.emplace(name, definition.get_object());
    }
    return out;
  }

  /// A section with all its defaults written out, as YAML in flow style; of sections inside too, where they
  /// may be empty.
  std::string written_out(const object& section) {
    std::string out = "{";
    for (const auto [name, property] : object(section["properties"])) {
      std::string value;
      element found;
      std::string_view reference;
      if (property["default"].get(found) == simdjson::SUCCESS) {
        value = simdjson::minify(found);  // JSON is YAML
        ++defaults_;
      } else if (property["$ref"].get(reference) == simdjson::SUCCESS) {
        const element target = root_["$defs"][reference.substr(reference.rfind('/') + 1)];
        element ignored;
        const bool is_section = target["properties"].get(ignored) == simdjson::SUCCESS;
        const bool may_be_empty = target["required"].get(ignored) != simdjson::SUCCESS &&
                                  target["oneOf"].get(ignored) != simdjson::SUCCESS;
        if (is_section && may_be_empty) value = written_out(target.get_object());
      }
      if (value.empty()) continue;
      if (out.size() > 1) out += ", ";
      out += std::string(name) + ": " + value;
    }
    return out + "}";
  }

  simdjson::dom::parser parser_;
  element root_;
  int defaults_ = 0;
};

TEST_F(Schema, ParserKnowsTheSameFields) {
  auto schema = sections();
  for (const Section* section : config::sections()) {
    const auto found = schema.find(std::string(section->name));
    ASSERT_NE(found, schema.end()) << section->name;
    std::set<std::string> fields;
    for (const auto [name, property] : object(found->second["properties"])) fields.emplace(name);
    EXPECT_EQ(fields, std::set<std::string>(section->fields.begin(), section->fields.end())) << section->name;
    schema.erase(found);
  }
  EXPECT_TRUE(schema.empty()) << "the parser does not know " << schema.begin()->first;
}

std::string text_of(milliseconds duration) { return format_duration(duration) + " "; }

/// Everything that has a default.
std::string defaults_of(const Config& config) {
  std::ostringstream out;
  const Listen& listen = config.listen;
  out << listen.address << ' ' << listen.port << ' ' << listen.workers << ' ' << listen.max_connections << ' '
      << listen.max_header_bytes << ' ' << listen.max_body_bytes << ' ' << text_of(listen.header_timeout)
      << text_of(listen.body_timeout) << text_of(listen.idle_timeout) << text_of(listen.write_timeout)
      << text_of(listen.shutdown_timeout) << static_cast<int>(config.log.level) << ' '
      << static_cast<int>(config.log.calls) << ' ' << config.anonymous << ' ' << config.budget_status_402
      << ' ' << policy::to_string(config.inbound.limit);
  for (const std::string& path : config.inbound.exempt) out << ' ' << path;
  const Provider& provider = config.providers.at(0);
  out << '\n'
      << provider.allow_private << ' ' << text_of(provider.timeouts.connect)
      << text_of(provider.timeouts.first_byte) << text_of(provider.timeouts.between_bytes)
      << text_of(provider.timeouts.total) << static_cast<int>(provider.api) << ' '
      << static_cast<int>(provider.stream_usage) << ' ' << static_cast<int>(provider.on_disconnect) << ' '
      << text_of(provider.drain_timeout) << provider.drain_bytes << ' ' << provider.default_max_output_tokens
      << ' ' << provider.max_metered_bytes << ' ' << provider.charge_unknown << ' '
      << provider.prices.per_call.count << ' ' << provider.prices.charge_failures << ' '
      << provider.learn_limits << ' ' << static_cast<int>(provider.adaptive_concurrency);
  return out.str();
}

// A default that stands in the schema (and so in the manual) but not in the code would be a lie.
TEST_F(Schema, DefaultsAreThoseOfTheParser) {
  auto schema = sections();
  std::string root = written_out(schema.at("config"));
  std::string provider = written_out(schema.at("provider"));
  ASSERT_GT(defaults_, 40);
  root.insert(1, "providers: {p: " + provider.insert(1, "base_url: https://a.com, ") + "}, ");
  const Config config = testing::good(root);
  const Config plain = testing::good("providers: {p: {base_url: https://a.com}}");
  ASSERT_EQ(config.providers.size(), 1U);
  EXPECT_EQ(defaults_of(config), defaults_of(plain));
  EXPECT_EQ(config.providers[0].circuit, plain.providers[0].circuit);
  EXPECT_EQ(config.providers[0].retry, plain.providers[0].retry);
  EXPECT_EQ(config.providers[0].wait, plain.providers[0].wait);
  EXPECT_EQ(config.providers[0].prices, plain.providers[0].prices);
}

}  // namespace
}  // namespace penstock::config
