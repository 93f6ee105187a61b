#include "store/journal/record.hpp"

#include <gtest/gtest.h>

#include "policy/property_testing.hpp"
#include "store/journal/frame.hpp"

namespace penstock::store {
namespace {

const WallTime kAt{nanoseconds{1'789'000'000'123'456'789}};

Dictionary names() {
  Dictionary made;
  EXPECT_TRUE(made.define({.ref = 1, .kind = static_cast<std::uint8_t>(SubjectKind::provider), .text = "p"}));
  EXPECT_TRUE(made.define({.ref = 2, .kind = static_cast<std::uint8_t>(SubjectKind::key), .text = "k"}));
  EXPECT_TRUE(made.define({.ref = 3, .kind = kNameText, .text = "chat"}));
  return made;
}

template <class... What>
std::vector<std::byte> bytes_of(const What&... what) {
  std::vector<std::byte> bytes(kMaxPayload);
  ByteWriter out(bytes);
  encode(out, what...);
  EXPECT_TRUE(out.ok());
  bytes.resize(out.size());
  return bytes;
}

const std::array<std::uint32_t, 2> kSubjects{2, 1};
const ReserveRecord kReserve{.order = 9,
                             .id = {7, 8},
                             .at = kAt,
                             .estimate = kMaxNanoUsd,
                             .tokens = std::numeric_limits<std::int64_t>::max(),
                             .subjects = {}};
const SettleRecord kSettle{
    .order = 10, .id = {7, 8}, .at = kAt, .ending = Ending::actual, .cost = {3}, .tokens = -1};
CallRecord call() {
  CallRecord made;
  made.id = {7, 1};
  made.at = kAt;
  made.route = Name("chat");
  made.tag = "nightly";
  made.status = 429;
  made.reason = Reason::policy_budget_exceeded;
  made.cost = {12};
  made.cost_estimated = true;
  made.total = milliseconds{17};
  made.attempts = {{.id = {7, 8},
                    .provider = Name("chat"),
                    .endpoint = {},
                    .estimate = {5},
                    .cost = {3},
                    .ending = Ending::estimate,
                    .status = 503,
                    .reason = Reason::provider_error}};
  return made;
}
const std::array<std::uint32_t, 7> kCallRefs{3, 0, 0, 0, 0, 3, 0};
const BudgetChange kBudget{.at = kAt,
                           .subject = {SubjectKind::team, "search"},
                           .before = "",
                           .after = "20 USD daily hard UTC",
                           .who = "configuration file"};

/// One of each type.
std::vector<std::pair<RecordType, std::vector<std::byte>>> samples() {
  return {{RecordType::epoch, bytes_of(EpochRecord{.epoch = 7, .at = kAt, .before = {3, 99}})},
          {RecordType::define, bytes_of(std::uint32_t{4}, kNameText, std::string_view("text"))},
          {RecordType::synced, bytes_of(SyncedRecord{.safe = {.segment = 2, .offset = 77}})},
          {RecordType::reserve, bytes_of(kReserve, std::span<const std::uint32_t>(kSubjects))},
          {RecordType::settle, bytes_of(kSettle)},
          {RecordType::expire, bytes_of(ExpireRecord{.order = 11, .id = {7, 8}, .at = kAt})},
          {RecordType::call, bytes_of(call(), std::span<const std::uint32_t>(kCallRefs))},
          {RecordType::budget, bytes_of(kBudget)}};
}

TEST(RecordTest, ReservationsAndEndingsComeBackAsWritten) {
  const auto got = decode_record(RecordType::reserve,
                                 bytes_of(kReserve, std::span<const std::uint32_t>(kSubjects)), names());
  ASSERT_TRUE(got);
  const auto& reserve = std::get<ReserveRecord>(*got);
  EXPECT_EQ(std::tie(reserve.order, reserve.id, reserve.at, reserve.estimate, reserve.tokens),
            std::tie(kReserve.order, kReserve.id, kReserve.at, kReserve.estimate, kReserve.tokens));
  const std::vector<SubjectRef> sorted{{SubjectKind::provider, "p"}, {SubjectKind::key, "k"}};
  EXPECT_EQ(reserve.subjects, sorted);
  const auto settled = decode_record(RecordType::settle, bytes_of(kSettle), names());
  ASSERT_TRUE(settled);
  const auto& settle = std::get<SettleRecord>(*settled);
  EXPECT_EQ(std::tie(settle.order, settle.id, settle.at, settle.ending, settle.cost, settle.tokens),
            std::tie(kSettle.order, kSettle.id, kSettle.at, kSettle.ending, kSettle.cost, kSettle.tokens));
}

TEST(RecordTest, CallsAndBudgetsComeBackAsWritten) {
  const CallRecord made = call();
  const auto got =
      decode_record(RecordType::call, bytes_of(made, std::span<const std::uint32_t>(kCallRefs)), names());
  ASSERT_TRUE(got);
  const auto& read = std::get<CallRecord>(*got);
  EXPECT_EQ(std::tie(read.id, read.at, read.route, read.consumer, read.tag, read.status, read.reason,
                     read.cost, read.cost_estimated, read.total),
            std::tie(made.id, made.at, made.route, made.consumer, made.tag, made.status, made.reason,
                     made.cost, made.cost_estimated, made.total));
  ASSERT_EQ(read.attempts.size(), 1U);
  const AttemptRecord& a = read.attempts[0];
  const AttemptRecord& b = made.attempts[0];
  EXPECT_EQ(std::tie(a.id, a.provider, a.endpoint, a.estimate, a.cost, a.ending, a.status, a.reason),
            std::tie(b.id, b.provider, b.endpoint, b.estimate, b.cost, b.ending, b.status, b.reason));
  const auto budget = decode_record(RecordType::budget, bytes_of(kBudget), names());
  ASSERT_TRUE(budget);
  const auto& change = std::get<BudgetChange>(*budget);
  EXPECT_EQ(std::tie(change.at, change.subject, change.before, change.after, change.who),
            std::tie(kBudget.at, kBudget.subject, kBudget.before, kBudget.after, kBudget.who));
}

// A payload is one record, whole and nothing more.
TEST(RecordTest, AByteTooFewOrTooManyIsRefused) {
  const Dictionary dictionary = names();
  for (const auto& [type, bytes] : samples()) {
    SCOPED_TRACE(static_cast<int>(type));
    EXPECT_TRUE(decode_record(type, bytes, dictionary));
    for (std::size_t size = 0; size < bytes.size(); ++size)
      EXPECT_FALSE(decode_record(type, std::span(bytes).first(size), dictionary)) << size;
    auto longer = bytes;
    longer.push_back(std::byte{0});
    EXPECT_FALSE(decode_record(type, longer, dictionary));
  }
}

TEST(RecordTest, NumbersThatNoTextHasAreRefused) {
  const Dictionary empty;
  for (const auto& [type, bytes] : samples())
    EXPECT_EQ(decode_record(type, bytes, empty).has_value(),
              type != RecordType::reserve && type != RecordType::call);
  // A name is no subject, and a subject no name.
  const std::array<std::uint32_t, 1> name{3};
  EXPECT_FALSE(
      decode_record(RecordType::reserve, bytes_of(kReserve, std::span<const std::uint32_t>(name)), names()));
  const std::array<std::uint32_t, 7> subject{1, 0, 0, 0, 0, 3, 0};
  EXPECT_FALSE(
      decode_record(RecordType::call, bytes_of(call(), std::span<const std::uint32_t>(subject)), names()));
  Dictionary dictionary = names();
  EXPECT_FALSE(dictionary.define({.ref = 5, .kind = kNameText, .text = "skips one"}));
  EXPECT_FALSE(dictionary.define({.ref = 4, .kind = 99, .text = "of no kind"}));
}

// Whatever a bug upstream makes of an amount, the journal stays readable.
TEST(RecordTest, AmountsOutOfRangeAreWrittenAsTheNearestThatIsIn) {
  SettleRecord settle = kSettle;
  for (const std::int64_t cost : {std::int64_t{-1}, std::numeric_limits<std::int64_t>::min(),
                                  std::numeric_limits<std::int64_t>::max()}) {
    settle.cost = {cost};
    settle.tokens = cost;
    const auto got = decode_record(RecordType::settle, bytes_of(settle), names());
    ASSERT_TRUE(got);
    EXPECT_EQ(std::get<SettleRecord>(*got).cost, cost < 0 ? NanoUsd{} : kMaxNanoUsd);
  }
}

TEST(FrameTest, AFrameOfAnotherSegmentNeverFits) {
  const SegmentHeader header{.replica = 1, .epoch = 2, .segment = 3, .lane = 4};
  ASSERT_EQ(decode_header(encode_header(header)), header);
  std::vector<std::byte> frame(kFrameOverhead + 5, std::byte{42});
  seal_frame(frame, 12, RecordType::call, frame_seed(header));
  const auto got = parse_frame(frame, frame_seed(header));
  ASSERT_TRUE(got);
  EXPECT_EQ(got->sequence, 12U);
  EXPECT_EQ(got->payload.size(), 5U);
  for (const SegmentHeader& other : {SegmentHeader{2, 2, 3, 4}, SegmentHeader{1, 3, 3, 4},
                                     SegmentHeader{1, 2, 4, 4}, SegmentHeader{1, 2, 3, 5}})
    EXPECT_FALSE(parse_frame(frame, frame_seed(other)));
}

TEST(FrameTest, EveryFlippedBitIsSeen) {
  const SegmentHeader header{.replica = 1, .epoch = 2, .segment = 3, .lane = 4};
  std::vector<std::byte> frame(kFrameOverhead + 20, std::byte{7});
  seal_frame(frame, 12, RecordType::settle, frame_seed(header));
  for (std::size_t bit = 0; bit < frame.size() * 8; ++bit) {
    frame[bit / 8] ^= static_cast<std::byte>(1 << (bit % 8));
    EXPECT_FALSE(parse_frame(frame, frame_seed(header))) << bit;
    frame[bit / 8] ^= static_cast<std::byte>(1 << (bit % 8));
  }
  HeaderBytes bytes = encode_header(header);
  for (std::size_t bit = 0; bit < bytes.size() * 8; ++bit) {
    bytes[bit / 8] ^= static_cast<std::byte>(1 << (bit % 8));
    EXPECT_FALSE(decode_header(bytes)) << bit;
    bytes[bit / 8] ^= static_cast<std::byte>(1 << (bit % 8));
  }
}

}  // namespace
}  // namespace penstock::store
