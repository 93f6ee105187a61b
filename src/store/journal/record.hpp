#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <variant>
#include <vector>

#include "store/journal/bytes.hpp"
#include "store/ledger_database.hpp"

/// What stands in a journal, as values, and their bytes. Texts (names of subjects, providers, ...) are
/// written once in a segment and referred to by a number that holds within that segment.
namespace penstock::store {

/// Append only: the numbers are stored.
enum class RecordType : std::uint8_t {
  epoch = 1,    ///< first of every segment: which process writes it
  define = 2,   ///< a text and its number
  synced = 3,   ///< what was safe on the disk when this was written
  reserve = 4,  ///< an attempt may cost so much from now on
  settle = 5,   ///< how it ended
  expire = 6,   ///< its lease ran out: charged at its estimate
  call = 7,
  budget = 8,
};

/// A place in one lane of the journal.
struct LanePoint {
  std::uint64_t segment = 0;
  std::uint64_t offset = 0;
  friend constexpr auto operator<=>(const LanePoint&, const LanePoint&) = default;
};

struct EpochRecord {
  std::uint64_t epoch = 0;
  WallTime at{};
  LanePoint before;  ///< where the lane ended before this segment; zero: it is the first
};

/// Kinds of a text: a SubjectKind's number, or this.
inline constexpr std::uint8_t kNameText = 255;
struct DefineRecord {
  std::uint32_t ref = 0;  ///< 1, 2, 3, ... within a segment
  std::uint8_t kind = kNameText;
  std::string text;
};

/// All of the lane before `safe` was synced.
struct SyncedRecord {
  LanePoint safe;
};

/// `order` rises over all lanes of a process: what happened before has the lower one.
struct ReserveRecord {
  std::uint64_t order = 0;
  AttemptId id;
  WallTime at{};
  NanoUsd estimate{};
  std::int64_t tokens = 0;
  std::vector<SubjectRef> subjects;
};

struct SettleRecord {
  std::uint64_t order = 0;
  AttemptId id;
  WallTime at{};
  Ending ending = Ending::estimate;
  NanoUsd cost{};            ///< of Ending::actual
  std::int64_t tokens = -1;  ///< -1: as estimated
};

struct ExpireRecord {
  std::uint64_t order = 0;
  AttemptId id;
  WallTime at{};
};

using Record = std::variant<EpochRecord, DefineRecord, SyncedRecord, ReserveRecord, SettleRecord,
                            ExpireRecord, CallRecord, BudgetChange>;

/// 0 for what has no order.
[[nodiscard]] std::uint64_t order_of(const Record& record) noexcept;

/// Larger is neither written nor read: a bad length is seen at once.
inline constexpr std::size_t kMaxPayload = 32 * 1024;
inline constexpr std::size_t kMaxText = 1024;       ///< of a name
inline constexpr std::size_t kMaxTag = 255;         ///< of a caller's tag
inline constexpr std::size_t kMaxAttempts = 255;    ///< of one call
inline constexpr std::uint32_t kMaxRefs = 1 << 20;  ///< texts of one segment

/// The texts of a segment, as a reader has met them.
class Dictionary {
 public:
  /// False: the number is not the next one, or the kind is none.
  [[nodiscard]] bool define(const DefineRecord& record);
  [[nodiscard]] const SubjectRef* subject(std::uint32_t ref) const noexcept;  ///< null: no subject's number
  [[nodiscard]] std::optional<Name> name(std::uint32_t ref) const noexcept;   ///< 0: the empty one
  void clear() noexcept { entries_.clear(); }

 private:
  struct Entry {
    std::optional<SubjectRef> subject;
    Name name;
  };
  std::vector<Entry> entries_;
};

/// Nothing where the payload is not exactly one record of this type with known numbers.
[[nodiscard]] std::optional<Record> decode_record(RecordType type, std::span<const std::byte> payload,
                                                  const Dictionary& dictionary);

// Payloads. `refs` are the numbers of what the record names, in the order in which it names them.
void encode(ByteWriter& out, const EpochRecord& record);
void encode(ByteWriter& out, std::uint32_t ref, std::uint8_t kind, std::string_view text);
void encode(ByteWriter& out, const SyncedRecord& record);
/// Without record.subjects: `refs` says which.
void encode(ByteWriter& out, const ReserveRecord& record, std::span<const std::uint32_t> refs);
void encode(ByteWriter& out, const SettleRecord& record);
void encode(ByteWriter& out, const ExpireRecord& record);
/// `refs`: route, consumer, team, key, model, then provider and endpoint of each attempt.
void encode(ByteWriter& out, const CallRecord& call, std::span<const std::uint32_t> refs);
void encode(ByteWriter& out, const BudgetChange& change);

}  // namespace penstock::store
