#include "base/ids.hpp"

#include <sodium.h>

namespace penstock {

void write_call_id(CallId id, char* out) noexcept {
  constexpr char kDigits[] = "0123456789abcdef";
  for (const std::uint64_t part : {id.epoch, id.sequence})
    for (int shift = 60; shift >= 0; shift -= 4) *out++ = kDigits[(part >> shift) & 0xF];
}

std::string to_string(CallId id) {
  std::string text(kCallIdLength, '0');
  write_call_id(id, text.data());
  return text;
}

std::uint64_t random_epoch() {
  std::uint64_t epoch = 0;
  randombytes_buf(&epoch, sizeof epoch);
  return epoch;
}

}  // namespace penstock
