// Those who call: routes, teams, consumers, keys.
#include <algorithm>

#include "config/fields.hpp"
#include "config/key.hpp"

namespace penstock::config {

void read_route(Reader& reader, const Node& node, Route& out) {
  Fields fields(reader, node, kRoute, fmt::format("route {}", shown(out.name)));
  fields.choice("strategy", out.strategy, {{"ordered", Strategy::ordered}, {"weighted", Strategy::weighted}});
  if (fields.require("targets", "expected a list such as [{provider: openai}]") != nullptr) {
    const Node* list = fields.list("targets");
    for (std::size_t i = 0; list != nullptr && i < list->children.size(); ++i) {
      const Node& item = list->children[i];
      Target target;
      target.place = reader.place(item.mark);
      Fields inner(reader, item, kTarget, fmt::format("targets[{}] of {}", i, fields.where()));
      const Node* provider = nullptr;
      if (inner.require("provider") != nullptr)
        provider = inner.reference("provider", Referent::provider, target.provider);
      inner.integer("weight", target.weight, {.least = 1, .most = 1'000});
      if (provider != nullptr &&
          std::ranges::find(out.targets, target.provider, &Target::provider) != out.targets.end()) {
        inner.complain(
            *provider, "provider",
            {.text = "is already a target of this route", .hint = "remove one, or change its weight"});
      }
      out.targets.push_back(std::move(target));
    }
    if (list != nullptr && list->children.empty()) {
      reader.mistakes.add(list->mark, fmt::format("{} is empty", fields.what("targets")),
                          "expected at least one provider");
    }
  }
  fields.boolean("fallback", out.fallback);
  if (const Node* child = fields.find("wait")) read_route_wait(reader, *child, fields.where(), out.wait);
  fields.limits("limits", out.limits);
  fields.concurrency("concurrency", out.concurrency);
  fields.budgets("budgets", out.budgets);
}

void read_team(Reader& reader, const Node& node, Team& out) {
  Fields fields(reader, node, kTeam, fmt::format("team {}", shown(out.name)));
  fields.limits("limits", out.limits);
  fields.concurrency("concurrency", out.concurrency);
  fields.budgets("budgets", out.budgets);
}

void read_consumer(Reader& reader, const Node& node, Consumer& out) {
  Fields fields(reader, node, kConsumer, fmt::format("consumer {}", shown(out.name)));
  fields.reference("team", Referent::team, out.team);
  fields.limits("limits", out.limits);
  fields.concurrency("concurrency", out.concurrency);
  fields.budgets("budgets", out.budgets);
  const Node* list = fields.list("allow");
  if (list == nullptr) return;
  if (list->children.empty()) {
    // An empty list in Consumer means everything: the opposite of what it says.
    reader.mistakes.add(list->mark, fmt::format("{} is empty", fields.what("allow")),
                        "remove it to allow everything");
  }
  for (const Node& item : list->children) {
    if (!fields.expect(item, Node::Kind::scalar, "allow")) continue;
    const std::size_t colon = item.text.find(':');
    const std::string_view kind = std::string_view(item.text).substr(0, colon);
    if (colon == std::string::npos || (kind != "provider" && kind != "route")) {
      constexpr std::array<std::string_view, 2> kKinds{"provider", "route"};
      const std::string_view near = colon == std::string::npos ? "" : nearest(kind, kKinds);
      fields.complain(
          item, "allow",
          {.text = "is not known; expected provider:NAME or route:NAME",
           .hint = near.empty() ? ""
                                : fmt::format("did you mean {}?",
                                              shown(fmt::format("{}{}", near, item.text.substr(colon))))});
      continue;
    }
    reader.references.push_back({.referent = kind == "route" ? Referent::route : Referent::provider,
                                 .name = item.text.substr(colon + 1),
                                 .what = fields.what("allow"),
                                 .mark = item.mark});
    out.allow.push_back(item.text);
  }
}

void read_key(Reader& reader, const Node& node, Key& out) {
  Fields fields(reader, node, kKey, fmt::format("key {}", shown(out.name)));
  if (fields.require("consumer") != nullptr) fields.reference("consumer", Referent::consumer, out.consumer);
  if (fields.require("hash", "make one with: penstock key new") != nullptr) {
    // Not shown: whoever puts a key here by mistake must not find it in the log.
    fields.value(
        "hash", out.sha256,
        [](std::string_view text) -> Parsed<KeyHash> {
          const auto hash = parse_hash(text);
          if (hash) return *hash;
          if (text.starts_with("pk_"))
            return std::unexpected(
                Complaint{"is a key itself; expected its hash", "make one with: penstock key new"});
          return std::unexpected(Complaint{"is not a hash; expected sha256: and 64 hexadecimal digits",
                                           "make one with: penstock key new"});
        },
        Show::nothing);
  }
  fields.value("expires", out.expires, [](std::string_view text) -> Parsed<std::optional<WallTime>> {
    const auto time = parse_expiry(text);
    if (!time) return std::unexpected(time.error());
    return *time;
  });
  fields.boolean("revoked", out.revoked);
  fields.limits("limits", out.limits);
  fields.budgets("budgets", out.budgets);
}

}  // namespace penstock::config
