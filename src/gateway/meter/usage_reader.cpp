#include "gateway/meter/usage_reader.hpp"

#include <algorithm>
#include <optional>
#include <utility>

#include "gateway/meter/json_text.hpp"

namespace penstock::gateway {

namespace ondemand = simdjson::ondemand;
using ondemand::json_type;

namespace {

constexpr std::int64_t kNotTold = -1;
constexpr std::int64_t kMaxTokens = 1'000'000'000'000;
// A usage event has a few hundred bytes; what is larger is passed on without a look.
constexpr std::size_t kMaxHeldBytes = 64 * 1024;

bool is_gemini(CallKind kind) noexcept {
  return kind == CallKind::gemini_generate || kind == CallKind::gemini_stream;
}

bool contains(std::string_view text, std::string_view what) noexcept {
  return text.find(what) != std::string_view::npos;
}

bool equals_ignoring_case(std::string_view a, std::string_view b) noexcept {
  const auto lower = [](char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c; };
  return std::ranges::equal(a, b, {}, lower, lower);
}

/// Whether a stream's event shows that the provider bills output tokens which it does not send as text.
bool shows_hidden_output(CallKind kind, std::string_view data) noexcept {
  switch (kind) {
    case CallKind::openai_chat: {
      // Nothing but the name tells: o1, o3, o4-mini, gpt-5.
      constexpr std::string_view kModel = R"("model":")";
      const auto at = data.find(kModel);
      if (at == std::string_view::npos) return false;
      const auto name = data.substr(at + kModel.size());
      return name.starts_with("gpt-5") ||
             (name.size() > 1 && name[0] == 'o' && name[1] >= '1' && name[1] <= '9');
    }
    case CallKind::openai_responses:
      return contains(data, R"("type":"reasoning")") || contains(data, R"("effort":")");
    case CallKind::anthropic_messages: return contains(data, "thinking\"");
    case CallKind::gemini_generate:
    case CallKind::gemini_stream:
      return contains(data, "\"thoughtsTokenCount\"") || contains(data, "\"thoughtSignature\"");
    default: return false;
  }
}

/// A count that may be there: null is as absent, anything but a whole number from 0 to 10^12 is broken.
struct Count {
  std::optional<std::int64_t> value;
  bool is_broken = false;

  void read(ondemand::value json) noexcept {
    if (is_null(json)) return;
    const auto text = is_type(json, json_type::number) ? number_text(json) : std::nullopt;
    value = text ? parse_whole(*text, kMaxTokens) : std::nullopt;
    is_broken = is_broken || !value;
  }
  [[nodiscard]] std::int64_t or_zero() const noexcept { return value.value_or(0); }
};

}  // namespace

struct UsageReader::Told {
  explicit Told(CallKind call_kind) : kind(call_kind) {}

  CallKind kind;
  bool has_usage = false;  // a usage object, good or not
  bool ends = false;       // beside an end of the answer: what is told now is told of all of it
  bool is_error = false;
  Count input;   // as the provider counts: OpenAI and Gemini with cached tokens, Anthropic without
  Count output;  // Gemini: without thoughts
  Count total;
  Count thoughts;
  Count tool_use;
  Count cached;                  // part of input
  Count cache_read;              // beside input
  Count cache_written;           // beside input
  bool is_prompt_shape = false;  // "prompt_tokens", which holds cached ones whatever stands beside it

  [[nodiscard]] bool is_broken() const noexcept {
    for (const Count* count :
         {&input, &output, &total, &thoughts, &tool_use, &cached, &cache_read, &cache_written}) {
      if (count->is_broken) return true;
    }
    return false;
  }

  /// What one whole usage block says, in our counts; nothing where it does not say enough or contradicts
  /// itself.
  [[nodiscard]] std::optional<policy::Usage> usage() const {
    if (!input.value || is_broken()) return std::nullopt;
    policy::Usage usage;
    const bool has_separate_cache =
        kind == CallKind::anthropic_messages || (kind == CallKind::other && !is_prompt_shape);
    usage.cached_input_tokens = has_separate_cache ? cache_read.or_zero() : 0;
    usage.cache_write_tokens = has_separate_cache ? cache_written.or_zero() : 0;
    const auto asked = *input.value + tool_use.or_zero();
    usage.cached_input_tokens += cached.or_zero();
    usage.input_tokens = asked - cached.or_zero();
    if (usage.input_tokens < 0) return std::nullopt;
    if (kind == CallKind::openai_embeddings) return usage;
    // Some count reasoning in the total only: the larger of the two is what is billed.
    const auto rest = total.value ? *total.value - asked : 0;
    if (!output.value && !total.value && !is_gemini(kind)) return std::nullopt;  // Gemini leaves zeros out
    usage.output_tokens = std::max(output.or_zero() + thoughts.or_zero(), rest);
    return usage;
  }

  /// An answer, or the data of an event. False: broken JSON.
  bool read(ondemand::value root) {
    if (is_type(root, json_type::array)) {  // Gemini's stream without alt=sse
      return for_each_element(
          root, [&](ondemand::value item) { return !is_type(item, json_type::object) || read(item); });
    }
    return is_type(root, json_type::object) &&
           for_each_member(
               root, [&](std::string_view key, ondemand::value value) { return read_member(key, value); });
  }

 private:
  bool read_member(std::string_view key, ondemand::value value) {
    if (is_gemini(kind)) {
      if (key == "usageMetadata" || key == "usage_metadata") return read_usage(value);
      if (key == "candidates") return read_ends(value, "finishReason");
    } else {
      if (key == "usage") return read_usage(value);
      // Where events nest it: Responses, Anthropic's message_start.
      if (key == "response" || key == "message") return read_nested(value);
      if (key == "choices") return read_choices(value);
      if (key == "delta") return read_end(value, "stop_reason");
      if (key == "type") return read_type(value);
    }
    if (key == "error" && !is_null(value)) is_error = true;
    return true;
  }

  bool read_nested(ondemand::value value) {
    if (!is_type(value, json_type::object)) return true;
    return for_each_member(value, [&](std::string_view key, ondemand::value member) {
      return key != "usage" || read_usage(member);
    });
  }

  bool read_type(ondemand::value value) {
    std::string_view type;
    if (!is_type(value, json_type::string)) return true;
    if (value.get_string().get(type) != simdjson::SUCCESS) return false;
    if (type == "response.completed" || type == "response.incomplete" || type == "message_stop") ends = true;
    if (type == "error" || type == "response.failed") is_error = ends = true;
    return true;
  }

  bool read_choices(ondemand::value value) {
    if (!is_type(value, json_type::array)) return true;
    bool is_empty = true;
    const bool whole = for_each_element(value, [&](ondemand::value choice) {
      is_empty = false;
      return read_end(choice, "finish_reason");
    });
    ends = ends || is_empty;
    return whole;
  }

  bool read_ends(ondemand::value value, std::string_view name) {
    return !is_type(value, json_type::array) ||
           for_each_element(value, [&](ondemand::value item) { return read_end(item, name); });
  }
  bool read_end(ondemand::value value, std::string_view name) {
    if (!is_type(value, json_type::object)) return true;
    return for_each_member(value, [&](std::string_view key, ondemand::value reason) {
      if (key == name && is_type(reason, json_type::string)) ends = true;
      return true;
    });
  }

  bool read_usage(ondemand::value value) {
    if (!is_type(value, json_type::object)) return true;  // null until the end
    has_usage = true;
    return for_each_member(
        value, [&](std::string_view key, ondemand::value count) { return read_count(key, count); });
  }

  bool read_count(std::string_view key, ondemand::value value) {
    if (key == "prompt_tokens") {
      is_prompt_shape = true;
      input.read(value);
    } else if (key == "input_tokens" || key == "promptTokenCount") {
      input.read(value);
    } else if (key == "completion_tokens" || key == "output_tokens" || key == "candidatesTokenCount") {
      output.read(value);
    } else if (key == "total_tokens" || key == "totalTokenCount") {
      total.read(value);
    } else if (key == "cachedContentTokenCount" || key == "prompt_cache_hit_tokens") {
      cached.read(value);
    } else if (key == "thoughtsTokenCount") {
      thoughts.read(value);
    } else if (key == "toolUsePromptTokenCount") {
      tool_use.read(value);
    } else if (key == "cache_read_input_tokens") {
      cache_read.read(value);
    } else if (key == "cache_creation_input_tokens") {
      cache_written.read(value);
    } else if (key == "prompt_tokens_details" || key == "input_tokens_details") {
      if (!is_type(value, json_type::object)) return true;
      return for_each_member(value, [&](std::string_view detail, ondemand::value count) {
        if (detail == "cached_tokens") cached.read(count);
        return true;
      });
    }
    return true;
  }
};

UsageReader::UsageReader(CallKind kind, const std::vector<policy::UnitPrice>& units, Format format,
                         std::size_t max_bytes)
    : kind_(kind), format_(format), units_(&units), max_bytes_(max_bytes), events_(max_bytes) {
  if (!units.empty()) usage_.nano_units.assign(units.size(), kNotTold);
  has_pointers_ =
      std::ranges::any_of(units, [](const policy::UnitPrice& unit) { return !unit.pointer.empty(); });
}

void UsageReader::header(std::string_view name, std::string_view value) {
  for (std::size_t i = 0; i < units_->size(); ++i) {
    const auto& wanted = (*units_)[i].header;
    if (!wanted.empty() && equals_ignoring_case(wanted, name))
      usage_.nano_units[i] = parse_nano(value).value_or(kNotTold);
  }
}

void UsageReader::feed(std::string_view bytes) {
  if (is_finished_) return;
  if (format_ == Format::event_stream) {
    bytes_ += static_cast<std::int64_t>(bytes.size());
    events_.feed(bytes,
                 [this](const http::EventStreamParser::Event& event) { read_event(event.type, event.data); });
  } else if (format_ == Format::json && !is_broken_) {
    if (bytes.size() > max_bytes_ - body_.size()) {
      is_broken_ = true;
      std::string().swap(body_);
      return;
    }
    body_.append(bytes);
  }
}

void UsageReader::read_event(std::string_view type, std::string_view data) {
  if (data == "[DONE]" || type == "message_stop") {
    is_final_ = true;
    return;
  }
  if (!hides_output_) hides_output_ = shows_hidden_output(kind_, data);
  // Most events are pieces of text: they need no parser. Quotes inside JSON text are escaped, so this finds
  // members.
  const bool may_tell_usage = contains(data, "\"usage");
  if (!may_tell_usage && type != "error" && !contains(data, "\"error") && !has_pointers_) return;
  Told told(kind_);
  if (type == "error") told.is_error = true;
  if (with_json(data, [&](ondemand::value root) { return told.read(root); })) {
    take(told);
    read_units(data);
  } else {
    stream_error_ = stream_error_ || type == "error";
    lost_event_ = lost_event_ || may_tell_usage;
  }
}

void UsageReader::read_units(std::string_view text) {
  for (std::size_t i = 0; i < units_->size(); ++i) {
    const auto& pointer = (*units_)[i].pointer;
    if (pointer.empty()) continue;
    with_json(text, [&](ondemand::value root) {
      usage_.nano_units[i] = find_nano(root, pointer).value_or(usage_.nano_units[i]);
      return true;
    });
  }
}

void UsageReader::take(const Told& told) {
  stream_error_ = stream_error_ || (told.is_error && format_ == Format::event_stream);
  if (told.has_usage) {
    is_broken_ = is_broken_ || told.is_broken();
    if (kind_ == CallKind::anthropic_messages && format_ == Format::event_stream) {
      take_cumulative(told);
    } else if (auto usage = told.usage()) {
      // The last one counts; one below what was told before is a fault of the provider.
      if (usage->total_tokens() >= usage_.total_tokens()) {
        usage->nano_units = std::move(usage_.nano_units);
        usage_ = std::move(*usage);
      }
      has_told_ = true;
    } else {
      is_broken_ = true;
    }
  }
  is_final_ = is_final_ || (told.ends && (told.has_usage || kind_ == CallKind::anthropic_messages));
}

/// Anthropic tells input first and output last; each count is of all so far.
void UsageReader::take_cumulative(const Told& told) {
  const auto raise = [](std::int64_t& count, const Count& by) { count = std::max(count, by.or_zero()); };
  raise(usage_.input_tokens, told.input);
  raise(usage_.cached_input_tokens, told.cache_read);
  raise(usage_.cache_write_tokens, told.cache_written);
  raise(usage_.output_tokens, told.output);
  told_input_ = told_input_ || told.input.value.has_value();
  has_told_ = told_input_ && told.output.value.has_value();
}

policy::Usage UsageReader::finish(bool complete) {
  if (std::exchange(is_finished_, true)) return usage_;
  if (format_ == Format::json && !is_broken_) {
    Told told(kind_);
    if (with_json(body_, [&](ondemand::value root) { return told.read(root); })) {
      told.ends = true;
      take(told);
      read_units(body_);
    }
  } else if (format_ == Format::event_stream) {
    const auto on_event = [this](const http::EventStreamParser::Event& event) {
      read_event(event.type, event.data);
    };
    if (complete) events_.feed("\n\n", on_event);  // some servers leave the last empty line out
    const bool may_end_without_mark =
        kind_ != CallKind::anthropic_messages && kind_ != CallKind::openai_responses;
    is_final_ = is_final_ || (complete && may_end_without_mark && !stream_error_ && !lost_event_ &&
                              events_.skipped() == 0);
    if (!complete && !is_final_) forget_running_units();
  }
  usage_.known = has_told_ && is_final_ && !is_broken_;
  std::string().swap(body_);
  return usage_;
}

/// A stream that was cut may have told its units on the way only: they are charged at their bound, or at what
/// was told if more.
void UsageReader::forget_running_units() {
  for (std::size_t i = 0; i < units_->size(); ++i) {
    const auto& unit = (*units_)[i];
    auto& told = usage_.nano_units[i];
    if (!unit.pointer.empty() && told <= unit.max_nano_units) told = kNotTold;
  }
}

std::int64_t UsageReader::output_token_bound() const noexcept {
  if (format_ != Format::event_stream || kind_ == CallKind::other || hides_output_) return -1;
  return std::max(bytes_, usage_.output_tokens);
}

bool UsageReader::saw_stream_error() const noexcept { return stream_error_; }

namespace {

/// The event that OpenAI adds for stream_options.include_usage.
bool is_usage_event(std::string_view block) {
  if (!contains(block, "\"usage\"") || !contains(block, "\"choices\"")) return false;
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
