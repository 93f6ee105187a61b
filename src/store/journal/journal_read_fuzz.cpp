// Any bytes as a segment behind a sound header: read as the writer and the recovery read them. Sums that do
// not fit are mended first for half of the inputs, or nothing would ever get past them.

#include <cstdint>
#include <cstdlib>

#include "store/journal/fold.hpp"
#include "store/journal/frame.hpp"

namespace {

using namespace penstock::store;

const SegmentHeader kHeader{.replica = 1, .epoch = 2, .segment = 3, .lane = 0};

/// Gives every frame that has a possible length the sum that belongs to it.
void mend(std::vector<std::byte>& bytes, std::uint32_t seed) {
  std::size_t at = 0;
  while (bytes.size() - at >= kFrameOverhead) {
    std::uint32_t length = 0;
    std::uint64_t sequence = 0;
    std::memcpy(&length, bytes.data() + at, sizeof length);
    std::memcpy(&sequence, bytes.data() + at + 8, sizeof sequence);
    if (length == 0 || length > kMaxPayload || length > bytes.size() - at - kFrameOverhead) return;
    const auto type = static_cast<RecordType>(bytes[at + 16]);
    seal_frame(std::span(bytes).subspan(at, kFrameOverhead + length), sequence, type, seed);
    at += kFrameOverhead + length;
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size < 1) return 0;
  const std::uint32_t seed = frame_seed(kHeader);
  const auto* const begin = reinterpret_cast<const std::byte*>(data);
  std::vector<std::byte> bytes(begin + 1, begin + size);
  if (data[0] % 2 == 0) mend(bytes, seed);

  const std::uint64_t step = 1 + data[0] / 2;  // a disk may give less than it was asked for
  FrameReader reader(
      [&](std::uint64_t offset, std::span<std::byte> into) -> std::int64_t {
        if (offset >= bytes.size()) return 0;
        const auto count = std::min({std::uint64_t{into.size()}, bytes.size() - offset, step});
        std::memcpy(into.data(), bytes.data() + offset, count);
        return static_cast<std::int64_t>(count);
      },
      seed, 0, bytes.size());
  Dictionary dictionary;
  Fold fold;
  while (const auto frame = reader.peek()) {
    if (reader.offset() + frame->size() > bytes.size()) std::abort();
    auto record = decode_record(frame->type, frame->payload, dictionary);
    reader.skip(*frame);
    if (!record) continue;
    if (const auto* const define = std::get_if<DefineRecord>(&*record)) {
      // Names are kept for the life of the process: this one runs through more than a gateway ever has.
      if (define->kind != kNameText || define->text.size() < 2) (void)dictionary.define(*define);
    } else {
      fold.add(std::move(*record));
    }
  }
  (void)fold.expire_others(2, penstock::WallTime{});
  for (const AttemptChange& change : fold.take().attempts)
    if (change.now.end && (change.now.end->cost < penstock::NanoUsd{} || change.now.end->tokens < 0))
      std::abort();
  return 0;
}
