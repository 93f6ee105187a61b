#include "gateway/meter/refusal_reader.hpp"

#include <gtest/gtest.h>

#include "policy/property_testing.hpp"

namespace penstock::gateway {
namespace {

using namespace std::chrono_literals;

constexpr std::string_view kOpenAi =
    R"({"error":{"message":"You exceeded your current quota","type":"insufficient_quota","param":null,"code":"insufficient_quota"}})";
constexpr std::string_view kGemini =
    R"({"error":{"code":429,"message":"Quota exceeded","status":"RESOURCE_EXHAUSTED","details":[
    {"@type":"type.googleapis.com/google.rpc.QuotaFailure","violations":[{"quotaMetric":"m","quotaId":"GenerateRequestsPerMinutePerProject"}]},
    {"@type":"type.googleapis.com/google.rpc.Help","links":[{"description":"more"}]},
    {"@type":"type.googleapis.com/google.rpc.RetryInfo","retryDelay":"31.5s"}]}})";

TEST(RefusalReaderTest, AUsedUpAccountIsNoRateLimit) {
  EXPECT_TRUE(read_refusal(kOpenAi).is_quota_exhausted);
  EXPECT_TRUE(
      read_refusal(R"({"type":"error","error":{"type":"enforced_spend_limit_reached"}})").is_quota_exhausted);
  EXPECT_FALSE(read_refusal(R"({"error":{"type":"rate_limit_error","code":"rate_limit_exceeded"}})")
                   .is_quota_exhausted);
  // A caller's text that comes back in the message is no code.
  EXPECT_FALSE(read_refusal(R"({"error":{"message":"\"code\":\"insufficient_quota\""}})").is_quota_exhausted);
}

TEST(RefusalReaderTest, GeminiTellsItsWaitAndWhichQuotaInTheBody) {
  const auto facts = read_refusal(kGemini);
  EXPECT_EQ(facts.retry_after, 31'500ms);
  EXPECT_FALSE(facts.is_daily);
  std::string daily(kGemini);
  daily.replace(daily.find("PerMinute"), 9, "PerDay");
  EXPECT_TRUE(read_refusal(daily).is_daily);
  EXPECT_TRUE(read_refusal("[" + daily + "]").is_daily);
}

// A stranger's bytes: half a text tells nothing, and none does harm.
TEST(RefusalReaderProperty, HalfATextTellsNothing) {
  for (std::size_t size = 0; size + 1 < kGemini.size(); ++size)
    EXPECT_FALSE(read_refusal(kGemini.substr(0, size)).retry_after);
  policy::for_each_seed(20, [](policy::Random& random) {
    for (int i = 0; i < 200; ++i) {
      std::string text(random.chance(50) ? kGemini : kOpenAi);
      for (auto changes = random.between(1, 5); changes > 0; --changes)
        text[static_cast<std::size_t>(random.between(0, static_cast<std::int64_t>(text.size()) - 1))] =
            static_cast<char>(random.between(0, 255));
      const auto facts = read_refusal(text);
      if (facts.retry_after) ASSERT_TRUE(*facts.retry_after >= 0s && *facts.retry_after <= 24h);
    }
  });
}

}  // namespace
}  // namespace penstock::gateway
