#include "gateway/problem.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <simdjson.h>

#include "policy/property_testing.hpp"

namespace penstock::gateway {
namespace {

using testing::HasSubstr;
using testing::Not;

Error error_of(Reason reason, std::string message, std::optional<seconds> retry_after = {}) {
  return {
      .reason = reason, .status = 0, .message = std::move(message), .detail = {}, .retry_after = retry_after};
}

std::string fields_of(const Error& error) {
  std::string head;
  append_problem_fields(error, head);
  return head;
}

TEST(ProblemTest, HoldsAProblemAndAnOpenAiError) {
  const Error error = error_of(Reason::policy_budget_exceeded, "No room.", seconds{90});
  simdjson::dom::parser parser;
  const auto body = simdjson::padded_string(problem_body(error, 402));
  const simdjson::dom::element problem = parser.parse(body).value();
  EXPECT_EQ(std::string_view(problem["type"]),
            "https://iana.org/assignments/http-problem-types#quota-exceeded");
  EXPECT_EQ(std::string_view(problem["title"]), info(error.reason).title);
  EXPECT_EQ(std::int64_t(problem["status"]), 402);
  EXPECT_EQ(std::string_view(problem["detail"]), "No room.");
  EXPECT_EQ(std::string_view(problem["reason"]), "policy_budget_exceeded");
  EXPECT_EQ(std::int64_t(problem["retry_after"]), 90);
  EXPECT_EQ(std::string_view(problem["error"]["message"]), "No room.");
  EXPECT_EQ(std::string_view(problem["error"]["type"]), info(error.reason).error_type);
  EXPECT_EQ(std::string_view(problem["error"]["code"]), "policy_budget_exceeded");
  EXPECT_TRUE(problem["error"]["param"].is_null());
}

// Whatever text comes, the body is JSON and says that text.
TEST(ProblemTest, HostileTextStaysText) {
  for (const std::string& text :
       {std::string("\"},{\"a\":\""), std::string("\\"), std::string("\\u0000\\"),
        std::string("line\r\nend\ttab"), std::string("\0nul", 4), std::string("</script>"),
        std::string("\x1b[31m"), std::string("gr\xC3\xBC\xC3\x9F")}) {
    simdjson::dom::parser parser;
    const auto body = simdjson::padded_string(problem_body(error_of(Reason::caller_invalid, text), 400));
    const simdjson::dom::element problem = parser.parse(body).value();
    EXPECT_EQ(std::string_view(problem["detail"]), text);
    EXPECT_EQ(std::string_view(problem["error"]["message"]), text);
  }
}

TEST(ProblemTest, AnyBytesMakeValidJson) {
  policy::for_each_seed(200, [](policy::Random& random) {
    std::string text;
    for (std::int64_t left = random.between(0, 60); left > 0; --left)
      text.push_back(
          static_cast<char>(random.chance(50) ? random.between(0, 255) : random.between(0x80, 0xFF)));
    simdjson::dom::parser parser;
    const auto body = simdjson::padded_string(problem_body(error_of(Reason::caller_invalid, text), 400));
    EXPECT_EQ(parser.parse(body).error(), simdjson::SUCCESS) << testing::PrintToString(text);
  });
}

TEST(ProblemTest, EveryReasonMakesValidJsonAndNamesItself) {
  for (std::size_t i = 0; i < kReasonCount; ++i) {
    const Error error = error_of(static_cast<Reason>(i), "m");
    simdjson::dom::parser parser;
    const auto body = simdjson::padded_string(problem_body(error, status_of(error)));
    EXPECT_EQ(std::string_view(parser.parse(body).value()["reason"]), info(error.reason).name);
    EXPECT_THAT(fields_of(error),
                HasSubstr("Penstock-Reason: " + std::string(info(error.reason).name) + "\r\n"));
  }
}

// What is for operators never reaches a caller.
TEST(ProblemTest, TheDetailForOperatorsStaysHere) {
  Error error = error_of(Reason::gateway_error, "m");
  error.detail = "canary";
  EXPECT_THAT(problem_body(error, 500), Not(HasSubstr("canary")));
  EXPECT_THAT(fields_of(error), Not(HasSubstr("canary")));
}

TEST(ProblemTest, RetryAfterWhereWaitingHelpsElseAStop) {
  const std::string waits = fields_of(error_of(Reason::policy_rate_limited, "m", seconds{7}));
  EXPECT_THAT(waits, HasSubstr("Retry-After: 7\r\n"));
  EXPECT_THAT(waits, Not(HasSubstr("x-should-retry")));
  // The same reason without a time: it will never fit.
  EXPECT_THAT(fields_of(error_of(Reason::policy_rate_limited, "m")), HasSubstr("x-should-retry: false\r\n"));
  EXPECT_THAT(fields_of(error_of(Reason::caller_unauthenticated, "m")),
              HasSubstr("x-should-retry: false\r\n"));
  EXPECT_THAT(fields_of(error_of(Reason::caller_invalid, "m")),
              HasSubstr("Content-Type: application/problem+json\r\n"));
}

TEST(ProblemTest, AnErrorsOwnStatusComesFirst) {
  Error error = error_of(Reason::caller_invalid, "m");
  EXPECT_EQ(status_of(error), info(Reason::caller_invalid).status);
  error.status = 413;
  EXPECT_EQ(status_of(error), 413);
}

}  // namespace
}  // namespace penstock::gateway
