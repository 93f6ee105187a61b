#include "config/fields.hpp"

#include <algorithm>
#include <filesystem>

namespace penstock::config {

std::string_view to_string(Referent referent) noexcept {
  switch (referent) {
    case Referent::provider: return "provider";
    case Referent::route: return "route";
    case Referent::team: return "team";
    case Referent::consumer: return "consumer";
  }
  return "";
}

std::string Reader::resolve(const std::string& path) const {
  return path.starts_with('/') ? path : folder + path;
}

Place Reader::place(Mark mark) const {
  return {.file = mistakes.file(), .line = mark.line, .column = mark.column};
}

std::optional<std::string> Reader::read_file(const std::string& path, Mark mark, std::string_view what) {
  std::expected<std::string, std::string> content = std::unexpected("no files here");
  if (sources.read_file) content = sources.read_file(path);
  if (content) return std::move(*content);
  mistakes.add(mark, fmt::format("{}: cannot read {}: {}", what, shown(path), content.error()));
  return std::nullopt;
}

Fields::Fields(Reader& reader, const Node& node, const Section& section, std::string where, Names names)
    : reader_(reader),
      node_(&node),
      section_(section),
      where_(std::move(where)),
      mark_(node.key.empty() ? node.mark : node.key_mark) {
  if (node.kind == Node::Kind::null) {
    node_ = nullptr;  // everything in it may be commented out
  } else if (node.kind != Node::Kind::mapping) {
    // The value is not shown: under a credential it is one.
    reader_.mistakes.add(node.mark, fmt::format("{} must be a mapping, not {}", where_, name_of(node.kind)),
                         fmt::format("its fields are {}", list_of(section.fields, " and ")));
    node_ = nullptr;
  } else {
    check_names(names);
  }
}

Fields::~Fields() {
  assert(asked_.size() == section_.fields.size() && "a field of the section was never asked for");
}

void Fields::check_names(Names names) {
  for (const Node& child : node_->children) {
    if (std::ranges::find(section_.fields, child.key) != section_.fields.end()) continue;
    const std::string near = near_miss(child.key, section_.fields);
    const std::string name = names == Names::shown || !near.empty() ? shown(child.key) + " " : "(not shown) ";
    reader_.mistakes.add(
        child.key_mark,
        fmt::format("unknown field {}in {}; expected one of {}", name, where_, list_of(section_.fields)),
        near);
  }
}

const Node* Fields::find(std::string_view field) {
  assert(std::ranges::find(section_.fields, field) != section_.fields.end());
  asked_.insert(field);
  if (node_ == nullptr) return nullptr;
  const auto found = std::ranges::find(node_->children, field, &Node::key);
  return found == node_->children.end() ? nullptr : &*found;
}

const Node* Fields::require(std::string_view field, std::string hint) {
  const Node* node = find(field);
  // A null node stands for an empty mapping; anything else that is no mapping was reported already.
  if (node == nullptr)
    reader_.mistakes.add(mark_, fmt::format("{} has no {}", where_, field), std::move(hint));
  return node;
}

bool Fields::expect(const Node& node, Node::Kind kind, std::string_view field) {
  if (node.kind == kind) return true;
  if (node.kind == Node::Kind::null) {
    reader_.mistakes.add(node.mark, fmt::format("{} has no value", what(field)), "give it one, or remove it");
  } else {
    reader_.mistakes.add(
        node.mark, fmt::format("{} must be {}, not {}", what(field), name_of(kind), name_of(node.kind)));
  }
  return false;
}

const Node* Fields::scalar(std::string_view field) {
  const Node* node = find(field);
  return node != nullptr && expect(*node, Node::Kind::scalar, field) ? node : nullptr;
}

const Node* Fields::mapping(std::string_view field) {
  const Node* node = find(field);
  if (node == nullptr || node->kind == Node::Kind::null) return nullptr;
  return expect(*node, Node::Kind::mapping, field) ? node : nullptr;
}

const Node* Fields::list(std::string_view field) {
  const Node* node = find(field);
  return node != nullptr && expect(*node, Node::Kind::sequence, field) ? node : nullptr;
}

std::span<const Node> Fields::entries(std::string_view field) {
  const Node* node = mapping(field);
  return node == nullptr ? std::span<const Node>() : std::span<const Node>(node->children);
}

void Fields::complain(const Node& node, std::string_view field, const Complaint& complaint, Show show) {
  const std::string text = show == Show::nothing ? "the value (not shown)"
                           : show == Show::url   ? shown(url_without_secrets(node.text))
                                                 : shown(node.text);
  reader_.mistakes.add(node.mark, fmt::format("{}: {} {}", what(field), text, complaint.text),
                       complaint.hint);
}

void Fields::boolean(std::string_view field, bool& out) {
  const Node* node = scalar(field);
  if (node == nullptr) return;
  if (node->quoted && parse_boolean(node->text)) {
    complain(*node, field, {.text = "is text, not a boolean", .hint = "remove the quotes"});
    return;
  }
  parse_into(*node, field, out, parse_boolean);
}

void Fields::text(std::string_view field, std::string& out) {
  value(field, out, [](std::string_view text) -> Parsed<std::string> {
    if (text.empty()) return std::unexpected(Complaint{"is empty", {}});
    if (text.size() > 4096) return std::unexpected(Complaint{"is longer than 4096 bytes", {}});
    return std::string(text);
  });
}

void Fields::file(std::string_view field, std::string& out) {
  text(field, out);
  if (out.empty()) return;
  out = reader_.resolve(out);
  (void)reader_.read_file(out, find(field)->mark, what(field));
}

void Fields::size(std::string_view field, std::uint64_t& out, Range<std::uint64_t> range) {
  value(field, out, [&](std::string_view text) -> Parsed<std::uint64_t> {
    auto parsed = parse_size(text);
    if (!parsed) return parsed;
    if (auto complaint = outside(*parsed, range, format_size)) return std::unexpected(std::move(*complaint));
    return parsed;
  });
}

void Fields::number(std::string_view field, double& out, Range<double> range) {
  value(field, out, [&](std::string_view text) -> Parsed<double> {
    auto parsed = parse_number(text);
    if (!parsed) return parsed;
    const auto format = [](double value) { return fmt::format("{}", value); };
    if (auto complaint = outside(*parsed, range, format)) return std::unexpected(std::move(*complaint));
    return parsed;
  });
}

void Fields::limits(std::string_view field, std::vector<policy::LimitSpec>& out) {
  const Node* node = find(field);
  if (node == nullptr) return;
  std::span<const Node> items(node, 1);  // one limit may stand without a list
  if (node->kind != Node::Kind::scalar) {
    if (!expect(*node, Node::Kind::sequence, field)) return;
    items = node->children;
  }
  for (const Node& item : items) {
    policy::LimitSpec limit;
    if (!expect(item, Node::Kind::scalar, field) || !parse_into(item, field, limit, read_limit)) continue;
    const auto is_same_kind = [&](const policy::LimitSpec& other) {
      return other.unit == limit.unit && other.period == limit.period;
    };
    if (std::ranges::any_of(out, is_same_kind)) {
      complain(item, field,
               {.text = "repeats a limit of the same unit and period", .hint = "keep the lower one"});
      continue;
    }
    out.push_back(limit);
  }
}

namespace {

constexpr std::size_t kMaxReason = 200;  // bytes: it goes into the ledger and into /health/providers

void read_override(Reader& reader, const Node& node, const std::string& owner, policy::BudgetSpec& out) {
  Fields fields(reader, node, kBudgetOverride, "override of " + owner);
  policy::BudgetOverride read;
  (void)fields.require("limit_usd");
  (void)fields.require("until", "expected its end, such as 2026-12-01T00:00:00Z");
  fields.value("limit_usd", read.limit, parse_amount);
  fields.value("until", read.until, parse_expiry);
  fields.value("reason", read.reason, [](std::string_view text) -> Parsed<std::string> {
    if (text.size() > kMaxReason)
      return std::unexpected(Complaint{fmt::format("is longer than {} bytes", kMaxReason), {}});
    return std::string(text);
  });
  out.temporary = std::move(read);
}

}  // namespace

void Fields::budgets(std::string_view field, std::vector<policy::BudgetSpec>& out) {
  const Node* node = list(field);
  if (node == nullptr) return;
  for (std::size_t i = 0; i < node->children.size(); ++i) {
    const Node& item = node->children[i];
    Fields fields(reader_, item, kBudget, fmt::format("budgets[{}] of {}", i, where_));
    policy::BudgetSpec budget;
    const std::size_t mistakes_before = reader_.mistakes.size();
    if (fields.require("window", "expected daily or monthly") != nullptr) {
      fields.choice("window", budget.window,
                    {{"daily", policy::BudgetWindow::daily}, {"monthly", policy::BudgetWindow::monthly}});
    }
    if (fields.require("limit_usd") != nullptr) {
      fields.value("limit_usd", budget.limit, [](std::string_view text) -> Parsed<NanoUsd> {
        auto amount = parse_amount(text);
        if (amount && amount->count == 0) return std::unexpected(Complaint{"must be above 0", {}});
        return amount;
      });
    }
    fields.choice("mode", budget.mode,
                  {{"hard", policy::BudgetMode::hard}, {"warn", policy::BudgetMode::warn}});
    fields.value("time_zone", budget.time_zone, parse_time_zone);
    if (const Node* child = fields.find("override")) read_override(reader_, *child, fields.where(), budget);
    if (reader_.mistakes.size() > mistakes_before) continue;
    const auto is_same_kind = [&](const policy::BudgetSpec& other) {
      return other.window == budget.window && other.mode == budget.mode &&
             other.time_zone == budget.time_zone;
    };
    if (std::ranges::any_of(out, is_same_kind)) {
      reader_.mistakes.add(
          item.mark, fmt::format("{} repeats one of the same window, mode and time zone", fields.where()),
          "keep the lower one");
    }
    out.push_back(std::move(budget));
  }
}

void Fields::methods(std::string_view field, std::vector<std::string>& out) {
  const Node* node = list(field);
  if (node == nullptr) return;
  for (const Node& item : node->children) {
    std::string method;
    if (!expect(item, Node::Kind::scalar, field) || !parse_into(item, field, method, parse_method)) continue;
    if (std::ranges::find(out, method) == out.end()) out.push_back(std::move(method));
  }
}

void Fields::concurrency(std::string_view field, std::optional<std::uint32_t>& out) {
  constexpr Range<std::int64_t> kRange{.least = 1, .most = 1'000'000};
  value(field, out, [&](std::string_view text) -> Parsed<std::optional<std::uint32_t>> {
    const auto parsed = integer_in<std::uint32_t>(text, kRange);
    if (!parsed) return std::unexpected(parsed.error());
    return *parsed;
  });
}

const Node* Fields::reference(std::string_view field, Referent referent, std::string& out) {
  const Node* node = scalar(field);
  if (node == nullptr) return nullptr;
  out = node->text;
  reader_.references.push_back({.referent = referent, .name = out, .what = what(field), .mark = node->mark});
  return node;
}

}  // namespace penstock::config
