#pragma once

#include <cstdint>
#include <initializer_list>
#include <memory>
#include <string>
#include <string_view>

#include "base/ids.hpp"
#include "base/money.hpp"
#include "base/reason.hpp"
#include "base/time.hpp"

namespace penstock::observe {

class Counter;

enum class Level : std::uint8_t { debug, info, warn, error };

/// A `"key": value` of an operator's line. Values are escaped; never put a secret in.
struct Field {
  std::string_view key;
  std::string_view text;
};

/// What a call's line says. Views must live until `call()` returns.
struct CallLine {
  CallId call{};
  WallTime at{};
  std::string_view method{};
  std::string_view provider{};  ///< configured name, or empty
  std::string_view endpoint{};  ///< pattern name or "other"; raw paths and queries are never logged
  std::string_view route{};
  std::string_view consumer{};
  std::string_view team{};
  std::string_view key{};    ///< the key's configured name
  std::string_view model{};  ///< the configured price entry's name, or empty
  std::string_view tag{};    ///< Penstock-Tag, already restricted to [A-Za-z0-9_.:-]{1,64}
  int status = 0;
  std::string_view reason{};  ///< empty: none
  std::string_view detail{};  ///< for operators; no secret
  std::uint32_t attempts = 0;
  NanoUsd cost{};
  bool cost_estimated = false;
  std::int64_t input_tokens = 0;
  std::int64_t output_tokens = 0;
  nanoseconds total{};
  nanoseconds upstream{};    ///< spent in attempts
  nanoseconds waited{};      ///< in lines and before retries
  nanoseconds first_byte{};  ///< of the last attempt; zero: none
  std::uint64_t bytes_in = 0;
  std::uint64_t bytes_out = 0;
};

/// JSON lines to one file descriptor, written by one thread of its own: callers append to a bounded buffer
/// (1 MiB) under a short lock and never wait; what does not fit is dropped and counted. A text takes at most
/// 512 bytes of a line, a line 8 KiB. Flushes every 100 ms and on destruction. `fd` stays its owner's.
class Log {
 public:
  Log(int fd, Level level, Counter* dropped);
  ~Log();
  Log(const Log&) = delete;
  Log& operator=(const Log&) = delete;

  void write(Level level, std::string_view message, std::initializer_list<Field> fields = {});
  void call(const CallLine& line);
  void set_level(Level level) noexcept;
  [[nodiscard]] bool enabled(Level level) const noexcept;
  void flush();  ///< returns when all that was appended before is written (or dropped)

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace penstock::observe
