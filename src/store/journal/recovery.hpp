#pragma once

#include <cstdint>
#include <filesystem>
#include <map>

#include "base/result.hpp"

namespace penstock::store {

/// What stands of a lane's journal after its end was mended.
struct RecoveredLane {
  std::uint64_t first = 0;  ///< numbers of its segments, without a gap
  std::uint64_t last = 0;
  std::uint64_t end = 0;  ///< of the last one, in bytes
};

struct RecoveredJournal {
  std::map<std::uint32_t, RecoveredLane> lanes;
  std::uint64_t records = 0;          ///< that stand
  std::uint64_t bytes = 0;            ///< of them
  std::uint64_t cut_bytes = 0;        ///< after the last good record, cut off
  std::uint64_t dropped_records = 0;  ///< good ones behind a hole that was never synced, dropped with it
};

/// Reads the journal whole, as the last process left it, and mends its end.
///
/// A record that is torn, with none behind it, was being written when the process died: it is cut off. With
/// good records behind it there are two cases, told apart by the `synced` records among those: what they call
/// safe was on the disk, so a hole before that is damage, and starting is refused; a hole in what was never
/// synced is how a power failure looks when the disk wrote later pages first, and everything from there on is
/// cut off, as if the power had failed a few milliseconds earlier.
///
/// Errors: damage, with file and offset; files that are missing in between; the disk's.
[[nodiscard]] Result<RecoveredJournal> recover_journal(const std::filesystem::path& directory,
                                                       std::uint64_t replica);

}  // namespace penstock::store
