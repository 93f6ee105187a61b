#pragma once

#include <condition_variable>
#include <deque>
#include <list>
#include <map>
#include <memory>
#include <thread>

#include "base/async.hpp"
#include "observe/metrics.hpp"
#include "store/journal/lane.hpp"
#include "store/journal/recovery.hpp"

namespace penstock::store {

enum class SyncMode : std::uint8_t {
  interval,  ///< a reservation may leave when it is written: it survives the process, and the machine after
             ///< ~10 ms
  always,    ///< ... when it is on the disk: it survives the machine
};

struct JournalOptions {
  std::uint64_t epoch = 0;  ///< of this process: random, the same as in its attempts' ids
  std::size_t lanes = 1;    ///< about one for each thread that appends; each takes two segments of disk
  std::uint64_t segment_bytes = std::uint64_t{64} << 20;  ///< 4 KiB to 1 GiB
  SyncMode sync = SyncMode::interval;
  milliseconds sync_interval{10};
  /// Not yet applied to the database, over all lanes; above it reservations are refused. Looked at every
  /// sync_interval, so it is passed by what comes in that time.
  std::uint64_t max_bytes = std::uint64_t{4} << 30;
  nanoseconds sync_wait = seconds{5};          ///< most that a reservation waits for SyncMode::always
  observe::Histogram* sync_seconds = nullptr;  ///< outlives the journal
  std::function<void(const Error&)>
      on_failed{};  ///< once, from any thread, maybe under a lock: end the process
};

/// Where in the journal a record ends.
struct Appended {
  std::uint32_t lane = 0;
  LanePoint end;
};

/// What happens, written down before it happens (docs/decisions/0007-journal.md): an append-only log in files
/// of a fixed size, in a few lanes so that threads do not contend. What it holds is applied to the ledger's
/// database by one LedgerWriter, and then deleted.
///
/// An error while writing or syncing is final: the kernel may have dropped what it could not write, and a
/// later sync that succeeds proves nothing. From then on every append is refused; the process has to end.
///
/// Thread-safe. Open, let a LedgerWriter apply what the last process left, start().
class Journal {
 public:
  /// Reads and mends what is there; appends nothing yet. `directory` and `disk` outlive the journal.
  /// Errors: damage (see recover_journal); the disk's.
  [[nodiscard]] static Result<std::unique_ptr<Journal>> open(const DataDirectory& directory,
                                                             JournalOptions options, Disk& disk);
  ~Journal();
  Journal(const Journal&) = delete;
  Journal& operator=(const Journal&) = delete;

  /// Begins to take records, in segments behind those that are there and those that `applied` names.
  /// Errors: no space for the first segments; the disk's.
  [[nodiscard]] Result<void> start(std::span<const JournalPosition> applied, WallTime now);
  /// Writes and syncs what there is and takes no more.
  void close();

  /// Whether a reservation may be made now: started, not failed, not too far ahead of the database.
  [[nodiscard]] bool accepts() const noexcept { return accepts_.load(std::memory_order_relaxed); }

  // Nothing or false: it is not in the journal. Subjects and names are known by their address, which stays
  // theirs. `order` is set here.
  [[nodiscard]] std::optional<Appended> reserve(ReserveRecord record,
                                                std::span<const SubjectRef* const> subjects) noexcept;
  bool settle(SettleRecord record) noexcept;
  bool expire(ExpireRecord record) noexcept;
  bool call(const CallRecord& call) noexcept;  ///< may stay in memory until the next sync
  bool budget(const BudgetChange& change) noexcept;

  /// True when `record` is safe on the disk, false when that failed or took longer than sync_wait. Where
  /// SyncMode::interval: true at once.
  [[nodiscard]] Awaitable<bool> synced(Appended record);
  [[nodiscard]] bool waits_for_sync() const noexcept { return options_.sync == SyncMode::always; }

  // For the writer.
  struct End {
    std::uint32_t lane = 0;
    LanePoint at;
  };
  /// Where every lane ends, at one instant: what happened before something in it is in it too.
  [[nodiscard]] std::vector<End> cut();
  /// Written records that no cut has had wait for nobody: called when there are some, at most once per
  /// sync_interval, from the journal's thread.
  void on_records(std::function<void()> wake);
  /// All before these places is in the database: deletes the segments that are wholly so.
  void applied(std::span<const JournalPosition> positions);
  /// Of the files, so a little more than the records.
  [[nodiscard]] std::uint64_t unapplied_bytes();
  [[nodiscard]] std::uint64_t reserves() const noexcept { return reserves_.load(); }  ///< appended so far

  /// Ends the journal for good: it cannot be read back, or not be written.
  void fail(const Error& error);
  [[nodiscard]] bool has_failed() const noexcept { return shared_.failed.load(); }
  /// Why there is no spare segment; empty: nothing is wrong.
  [[nodiscard]] std::string space_error() const;
  [[nodiscard]] std::uint64_t lost() const noexcept {
    return lost_.load();
  }  ///< settlements and calls refused
  [[nodiscard]] const RecoveredJournal& recovered() const noexcept { return recovered_; }
  [[nodiscard]] const std::filesystem::path& directory() const noexcept { return shared_.directory; }
  [[nodiscard]] std::uint64_t replica() const noexcept { return shared_.replica; }
  [[nodiscard]] std::uint64_t epoch() const noexcept { return shared_.epoch; }

 private:
  struct Waiter;
  Journal(const DataDirectory& directory, JournalOptions options, Disk& disk, RecoveredJournal recovered);

  [[nodiscard]] Lane& lane_of_thread() noexcept;
  template <class Body>
  std::optional<Appended> append(Lane::Room room, Lane::Through through, Body&& body) noexcept;
  void mark_dirty() noexcept;
  void run();
  void tick();
  void answer_waiters();
  void judge_backlog();

  JournalOptions options_;
  Lane::Shared shared_;
  RecoveredJournal recovered_;
  std::deque<Lane> lanes_;
  std::atomic<bool> started_{false};
  std::atomic<bool> accepts_{false};
  std::atomic<bool> dirty_{false};
  std::atomic<std::uint64_t> reserves_{0};
  std::atomic<std::uint64_t> lost_{0};

  mutable std::mutex mutex_;  // all below
  std::condition_variable wake_;
  std::list<Waiter*> waiters_;
  bool stopping_ = false;
  std::string space_error_;
  std::function<void()> on_records_;
  std::map<std::uint32_t, LanePoint> applied_;     // of each lane
  std::map<std::uint32_t, std::uint64_t> oldest_;  // segment that is still there, of each lane
  std::thread thread_;
};

}  // namespace penstock::store
