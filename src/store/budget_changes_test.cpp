#include "store/budget_changes.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace penstock::store {
namespace {

using policy::BudgetMode;
using policy::BudgetSpec;
using policy::BudgetWindow;
using testing::ElementsAre;
using testing::IsEmpty;

BudgetSpec budget(std::int64_t usd, BudgetWindow window = BudgetWindow::daily,
                  BudgetMode mode = BudgetMode::hard, std::string zone = "UTC") {
  return {.window = window, .limit = {usd * kNanoPerUsd}, .mode = mode, .time_zone = std::move(zone)};
}

SubjectSpec subject(std::string name, std::vector<BudgetSpec> budgets,
                    SubjectKind kind = SubjectKind::provider) {
  SubjectSpec spec;
  spec.kind = kind;
  spec.name = std::move(name);
  spec.budgets = std::move(budgets);
  return spec;
}

std::vector<std::string> changes(const std::vector<SubjectSpec>& before,
                                 const std::vector<SubjectSpec>& after) {
  std::vector<std::string> lines;
  for (const BudgetChange& each : budget_changes(before, after, WallTime{seconds{5}}, "configuration file")) {
    EXPECT_EQ(each.at, WallTime{seconds{5}});
    EXPECT_EQ(each.who, "configuration file");
    lines.push_back(std::string(to_string(each.subject.kind)) + " " + each.subject.name + ": " + each.before +
                    " -> " + each.after);
  }
  return lines;
}

TEST(BudgetChanges, TellWhatIsNewChangedAndGone) {
  EXPECT_THAT(changes({}, {subject("p", {budget(20)})}),
              ElementsAre("provider p:  -> 20 USD daily hard UTC"));
  EXPECT_THAT(changes({subject("p", {budget(20)})}, {subject("p", {budget(25)})}),
              ElementsAre("provider p: 20 USD daily hard UTC -> 25 USD daily hard UTC"));
  EXPECT_THAT(changes({subject("p", {budget(20)})}, {subject("p", {})}),
              ElementsAre("provider p: 20 USD daily hard UTC -> "));
  EXPECT_THAT(changes({subject("p", {budget(20)})}, {}),
              ElementsAre("provider p: 20 USD daily hard UTC -> "));
  EXPECT_THAT(changes({subject("p", {budget(20)})}, {subject("p", {budget(20)}, SubjectKind::team)}),
              ElementsAre("team p:  -> 20 USD daily hard UTC", "provider p: 20 USD daily hard UTC -> "));
}

TEST(BudgetChanges, SaySomethingOnlyOfWhatChanged) {
  const SubjectSpec one = subject("p", {budget(20), budget(15, BudgetWindow::daily, BudgetMode::warn)});
  const SubjectSpec other = subject("q", {budget(300, BudgetWindow::monthly)});
  EXPECT_THAT(changes({one, other}, {other, one}), IsEmpty());
  SubjectSpec swapped = one;
  std::swap(swapped.budgets[0], swapped.budgets[1]);
  EXPECT_THAT(changes({one}, {swapped}), IsEmpty());
  swapped.limits = {{5, seconds{1}, policy::LimitUnit::calls}};
  EXPECT_THAT(changes({one}, {swapped}), IsEmpty());
}

// A budget is paired with the one that it resembles most, so that a change reads as one.
TEST(BudgetChanges, PairWhatBelongsTogether) {
  EXPECT_THAT(changes({subject("p", {budget(20), budget(15, BudgetWindow::daily, BudgetMode::warn)})},
                      {subject("p", {budget(16, BudgetWindow::daily, BudgetMode::warn), budget(20)})}),
              ElementsAre("provider p: 15 USD daily warn UTC -> 16 USD daily warn UTC"));
  EXPECT_THAT(changes({subject("p", {budget(20)})},
                      {subject("p", {budget(20, BudgetWindow::daily, BudgetMode::warn, "Asia/Tokyo")})}),
              ElementsAre("provider p: 20 USD daily hard UTC -> 20 USD daily warn Asia/Tokyo"));
  EXPECT_THAT(
      changes({subject("p", {budget(20)})}, {subject("p", {budget(20, BudgetWindow::monthly)})}),
      ElementsAre("provider p:  -> 20 USD monthly hard UTC", "provider p: 20 USD daily hard UTC -> "));
}

TEST(BudgetChanges, TellOverrides) {
  BudgetSpec raised = budget(20);
  raised.temporary = {.limit = {50 * kNanoPerUsd}, .until = WallTime{seconds{86'400}}, .reason = "launch"};
  EXPECT_THAT(changes({subject("p", {budget(20)})}, {subject("p", {raised})}),
              ElementsAre("provider p: 20 USD daily hard UTC -> 20 USD daily hard UTC, 50 USD until "
                          "1970-01-02T00:00:00Z (launch)"));
}

}  // namespace
}  // namespace penstock::store
