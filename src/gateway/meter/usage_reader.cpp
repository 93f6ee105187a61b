#include "gateway/meter/usage_reader.hpp"

#include <algorithm>
#include <cstring>
#include <optional>
#include <utility>

#include "gateway/meter/json_text.hpp"

namespace penstock::gateway {

namespace ondemand = simdjson::ondemand;
using ondemand::json_type;

namespace {

constexpr std::int64_t kNotTold = -1;
constexpr std::int64_t kMaxTokens = 1'000'000'000'000;

bool is_gemini(CallKind kind) noexcept {
  return kind == CallKind::gemini_generate || kind == CallKind::gemini_stream;
}

/// By memmem, many times faster than find() on text full of quotes.
bool contains(std::string_view text, std::string_view what) noexcept {
  return !text.empty() && ::memmem(text.data(), text.size(), what.data(), what.size()) != nullptr;
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
  bool is_nested = false;  // the usage stood inside another object
  Count input;             // as the provider counts: OpenAI and Gemini with cached tokens, Anthropic without
  Count output;            // Gemini: without thoughts
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
      if (key != "usage") return true;
      is_nested = true;
      return read_usage(member);
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
    has_end_ = true;
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
  if (!told.has_usage) return;

  is_broken_ = is_broken_ || told.is_broken();
  const bool is_cumulative = kind_ == CallKind::anthropic_messages && format_ == Format::event_stream;
  const bool took = is_cumulative ? take_cumulative(told) : take_whole(told);
  most_output_ = std::max(most_output_, usage_.output_tokens);
  is_final_ = is_final_ || (told.ends && took);
}

/// False: the block says too little to be a usage (Vertex sends some with nothing but a traffic type).
bool UsageReader::take_whole(const Told& told) {
  auto usage = told.usage();
  if (!usage) return false;
  if (usage->input_tokens < 0) {  // more cached than read
    is_broken_ = true;
    return false;
  }
  // The last one counts; one below what was told before is a fault of the provider.
  if (usage->total_tokens() >= usage_.total_tokens()) {
    usage->nano_units = std::move(usage_.nano_units);
    usage_ = std::move(*usage);
  }
  has_told_ = true;
  return true;
}

/// Anthropic tells input first and output last; each count is of all so far. What message_start tells of
/// output is none of it.
bool UsageReader::take_cumulative(const Told& told) {
  const auto raise = [](std::int64_t& count, const Count& by) { count = std::max(count, by.or_zero()); };
  raise(usage_.input_tokens, told.input);
  raise(usage_.cached_input_tokens, told.cache_read);
  raise(usage_.cache_write_tokens, told.cache_written);
  raise(usage_.output_tokens, told.output);
  told_input_ = told_input_ || told.input.value.has_value();
  const bool tells_output = told.output.value.has_value() && !told.is_nested;
  has_told_ = has_told_ || (told_input_ && tells_output);
  return tells_output;
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
    has_end_ = has_end_ || (complete && may_end_without_mark);
    if (!complete && !has_end_ && !is_final_) forget_running_units();
  }
  const bool is_last = is_final_ || (has_end_ && !stream_error_ && !lost_event_ && events_.skipped() == 0);
  usage_.known = has_told_ && is_last && !is_broken_;
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
  return std::max(bytes_, most_output_);
}

bool UsageReader::saw_stream_error() const noexcept { return stream_error_; }

}  // namespace penstock::gateway
