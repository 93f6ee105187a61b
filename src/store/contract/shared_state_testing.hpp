#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include <boost/asio/co_spawn.hpp>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "policy/property_testing.hpp"
#include "store/shared_state.hpp"

/// What the contract tests of SharedState share.
namespace penstock::store::contract {

using namespace std::chrono_literals;
using CircuitOutcome = policy::CircuitBreaker::Outcome;
using CircuitState = policy::CircuitBreaker::State;

/// A backend under test: its name, and how an empty state of it is made.
struct StateBackend {
  std::string name;
  std::function<std::unique_ptr<SharedState>()> make;
};
inline void PrintTo(const StateBackend& backend, std::ostream* out) { *out << backend.name; }

/// Midnight, so that a test of a few hours stays within one day's window.
inline constexpr WallTime kDay{std::chrono::sys_days{std::chrono::year{2026} / 3 / 10}};

/// Runs a state's coroutines to their end on the calling thread.
class Caller {
 public:
  explicit Caller(SharedState& state) : state_(&state) {}

  std::expected<void, Refusal> reserve(const ReservationRequest& request) {
    std::optional<std::expected<void, Refusal>> answer;
    boost::asio::co_spawn(*io_, state_->reserve(request),
                          [&](std::exception_ptr thrown, std::expected<void, Refusal> got) {
                            EXPECT_EQ(thrown, nullptr);
                            answer = got;
                          });
    io_->restart();
    io_->run();
    EXPECT_TRUE(answer.has_value());
    return answer.value_or(std::unexpected(Refusal{}));
  }

 private:
  SharedState* state_;
  std::unique_ptr<boost::asio::io_context> io_ = std::make_unique<boost::asio::io_context>(1);
};

inline policy::BudgetSpec daily(std::int64_t limit, policy::BudgetMode mode = policy::BudgetMode::hard) {
  return {.window = policy::BudgetWindow::daily, .limit = {limit}, .mode = mode, .time_zone = "UTC"};
}
inline policy::BudgetSpec monthly(std::int64_t limit, policy::BudgetMode mode = policy::BudgetMode::hard) {
  return {.window = policy::BudgetWindow::monthly, .limit = {limit}, .mode = mode, .time_zone = "UTC"};
}
inline policy::LimitSpec calls(std::int64_t amount, nanoseconds period) {
  return {amount, period, policy::LimitUnit::calls};
}
inline policy::LimitSpec tokens(std::int64_t amount, nanoseconds period) {
  return {amount, period, policy::LimitUnit::tokens};
}

inline SubjectSpec subject(SubjectKind kind, std::string name) {
  return {.kind = kind,
          .name = std::move(name),
          .limits = {},
          .concurrency = {},
          .budgets = {},
          .circuit = {},
          .retry = {}};
}
inline SubjectSpec with_budgets(SubjectKind kind, std::string name, std::vector<policy::BudgetSpec> budgets) {
  SubjectSpec spec = subject(kind, std::move(name));
  spec.budgets = std::move(budgets);
  return spec;
}
inline SubjectSpec with_limits(SubjectKind kind, std::string name, std::vector<policy::LimitSpec> limits) {
  SubjectSpec spec = subject(kind, std::move(name));
  spec.limits = std::move(limits);
  return spec;
}

/// All that can be seen of a subject, as one line: what compares equal is equal.
inline std::string line_of(const SubjectView& view) {
  std::string line =
      std::string(to_string(view.kind)) + " " + view.name + " in_flight=" + std::to_string(view.in_flight);
  for (const BudgetView& budget : view.budgets)
    line += " " + std::string(to_string(budget.spec.window)) + "=" + std::to_string(budget.settled.count) +
            "+" + std::to_string(budget.held.count) + "!" + std::to_string(budget.overrun.count) + "/" +
            std::to_string(budget.spec.limit.count);
  for (const LimitView& limit : view.limits)
    line += " [" + to_string(limit.spec) + "]=" + std::to_string(limit.used) + "," +
            std::to_string(limit.remaining);
  line += " circuit=" + std::string(to_string(view.circuit)) + "," + std::to_string(view.circuit_failures);
  return line + " starts=" + std::to_string(view.starts_this_minute) + "," +
         std::to_string(view.starts_today);
}

/// A state, a clock and short names.
class SharedStateContract : public testing::TestWithParam<StateBackend> {
 protected:
  std::unique_ptr<SharedState> state_ = GetParam().make();
  Caller caller_{*state_};
  Now now_{MonotonicTime{1'000h}, kDay};
  std::uint64_t last_id_ = 0;

  /// A new and empty state.
  void start_anew() {
    state_ = GetParam().make();
    caller_ = Caller(*state_);
    now_ = {MonotonicTime{1'000h}, kDay};
    last_id_ = 0;
  }
  void advance(nanoseconds time) { now_ = {now_.mono + time, now_.wall + time}; }
  AttemptId next_id() { return {7, ++last_id_}; }
  std::vector<SubjectId> declare(const std::vector<SubjectSpec>& specs) {
    return state_->declare(specs, now_);
  }

  struct Ask {
    std::int64_t estimate = 0;
    std::int64_t tokens = 0;
    nanoseconds lease = 1min;
    bool is_retry = false;
  };
  std::expected<void, Refusal> ask(AttemptId id, const std::vector<SubjectId>& subjects, Ask what) {
    return caller_.reserve({.id = id,
                            .subjects = subjects,
                            .estimate = {what.estimate},
                            .tokens = what.tokens,
                            .lease = what.lease,
                            .is_retry = what.is_retry,
                            .now = now_});
  }
  /// A reservation that must succeed.
  AttemptId hold(const std::vector<SubjectId>& subjects, Ask what) {
    const AttemptId id = next_id();
    const auto held = ask(id, subjects, what);
    EXPECT_TRUE(held.has_value()) << (held ? "" : info(held.error().reason).name);
    return id;
  }
  /// One that must be refused.
  Refusal refused(const std::vector<SubjectId>& subjects, Ask what) {
    const auto held = ask(next_id(), subjects, what);
    EXPECT_FALSE(held.has_value());
    return held ? Refusal{} : held.error();
  }
  bool is_admitted(const std::vector<SubjectId>& subjects, Ask what) {
    return ask(next_id(), subjects, what).has_value();
  }

  void settle(AttemptId id, Ending ending, std::int64_t cost = 0, std::int64_t used_tokens = -1,
              CircuitOutcome outcome = CircuitOutcome::success) {
    state_->settle({.id = id,
                    .ending = ending,
                    .cost = {cost},
                    .tokens = used_tokens,
                    .outcome = outcome,
                    .first_byte = {},
                    .now = now_});
  }

  SubjectView view(SubjectId id) {
    const std::vector<SubjectId> only{id};
    const auto views = state_->view(now_, only);
    EXPECT_EQ(views.size(), 1U);
    return views.empty() ? SubjectView{} : views.front();
  }
  std::vector<std::string> lines() {
    std::vector<std::string> out;
    for (const SubjectView& each : state_->view(now_, {})) out.push_back(line_of(each));
    return out;
  }
  /// "settled+held!overrun" of a subject's budget.
  std::string budget(SubjectId id, std::size_t index = 0) {
    const auto budgets = view(id).budgets;
    if (index >= budgets.size()) return "none";
    return std::to_string(budgets[index].settled.count) + "+" + std::to_string(budgets[index].held.count) +
           "!" + std::to_string(budgets[index].overrun.count);
  }
};

}  // namespace penstock::store::contract
