#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>

namespace penstock::http {

/// Reads server-sent events (WHATWG HTML, "event stream interpretation") out of any splitting of the bytes,
/// without changing or delaying them. Holds at most one event; one above `max_event_bytes` is skipped and
/// counted.
class EventStreamParser {
 public:
  struct Event {
    std::string_view type;  ///< the `event` field, or empty
    std::string_view data;  ///< `data` fields joined by '\n'
  };
  explicit EventStreamParser(std::size_t max_event_bytes = 1 << 20) : max_event_bytes_(max_event_bytes) {}

  /// Calls `on_event` for each event that these bytes complete. LF, CR and CRLF line ends, also split; a
  /// leading BOM; comments. What an event views is valid during its call only. An event whose empty line
  /// never comes is not an event; who wants it all the same at the end of a stream feeds "\n\n".
  template <class OnEvent>
  void feed(std::string_view bytes, OnEvent&& on_event) {
    Event event;
    while (next(bytes, event)) on_event(std::as_const(event));
  }
  [[nodiscard]] std::uint64_t skipped() const noexcept { return skipped_; }

 private:
  /// Of the bytes of a line: until this feed ends, or until the held line is cleared.
  enum class Lifetime : std::uint8_t { feed, line };
  enum class Data : std::uint8_t { none, in_place, held };
  enum class Line : std::uint8_t { empty, field, comment };

  bool next(std::string_view& bytes, Event& event);
  void skip_byte_order_mark(std::string_view& bytes);
  bool hold(std::string_view part);
  bool charge(std::size_t bytes);
  void read_line(std::string_view line, Lifetime lifetime);
  void keep_data();
  bool end_event(Event& event);

  std::size_t max_event_bytes_;
  std::uint64_t skipped_ = 0;
  std::size_t event_bytes_ = 0;  ///< of this event's lines so far; comments and line ends are not counted
  std::string line_;             ///< the start of an unfinished line
  std::string type_;
  std::string data_;                ///< stale unless data_state_ is held, or an event is being delivered
  std::string_view data_in_place_;  ///< an event's only data line, inside the bytes being fed
  Data data_state_ = Data::none;
  Line line_state_ = Line::empty;  ///< of the unfinished line
  std::uint8_t mark_bytes_ = 0;    ///< bytes of the byte order mark seen; 255 when its place has passed
  bool after_cr_ = false;          ///< a line ended in CR: an LF that follows belongs to it
  bool is_skipping_ = false;       ///< this event is too large
  bool is_delivered_ = false;      ///< type_ is viewed by the event that was delivered last
};

}  // namespace penstock::http
