// Takes one event out of a stream, and holds no more than that event to do so.

#include <algorithm>
#include <utility>

#include "gateway/meter/json_text.hpp"
#include "gateway/meter/usage_reader.hpp"

namespace penstock::gateway {

namespace ondemand = simdjson::ondemand;
using ondemand::json_type;

namespace {

// A usage event has a few hundred bytes; what is larger is passed on without a look.
constexpr std::size_t kMaxHeldBytes = 64 * 1024;

/// The event that OpenAI adds for stream_options.include_usage.
bool is_usage_event(std::string_view block) {
  if (!block.contains("\"usage\"") || !block.contains("\"choices\"")) return false;
  bool is = false;
  http::EventStreamParser(block.size()).feed(block, [&](const http::EventStreamParser::Event& event) {
    bool has_no_choices = false;
    bool has_usage = false;
    const bool whole = with_json(event.data, [&](ondemand::value root) {
      return is_type(root, json_type::object) &&
             for_each_member(root, [&](std::string_view key, ondemand::value value) {
               if (key == "usage") has_usage = is_type(value, json_type::object);
               if (key == "choices" && is_type(value, json_type::array)) {
                 has_no_choices = true;
                 return for_each_element(value, [&](ondemand::value) {
                   has_no_choices = false;
                   return true;
                 });
               }
               return true;
             });
    });
    is = whole && has_no_choices && has_usage;
  });
  return is;
}

/// Bytes before the first LF or CR. In blocks, so that many CRs do not scan all that follows for an LF each
/// time.
std::size_t line_size(std::string_view text) noexcept {
  constexpr std::size_t kBlock = 512;
  for (std::size_t start = 0; start < text.size(); start += kBlock) {
    const auto block = text.substr(start, kBlock);
    const auto line = block.substr(0, block.find('\n'));
    const auto cr = line.find('\r');
    if (cr != std::string_view::npos) return start + cr;
    if (line.size() != block.size()) return start + line.size();
  }
  return text.size();
}

}  // namespace

void InjectedUsageFilter::feed(std::string_view bytes, std::string& out) {
  while (!bytes.empty()) {
    if (std::exchange(after_cr_, false) && bytes.front() == '\n') {
      if (!drop_lf_) (held_.empty() ? out : held_) += '\n';
      bytes.remove_prefix(1);
      continue;
    }
    const auto size = line_size(bytes);
    const bool has_end = size < bytes.size();
    auto& to = is_passing_ ? out : held_;
    to.append(bytes.substr(0, size + (has_end ? 1 : 0)));
    line_is_empty_ = line_is_empty_ && size == 0;
    if (has_end) {
      after_cr_ = bytes[size] == '\r';
      drop_lf_ = false;
      if (std::exchange(line_is_empty_, true)) end_event(out);
      bytes.remove_prefix(size + 1);
    } else {
      bytes = {};
    }
    if (held_.size() > kMaxHeldBytes) {
      out.append(held_);
      held_.clear();
      is_passing_ = true;
    }
  }
}

void InjectedUsageFilter::end_event(std::string& out) {
  if (std::exchange(is_passing_, false)) return;
  if (!is_usage_event(held_)) {
    out.append(held_);
  } else {
    drop_lf_ = true;
    // Comments between the lines of the event are the provider's own: they stay.
    for (std::string_view rest = held_; !rest.empty();) {
      auto size = line_size(rest);
      size += rest.substr(size).starts_with("\r\n") ? 2 : 1;
      if (rest.starts_with(':')) out.append(rest.substr(0, size));
      rest.remove_prefix(std::min(size, rest.size()));
    }
  }
  held_.clear();
}

void InjectedUsageFilter::finish(std::string& out) {
  out.append(held_);
  held_.clear();
}

}  // namespace penstock::gateway
