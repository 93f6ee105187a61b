// What the provider would put on its invoice, and the list of requests that it saw.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "call.hpp"

namespace penstock::mock {

enum class Kind : std::uint8_t { chat, responses, embeddings, messages, gemini, geocode, other };
inline constexpr std::size_t kKinds = 7;
inline constexpr std::string_view kKindNames[kKinds] = {"chat",   "responses", "embeddings", "messages",
                                                        "gemini", "geocode",   "other"};

struct Prices {
  std::int64_t input_nano_usd_per_token = 0, output_nano_usd_per_token = 0, credit_nano_usd = 0,
               call_nano_usd = 0;
  std::int64_t cached_input_nano_usd_per_token = -1;  // -1: as input
  [[nodiscard]] std::int64_t cost(const Usage& usage, std::int64_t credits) const;
};

enum class BillOnDisconnect : std::uint8_t { full, sent };

class Bill {
 public:
  struct Line {
    std::int64_t calls = 0, prompt_tokens = 0, completion_tokens = 0, cached_tokens = 0, credits = 0,
                 nano_usd = 0;
    void add(const Line& other);
  };
  /// Tells whose line an answer under way belongs to; void after clear().
  struct Account {
    std::uint32_t caller = 0, epoch = 0;
  };
  static constexpr std::size_t kMaxCallers = 100'000;

  [[nodiscard]] Account account(std::string_view credential);
  void charge(Account account, Kind kind, const Usage& usage, std::int64_t credits);
  void clear();
  void append_json(std::string& out) const;

  Prices prices;
  BillOnDisconnect on_disconnect = BillOnDisconnect::full;

 private:
  struct Caller {
    std::string credential;
    Line lines[kKinds];
  };
  struct Hash {
    using is_transparent = void;
    std::size_t operator()(std::string_view text) const { return std::hash<std::string_view>{}(text); }
  };
  std::vector<Caller> callers_;
  std::unordered_map<std::string, std::uint32_t, Hash, std::equal_to<>> index_;
  std::uint32_t epoch_ = 0;
};

/// The last requests, in order of arrival.
class CallLog {
 public:
  static constexpr std::size_t kMax = 100'000;
  struct Entry {
    std::int64_t start_ns = 0;  // CLOCK_MONOTONIC, when the head was complete
    std::int64_t wall_ms = 0;
    int status = 0;
    char method[8] = {}, credential_tail[5] = {}, path[96] = {};  // cut to fit: the log has a fixed size
  };
  void add(std::int64_t start_ns, std::int64_t wall_ms, std::string_view method, std::string_view path,
           int status, std::string_view credential);
  void clear();
  [[nodiscard]] std::uint64_t total() const { return total_; }
  void append_json(std::string& out, std::size_t last) const;

 private:
  std::vector<Entry> ring_;
  std::uint64_t total_ = 0;
};

}  // namespace penstock::mock
