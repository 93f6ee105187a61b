#include "app/ledger_report.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace penstock::app {
namespace {

using namespace std::chrono_literals;

constexpr WallTime kNoon{std::chrono::sys_days{std::chrono::year{2026} / 11 / 24} + 12h + 34min + 56s + 7ms};

/// Tells what it was given, once per visit.
class FakeDatabase final : public store::LedgerDatabase {
 public:
  std::vector<store::CallRecord> calls;
  std::vector<store::AttemptEntry> attempts;

  Result<void> for_each_call(WallTime, WallTime,
                             const std::function<bool(const store::CallRecord&)>& visit) override {
    for (const auto& call : calls)
      if (!visit(call)) break;
    return {};
  }
  Result<void> for_each_attempt(WallTime, WallTime,
                                const std::function<bool(const store::AttemptEntry&)>& visit) override {
    for (const auto& attempt : attempts)
      if (!visit(attempt)) break;
    return {};
  }
  Result<void> open() override { return {}; }
  Result<std::vector<store::JournalPosition>> positions() override { return {}; }
  Result<std::vector<store::AttemptEntry>> open_attempts() override { return {}; }
  Result<void> apply(const store::LedgerBatch&) override { return {}; }
  Result<std::vector<store::CallRecord>> recent_calls(std::size_t) override { return {}; }
  Result<NanoUsd> total_cost() override { return {}; }
  Result<std::vector<store::Balance>> balances(WallTime, WallTime) override { return {}; }
  Result<store::LedgerAudit> audit() override { return {}; }
  Result<std::int64_t> forget_before(WallTime) override { return {}; }
  store::Spent spent(store::SubjectKind, std::string_view, policy::WindowSpan) const override { return {}; }
  std::vector<store::Started> started(store::SubjectKind, std::string_view, WallTime,
                                      nanoseconds) const override {
    return {};
  }
};

store::CallRecord call_with(std::string tag) {
  store::CallRecord call{.id = {1, 2},
                         .at = kNoon,
                         .route = Name("chat"),
                         .consumer = Name("alice"),
                         .team = {},
                         .key = Name("alice-1"),
                         .model = Name("gpt-4o-mini"),
                         .tag = std::move(tag),
                         .status = 200,
                         .reason = {},
                         .cost = {1'500'000'001},
                         .cost_estimated = true,
                         .total = 12'345us,
                         .attempts = {}};
  call.attempts.push_back({.id = {1, 3},
                           .provider = Name("llm"),
                           .endpoint = Name("other"),
                           .estimate = {},
                           .cost = {},
                           .ending = store::Ending::actual,
                           .status = 200,
                           .reason = {}});
  return call;
}

std::string exported(FakeDatabase& database, ExportWhat what, ExportFormat format) {
  std::string out;
  EXPECT_TRUE(export_ledger(database, what, format, {}, {}, [&](std::string_view text) {
    out += text;
    return true;
  }));
  return out;
}

TEST(LedgerReport, CsvHasNamesFirstAndExactAmounts) {
  FakeDatabase database;
  database.calls = {call_with("a,b \"c\"")};
  EXPECT_EQ(
      exported(database, ExportWhat::calls, ExportFormat::csv),
      "call,at,consumer,team,key,route,provider,endpoint,model,tag,status,reason,cost_usd,cost_estimated,"
      "duration_ms,attempts\r\n"
      "00000000000000010000000000000002,2026-11-24T12:34:56.007Z,alice,,alice-1,chat,llm,other,gpt-4o-mini,"
      "\"a,b \"\"c\"\"\",200,,1.500000001,true,12.345,1\r\n");
}

// A tag is a caller's text; a spreadsheet must not run it.
TEST(LedgerReport, CsvHoldsNoFormula) {
  FakeDatabase database;
  database.calls = {call_with("=1+1")};
  EXPECT_THAT(exported(database, ExportWhat::calls, ExportFormat::csv), testing::HasSubstr(",\"'=1+1\","));
}

TEST(LedgerReport, NdjsonIsOneObjectALine) {
  FakeDatabase database;
  database.attempts = {{.id = {1, 3},
                        .reserved_at = kNoon,
                        .subjects = {{store::SubjectKind::provider, "llm"}, {store::SubjectKind::team, "t"}},
                        .estimate = {5},
                        .tokens = 7,
                        .end = {}}};
  database.attempts.push_back(database.attempts.front());
  database.attempts.back().end = store::AttemptEnd{
      .at = kNoon, .ending = store::Ending::estimate, .expired = true, .cost = {5}, .tokens = 7};
  const std::string head =
      R"({"attempt":"00000000000000010000000000000003","reserved_at":"2026-11-24T12:34:56.007Z",)"
      R"("subjects":"provider:llm team:t","estimate_usd":"0.000000005",)";
  EXPECT_EQ(exported(database, ExportWhat::attempts, ExportFormat::ndjson),
            head + R"("ended_at":"","ending":"open","expired":false,"cost_usd":"","tokens":7})" + "\n" +
                head +
                R"("ended_at":"2026-11-24T12:34:56.007Z","ending":"estimate","expired":true,)"
                R"("cost_usd":"0.000000005","tokens":7})"
                "\n");
}

TEST(LedgerReport, AClosedPipeEndsIt) {
  FakeDatabase database;
  database.calls.assign(10'000, call_with("x"));
  int pieces = 0;
  EXPECT_TRUE(export_ledger(database, ExportWhat::calls, ExportFormat::csv, {}, {}, [&](std::string_view) {
    ++pieces;
    return false;
  }));
  EXPECT_EQ(pieces, 1);
}

TEST(LedgerReport, ReadsDaysAndMoments) {
  EXPECT_EQ(parse_moment("2026-11-24"), std::chrono::floor<std::chrono::days>(kNoon));
  EXPECT_EQ(parse_moment("2026-11-24T12:34:56Z"), std::chrono::floor<seconds>(kNoon));
  for (const char* bad :
       {"", "2026-13-01", "2026-02-30", "2026-1-1", "2026-11-24T25:00:00Z", "2026-11-24T12:34:56",
        "20x6-11-24", "2026-11-24 12:34:56Z", "1969-12-31", "2026-11-2 "})
    EXPECT_FALSE(parse_moment(bad)) << bad;
}

}  // namespace
}  // namespace penstock::app
