#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <span>
#include <vector>

#include "base/result.hpp"
#include "store/journal/data_directory.hpp"
#include "store/journal/frame.hpp"

namespace penstock::store {

/// The calls that a disk can refuse, so that a test can refuse them. They answer as the system's do, with
/// errno.
class Disk {
 public:
  virtual ~Disk() = default;
  virtual std::int64_t write_at(int fd, std::span<const std::byte> bytes, std::uint64_t offset) noexcept;
  virtual int sync(int fd) noexcept;
  /// Takes the space now, so that a full disk is met here and not at a write.
  virtual int allocate(int fd, std::uint64_t size) noexcept;
};

/// "lane-0000-0000000000000001.journal"
[[nodiscard]] std::filesystem::path segment_path(const std::filesystem::path& directory, std::uint32_t lane,
                                                 std::uint64_t segment);

/// Numbers of the segments of each lane, rising. Deletes drafts that a dying process left.
/// Errors: the directory cannot be read.
[[nodiscard]] Result<std::map<std::uint32_t, std::vector<std::uint64_t>>> list_segments(
    const std::filesystem::path& directory);

/// A segment of `size` bytes with its header, safe on the disk under its name.
[[nodiscard]] Result<File> create_segment(Disk& disk, const std::filesystem::path& directory,
                                          const SegmentHeader& header, std::uint64_t size);

struct OpenSegment {
  File file;
  SegmentHeader header;
  std::uint64_t size = 0;
};
/// Errors: cannot be read; not a segment; not the one that its name says; another replica's.
[[nodiscard]] Result<OpenSegment> open_segment(const std::filesystem::path& path, std::uint64_t replica,
                                               std::uint32_t lane, std::uint64_t segment);

/// Reads from `fd`, which outlives it.
[[nodiscard]] ReadAt read_file(int fd);

/// An error that names the file, and what an operator may do.
[[nodiscard]] std::unexpected<Error> corrupt(const std::filesystem::path& path, std::uint64_t offset,
                                             const std::string& what);

}  // namespace penstock::store
