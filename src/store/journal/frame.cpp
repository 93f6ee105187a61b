#include "store/journal/frame.hpp"

#include <algorithm>
#include <cstring>

#include "store/journal/crc32c.hpp"

namespace penstock::store {
namespace {

constexpr std::uint64_t kMagic = 0x4C4E4A4B54534E50;  // "PNSTKJNL"
constexpr std::size_t kHeaderSumAt = kHeaderSize - sizeof(std::uint32_t);
constexpr std::size_t kReadAhead = 256 * 1024;

template <std::integral T>
T load(std::span<const std::byte> bytes, std::size_t at) noexcept {
  T value{};
  std::memcpy(&value, bytes.data() + at, sizeof value);
  return value;
}
template <std::integral T>
void store_at(std::span<std::byte> bytes, std::size_t at, T value) noexcept {
  std::memcpy(bytes.data() + at, &value, sizeof value);
}

/// Over everything but the sum itself.
std::uint32_t frame_sum(std::span<const std::byte> frame, std::uint32_t seed) noexcept {
  return crc32c(frame.subspan(8), crc32c(frame.first(4), seed));
}

}  // namespace

HeaderBytes encode_header(const SegmentHeader& header) noexcept {
  HeaderBytes bytes{};
  ByteWriter out(bytes);
  out.put(kMagic);
  out.put(kFormatVersion);
  out.put(header.lane);
  out.put(header.replica);
  out.put(header.epoch);
  out.put(header.segment);
  store_at(bytes, kHeaderSumAt, crc32c(std::span(bytes).first(kHeaderSumAt)));
  return bytes;
}

std::optional<SegmentHeader> decode_header(std::span<const std::byte> bytes) noexcept {
  if (bytes.size() < kHeaderSize) return std::nullopt;
  bytes = bytes.first(kHeaderSize);
  ByteReader in(bytes);
  if (in.get<std::uint64_t>() != kMagic || in.get<std::uint32_t>() != kFormatVersion) return std::nullopt;
  SegmentHeader header;
  header.lane = in.get<std::uint32_t>();
  header.replica = in.get<std::uint64_t>();
  header.epoch = in.get<std::uint64_t>();
  header.segment = in.get<std::uint64_t>();
  if (load<std::uint32_t>(bytes, kHeaderSumAt) != crc32c(bytes.first(kHeaderSumAt))) return std::nullopt;
  return header;
}

std::uint32_t frame_seed(const SegmentHeader& header) noexcept {
  // The header's sum itself: a sum over bytes with their own sum behind them is the same number for all.
  return load<std::uint32_t>(encode_header(header), kHeaderSumAt);
}

void seal_frame(std::span<std::byte> frame, std::uint64_t sequence, RecordType type,
                std::uint32_t seed) noexcept {
  store_at(frame, 0, static_cast<std::uint32_t>(frame.size() - kFrameOverhead));
  store_at(frame, 8, sequence);
  store_at(frame, 16, static_cast<std::uint8_t>(type));
  store_at(frame, 4, frame_sum(frame, seed));
}

std::expected<Frame, FrameFault> parse_frame(std::span<const std::byte> bytes, std::uint32_t seed) noexcept {
  if (bytes.empty()) return std::unexpected(FrameFault::end);
  if (bytes.size() < 4) {
    const bool zeros = std::ranges::all_of(bytes, [](std::byte byte) { return byte == std::byte{0}; });
    return std::unexpected(zeros ? FrameFault::end : FrameFault::torn);
  }
  const auto length = load<std::uint32_t>(bytes, 0);
  if (length == 0) return std::unexpected(FrameFault::end);
  if (length > kMaxPayload || length + kFrameOverhead > bytes.size())
    return std::unexpected(FrameFault::torn);
  const auto frame = bytes.first(kFrameOverhead + length);
  if (load<std::uint32_t>(frame, 4) != frame_sum(frame, seed)) return std::unexpected(FrameFault::torn);
  return Frame{.sequence = load<std::uint64_t>(frame, 8),
               .type = static_cast<RecordType>(frame[16]),
               .payload = frame.subspan(kFrameOverhead)};
}

FrameReader::FrameReader(ReadAt read, std::uint32_t seed, std::uint64_t offset, std::uint64_t limit)
    : read_(std::move(read)), seed_(seed), offset_(offset), limit_(limit), buffer_at_(offset) {}

std::expected<Frame, FrameFault> FrameReader::peek() { return parse_frame(window(), seed_); }

std::span<const std::byte> FrameReader::window() {
  constexpr std::size_t kNeeded = kMaxPayload + kFrameOverhead;
  const auto ahead = [&] { return buffer_at_ + buffered_ - offset_; };
  if (ahead() < kNeeded && buffer_at_ + buffered_ < limit_) {
    const auto kept = static_cast<std::size_t>(ahead());
    buffer_.resize(std::max(buffer_.size(),
                            static_cast<std::size_t>(std::min<std::uint64_t>(kReadAhead, limit_ - offset_))));
    if (kept != 0) std::memmove(buffer_.data(), buffer_.data() + (offset_ - buffer_at_), kept);
    buffer_at_ = offset_;
    buffered_ = kept;
    while (buffered_ < buffer_.size() && buffer_at_ + buffered_ < limit_) {
      const std::uint64_t left = limit_ - (buffer_at_ + buffered_);
      const auto room = std::span(buffer_).subspan(buffered_);
      const std::int64_t got =
          read_(buffer_at_ + buffered_,
                room.first(static_cast<std::size_t>(std::min<std::uint64_t>(room.size(), left))));
      if (got <= 0) break;
      buffered_ += static_cast<std::size_t>(got);
    }
  }
  return std::span(buffer_).subspan(static_cast<std::size_t>(offset_ - buffer_at_),
                                    static_cast<std::size_t>(ahead()));
}

}  // namespace penstock::store
