#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>

namespace penstock::http {

/// Reads server-sent events (WHATWG HTML, "event stream interpretation") out of any splitting of the bytes, without changing
/// or delaying them. Holds at most one event; one above `max_event_bytes` is skipped and counted.
class EventStreamParser {
 public:
  struct Event {
    std::string_view type;  ///< the `event` field, or empty
    std::string_view data;  ///< `data` fields joined by '\n'
  };
  explicit EventStreamParser(std::size_t max_event_bytes = 1 << 20) : max_event_bytes_(max_event_bytes) {}

  /// Calls `on_event` for each event that these bytes complete. LF, CR and CRLF line ends, also split; a leading BOM; comments.
  template <class OnEvent>
  void feed(std::string_view bytes, OnEvent&& on_event);
  [[nodiscard]] std::uint64_t skipped() const noexcept { return skipped_; }

 private:
  // completed by the implementer
  std::size_t max_event_bytes_;
  std::uint64_t skipped_ = 0;
};

}  // namespace penstock::http
