#include "gateway/guarded_clock.hpp"

#include <atomic>
#include <thread>

#include <gtest/gtest.h>

namespace penstock::gateway {
namespace {

using std::chrono::hours;
using Trust = policy::ClockGuard::Trust;

const WallTime kNoon{std::chrono::sys_days{std::chrono::year{2026} / 3 / 10} + hours{12}};

class GuardedClockTest : public testing::Test {
 protected:
  policy::ClockReading machine_{MonotonicTime{hours{1'000}}, kNoon};
  GuardedClock clock_{[this] { return machine_; }};

  void pass(nanoseconds time, nanoseconds jump = {}) {
    machine_.mono += time;
    machine_.wall += time + jump;
    clock_.tick();
  }
  [[nodiscard]] std::int64_t unix_seconds(nanoseconds off = {}) const {
    return std::chrono::floor<seconds>(machine_.wall + off).time_since_epoch().count();
  }
};

TEST_F(GuardedClockTest, TellsEveryThreadWhatTheGuardTells) {
  EXPECT_EQ(clock_.at(machine_.mono).wall, kNoon);
  EXPECT_FALSE(clock_.wants_sources());
  pass(seconds{1}, hours{24});
  EXPECT_TRUE(clock_.wants_sources());
  EXPECT_EQ(clock_.trust(), Trust::suspect);
  EXPECT_EQ(clock_.at(machine_.mono).wall, kNoon + seconds{1});
  EXPECT_EQ(clock_.at(machine_.mono).doubtful_ahead, hours{24});
  clock_.confirm(1, unix_seconds(), machine_.mono);
  clock_.confirm(2, unix_seconds(), machine_.mono);
  EXPECT_FALSE(clock_.wants_sources());
  EXPECT_EQ(clock_.at(machine_.mono).wall, machine_.wall);
  EXPECT_EQ(clock_.at(machine_.mono).doubtful_ahead, nanoseconds{0});
}

TEST_F(GuardedClockTest, AsksOnWhileTheWallClockIsKnownToBeWrong) {
  pass(seconds{1}, hours{24});
  clock_.confirm(1, unix_seconds(-hours{24}), machine_.mono);
  clock_.confirm(2, unix_seconds(-hours{24}), machine_.mono);
  EXPECT_EQ(clock_.trust(), Trust::refuted);
  EXPECT_TRUE(clock_.wants_sources());
  EXPECT_EQ(clock_.at(machine_.mono).doubtful_ahead, nanoseconds{0});
}

TEST_F(GuardedClockTest, NonsenseFromASourceIsIgnored) {
  pass(seconds{1}, hours{24});
  for (const std::int64_t said : {std::int64_t{-1}, INT64_MIN, INT64_MAX, std::int64_t{1} << 40}) {
    clock_.confirm(1, said, machine_.mono);
    clock_.confirm(2, said, machine_.mono);
  }
  EXPECT_EQ(clock_.trust(), Trust::suspect);
}

TEST_F(GuardedClockTest, ReadsTheMachinesClocks) {
  const policy::ClockReading first = read_machine_clocks();
  const policy::ClockReading second = read_machine_clocks();
  EXPECT_GE(second.mono, first.mono);
  EXPECT_GE(first.asleep, -seconds{1});
  GuardedClock clock;
  clock.tick();
  EXPECT_EQ(clock.trust(), Trust::trusted);
  EXPECT_LT(std::chrono::abs(clock.now().wall - WallTime{std::chrono::system_clock::now()}), seconds{5});
}

// While a jump is believed on one thread, no other sees a moment that is told but neither doubted nor
// believed: the doubted clock names the same day from the jump on.
TEST_F(GuardedClockTest, ThreadsNeverSeeHalfOfAChange) {
  const WallTime tomorrow = kNoon + hours{24};
  pass(seconds{1}, hours{24});
  const MonotonicTime mono = machine_.mono;
  std::atomic<bool> stop{false};
  std::atomic<int> wrong{0};
  std::atomic<int> looks{0};
  std::jthread reader([&] {
    while (!stop) {
      const Now now = clock_.at(mono);
      if (now.wall + now.doubtful_ahead < tomorrow) ++wrong;
      ++looks;
    }
  });
  while (looks == 0) std::this_thread::yield();
  clock_.confirm(1, unix_seconds(), mono);
  clock_.confirm(2, unix_seconds(), mono);
  const int believed_at = looks;
  while (looks <= believed_at + 1) std::this_thread::yield();
  stop = true;
  reader.join();
  EXPECT_EQ(wrong, 0);
  EXPECT_EQ(clock_.at(mono).wall, machine_.wall);
}

}  // namespace
}  // namespace penstock::gateway
