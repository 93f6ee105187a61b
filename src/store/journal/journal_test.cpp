#include "store/journal/journal.hpp"

#include <condition_variable>
#include <thread>

#include <boost/asio/co_spawn.hpp>
#include <boost/asio/io_context.hpp>
#include <sys/wait.h>
#include <unistd.h>

#include "policy/property_testing.hpp"
#include "store/journal/journal_testing.hpp"

namespace penstock::store {
namespace {

constexpr int kReserve = static_cast<int>(RecordType::reserve);
constexpr int kSettle = static_cast<int>(RecordType::settle);
constexpr int kCall = static_cast<int>(RecordType::call);

/// How many of the lines are records of a type.
long count(const std::vector<std::string>& lines, int type) {
  return std::ranges::count_if(lines, [&](const std::string& line) {
    return line.substr(line.find(' ', line.find(' ') + 1) + 1).starts_with(std::to_string(type) + " ");
  });
}

/// Refuses what a test says; counts syncs.
class FaultyDisk final : public Disk {
 public:
  std::atomic<bool> is_full{false};
  std::atomic<bool> cannot_write{false};
  std::atomic<bool> cannot_sync{false};
  std::atomic<int> syncs{0};
  std::atomic<bool> is_stuck{false};  // a sync does not return

  std::int64_t write_at(int fd, std::span<const std::byte> bytes, std::uint64_t offset) noexcept override {
    if (!cannot_write) return Disk::write_at(fd, bytes, offset);
    errno = EIO;
    return -1;
  }
  int sync(int fd) noexcept override {
    ++syncs;
    while (is_stuck) std::this_thread::yield();
    if (!cannot_sync) return Disk::sync(fd);
    errno = EIO;
    return -1;
  }
  int allocate(int fd, std::uint64_t size) noexcept override {
    if (!is_full) return Disk::allocate(fd, size);
    errno = ENOSPC;
    return -1;
  }
};

// ---- One process at a time

TEST_F(JournalTest, ADirectoryHasOneProcess) {
  const auto second = DataDirectory::open(temporary_.path() / "data");
  ASSERT_FALSE(second.has_value());
  EXPECT_NE(second.error().detail.find("another process has the data directory"), std::string::npos);
}

TEST_F(JournalTest, AReplicaKeepsItsNumber) {
  const std::uint64_t number = directory_->replica();
  directory_ = refuse(Reason::gateway_error, "let go");
  directory_ = DataDirectory::open(temporary_.path() / "data");
  ASSERT_TRUE(directory_.has_value());
  EXPECT_EQ(directory_->replica(), number);
  EXPECT_EQ(directory_->replica_name().size(), 16U);
}

TEST_F(JournalTest, ANumberThatCannotBeReadIsNotReplaced) {
  const auto path = directory_->path() / "replica";
  directory_ = refuse(Reason::gateway_error, "let go");
  std::ofstream(path) << "12345678-not-hexadecimal";
  EXPECT_FALSE(DataDirectory::open(temporary_.path() / "data").has_value());
}

// ---- Appending

TEST_F(JournalTest, WhatWasAppendedIsThereAfterReopening) {
  {
    const auto journal = started(options());
    EXPECT_TRUE(reserve(*journal, 1));
    EXPECT_TRUE(settle(*journal, 1));
    EXPECT_TRUE(journal->call(call(1)));
  }
  const auto again = open(options());
  EXPECT_EQ(count(lines(), kReserve), 1);
  EXPECT_EQ(count(lines(), kSettle), 1);
  EXPECT_EQ(count(lines(), kCall), 1);
  EXPECT_EQ(again->recovered().cut_bytes, 0U);
  EXPECT_EQ(again->recovered().dropped_records, 0U);
}

// Before start() and after close() nothing is taken and nothing is lost silently.
TEST_F(JournalTest, OnlyAStartedJournalTakesRecords) {
  const auto journal = open(options());
  EXPECT_FALSE(journal->accepts());
  EXPECT_FALSE(reserve(*journal, 1));
  EXPECT_FALSE(settle(*journal, 1));
  EXPECT_EQ(journal->lost(), 1U);
  ASSERT_TRUE(journal->start({}, kNoon));
  EXPECT_TRUE(reserve(*journal, 2));
  journal->close();
  EXPECT_FALSE(reserve(*journal, 3));
}

// A segment is read without the others: it names again what its records name.
TEST_F(JournalTest, EverySegmentStandsAlone) {
  JournalOptions small = options();
  small.segment_bytes = 4 * 1024;
  {
    const auto journal = started(small);
    for (std::uint64_t i = 1; i <= 200; ++i) {
      ASSERT_TRUE(eventually([&] { return reserve(*journal, i).has_value(); })) << i;
      ASSERT_TRUE(settle(*journal, i)) << i;
      ASSERT_TRUE(eventually([&] { return journal->call(call(i)); })) << i;
    }
  }
  const auto again = open(small);
  const RecoveredLane lane = again->recovered().lanes.at(0);
  EXPECT_GT(lane.last, 5U);
  long reserves = 0;
  for (std::uint64_t number = lane.first; number <= lane.last; ++number) {
    const auto segment =
        open_segment(segment_path(directory_->journal(), 0, number), directory_->replica(), 0, number);
    ASSERT_TRUE(segment.has_value());
    FrameReader reader(read_file(segment->file.fd()), frame_seed(segment->header), kHeaderSize,
                       segment->size);
    Dictionary dictionary;
    while (const auto frame = reader.peek()) {
      const auto record = decode_record(frame->type, frame->payload, dictionary);
      ASSERT_TRUE(record) << number << " at " << reader.offset();
      if (const auto* define = std::get_if<DefineRecord>(&*record)) {
        ASSERT_TRUE(dictionary.define(*define));
      }
      if (const auto* made = std::get_if<ReserveRecord>(&*record)) {
        ++reserves;
        EXPECT_EQ(made->subjects, (std::vector<SubjectRef>{provider_, key_}));
      }
      reader.skip(*frame);
    }
  }
  EXPECT_EQ(reserves, 200);
}

// Threads in lanes of their own or in one: nothing is lost, and what happened before has the lower order.
TEST_F(JournalTest, ManyThreadsAppendAtOnce) {
  JournalOptions two = options();
  two.lanes = 2;
  two.segment_bytes = 16 * 1024;
  constexpr std::uint64_t kThreads = 4;
  constexpr std::uint64_t kEach = 300;
  {
    const auto journal = started(two);
    std::vector<std::thread> threads;
    for (std::uint64_t number = 0; number < kThreads; ++number)
      threads.emplace_back([&, number] {
        for (std::uint64_t i = 0; i < kEach; ++i) {
          const std::uint64_t id = number * kEach + i + 1;
          EXPECT_TRUE(eventually([&] { return reserve(*journal, id).has_value(); }));
          EXPECT_TRUE(settle(*journal, id));
        }
      });
    for (int i = 0; i < 50; ++i) (void)journal->cut();
    for (std::thread& thread : threads) thread.join();
  }
  const auto again = open(two);
  EXPECT_EQ(again->recovered().lanes.size(), 2U);
  EXPECT_EQ(count(lines(), kReserve), static_cast<long>(kThreads * kEach));
  EXPECT_EQ(count(lines(), kSettle), static_cast<long>(kThreads * kEach));
}

// ---- Space

// A full disk is met before it is full: new reservations are refused, what must be told still fits.
TEST_F(JournalTest, AFullDiskRefusesReservationsAndStillTakesSettlements) {
  FaultyDisk disk;
  JournalOptions small = options();
  small.segment_bytes = 8 * 1024;
  const auto journal = started(small, disk);
  disk.is_full = true;
  std::uint64_t held = 0;
  while (reserve(*journal, held + 1)) ASSERT_LT(++held, 1'000U);
  EXPECT_TRUE(eventually([&] { return journal->space_error().find("No space left") != std::string::npos; }));
  EXPECT_FALSE(reserve(*journal, 9'999));
  // Room for a quarter of a segment: 2 KiB of settlements, of 73 bytes.
  for (std::uint64_t id = 1; id <= 20; ++id) EXPECT_TRUE(settle(*journal, id));
  EXPECT_EQ(journal->lost(), 0U);
  EXPECT_FALSE(journal->has_failed());
  disk.is_full = false;
  EXPECT_TRUE(eventually([&] { return reserve(*journal, 10'000).has_value(); }));
  EXPECT_TRUE(eventually([&] { return journal->space_error().empty(); }));
}

TEST_F(JournalTest, ASettlementMakesItsOwnSegmentWhenItMust) {
  FaultyDisk disk;
  JournalOptions small = options();
  small.segment_bytes = 4 * 1024;
  small.sync_interval = 1h;  // the journal's thread makes no spare before the end
  const auto journal = started(small, disk);
  for (std::uint64_t id = 1; id <= 300; ++id) EXPECT_TRUE(settle(*journal, id));
  EXPECT_EQ(journal->lost(), 0U);
}

TEST_F(JournalTest, TooMuchThatTheDatabaseLacksRefusesReservations) {
  JournalOptions small = options();
  small.max_bytes = 2'000;
  const auto journal = started(small);
  std::uint64_t held = 0;
  while (reserve(*journal, held + 1)) {
    ASSERT_LT(++held, 500U);
    if (held > 25) EXPECT_TRUE(eventually([&] { return !journal->accepts(); }));
  }
  EXPECT_GT(journal->unapplied_bytes(), 2'000U);
  EXPECT_TRUE(settle(*journal, 1));
  const auto ends = journal->cut();
  journal->applied(std::vector<JournalPosition>{{0, ends[0].at.segment, ends[0].at.offset}});
  EXPECT_EQ(journal->unapplied_bytes(), 0U);
  EXPECT_TRUE(reserve(*journal, 1'000));
}

TEST_F(JournalTest, SegmentsThatAreWhollyAppliedAreDeleted) {
  JournalOptions small = options();
  small.segment_bytes = 4 * 1024;
  auto journal = started(small);
  for (std::uint64_t id = 1; id <= 200; ++id) ASSERT_TRUE(settle(*journal, id));
  auto end = journal->cut()[0].at;
  ASSERT_GT(end.segment, 2U);
  journal->applied(std::vector<JournalPosition>{{0, end.segment, end.offset}});
  EXPECT_EQ(list_segments(directory_->journal())->at(0).front(), end.segment);
  EXPECT_TRUE(settle(*journal, 201));
  journal.reset();
  // The last one of a process that ended is as good as full.
  journal = open(small);
  const RecoveredLane lane = journal->recovered().lanes.at(0);
  EXPECT_EQ(lane.first, end.segment);
  const std::vector<JournalPosition> all{{0, lane.last, lane.end}};
  journal->applied(all);
  ASSERT_TRUE(journal->start(all, kNoon));
  EXPECT_EQ(list_segments(directory_->journal())->at(0).front(), lane.last + 1);
}

// ---- Faults

TEST_F(JournalTest, AFailedSyncEndsTheJournalForGood) {
  FaultyDisk disk;
  const auto journal = started(options(), disk);
  EXPECT_TRUE(reserve(*journal, 1));
  disk.cannot_sync = true;
  EXPECT_TRUE(settle(*journal, 1));
  EXPECT_TRUE(eventually([&] { return journal->has_failed(); }));
  disk.cannot_sync = false;  // a later sync that succeeds proves nothing
  EXPECT_FALSE(journal->accepts());
  EXPECT_FALSE(reserve(*journal, 2));
  EXPECT_FALSE(settle(*journal, 1));
  ASSERT_EQ(failures_.size(), 1U);
  EXPECT_NE(failures_[0].detail.find("Input/output error"), std::string::npos);
}

TEST_F(JournalTest, AFailedWriteEndsTheJournalForGood) {
  FaultyDisk disk;
  const auto journal = started(options(), disk);
  disk.cannot_write = true;
  EXPECT_FALSE(reserve(*journal, 1));
  disk.cannot_write = false;
  EXPECT_FALSE(reserve(*journal, 2));
  EXPECT_TRUE(journal->has_failed());
  EXPECT_EQ(failures_.size(), 1U);
}

// ---- Syncing

TEST_F(JournalTest, AnIdleJournalDoesNotSync) {
  FaultyDisk disk;
  JournalOptions quick = options();
  quick.sync_interval = 1ms;
  const auto journal = started(quick, disk);
  // Two segments and the first record, then one for each that is appended, however many ticks pass.
  for (int syncs = 3; syncs < 8; ++syncs) {
    ASSERT_TRUE(eventually([&] { return disk.syncs >= syncs; }));
    EXPECT_TRUE(settle(*journal, 1));
  }
  journal->close();
  EXPECT_EQ(disk.syncs, 8);
}

/// Runs a coroutine that waits for the sync of a reservation.
struct Waits {
  boost::asio::io_context io{1};
  std::vector<bool> answers;

  static Awaitable<void> wait(Journal& journal, Appended at, std::vector<bool>& out) {
    const bool safe = co_await journal.synced(at);
    out.push_back(safe);
  }
  void add(Journal& journal, Appended at) {
    boost::asio::co_spawn(io, wait(journal, at, answers), [](std::exception_ptr) {});
  }
};

TEST_F(JournalTest, AlwaysWaitsForTheDiskAndManyShareOneSync) {
  FaultyDisk disk;
  JournalOptions always = options();
  always.sync = SyncMode::always;
  always.sync_interval = 1h;  // only those who wait make it sync
  const auto journal = started(always, disk);
  Waits waits;
  const int before = disk.syncs;
  for (std::uint64_t id = 1; id <= 50; ++id) waits.add(*journal, *reserve(*journal, id));
  waits.io.run();
  EXPECT_EQ(waits.answers, std::vector<bool>(50, true));
  EXPECT_GE(disk.syncs - before, 1);
  EXPECT_LE(disk.syncs - before, 10);
}

TEST_F(JournalTest, AWaitForTheDiskHasABound) {
  FaultyDisk disk;
  JournalOptions always = options();
  always.sync = SyncMode::always;
  always.sync_wait = 20ms;
  const auto journal = started(always, disk);
  Waits waits;
  disk.is_stuck = true;
  waits.add(*journal, *reserve(*journal, 1));
  waits.io.run();
  EXPECT_EQ(waits.answers, std::vector<bool>{false});
  disk.is_stuck = false;
}

TEST_F(JournalTest, AFailedSyncAnswersThoseWhoWait) {
  FaultyDisk disk;
  JournalOptions always = options();
  always.sync = SyncMode::always;
  always.sync_wait = 1h;
  const auto journal = started(always, disk);
  Waits waits;
  disk.cannot_sync = true;
  waits.add(*journal, *reserve(*journal, 1));
  waits.io.run();
  EXPECT_EQ(waits.answers, std::vector<bool>{false});
}

// A worker that ends while calls wait takes its coroutines with it; the journal must not touch them.
TEST_F(JournalTest, ACoroutineMayEndWhileItWaits) {
  FaultyDisk disk;
  JournalOptions always = options();
  always.sync = SyncMode::always;
  const auto journal = started(always, disk);
  disk.is_stuck = true;
  {
    Waits waits;
    waits.add(*journal, *reserve(*journal, 1));
    waits.io.run_one();  // up to its wait
  }
  disk.is_stuck = false;
  Waits waits;
  waits.add(*journal, *reserve(*journal, 2));
  waits.io.run();
  EXPECT_EQ(waits.answers, std::vector<bool>{true});
}

// ---- J1: what append said yes to is there after SIGKILL at any moment

TEST_F(JournalTest, WhatWasAnsweredSurvivesAKill) {
  const std::uint64_t seed = policy::property_seeds(0).back();
  std::printf("seed: %llu (PENSTOCK_SEED=n runs it)\n", static_cast<unsigned long long>(seed));
  policy::Random random(seed);
  JournalOptions small = options();
  small.segment_bytes = 8 * 1024;
  small.lanes = 2;
  std::uint64_t last_epoch = kEpoch;
  for (int round = 0; round < 25; ++round) {
    small.epoch = ++last_epoch;
    std::array<int, 2> pipe{};
    ASSERT_EQ(::pipe(pipe.data()), 0);
    const pid_t child = ::fork();
    ASSERT_GE(child, 0);
    if (child == 0) {
      auto journal = Journal::open(*directory_, small, disk_);
      if (!journal || !(*journal)->start({}, kNoon)) ::_exit(3);
      for (std::uint64_t id = 1;; ++id) {
        while (!reserve(**journal, id)) std::this_thread::yield();
        if (::write(pipe[1], &id, sizeof id) != sizeof id) ::_exit(4);
        (void)(*journal)->call(call(id));
      }
    }
    ::close(pipe[1]);
    std::uint64_t answered = 0;
    const auto until = static_cast<std::uint64_t>(random.between(0, 120));
    while (answered < until && ::read(pipe[0], &answered, sizeof answered) == sizeof answered) {
    }
    ::kill(child, SIGKILL);
    while (::read(pipe[0], &answered, sizeof answered) == sizeof answered) {
    }
    ::close(pipe[0]);
    int status = 0;
    ASSERT_EQ(::waitpid(child, &status, 0), child);
    ASSERT_TRUE(WIFSIGNALED(status)) << status;
    const auto journal = open(small);
    ASSERT_NE(journal, nullptr);
    EXPECT_GE(count(lines(), kReserve), static_cast<long>(answered)) << "PENSTOCK_SEED=" << seed;
    EXPECT_EQ(journal->recovered().dropped_records, 0U);
    for (const auto& [lane, found] : journal->recovered().lanes)
      journal->applied(std::vector<JournalPosition>{{lane, found.last, found.end}});
    ASSERT_TRUE(lines().empty());
  }
}

}  // namespace
}  // namespace penstock::store
