#pragma once

#include <deque>
#include <functional>
#include <map>
#include <optional>

#include "store/journal/journal.hpp"

namespace penstock::store {

/// Reads a journal's records back from its files, those of all lanes in the order in which they happened,
/// while others append. Holds a few hundred KiB for each lane, whatever there is to read.
///
/// Within a cut (Journal::cut) the merge is exact: a lane's records rise in order, and what happened before
/// something in the cut is in the cut. So an ending is never read before its reservation, though another
/// thread wrote it into another lane.
class JournalTail {
 public:
  explicit JournalTail(const Journal& journal);

  /// What is before these places is passed over.
  /// Errors: files are missing between what is applied and what is there.
  [[nodiscard]] Result<void> start_at(std::span<const JournalPosition> applied);

  /// Visits up to `most` records before `ends`; true when there are no more.
  /// Errors: what was written cannot be read any more.
  [[nodiscard]] Result<bool> read(std::span<const Journal::End> ends, std::size_t most,
                                  const std::function<void(Record)>& visit);

  /// Before these places all was visited.
  [[nodiscard]] std::vector<JournalPosition> positions() const;

 private:
  struct Cursor {
    std::uint32_t lane = 0;
    LanePoint done;                  // all before it was visited
    LanePoint skip;                  // records before it are passed over
    std::uint64_t open_segment = 0;  // of `file`
    File file;
    std::optional<FrameReader> reader;
    Dictionary dictionary;
    std::optional<Record> next;
    LanePoint after_next;
  };

  Cursor& cursor(std::uint32_t lane);
  /// Has cursor.next, or false at `end`.
  Result<bool> fill(Cursor& cursor, LanePoint end) const;
  Result<bool> open(Cursor& cursor) const;

  const Journal& journal_;
  std::map<std::uint32_t, Cursor> cursors_;
};

}  // namespace penstock::store
