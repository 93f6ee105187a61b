#include "store/journal/journal_tail.hpp"

#include <algorithm>
#include <limits>

namespace penstock::store {

JournalTail::JournalTail(const Journal& journal) : journal_(journal) {}

Result<void> JournalTail::start_at(std::span<const JournalPosition> applied) {
  cursors_.clear();
  for (const auto& [lane, found] : journal_.recovered().lanes)
    cursor(lane).done = {.segment = found.first, .offset = kHeaderSize};
  for (const JournalPosition& position : applied) {
    Cursor& at = cursor(position.lane);
    const LanePoint known{.segment = position.segment, .offset = position.offset};
    if (at.done.segment > known.segment + 1)
      return refuse(Reason::gateway_error, "the journal and the database do not fit",
                    "the database knows lane " + std::to_string(position.lane) +
                        " of the journal up to segment " + std::to_string(position.segment) +
                        ", but the oldest file is segment " + std::to_string(at.done.segment) +
                        "; the database is an older copy, or files were deleted. Restore the database that "
                        "belongs to this data directory; to go on without, move the journal's files away");
    at.done = std::max(at.done, known);
    at.skip = known;
  }
  return {};
}

JournalTail::Cursor& JournalTail::cursor(std::uint32_t lane) {
  Cursor& at = cursors_[lane];
  at.lane = lane;
  return at;
}

Result<bool> JournalTail::read(std::span<const Journal::End> ends, std::size_t most,
                               const std::function<void(Record)>& visit) {
  for (std::size_t count = 0;; ++count) {
    Cursor* first = nullptr;
    for (const Journal::End& end : ends) {
      Cursor& each = cursor(end.lane);
      const auto has_next = fill(each, end.at);
      if (!has_next) return std::unexpected(has_next.error());
      if (*has_next && (first == nullptr || order_of(*each.next) < order_of(*first->next))) first = &each;
    }
    if (first == nullptr) return true;
    if (count == most) return false;
    visit(std::move(*first->next));
    first->next.reset();
    first->done = first->after_next;
  }
}

Result<bool> JournalTail::open(Cursor& cursor) const {
  const auto path = segment_path(journal_.directory(), cursor.lane, cursor.open_segment);
  std::error_code error;
  // Wholly applied before, and deleted since.
  if (cursor.open_segment <= cursor.skip.segment && !std::filesystem::exists(path, error)) return false;
  auto opened = open_segment(path, journal_.replica(), cursor.lane, cursor.open_segment);
  if (!opened) return std::unexpected(opened.error());
  cursor.file = std::move(opened->file);
  cursor.dictionary.clear();
  cursor.reader.emplace(read_file(cursor.file.fd()), frame_seed(opened->header), kHeaderSize, kHeaderSize);
  return true;
}

Result<bool> JournalTail::fill(Cursor& cursor, LanePoint end) const {
  if (cursor.next) return true;
  if (cursor.open_segment == 0) cursor.open_segment = std::max<std::uint64_t>(cursor.done.segment, 1);
  for (;; ++cursor.open_segment) {
    if (cursor.open_segment > end.segment) return false;
    if (!cursor.reader) {
      const auto opened = open(cursor);
      if (!opened) return std::unexpected(opened.error());
      if (!*opened) continue;
    }
    FrameReader& reader = *cursor.reader;
    const bool is_last = cursor.open_segment == end.segment;
    reader.set_limit(is_last ? end.offset : std::numeric_limits<std::uint64_t>::max());
    const auto damaged = [&](const char* what) {
      return corrupt(segment_path(journal_.directory(), cursor.lane, cursor.open_segment), reader.offset(),
                     what);
    };
    for (;;) {
      const LanePoint here{.segment = cursor.open_segment, .offset = reader.offset()};
      if (is_last && here.offset >= end.offset) {
        cursor.done = std::max(cursor.done, here);
        return false;
      }
      const auto frame = reader.peek();
      if (!frame) {
        if (is_last || frame.error() != FrameFault::end)
          return damaged("a record that was written is not there");
        break;
      }
      auto record = decode_record(frame->type, frame->payload, cursor.dictionary);
      if (!record) return damaged("a record that this version does not know");
      reader.skip(*frame);
      if (const auto* const define = std::get_if<DefineRecord>(&*record)) {
        if (!cursor.dictionary.define(*define)) return damaged("a name with a number that is not the next");
        continue;
      }
      if (here < cursor.skip || std::holds_alternative<EpochRecord>(*record) ||
          std::holds_alternative<SyncedRecord>(*record))
        continue;
      cursor.next = std::move(record);
      cursor.after_next = {.segment = cursor.open_segment, .offset = reader.offset()};
      return true;
    }
    cursor.reader.reset();
  }
}

std::vector<JournalPosition> JournalTail::positions() const {
  std::vector<JournalPosition> all;
  for (const auto& [lane, cursor] : cursors_)
    if (cursor.done.segment != 0) all.push_back({lane, cursor.done.segment, cursor.done.offset});
  return all;
}

}  // namespace penstock::store
