// Server-sent events. The common case, bytes that hold whole events of one data line each, copies nothing;
// lines and events that straddle two feeds are held.

#include "http/event_stream.hpp"

#include <cstring>

namespace penstock::http {
namespace {

constexpr std::string_view kByteOrderMark = "\xEF\xBB\xBF";
constexpr std::uint8_t kMarkDone = 0xff;
/// Line ends are sought in blocks, so that a stream of CRs only does not scan all that follows for an LF each
/// time.
constexpr std::size_t kScanBlock = 512;

/// Bytes before the first LF or CR; all when there is none.
std::size_t line_size(std::string_view text) noexcept {
  for (std::size_t start = 0; start < text.size(); start += kScanBlock) {
    const std::string_view block = text.substr(start, kScanBlock);
    const std::string_view line = block.substr(0, block.find('\n'));
    const std::size_t cr = line.find('\r');
    if (cr != std::string_view::npos) return start + cr;
    if (line.size() != block.size()) return start + line.size();
  }
  return text.size();
}

}  // namespace

/// Reads lines until one ends an event; false when the bytes are used up.
bool EventStreamParser::next(std::string_view& bytes, Event& event) {
  if (is_delivered_) {
    is_delivered_ = false;
    type_.clear();
  }
  if (mark_bytes_ != kMarkDone) skip_byte_order_mark(bytes);
  while (!bytes.empty()) {
    if (after_cr_) {
      after_cr_ = false;
      if (bytes.front() == '\n') {
        bytes.remove_prefix(1);
        continue;
      }
    }
    const std::size_t size = line_size(bytes);
    if (size == bytes.size()) {
      hold(bytes);
      bytes = {};
      break;
    }
    const std::string_view line = bytes.substr(0, size);
    after_cr_ = bytes[size] == '\r';
    bytes.remove_prefix(size + 1);

    if (line_state_ == Line::empty) {
      if (line.empty()) {
        if (end_event(event)) return true;
      } else if (line.front() != ':' && charge(line.size())) {
        read_line(line, Lifetime::feed);
      }
      continue;
    }
    if (hold(line)) read_line(line_, Lifetime::line);
    line_.clear();
    line_state_ = Line::empty;
  }
  keep_data();
  return false;
}

void EventStreamParser::skip_byte_order_mark(std::string_view& bytes) {
  while (!bytes.empty() && mark_bytes_ < kByteOrderMark.size() &&
         bytes.front() == kByteOrderMark[mark_bytes_]) {
    ++mark_bytes_;
    bytes.remove_prefix(1);
  }
  if (mark_bytes_ < kByteOrderMark.size()) {
    if (bytes.empty()) return;
    hold(kByteOrderMark.substr(0, mark_bytes_));  // it only looked like one
  }
  mark_bytes_ = kMarkDone;
}

/// Appends to the unfinished line; false where it is not worth reading.
bool EventStreamParser::hold(std::string_view part) {
  if (line_state_ == Line::empty && !part.empty())
    line_state_ = part.front() == ':' ? Line::comment : Line::field;
  if (line_state_ != Line::field || !charge(part.size())) return false;
  line_.append(part);
  return true;
}

/// Counts towards the event's bound; false when the event is being skipped.
bool EventStreamParser::charge(std::size_t bytes) {
  if (is_skipping_) return false;
  event_bytes_ += bytes;
  if (event_bytes_ <= max_event_bytes_) return true;
  is_skipping_ = true;
  ++skipped_;
  line_.clear();
  return false;
}

void EventStreamParser::read_line(std::string_view line, Lifetime lifetime) {
  const std::size_t colon = line.find(':');
  const std::string_view name = line.substr(0, colon);
  std::string_view value = colon == std::string_view::npos ? std::string_view{} : line.substr(colon + 1);
  if (value.starts_with(' ')) value.remove_prefix(1);
  if (name == "event") {
    type_ = value;
  } else if (name == "data") {
    if (data_state_ != Data::none) {
      keep_data();
      data_ += '\n';
      data_ += value;
    } else if (lifetime == Lifetime::feed) {
      data_in_place_ = value;
      data_state_ = Data::in_place;
    } else {
      data_ = value;
      data_state_ = Data::held;
    }
  }
}

/// The bytes that a view points into are about to go.
void EventStreamParser::keep_data() {
  if (data_state_ != Data::in_place) return;
  data_ = data_in_place_;
  data_state_ = Data::held;
}

/// At an empty line: true when there is an event to deliver. Without a data line there is none, and its type
/// is forgotten.
bool EventStreamParser::end_event(Event& event) {
  is_delivered_ = data_state_ != Data::none && !is_skipping_;
  if (is_delivered_) {
    event.type = type_;
    event.data = data_state_ == Data::in_place ? data_in_place_ : std::string_view(data_);
  } else {
    type_.clear();
  }
  data_state_ = Data::none;
  event_bytes_ = 0;
  is_skipping_ = false;
  return is_delivered_;
}

}  // namespace penstock::http
