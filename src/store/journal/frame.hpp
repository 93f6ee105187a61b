#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <vector>

#include "store/journal/record.hpp"

/// How records lie in a segment file: a header of 64 bytes, then frames
///
///   [length u32][crc32c u32][sequence u64][type u8][payload of `length` bytes]
///
/// up to a length of zero or the end of the file. The sum covers length, sequence, type and payload, and
/// begins with the header's own: a frame of another segment (a stale block after a power failure) never fits.
namespace penstock::store {

inline constexpr std::size_t kHeaderSize = 64;
inline constexpr std::size_t kFrameOverhead = 17;
inline constexpr std::uint32_t kFormatVersion = 1;

struct SegmentHeader {
  std::uint64_t replica = 0;
  std::uint64_t epoch = 0;  ///< the process that writes it
  std::uint64_t segment = 0;
  std::uint32_t lane = 0;
  friend bool operator==(const SegmentHeader&, const SegmentHeader&) = default;
};

using HeaderBytes = std::array<std::byte, kHeaderSize>;
[[nodiscard]] HeaderBytes encode_header(const SegmentHeader& header) noexcept;
/// Nothing: not a header of this format.
[[nodiscard]] std::optional<SegmentHeader> decode_header(std::span<const std::byte> bytes) noexcept;
/// What the sums of a segment's frames begin with.
[[nodiscard]] std::uint32_t frame_seed(const SegmentHeader& header) noexcept;

struct Frame {
  std::uint64_t sequence = 0;
  RecordType type{};
  std::span<const std::byte> payload;
  [[nodiscard]] std::size_t size() const noexcept { return kFrameOverhead + payload.size(); }
};

/// Writes the 17 bytes before `payload_size` bytes that already stand behind them in `frame`.
void seal_frame(std::span<std::byte> frame, std::uint64_t sequence, RecordType type,
                std::uint32_t seed) noexcept;

enum class FrameFault : std::uint8_t {
  end,   ///< a length of zero, or no more bytes
  torn,  ///< bytes that are no frame
};
/// The frame that `bytes` begin with. Needs kMaxPayload + kFrameOverhead bytes, or all that there are.
[[nodiscard]] std::expected<Frame, FrameFault> parse_frame(std::span<const std::byte> bytes,
                                                           std::uint32_t seed) noexcept;

/// Reads bytes at an offset into the span; returns how many, 0 at the end, -1 on an error.
using ReadAt = std::function<std::int64_t(std::uint64_t offset, std::span<std::byte> into)>;

/// Frames of one segment, in a buffer of a few hundred KiB.
class FrameReader {
 public:
  /// `limit`: nothing is read at or beyond it.
  FrameReader(ReadAt read, std::uint32_t seed, std::uint64_t offset, std::uint64_t limit);

  /// The frame at offset(); it stays valid until the next call. `torn` also for an error of the disk.
  [[nodiscard]] std::expected<Frame, FrameFault> peek();
  void skip(const Frame& frame) noexcept { offset_ += frame.size(); }
  void set_limit(std::uint64_t limit) noexcept { limit_ = std::max(limit_, limit); }
  [[nodiscard]] std::uint64_t offset() const noexcept { return offset_; }

 private:
  /// What is buffered at offset_, after reading more if that is less than a frame may need.
  [[nodiscard]] std::span<const std::byte> window();

  ReadAt read_;
  std::uint32_t seed_;
  std::uint64_t offset_;
  std::uint64_t limit_;
  std::uint64_t buffer_at_ = 0;  // offset of the buffer's first byte
  std::size_t buffered_ = 0;
  std::vector<std::byte> buffer_;
};

}  // namespace penstock::store
