#include "store/journal/recovery.hpp"

#include <sys/stat.h>

#include "policy/property_testing.hpp"
#include "store/journal/journal_testing.hpp"

namespace penstock::store {
namespace {

/// Files of a journal's directory in memory: what stood there, and what damage makes of it.
using Files = std::map<std::string, std::vector<std::byte>>;

class RecoveryTest : public JournalTest {
 protected:
  /// A journal of two segments with reservations, settlements, a call, and what was safe at some moments.
  void fill() {
    JournalOptions small = options();
    small.segment_bytes = 4 * 1024;
    small.sync_interval = 1ms;
    const auto journal = started(small);
    for (std::uint64_t id = 1; id <= 5; ++id) {
      ASSERT_TRUE(reserve(*journal, id));
      if (id % 2 == 0) EXPECT_TRUE(settle(*journal, id));
    }
    EXPECT_TRUE(journal->call(call(1)));
    for (std::uint64_t id = 6; journal->cut()[0].at.segment == 1; ++id)
      ASSERT_TRUE(eventually([&] { return reserve(*journal, id).has_value(); }));
    ASSERT_TRUE(eventually([&] { return reserve(*journal, 101) && tells_what_was_safe(); }));
    ASSERT_TRUE(reserve(*journal, 102));
  }

  bool tells_what_was_safe() {
    return std::ranges::any_of(lines(), [](const std::string& line) {
      return line.starts_with("0/2 ") && line.find(" 3 2 0") != line.npos;
    });
  }

  Files read_files() {
    Files files;
    for (const auto& entry : std::filesystem::directory_iterator(directory_->journal()))
      files[entry.path().filename().string()] = bytes_of_file(entry.path());
    return files;
  }
  void put_files(const Files& files) {
    for (const auto& entry : std::filesystem::directory_iterator(directory_->journal()))
      std::filesystem::remove(entry.path());
    for (const auto& [name, bytes] : files) write_file(directory_->journal() / name, bytes);
  }
  Result<RecoveredJournal> recover() { return recover_journal(directory_->journal(), directory_->replica()); }

  /// After damage: refused, or what stands is a beginning of `whole`; and so it is when recovered again.
  void expect_prefix_or_refusal(const std::vector<std::string>& whole, long& refusals) {
    const auto recovered = recover();
    if (!recovered) {
      ++refusals;
      EXPECT_NE(recovered.error().detail.find("offset "), std::string::npos) << recovered.error().detail;
      return;
    }
    const auto got = lines();
    ASSERT_LE(got.size(), whole.size());
    ASSERT_TRUE(std::equal(got.begin(), got.end(), whole.begin()));
    EXPECT_EQ(recovered->records, got.size());
    const auto again = recover();
    ASSERT_TRUE(again.has_value());
    EXPECT_EQ(again->records, got.size());
    EXPECT_EQ(again->cut_bytes, 0U);
  }
};

TEST_F(RecoveryTest, ASoundJournalIsTakenWhole) {
  fill();
  const auto before = lines();
  const auto recovered = recover();
  ASSERT_TRUE(recovered.has_value()) << recovered.error().detail;
  EXPECT_EQ(lines(), before);
  EXPECT_EQ(recovered->records, before.size());
  EXPECT_EQ(recovered->cut_bytes, 0U);
  EXPECT_EQ(recovered->lanes.at(0).first, 1U);
}

// J3: the disk lost the end.
TEST_F(RecoveryTest, EveryTruncationGivesAPrefixOrRefuses) {
  fill();
  ASSERT_TRUE(recover());  // cuts off unused zeros
  const Files files = read_files();
  const auto whole = lines();
  long refusals = 0;
  for (const auto& [name, bytes] : files)
    for (std::size_t size = 0; size < bytes.size(); ++size) {
      if (size > 600 && size + 400 < bytes.size()) continue;  // more of the same records
      SCOPED_TRACE(name + " cut to " + std::to_string(size));
      Files damaged = files;
      damaged[name].resize(size);
      put_files(damaged);
      ASSERT_NO_FATAL_FAILURE(expect_prefix_or_refusal(whole, refusals));
    }
  EXPECT_GT(refusals, 0);
}

// J3: the disk changed a bit.
TEST_F(RecoveryTest, EveryFlippedBitGivesAPrefixOrRefuses) {
  fill();
  ASSERT_TRUE(recover());  // cuts off unused zeros
  const Files files = read_files();
  const auto whole = lines();
  long refusals = 0;
  for (const auto& [name, bytes] : files)
    for (std::size_t bit = 0; bit < bytes.size() * 8; ++bit) {
      if (bit / 8 > 300 && bit / 8 + 200 < bytes.size()) continue;  // more of the same records
      SCOPED_TRACE(name + " bit " + std::to_string(bit));
      Files damaged = files;
      damaged[name][bit / 8] ^= static_cast<std::byte>(1 << (bit % 8));
      put_files(damaged);
      ASSERT_NO_FATAL_FAILURE(expect_prefix_or_refusal(whole, refusals));
    }
  EXPECT_GT(refusals, 0);
}

// What a later record calls safe was there: that it is not any more is the disk's fault, and nobody guesses.
TEST_F(RecoveryTest, DamageBeforeWhatWasSafeIsRefusedAndNamed) {
  fill();
  Files files = read_files();
  const std::string name = files.begin()->first;
  files[name][kHeaderSize + 20] ^= std::byte{1};
  put_files(files);
  const auto recovered = recover();
  ASSERT_FALSE(recovered.has_value());
  EXPECT_NE(recovered.error().detail.find(name + ", offset 64: "), std::string::npos)
      << recovered.error().detail;
  EXPECT_EQ(read_files(), files);  // nothing was changed
}

TEST_F(RecoveryTest, AMissingFileIsRefusedAndNamed) {
  JournalOptions small = options();
  small.segment_bytes = 4 * 1024;
  {
    const auto journal = started(small);
    for (std::uint64_t id = 1; id <= 200; ++id) ASSERT_TRUE(settle(*journal, id));
  }
  Files files = read_files();
  ASSERT_GT(files.size(), 3U);
  const std::string missing = std::next(files.begin())->first;
  files.erase(missing);
  put_files(files);
  const auto recovered = recover();
  ASSERT_FALSE(recovered.has_value());
  EXPECT_NE(recovered.error().detail.find(missing), std::string::npos) << recovered.error().detail;
}

TEST_F(RecoveryTest, AnotherReplicasJournalIsRefused) {
  fill();
  EXPECT_FALSE(recover_journal(directory_->journal(), directory_->replica() + 1).has_value());
}

// A process that ended left its lane whole; the next one wrote down where. A loss in between is seen.
TEST_F(RecoveryTest, TheEndOfAnEarlierProcessIsRemembered) {
  JournalOptions with = options();
  for (std::uint64_t process = 1; process <= 2; ++process) {
    with.epoch = kEpoch + process;
    const auto journal = started(with);
    for (std::uint64_t id = 1; id <= 3; ++id) ASSERT_TRUE(reserve(*journal, id));
  }
  ASSERT_TRUE(recover());
  const Files files = read_files();
  ASSERT_EQ(files.size(), 2U);
  const auto& [name, bytes] = *files.begin();
  for (std::size_t size = 0; size < bytes.size(); ++size) {
    Files damaged = files;
    damaged[name].resize(size);
    put_files(damaged);
    EXPECT_FALSE(recover().has_value()) << size;
  }
  for (std::size_t bit = 0; bit < bytes.size() * 8; ++bit) {
    Files damaged = files;
    damaged[name][bit / 8] ^= static_cast<std::byte>(1 << (bit % 8));
    put_files(damaged);
    EXPECT_FALSE(recover().has_value()) << bit;
  }
}

/// Remembers which bytes no sync has made safe.
class RecordingDisk final : public Disk {
 public:
  struct Write {
    std::uint64_t inode;
    std::uint64_t offset;
    std::uint64_t size;
  };
  std::mutex mutex;
  std::vector<Write> unsafe;

  static std::uint64_t inode_of(int fd) {
    struct stat facts{};
    ::fstat(fd, &facts);
    return facts.st_ino;
  }
  std::int64_t write_at(int fd, std::span<const std::byte> bytes, std::uint64_t offset) noexcept override {
    const std::scoped_lock lock(mutex);
    unsafe.push_back({inode_of(fd), offset, bytes.size()});
    return Disk::write_at(fd, bytes, offset);
  }
  int sync(int fd) noexcept override {
    std::size_t before = 0;
    {
      const std::scoped_lock lock(mutex);
      before = unsafe.size();
    }
    const int done = Disk::sync(fd);
    const std::scoped_lock lock(mutex);
    const std::uint64_t inode = inode_of(fd);
    std::size_t index = 0;
    std::erase_if(unsafe, [&](const Write& write) { return index++ < before && write.inode == inode; });
    return done;
  }
};

// The power fails: of what was not synced, any sectors are there and any are not, later ones before earlier
// ones. What was synced is there, what is there is a beginning, and nothing is refused.
TEST_F(RecoveryTest, APowerFailureLosesOnlyWhatWasNotSynced) {
  policy::for_each_seed(12, [&](policy::Random& random) {
    put_files({});
    RecordingDisk disk;
    JournalOptions small = options();
    small.segment_bytes = 8 * 1024;
    small.sync_interval = 1ms;
    const auto journal = started(small, disk);
    const auto records = static_cast<std::uint64_t>(random.between(1, 400));
    for (std::uint64_t id = 1; id <= records; ++id)
      ASSERT_TRUE(eventually([&] { return reserve(*journal, id).has_value(); }));
    Files files;
    std::map<std::uint64_t, std::string> names;
    std::vector<RecordingDisk::Write> unsafe;
    {
      const std::scoped_lock lock(disk.mutex);  // the moment
      files = read_files();
      for (const auto& [name, bytes] : files) {
        struct stat facts{};
        ::stat((directory_->journal() / name).c_str(), &facts);
        names[facts.st_ino] = name;
      }
      unsafe = disk.unsafe;
    }
    std::erase_if(files, [](const auto& file) { return file.first.ends_with(".new"); });
    TemporaryDirectory other;
    for (const auto& [name, bytes] : files) write_file(other.path() / name, bytes);
    const auto whole = lines_of(other.path(), directory_->replica());
    constexpr std::uint64_t kSector = 512;
    for (const auto& write : unsafe) {
      if (!files.contains(names[write.inode])) continue;
      auto& bytes = files[names[write.inode]];
      for (std::uint64_t at = write.offset; at < write.offset + write.size;) {
        const std::uint64_t next = std::min(write.offset + write.size, (at / kSector + 1) * kSector);
        if (random.chance(50))
          std::fill(bytes.begin() + static_cast<std::ptrdiff_t>(at),
                    bytes.begin() + static_cast<std::ptrdiff_t>(next), std::byte{0});
        at = next;
      }
    }
    for (const auto& [name, bytes] : files) write_file(other.path() / name, bytes);
    const auto recovered = recover_journal(other.path(), directory_->replica());
    ASSERT_TRUE(recovered.has_value()) << recovered.error().detail;
    const auto got = lines_of(other.path(), directory_->replica());
    ASSERT_LE(got.size(), whole.size());
    EXPECT_TRUE(std::equal(got.begin(), got.end(), whole.begin()));
    if (unsafe.empty()) EXPECT_EQ(got.size(), whole.size());
  });
}

}  // namespace
}  // namespace penstock::store
