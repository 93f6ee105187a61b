#include "store/budget_changes.hpp"

#include <algorithm>
#include <map>

namespace penstock::store {
namespace {

using policy::BudgetSpec;

/// Takes the pair of each of `after` out of `before`: the same one first, then of the same zone, mode and
/// window, and so on.
std::vector<const BudgetSpec*> pairs_of(std::vector<const BudgetSpec*>& before,
                                        const std::vector<BudgetSpec>& after) {
  std::vector<const BudgetSpec*> pairs(after.size(), nullptr);
  for (int likeness = 4; likeness > 0; --likeness) {
    for (std::size_t i = 0; i < after.size(); ++i) {
      const auto is_like = [&](const BudgetSpec* other) {
        const BudgetSpec& spec = after[i];
        return (likeness < 4 || *other == spec) && (likeness < 3 || other->mode == spec.mode) &&
               (likeness < 2 || other->time_zone == spec.time_zone) && other->window == spec.window;
      };
      const auto found = pairs[i] != nullptr ? before.end() : std::ranges::find_if(before, is_like);
      if (found == before.end()) continue;
      pairs[i] = *found;
      before.erase(found);
    }
  }
  return pairs;
}

}  // namespace

std::vector<BudgetChange> budget_changes(std::span<const SubjectSpec> before,
                                         std::span<const SubjectSpec> after, WallTime at,
                                         std::string_view who) {
  std::vector<BudgetChange> changes;
  const auto tell = [&](const SubjectRef& subject, std::string was, std::string is) {
    changes.push_back({.at = at,
                       .subject = subject,
                       .before = std::move(was),
                       .after = std::move(is),
                       .who = std::string(who)});
  };
  std::map<SubjectRef, std::vector<const BudgetSpec*>> left;
  for (const SubjectSpec& spec : before)
    for (const BudgetSpec& budget : spec.budgets) left[{spec.kind, spec.name}].push_back(&budget);
  for (const SubjectSpec& spec : after) {
    const SubjectRef subject{spec.kind, spec.name};
    auto& old = left[subject];
    const auto pairs = pairs_of(old, spec.budgets);
    for (std::size_t i = 0; i < pairs.size(); ++i) {
      if (pairs[i] != nullptr && *pairs[i] == spec.budgets[i]) continue;
      tell(subject, pairs[i] == nullptr ? "" : to_string(*pairs[i]), to_string(spec.budgets[i]));
    }
    for (const BudgetSpec* gone : old) tell(subject, to_string(*gone), "");
    left.erase(subject);
  }
  for (const auto& [subject, budgets] : left)
    for (const BudgetSpec* gone : budgets) tell(subject, to_string(*gone), "");
  return changes;
}

}  // namespace penstock::store
