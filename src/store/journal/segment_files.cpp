#include "store/journal/segment_files.hpp"

#include <algorithm>
#include <array>
#include <charconv>
#include <cstdio>
#include <optional>
#include <system_error>

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

namespace penstock::store {
namespace {

constexpr std::string_view kEnding = ".journal";
constexpr std::string_view kDraft = ".new";

/// Lane and segment of a file's name, where it is a segment's.
std::optional<std::pair<std::uint32_t, std::uint64_t>> parse_name(std::string_view name) {
  constexpr std::string_view kStart = "lane-";
  if (!name.starts_with(kStart) || !name.ends_with(kEnding)) return std::nullopt;
  name = name.substr(kStart.size(), name.size() - kStart.size() - kEnding.size());
  std::uint32_t lane = 0;
  std::uint64_t segment = 0;
  const auto [dash, lane_error] = std::from_chars(name.data(), name.data() + name.size(), lane);
  const char* const name_end = name.data() + name.size();
  if (lane_error != std::errc{} || dash == name_end || *dash != '-') return std::nullopt;
  const auto [end, error] = std::from_chars(dash + 1, name_end, segment);
  if (error != std::errc{} || end != name_end || segment == 0) return std::nullopt;
  return std::pair{lane, segment};
}

}  // namespace

std::int64_t Disk::write_at(int fd, std::span<const std::byte> bytes, std::uint64_t offset) noexcept {
  return ::pwrite(fd, bytes.data(), bytes.size(), static_cast<off_t>(offset));
}

int Disk::sync(int fd) noexcept { return ::fdatasync(fd); }

int Disk::allocate(int fd, std::uint64_t size) noexcept {
  if (::fallocate(fd, 0, 0, static_cast<off_t>(size)) == 0) return 0;
  // Some file systems cannot; then a full disk is met at a write, which ends the process.
  if (errno == EOPNOTSUPP || errno == ENOSYS) return ::ftruncate(fd, static_cast<off_t>(size));
  return -1;
}

std::filesystem::path segment_path(const std::filesystem::path& directory, std::uint32_t lane,
                                   std::uint64_t segment) {
  std::array<char, 64> name{};
  std::snprintf(name.data(), name.size(), "lane-%04u-%016llu.journal", lane,
                static_cast<unsigned long long>(segment));
  return directory / name.data();
}

Result<std::map<std::uint32_t, std::vector<std::uint64_t>>> list_segments(
    const std::filesystem::path& directory) {
  std::map<std::uint32_t, std::vector<std::uint64_t>> lanes;
  std::error_code error;
  std::filesystem::directory_iterator entries(directory, error);
  for (; !error && entries != std::filesystem::directory_iterator(); entries.increment(error)) {
    const std::string name = entries->path().filename().string();
    if (name.ends_with(kDraft))
      ::unlink(entries->path().c_str());
    else if (const auto parsed = parse_name(name))
      lanes[parsed->first].push_back(parsed->second);
  }
  if (error)
    return refuse(Reason::gateway_error, "the journal cannot be read",
                  "cannot list " + directory.string() + ": " + error.message());
  for (auto& [lane, segments] : lanes) std::ranges::sort(segments);
  return lanes;
}

Result<File> create_segment(Disk& disk, const std::filesystem::path& directory, const SegmentHeader& header,
                            std::uint64_t size) {
  const std::filesystem::path path = segment_path(directory, header.lane, header.segment);
  const std::filesystem::path draft = path.string() + std::string(kDraft);
  File file(::open(draft.c_str(), O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600));
  if (!file.is_open()) return disk_error("cannot make " + draft.string());
  const HeaderBytes bytes = encode_header(header);
  if (disk.allocate(file.fd(), size) != 0 ||
      disk.write_at(file.fd(), bytes, 0) != static_cast<std::int64_t>(bytes.size()) ||
      disk.sync(file.fd()) != 0 || ::rename(draft.c_str(), path.c_str()) != 0) {
    const auto failed = disk_error("cannot make " + path.string());
    ::unlink(draft.c_str());
    return failed;
  }
  if (auto synced = sync_directory(directory); !synced) return std::unexpected(synced.error());
  return file;
}

Result<OpenSegment> open_segment(const std::filesystem::path& path, std::uint64_t replica, std::uint32_t lane,
                                 std::uint64_t segment) {
  OpenSegment opened{.file = File(::open(path.c_str(), O_RDONLY | O_CLOEXEC)), .header = {}, .size = 0};
  struct stat facts{};
  if (!opened.file.is_open() || ::fstat(opened.file.fd(), &facts) != 0)
    return disk_error("cannot open " + path.string());
  opened.size = static_cast<std::uint64_t>(facts.st_size);
  HeaderBytes bytes{};
  if (::pread(opened.file.fd(), bytes.data(), bytes.size(), 0) < 0)
    return disk_error("cannot read " + path.string());
  const auto header = decode_header(bytes);
  if (!header) return corrupt(path, 0, "this is not the header of a journal segment of this version");
  if (header->replica != replica)
    return corrupt(path, 0, "it belongs to another replica's data directory; move it back there");
  if (header->lane != lane || header->segment != segment)
    return corrupt(path, 0, "the file's name is not the one that its header says");
  opened.header = *header;
  return opened;
}

ReadAt read_file(int fd) {
  return [fd](std::uint64_t offset, std::span<std::byte> into) -> std::int64_t {
    for (;;) {
      const ssize_t got = ::pread(fd, into.data(), into.size(), static_cast<off_t>(offset));
      if (got >= 0 || errno != EINTR) return got;
    }
  };
}

std::unexpected<Error> corrupt(const std::filesystem::path& path, std::uint64_t offset,
                               const std::string& what) {
  return refuse(
      Reason::gateway_error, "the journal is damaged",
      path.string() + ", offset " + std::to_string(offset) + ": " + what +
          ". Nothing was changed. Keep a copy of the data directory and look after the disk; to go on "
          "without what the journal holds and the database does not yet, move the journal's files away");
}

}  // namespace penstock::store
