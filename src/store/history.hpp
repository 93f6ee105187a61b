#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

#include "base/money.hpp"
#include "base/time.hpp"
#include "policy/budget.hpp"
#include "store/shared_state.hpp"

namespace penstock::store {

/// What a subject's attempts have cost.
struct Spent {
  NanoUsd settled{};
  NanoUsd overrun{};
};

/// Attempts that began, counted together. `at` is the latest moment at which one of them may have begun.
struct Started {
  WallTime at{};
  std::int64_t calls = 0;
  std::int64_t tokens = 0;
};

/// The past as the ledger tells it, for a state that begins: budgets and limits go on where they stood.
/// An attempt belongs to the windows of the moment of its reservation. Thread-safe; may read a database.
class History {
 public:
  History() = default;
  History(const History&) = delete;
  History& operator=(const History&) = delete;
  virtual ~History() = default;

  /// Of the attempts reserved in [span.start, span.end); those that are still open count at their estimate.
  [[nodiscard]] virtual Spent spent(SubjectKind kind, std::string_view name,
                                    policy::WindowSpan span) const = 0;
  /// The attempts reserved after `since`, oldest first, in steps of about `step`.
  [[nodiscard]] virtual std::vector<Started> started(SubjectKind kind, std::string_view name, WallTime since,
                                                     nanoseconds step) const = 0;
};

}  // namespace penstock::store
