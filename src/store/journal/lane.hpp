#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <vector>

#include <boost/unordered/unordered_flat_map.hpp>

#include "store/journal/segment_files.hpp"

namespace penstock::store {

/// One of the journal's files at a time, and one lock: threads that have lanes of their own never meet.
///
/// What is appended is encoded into a buffer and leaves with one write. The current segment has its space
/// from the beginning, and so has a spare one: with the spare gone and not to be had, what is new is refused
/// while what must still be told (how attempts end) has the rest of the current segment.
class Lane {
 public:
  struct Shared {
    Disk& disk;
    std::filesystem::path directory;
    std::uint64_t replica = 0;
    std::uint64_t epoch = 0;
    std::uint64_t segment_bytes = 0;
    std::function<void(const Error&)> fail;  ///< a write failed: the journal is at its end
    std::atomic<bool> failed{false};
    std::atomic<std::uint64_t> order{0};
  };
  /// Who may still write when no spare segment is to be had.
  enum class Room : std::uint8_t {
    opening,  ///< leaves a quarter of the segment
    telling,  ///< leaves an eighth
    closing,  ///< may take all
  };
  enum class Through : std::uint8_t { now, later };

  Lane(Shared& shared, std::uint32_t number) : shared_(shared), number_(number) {}

  /// Begins segment `next` (and its spare) where the lane stood at `before`.
  [[nodiscard]] Result<void> start(LanePoint before, std::uint64_t next, WallTime now);

  /// Appends what `body(Lane&)` encodes by ref() and frame(), as one piece. Nothing: it is not in the journal
  /// (no room, too large, or the journal has failed). Otherwise where it ends; with Through::now it has been
  /// written and survives the process.
  template <class Body>
  [[nodiscard]] std::optional<LanePoint> append(Room room, Through through, Body&& body) {
    std::unique_lock lock(mutex_);
    if (shared_.failed.load(std::memory_order_relaxed) || !current_.is_open()) return std::nullopt;
    if (!has_room(room)) return std::nullopt;
    note_synced();
    const Mark mark{.size = size_, .sequence = sequence_, .refs = next_ref_};
    if (!body(*this) || written_ + size_ > shared_.segment_bytes) {
      back_to(mark);
      // It may fit a new segment. There it needs its names again.
      if (!roll(room, lock)) return std::nullopt;
      const Mark empty{.size = size_, .sequence = sequence_, .refs = next_ref_};
      if (!body(*this) || written_ + size_ > shared_.segment_bytes) {
        back_to(empty);
        return std::nullopt;
      }
    }
    if ((through == Through::now || size_ >= kFlushAt) && !write_out()) return std::nullopt;
    return LanePoint{.segment = segment_, .offset = written_ + size_};
  }

  // Inside of append() only.
  /// The number of a text in this segment, which is written at its first use. `key` is its identity: the same
  /// address is the same text for the life of the process.
  [[nodiscard]] std::optional<std::uint32_t> ref(const void* key, std::uint8_t kind, std::string_view text);
  template <class Encode>
  [[nodiscard]] bool frame(RecordType type, Encode&& encode_payload) {
    const std::span<std::byte> room = std::span(buffer_).subspan(size_);
    if (room.size() < kFrameOverhead + kMaxPayload) return false;
    ByteWriter out(room.subspan(kFrameOverhead, kMaxPayload));
    encode_payload(out);
    if (!out.ok()) return false;
    seal_frame(room.first(kFrameOverhead + out.size()), sequence_ + 1, type, seed_);
    ++sequence_;
    size_ += kFrameOverhead + out.size();
    return true;
  }

  /// Writes what is buffered. False: the journal has failed.
  bool flush();
  /// Makes the spare segment where there is none. From one thread.
  [[nodiscard]] Result<void> make_spare();
  [[nodiscard]] bool needs_spare() const noexcept { return needs_spare_.load(std::memory_order_relaxed); }

  /// Makes all that was appended before the call safe; returns whether there was anything to do. From one
  /// thread.
  [[nodiscard]] Result<bool> sync();
  [[nodiscard]] LanePoint synced() const;

  // The consistent cut of all lanes is taken with all their locks held.
  [[nodiscard]] std::mutex& mutex() noexcept { return mutex_; }
  [[nodiscard]] LanePoint written_locked() const noexcept {
    return {.segment = segment_, .offset = written_};
  }
  [[nodiscard]] std::uint32_t number() const noexcept { return number_; }

 private:
  struct Mark {
    std::size_t size;
    std::uint64_t sequence;
    std::uint32_t refs;
  };
  static constexpr std::size_t kBufferBytes = 256 * 1024;
  static constexpr std::size_t kFlushAt = 64 * 1024;

  [[nodiscard]] bool has_room(Room room) const noexcept;
  void note_synced();
  void back_to(const Mark& mark);
  [[nodiscard]] bool write_out();
  [[nodiscard]] bool roll(Room room, std::unique_lock<std::mutex>& lock);
  void begin_segment(File file, LanePoint before, WallTime now);
  [[nodiscard]] Result<File> make(std::uint64_t segment) const;

  Shared& shared_;
  const std::uint32_t number_;
  mutable std::mutex mutex_;
  File current_;
  File spare_;
  bool making_spare_ = false;
  std::condition_variable spare_made_;
  std::vector<File> closing_;  // full, not yet synced for the last time
  std::uint64_t segment_ = 0;
  std::uint32_t seed_ = 0;
  std::uint64_t sequence_ = 0;  // of the last frame
  std::uint64_t written_ = 0;   // bytes of the current file
  std::size_t size_ = 0;        // bytes in the buffer
  std::vector<std::byte> buffer_;
  boost::unordered_flat_map<const void*, std::uint32_t> refs_;
  std::uint32_t next_ref_ = 1;
  LanePoint synced_;
  LanePoint noted_;  // the last that the journal itself tells
  std::atomic<bool> needs_spare_{false};
};

}  // namespace penstock::store
