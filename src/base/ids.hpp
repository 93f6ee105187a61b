#pragma once

#include <compare>
#include <cstdint>
#include <string>

namespace penstock {

/// One attempt, and its idempotency key: the process's random epoch and a sequence number within it.
struct AttemptId {
  std::uint64_t epoch = 0;
  std::uint64_t sequence = 0;
  friend constexpr auto operator<=>(const AttemptId&, const AttemptId&) = default;
};

/// One call, as callers see it in Penstock-Call: epoch and sequence in 32 hexadecimal digits.
struct CallId {
  std::uint64_t epoch = 0;
  std::uint64_t sequence = 0;
  friend constexpr auto operator<=>(const CallId&, const CallId&) = default;
};

inline constexpr std::size_t kCallIdLength = 32;

/// Writes the 32 digits to `out`.
void write_call_id(CallId id, char* out) noexcept;
[[nodiscard]] std::string to_string(CallId id);

/// A random 64-bit number for a process's epoch.
[[nodiscard]] std::uint64_t random_epoch();

}  // namespace penstock
