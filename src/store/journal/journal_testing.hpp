#pragma once

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "store/journal/journal.hpp"

/// What the journal's tests share.
namespace penstock::store {

using namespace std::chrono_literals;

inline constexpr WallTime kNoon{std::chrono::sys_days{std::chrono::year{2026} / 3 / 10} + 12h};

/// True when `what` becomes true within a bound that only a hang reaches.
inline bool eventually(const std::function<bool()>& what) {
  const auto deadline = std::chrono::steady_clock::now() + 20s;
  while (!what()) {
    if (std::chrono::steady_clock::now() > deadline) return false;
    std::this_thread::sleep_for(1ms);
  }
  return true;
}

/// A directory that goes with its owner; in memory where there is such a file system, since syncs are slow.
class TemporaryDirectory {
 public:
  TemporaryDirectory() {
    const std::filesystem::path memory = "/dev/shm";
    std::error_code error;
    const auto base =
        std::filesystem::is_directory(memory, error) ? memory : std::filesystem::temp_directory_path();
    std::string pattern = (base / "penstock-journal-XXXXXX").string();
    const char* const made = ::mkdtemp(pattern.data());
    EXPECT_NE(made, nullptr);
    path_ = pattern;
  }
  ~TemporaryDirectory() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  TemporaryDirectory(const TemporaryDirectory&) = delete;
  TemporaryDirectory& operator=(const TemporaryDirectory&) = delete;
  [[nodiscard]] const std::filesystem::path& path() const noexcept { return path_; }

 private:
  std::filesystem::path path_;
};

inline std::vector<std::byte> bytes_of_file(const std::filesystem::path& path) {
  std::ifstream in(path, std::ios::binary);
  const std::string text((std::istreambuf_iterator<char>(in)), std::istreambuf_iterator<char>());
  std::vector<std::byte> bytes(text.size());
  std::memcpy(bytes.data(), text.data(), text.size());
  return bytes;
}

inline void write_file(const std::filesystem::path& path, std::span<const std::byte> bytes) {
  std::ofstream out(path, std::ios::binary | std::ios::trunc);
  out.write(reinterpret_cast<const char*>(bytes.data()), static_cast<std::streamsize>(bytes.size()));
}

/// All frames of a journal that was recovered, as one line each, lane by lane: what compares equal is equal.
inline std::vector<std::string> lines_of(const std::filesystem::path& directory, std::uint64_t replica) {
  std::vector<std::string> lines;
  const auto lanes = list_segments(directory);
  if (!lanes) return {"cannot list"};
  for (const auto& [lane, segments] : *lanes)
    for (const std::uint64_t number : segments) {
      const auto segment = open_segment(segment_path(directory, lane, number), replica, lane, number);
      if (!segment) return {segment.error().detail};
      FrameReader reader(read_file(segment->file.fd()), frame_seed(segment->header), kHeaderSize,
                         segment->size);
      while (const auto frame = reader.peek()) {
        std::string line = std::to_string(lane) + "/" + std::to_string(number) + " " +
                           std::to_string(frame->sequence) + " " +
                           std::to_string(static_cast<int>(frame->type));
        for (const std::byte byte : frame->payload) line += " " + std::to_string(std::to_integer<int>(byte));
        lines.push_back(std::move(line));
        reader.skip(*frame);
      }
    }
  return lines;
}

/// A journal in a directory of its own, with two subjects.
class JournalTest : public testing::Test {
 protected:
  static constexpr std::uint64_t kEpoch = 77;
  TemporaryDirectory temporary_;
  Disk disk_;
  Result<DataDirectory> directory_ = DataDirectory::open(temporary_.path() / "data");
  SubjectRef provider_{SubjectKind::provider, "p"};
  SubjectRef key_{SubjectKind::key, "app-key"};
  std::vector<const SubjectRef*> subjects_{&provider_, &key_};
  std::vector<Error> failures_;

  JournalOptions options() {
    return {.epoch = kEpoch,
            .lanes = 1,
            .segment_bytes = 64 * 1024,
            .sync = SyncMode::interval,
            .on_failed = [this](const Error& error) { failures_.push_back(error); }};
  }
  std::unique_ptr<Journal> open(JournalOptions with) { return open(std::move(with), disk_); }
  std::unique_ptr<Journal> open(JournalOptions with, Disk& disk) {
    auto opened = Journal::open(*directory_, std::move(with), disk);
    EXPECT_TRUE(opened.has_value()) << opened.error().detail;
    return opened ? std::move(*opened) : nullptr;
  }
  std::unique_ptr<Journal> started(JournalOptions with) { return started(std::move(with), disk_); }
  std::unique_ptr<Journal> started(JournalOptions with, Disk& disk) {
    auto journal = open(std::move(with), disk);
    const auto begun = journal->start({}, kNoon);
    EXPECT_TRUE(begun.has_value()) << begun.error().detail;
    return journal;
  }
  std::optional<Appended> reserve(Journal& journal, std::uint64_t sequence, std::int64_t estimate = 100) {
    return journal.reserve({.order = 0,
                            .id = {kEpoch, sequence},
                            .at = kNoon,
                            .estimate = {estimate},
                            .tokens = 5,
                            .subjects = {}},
                           subjects_);
  }
  static bool settle(Journal& journal, std::uint64_t sequence, std::int64_t cost = 40) {
    return journal.settle({.order = 0,
                           .id = {kEpoch, sequence},
                           .at = kNoon + 1s,
                           .ending = Ending::actual,
                           .cost = {cost},
                           .tokens = 3});
  }
  static CallRecord call(std::uint64_t sequence) {
    CallRecord made;
    made.id = {kEpoch, sequence};
    made.at = kNoon;
    made.route = Name("chat");
    made.tag = "nightly";
    made.cost = {40};
    AttemptRecord& attempt = made.attempts.emplace_back();
    attempt.id = {kEpoch, sequence};
    attempt.provider = Name("p");
    attempt.cost = {40};
    return made;
  }
  std::vector<std::string> lines() { return lines_of(directory_->journal(), directory_->replica()); }
};

}  // namespace penstock::store
