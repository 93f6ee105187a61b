#pragma once

#include <span>
#include <string_view>
#include <vector>

#include "store/ledger_database.hpp"

namespace penstock::store {

/// What a new configuration changes in budgets, in words, for the ledger. Subjects are the same by kind and
/// name; a budget goes on as the one of the same window that it resembles most. In the order of `after`, what
/// is gone at the end. `who` as in BudgetChange.
[[nodiscard]] std::vector<BudgetChange> budget_changes(std::span<const SubjectSpec> before,
                                                       std::span<const SubjectSpec> after, WallTime at,
                                                       std::string_view who);

}  // namespace penstock::store
