#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <utility>

#include "base/result.hpp"

namespace penstock::store {

/// A file descriptor that is closed with its owner.
class File {
 public:
  File() noexcept = default;
  explicit File(int fd) noexcept : fd_(fd) {}
  File(File&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  File& operator=(File&& other) noexcept {
    std::swap(fd_, other.fd_);
    return *this;
  }
  ~File();
  [[nodiscard]] int fd() const noexcept { return fd_; }
  [[nodiscard]] bool is_open() const noexcept { return fd_ >= 0; }

 private:
  int fd_ = -1;
};

/// What a replica remembers on its own disk. One process has it at a time: a second one is refused. The
/// replica's number is made once and stays with the directory: the ledger's database tells journals apart by
/// it.
class DataDirectory {
 public:
  /// Makes the directory (readable by its owner alone) and `journal/` in it where they are missing.
  /// Errors: another process has it; it cannot be made, read or written.
  [[nodiscard]] static Result<DataDirectory> open(const std::filesystem::path& path);

  [[nodiscard]] const std::filesystem::path& path() const noexcept { return path_; }
  [[nodiscard]] std::filesystem::path journal() const { return path_ / "journal"; }
  [[nodiscard]] std::uint64_t replica() const noexcept { return replica_; }
  [[nodiscard]] std::string replica_name() const;  ///< 16 hexadecimal digits

 private:
  std::filesystem::path path_;
  std::uint64_t replica_ = 0;
  File lock_;
};

/// "what: No such file or directory", from errno.
[[nodiscard]] std::unexpected<Error> disk_error(const std::string& what);

/// Makes entries that were created, renamed or deleted in a directory safe.
[[nodiscard]] Result<void> sync_directory(const std::filesystem::path& path);

}  // namespace penstock::store
