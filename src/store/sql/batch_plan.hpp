#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <unordered_map>
#include <vector>

#include "store/ledger_database.hpp"

/// What a batch means for the tables, worked out without a database: which attempts are new, which change,
/// and what moves between the accounts. Pure.
namespace penstock::store::sql {

/// Totals are kept per quarter of an hour in UTC: every time zone of today is a multiple of it away, so that
/// the totals of any calendar window are exact sums of quarters.
inline constexpr std::chrono::minutes kQuarter{15};
[[nodiscard]] WallTime quarter_of(WallTime at) noexcept;  ///< its start
[[nodiscard]] WallTime day_of(WallTime at) noexcept;      ///< the start of its UTC day

/// What an attempt has moved out of `available`; the four accounts of an attempt add up to zero.
struct Accounts {
  std::int64_t reserved = 0;
  std::int64_t spent = 0;    ///< at most the estimate
  std::int64_t overrun = 0;  ///< what was charged beyond it
  [[nodiscard]] std::int64_t available() const noexcept { return -(reserved + spent + overrun); }
  friend bool operator==(const Accounts&, const Accounts&) = default;
};
[[nodiscard]] Accounts accounts_of(NanoUsd estimate, const std::optional<AttemptEnd>& end) noexcept;

/// A row of the table `attempts`.
struct AttemptRow {
  AttemptId id;
  WallTime reserved_at{};
  std::int64_t set = 0;  ///< of subjects
  NanoUsd estimate{};
  std::int64_t tokens = 0;
  std::optional<AttemptEnd> end;
  bool corrected = false;  ///< an end is corrected once
};

/// What a batch adds to one set of subjects in one quarter: a row of `entries`, and added to one of `spend`.
struct Posting {
  Accounts moved;
  std::int64_t attempts = 0;
  std::int64_t tokens = 0;
  WallTime last{};  ///< the latest reservation
};
struct PostingKey {
  std::int64_t set = 0;
  WallTime quarter{};
  friend auto operator<=>(const PostingKey&, const PostingKey&) = default;
};

/// What was recorded on one UTC day.
struct CallTotal {
  std::int64_t calls = 0;
  std::int64_t cost = 0;
};

struct BatchPlan {
  std::vector<AttemptRow> inserts;  ///< by time and id, as the table is ordered
  std::vector<AttemptRow> updates;
  std::map<PostingKey, Posting> postings;  ///< ordered: every writer locks the totals in the same order
  std::vector<const CallRecord*> calls;    ///< new ones, by time and id
  std::map<WallTime, CallTotal> call_totals;
  WallTime at{};  ///< the latest moment that the batch speaks of
};

/// What the database knows of a batch.
struct BatchFacts {
  std::vector<std::int64_t> sets;    ///< of each attempt change
  std::vector<AttemptRow> attempts;  ///< those of the batch's attempts that are there
  std::vector<CallId> calls;         ///< likewise, where they were looked for
  bool calls_looked_up = false;
  WallTime forgotten_before{};        ///< retention has deleted attempts before it
  bool positions_are_behind = false;  ///< the journal's positions say that all of it was applied before
};

/// Row by row idempotent: what is there already, or ended in another way first, moves nothing. An end is
/// corrected once: by a change that names it, or by a settlement that comes after an expiry.
[[nodiscard]] BatchPlan plan_batch(const LedgerBatch& batch, const BatchFacts& facts);

/// The one text of a set of subjects: "provider 6 openai team 6 search ". Lengths keep it unambiguous.
void write_set(std::span<const SubjectRef> subjects, std::string& out);

/// Sets of subjects that the writer has met, by their text: it repeats for almost every attempt of a
/// consumer. Forgets all when it is full.
class SetCache {
 public:
  static constexpr std::size_t kMaxSets = 65'536;
  [[nodiscard]] std::optional<std::int64_t> find(std::string_view text) const;
  void keep(std::string text, std::int64_t id);
  void clear() { sets_.clear(); }

 private:
  struct Hash {
    using is_transparent = void;
    std::size_t operator()(std::string_view text) const noexcept {
      return std::hash<std::string_view>{}(text);
    }
  };
  std::unordered_map<std::string, std::int64_t, Hash, std::equal_to<>> sets_;
};

/// The kind with this name; none for another text.
[[nodiscard]] std::optional<SubjectKind> kind_from_name(std::string_view name) noexcept;

/// `text` as a database takes it: what is not UTF-8 is replaced, NUL too.
[[nodiscard]] bool is_plain_utf8(std::string_view text) noexcept;
[[nodiscard]] std::string to_plain_utf8(std::string_view text);

}  // namespace penstock::store::sql
