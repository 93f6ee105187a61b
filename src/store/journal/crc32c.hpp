#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

namespace penstock::store {

/// CRC-32C (Castagnoli; RFC 3720 appendix B.4). `before` is the CRC of the bytes that come before these, or
/// any other number that the sum shall depend on.
[[nodiscard]] std::uint32_t crc32c(std::span<const std::byte> bytes, std::uint32_t before = 0) noexcept;

/// The same from a table: where the processor has no instruction for it.
[[nodiscard]] std::uint32_t crc32c_by_table(std::span<const std::byte> bytes,
                                            std::uint32_t before = 0) noexcept;

}  // namespace penstock::store
