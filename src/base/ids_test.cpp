#include "base/ids.hpp"

#include <set>
#include <string>

#include <gtest/gtest.h>

namespace penstock {
namespace {

TEST(CallId, IsWrittenAs32HexadecimalDigits) {
  EXPECT_EQ(to_string(CallId{.epoch = 0x0123456789abcdef, .sequence = 0xf}),
            "0123456789abcdef000000000000000f");
  EXPECT_EQ(to_string(CallId{}), std::string(32, '0'));
  EXPECT_EQ(to_string(CallId{.epoch = ~0ULL, .sequence = ~0ULL}), std::string(32, 'f'));
}

// It goes straight into a header's buffer.
TEST(CallId, WritesNothingBeyondItsDigits) {
  std::string buffer(kCallIdLength + 2, '#');
  write_call_id({.epoch = 1, .sequence = 2}, buffer.data() + 1);
  EXPECT_EQ(buffer, "#00000000000000010000000000000002#");
}

TEST(CallId, SortsByEpochThenSequence) {
  EXPECT_LT((CallId{.epoch = 1, .sequence = 9}), (CallId{.epoch = 2, .sequence = 0}));
  EXPECT_LT((AttemptId{.epoch = 1, .sequence = 1}), (AttemptId{.epoch = 1, .sequence = 2}));
  EXPECT_EQ((AttemptId{.epoch = 1, .sequence = 1}), (AttemptId{.epoch = 1, .sequence = 1}));
}

// Two processes that share an epoch would share idempotency keys.
TEST(RandomEpoch, DoesNotRepeat) {
  std::set<std::uint64_t> epochs;
  std::uint64_t all_bits = 0;
  for (int i = 0; i < 1'000; ++i) {
    const std::uint64_t epoch = random_epoch();
    epochs.insert(epoch);
    all_bits |= epoch;
  }
  EXPECT_EQ(epochs.size(), 1'000U);
  EXPECT_EQ(all_bits, ~0ULL);  // 64 bits of it, not 32
}

}  // namespace
}  // namespace penstock
