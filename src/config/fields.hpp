#pragma once

#include <cassert>
#include <concepts>
#include <map>
#include <memory>
#include <set>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>
#include <vector>

#include <fmt/format.h>

#include "config/load.hpp"
#include "config/node.hpp"
#include "config/values.hpp"

/// The reader of mappings: one table of fields for each kind of mapping, from which come the refusal of
/// unknown fields, the near misses, and the test that the schema and the documentation know the same fields.
namespace penstock::config {

/// A kind of mapping: its name in contracts/config.schema.json (in `$defs`; `config` is the root) and its
/// fields.
struct Section {
  std::string_view name;
  std::span<const std::string_view> fields;
};

/// Every kind of mapping with fixed fields.
[[nodiscard]] std::span<const Section* const> sections() noexcept;

extern const Section kConfig, kListen, kListenTls, kLog, kState, kInbound, kInboundOverride, kLedger,
    kProvider, kCredential, kUpstreamTls, kTimeouts, kCircuit, kRetry, kWait, kRouteWait, kDrain, kBudget,
    kBudgetOverride, kEndpoint, kPrices, kUnit, kModel, kRoute, kTarget, kTeam, kConsumer, kKey;

/// What a name in the file refers to.
enum class Referent : std::uint8_t { provider, route, team, consumer };
[[nodiscard]] std::string_view to_string(Referent referent) noexcept;

/// One name that must exist somewhere in the file; looked up when all of it is read.
struct Reference {
  Referent referent;
  std::string name;
  std::string what;  ///< "team in consumer "ci-bot""
  Mark mark;
};

struct LiteLlmFile;

/// What all readers of one file share.
struct Reader {
  Mistakes& mistakes;
  const Sources& sources;
  std::string folder;  ///< of the file, with a trailing slash, or empty
  std::vector<Reference> references;
  std::map<std::string, std::shared_ptr<const LiteLlmFile>>
      price_files;  ///< by path; nullptr: cannot be used

  [[nodiscard]] std::string resolve(const std::string& path) const;  ///< relative to the file's folder
  [[nodiscard]] Place place(Mark mark) const;
  /// The content of a file that the configuration names; nothing after a mistake at `mark`.
  std::optional<std::string> read_file(const std::string& path, Mark mark, std::string_view what);
};

/// Inclusive bounds of a value.
template <class T>
struct Range {
  T least;
  T most;
};

/// Whether a message may hold the text of the value.
enum class Show : std::uint8_t { text, url, nothing };

template <class T>
struct Choice {
  std::string_view name;
  T value;
};

/// One mapping being read. Each member takes a field of the section, leaves the default when it is absent and
/// adds a mistake when it is wrong. Every field must be asked for, in any order: the destructor asserts it.
class Fields {
 public:
  enum class Names : std::uint8_t { shown, hidden };  ///< hidden: an unknown name may itself be a secret

  Fields(Reader& reader, const Node& node, const Section& section, std::string where,
         Names names = Names::shown);
  ~Fields();
  Fields(const Fields&) = delete;
  Fields& operator=(const Fields&) = delete;

  [[nodiscard]] Reader& reader() const noexcept { return reader_; }
  [[nodiscard]] const std::string& where() const noexcept { return where_; }
  /// Where a missing field is missed: the mapping's name, or its beginning in a list.
  [[nodiscard]] Mark mark() const noexcept { return mark_; }
  [[nodiscard]] std::string what(std::string_view field) const {
    return fmt::format("{} in {}", field, where_);
  }

  /// The value, whatever it is, or nullptr.
  const Node* find(std::string_view field);
  /// The same, with a mistake when it is absent.
  const Node* require(std::string_view field, std::string hint = {});
  /// The text of a single value.
  const Node* scalar(std::string_view field);
  /// A mapping (or nothing, which is an empty one).
  const Node* mapping(std::string_view field);
  const Node* list(std::string_view field);
  /// The names and values of a mapping whose names are free.
  std::span<const Node> entries(std::string_view field);

  /// Returns the node if the value was good.
  template <class T, class Parse>
  const Node* value(std::string_view field, T& out, Parse parse, Show show = Show::text) {
    const Node* node = scalar(field);
    return node != nullptr && parse_into(*node, field, out, parse, show) ? node : nullptr;
  }
  template <class T, class Parse>
  bool parse_into(const Node& node, std::string_view field, T& out, Parse parse, Show show = Show::text) {
    auto parsed = parse(std::string_view(node.text));
    if (!parsed) {
      complain(node, field, parsed.error(), show);
      return false;
    }
    out = std::move(*parsed);
    return true;
  }

  template <class T>
  const Node* choice(std::string_view field, T& out, std::initializer_list<Choice<T>> choices) {
    return value(field, out, [&](std::string_view text) -> Parsed<T> {
      std::vector<std::string_view> names;
      for (const auto& [name, result] : choices) {
        if (text == name) return result;
        names.push_back(name);
      }
      return std::unexpected(
          Complaint{fmt::format("is not known; expected {}", list_of(names)), near_miss(text, names)});
    });
  }

  void boolean(std::string_view field, bool& out);
  void text(std::string_view field, std::string& out);
  void file(std::string_view field, std::string& out);  ///< a path, resolved, of a file that can be read

  template <class T>
  void duration(std::string_view field, T& out, Range<milliseconds> range) {
    value(field, out, [&](std::string_view text) -> Parsed<T> {
      const auto parsed = parse_duration(text);
      if (!parsed) return std::unexpected(parsed.error());
      if (auto complaint = outside(*parsed, range, format_duration))
        return std::unexpected(std::move(*complaint));
      if (std::chrono::floor<T>(*parsed) != *parsed)
        return std::unexpected(Complaint{"must be whole seconds", {}});
      return std::chrono::floor<T>(*parsed);
    });
  }
  template <class T>
  void integer(std::string_view field, T& out, Range<std::int64_t> range) {
    value(field, out, [&](std::string_view text) { return integer_in<T>(text, range); });
  }
  template <class T>
  static Parsed<T> integer_in(std::string_view text, Range<std::int64_t> range) {
    auto parsed = parse_integer(text);
    if (!parsed) {
      parsed.error().text += fmt::format("; expected {} to {}", range.least, range.most);
      return std::unexpected(std::move(parsed.error()));
    }
    const auto format = [](std::int64_t value) { return fmt::format("{}", value); };
    if (auto complaint = outside(*parsed, range, format)) return std::unexpected(std::move(*complaint));
    return static_cast<T>(*parsed);
  }
  void size(std::string_view field, std::uint64_t& out, Range<std::uint64_t> range);
  void number(std::string_view field, double& out, Range<double> range);

  void limits(std::string_view field, std::vector<policy::LimitSpec>& out);
  void budgets(std::string_view field, std::vector<policy::BudgetSpec>& out);
  void methods(std::string_view field, std::vector<std::string>& out);
  void concurrency(std::string_view field, std::optional<std::uint32_t>& out);
  /// A name that must exist elsewhere in the file.
  const Node* reference(std::string_view field, Referent referent, std::string& out);

  void complain(const Node& node, std::string_view field, const Complaint& complaint, Show show = Show::text);
  bool expect(const Node& node, Node::Kind kind, std::string_view field);

 private:
  template <class T>
  static std::optional<Complaint> outside(T value, Range<T> range, auto format) {
    if (value >= range.least && value <= range.most) return std::nullopt;
    return Complaint{
        .text = fmt::format("is out of range; expected {} to {}", format(range.least), format(range.most)),
        .hint = value < range.least ? fmt::format("the least is {}", format(range.least))
                                    : fmt::format("the most is {}", format(range.most))};
  }
  void check_names(Names names);

  Reader& reader_;
  const Node* node_;  ///< nullptr: not a mapping; every field is absent
  const Section& section_;
  std::string where_;
  Mark mark_;
  std::set<std::string_view> asked_;
};

/// `${NAME}` by the environment variable's value, `$$` by `$`.
[[nodiscard]] Parsed<std::string> substitute(std::string_view text, const Sources& sources);

// The parts of a file, in the files that their names say.
void read_listen(Reader& reader, const Node& node, Listen& out);
void read_log(Reader& reader, const Node& node, Log& out);
void read_ledger(Reader& reader, const Node& node, Ledger& out);
void read_state(Reader& reader, const Node& node, State& out);
/// A secret beside the fields it belongs to: `field`, or the file that `file_field` names.
void read_secret(Fields& fields, std::string_view field, std::string_view file_field, Secret& out);
void read_inbound(Reader& reader, const Node& node, Inbound& out);
void read_credential(Reader& reader, const Node& node, const std::string& owner, Credential& out);
void read_provider(Reader& reader, const Node& node, Provider& out);
void read_wait(Reader& reader, const Node& node, const std::string& owner, Wait& out);
void read_route_wait(Reader& reader, const Node& node, const std::string& owner, RouteWait& out);
void read_prices(Reader& reader, const Node& node, const std::string& owner, policy::PriceList& out);
void read_route(Reader& reader, const Node& node, Route& out);
void read_team(Reader& reader, const Node& node, Team& out);
void read_consumer(Reader& reader, const Node& node, Consumer& out);
void read_key(Reader& reader, const Node& node, Key& out);

}  // namespace penstock::config
