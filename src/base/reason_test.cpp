#include "base/reason.hpp"

#include <fstream>
#include <set>
#include <sstream>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "base/result.hpp"

namespace penstock {
namespace {

/// One line of the contract: `  name: {status: [429, 402], retry: "no", title: "…", error_type: …}`.
struct ContractReason {
  std::string name;
  int status = 0;
  std::string retry;
  std::string title;
  std::string error_type;
};

/// What stands between `before` and `after`; the whole line when it is not of that shape, which then equals
/// nothing.
std::string between(const std::string& line, const std::string& before, const std::string& after) {
  const auto from = line.find(before);
  if (from == std::string::npos) return line;
  const auto start = from + before.size();
  const auto to = line.find(after, start);
  return to == std::string::npos ? line : line.substr(start, to - start);
}

// A scan by lines, so that base needs no YAML library.
std::vector<ContractReason> read_contract() {
  std::ifstream file(PENSTOCK_SOURCE_DIR "/contracts/reasons.yaml");
  std::vector<ContractReason> reasons;
  bool in_reasons = false;
  for (std::string line; std::getline(file, line);) {
    if (line.empty() || line.starts_with('#')) continue;
    if (line == "reasons:") {
      in_reasons = true;
    } else if (in_reasons && line.starts_with("  ")) {
      ContractReason reason{.name = between(line, "  ", ": {"),
                            .retry = between(line, "retry: \"", "\""),
                            .title = between(line, "title: \"", "\""),
                            .error_type = between(line, "error_type: ", "}")};
      std::istringstream(between(line, "status: [", "]")) >> reason.status;
      reasons.push_back(reason);
    } else {
      ADD_FAILURE() << "cannot read: " << line;
    }
  }
  return reasons;
}

TEST(Reason, IsTheContracts) {
  const auto contract = read_contract();
  ASSERT_EQ(contract.size(), kReasonCount);
  for (std::size_t i = 0; i < kReasonCount; ++i) {
    const ReasonInfo& mine = info(static_cast<Reason>(i));
    EXPECT_EQ(mine.name, contract[i].name);
    EXPECT_EQ(mine.status, contract[i].status) << mine.name;
    EXPECT_EQ(mine.retry == RetryAdvice::after ? "after" : "no", contract[i].retry) << mine.name;
    EXPECT_EQ(mine.title, contract[i].title) << mine.name;
    EXPECT_EQ(mine.error_type, contract[i].error_type) << mine.name;
  }
}

// The enum's order and the table's must not drift apart: the name of each value, spelled here once more.
TEST(Reason, ValuesHaveTheirOwnNames) {
  EXPECT_EQ(info(Reason::caller_unauthenticated).name, "caller_unauthenticated");
  EXPECT_EQ(info(Reason::caller_forbidden).name, "caller_forbidden");
  EXPECT_EQ(info(Reason::caller_rate_limited).name, "caller_rate_limited");
  EXPECT_EQ(info(Reason::caller_invalid).name, "caller_invalid");
  EXPECT_EQ(info(Reason::caller_cancelled).name, "caller_cancelled");
  EXPECT_EQ(info(Reason::policy_budget_exceeded).name, "policy_budget_exceeded");
  EXPECT_EQ(info(Reason::policy_rate_limited).name, "policy_rate_limited");
  EXPECT_EQ(info(Reason::policy_queue_full).name, "policy_queue_full");
  EXPECT_EQ(info(Reason::policy_deadline_exceeded).name, "policy_deadline_exceeded");
  EXPECT_EQ(info(Reason::policy_circuit_open).name, "policy_circuit_open");
  EXPECT_EQ(info(Reason::policy_state_unavailable).name, "policy_state_unavailable");
  EXPECT_EQ(info(Reason::provider_unreachable).name, "provider_unreachable");
  EXPECT_EQ(info(Reason::provider_timeout).name, "provider_timeout");
  EXPECT_EQ(info(Reason::provider_rate_limited).name, "provider_rate_limited");
  EXPECT_EQ(info(Reason::provider_quota_exhausted).name, "provider_quota_exhausted");
  EXPECT_EQ(info(Reason::provider_credential_rejected).name, "provider_credential_rejected");
  EXPECT_EQ(info(Reason::provider_error).name, "provider_error");
  EXPECT_EQ(info(Reason::provider_invalid_response).name, "provider_invalid_response");
  EXPECT_EQ(info(Reason::gateway_overloaded).name, "gateway_overloaded");
  EXPECT_EQ(info(Reason::gateway_error).name, "gateway_error");
  EXPECT_EQ(static_cast<std::size_t>(Reason::gateway_error) + 1, kReasonCount);
}

TEST(Reason, IsFoundByItsName) {
  std::set<std::string_view> names;
  for (std::size_t i = 0; i < kReasonCount; ++i) {
    const auto reason = static_cast<Reason>(i);
    EXPECT_EQ(reason_from_name(info(reason).name), reason);
    names.insert(info(reason).name);
  }
  EXPECT_EQ(names.size(), kReasonCount);
  for (const char* unknown : {"", "gateway", "GATEWAY_ERROR", "gateway_error "})
    EXPECT_EQ(reason_from_name(unknown), std::nullopt) << unknown;
}

TEST(Reason, FaultIsTheNamesFirstWord) {
  for (std::size_t i = 0; i < kReasonCount; ++i) {
    const auto reason = static_cast<Reason>(i);
    const std::string_view name = info(reason).name;
    const Fault expected = name.starts_with("caller_")     ? Fault::caller
                           : name.starts_with("policy_")   ? Fault::policy
                           : name.starts_with("provider_") ? Fault::provider
                                                           : Fault::gateway;
    EXPECT_EQ(fault_of(reason), expected) << name;
  }
}

// Statuses say whose turn it is: 4xx the caller's (429 and 499 included), 5xx ours or the provider's.
TEST(Reason, CallersFaultsAre4xxAndGatewaysAre5xx) {
  for (std::size_t i = 0; i < kReasonCount; ++i) {
    const auto reason = static_cast<Reason>(i);
    if (fault_of(reason) == Fault::caller) {
      EXPECT_EQ(info(reason).status / 100, 4) << info(reason).name;
    }
    if (fault_of(reason) == Fault::gateway) {
      EXPECT_EQ(info(reason).status / 100, 5) << info(reason).name;
    }
  }
}

TEST(Refuse, MakesAnErrorWithItsReason) {
  const Result<int> result = refuse(Reason::policy_circuit_open, "for the caller", "for operators");
  ASSERT_FALSE(result.has_value());
  EXPECT_EQ(result.error().reason, Reason::policy_circuit_open);
  EXPECT_EQ(result.error().status, 0);
  EXPECT_EQ(result.error().message, "for the caller");
  EXPECT_EQ(result.error().detail, "for operators");
  EXPECT_FALSE(result.error().retry_after.has_value());
}

}  // namespace
}  // namespace penstock
