#include "store/journal/data_directory.hpp"

#include <algorithm>
#include <array>
#include <cerrno>
#include <charconv>
#include <cstdio>
#include <cstring>
#include <optional>
#include <string_view>

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/ids.hpp"

namespace penstock::store {
namespace {

constexpr std::size_t kDigits = 16;

std::string hexadecimal(std::uint64_t number) {
  std::array<char, kDigits + 1> text{};
  std::snprintf(text.data(), text.size(), "%016llx", static_cast<unsigned long long>(number));
  return text.data();
}

Result<std::optional<std::uint64_t>> read_replica(const std::filesystem::path& path) {
  const File file(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (!file.is_open()) {
    if (errno == ENOENT) return std::nullopt;
    return disk_error("cannot read " + path.string());
  }
  std::array<char, 64> text{};
  const ssize_t size = ::read(file.fd(), text.data(), text.size());
  if (size < 0) return disk_error("cannot read " + path.string());
  std::uint64_t number = 0;
  const auto [end, error] = std::from_chars(
      text.data(), text.data() + std::min<std::size_t>(kDigits, static_cast<std::size_t>(size)), number, 16);
  if (error != std::errc{} || end != text.data() + kDigits)
    return refuse(Reason::gateway_error, "the data directory cannot be used",
                  path.string() +
                      " does not hold 16 hexadecimal digits; restore it from a backup, or move the "
                      "whole data directory away to begin anew");
  return number;
}

Result<void> write_replica(const std::filesystem::path& path, std::uint64_t number) {
  const std::filesystem::path draft = path.string() + ".new";
  const std::string text = hexadecimal(number) + "\n";
  {
    const File file(::open(draft.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600));
    if (!file.is_open() ||
        ::write(file.fd(), text.data(), text.size()) != static_cast<ssize_t>(text.size()) ||
        ::fdatasync(file.fd()) != 0)
      return disk_error("cannot write " + draft.string());
  }
  if (::rename(draft.c_str(), path.c_str()) != 0) return disk_error("cannot write " + path.string());
  return sync_directory(path.parent_path());
}

Result<void> make_directory(const std::filesystem::path& path) {
  std::error_code error;
  if (path.has_parent_path()) std::filesystem::create_directories(path.parent_path(), error);
  if (::mkdir(path.c_str(), 0700) != 0 && errno != EEXIST) return disk_error("cannot make " + path.string());
  return {};
}

}  // namespace

File::~File() {
  if (fd_ >= 0) ::close(fd_);
}

std::unexpected<Error> disk_error(const std::string& what) {
  return refuse(Reason::gateway_error, "the data directory cannot be used",
                what + ": " + std::error_code(errno, std::generic_category()).message());
}

Result<void> sync_directory(const std::filesystem::path& path) {
  const File directory(::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!directory.is_open() || ::fsync(directory.fd()) != 0) return disk_error("cannot sync " + path.string());
  return {};
}

Result<DataDirectory> DataDirectory::open(const std::filesystem::path& path) {
  DataDirectory made;
  made.path_ = path;
  for (const std::filesystem::path& each : {path, made.journal()})
    if (auto done = make_directory(each); !done) return std::unexpected(done.error());
  const std::filesystem::path lock = path / "lock";
  made.lock_ = File(::open(lock.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600));
  if (!made.lock_.is_open()) return disk_error("cannot open " + lock.string());
  if (::flock(made.lock_.fd(), LOCK_EX | LOCK_NB) != 0) {
    if (errno != EWOULDBLOCK) return disk_error("cannot lock " + lock.string());
    return refuse(Reason::gateway_error, "the data directory is in use",
                  "another process has the data directory " + path.string() +
                      "; give each process a directory of its own, or stop the other one");
  }
  const std::filesystem::path replica = path / "replica";
  const auto known = read_replica(replica);
  if (!known) return std::unexpected(known.error());
  if (*known) {
    made.replica_ = **known;
    return made;
  }
  made.replica_ = random_epoch();
  if (auto written = write_replica(replica, made.replica_); !written) return std::unexpected(written.error());
  return made;
}

std::string DataDirectory::replica_name() const { return hexadecimal(replica_); }

}  // namespace penstock::store
