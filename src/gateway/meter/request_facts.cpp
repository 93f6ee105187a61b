#include "gateway/meter/request_facts.hpp"

#include <algorithm>
#include <array>
#include <utility>

#include "gateway/meter/json_text.hpp"

namespace penstock::gateway {

namespace ondemand = simdjson::ondemand;
using ondemand::json_type;
using simdjson::SUCCESS;

namespace {

// What chat templates put around a message (role, separators, begin and end marks).
constexpr std::int64_t kTokensAroundMessage = 16;
// Providers put a prompt of their own before tools: up to about 700 tokens are documented.
constexpr std::int64_t kTokensAroundTools = 1024;
constexpr std::int64_t kMaxTokens = 1'000'000'000'000;
constexpr std::int64_t kMaxChoices = 128;
constexpr std::int64_t kMaxBound = 1'000'000'000'000'000;
// The context of a model whose price does not say it, where bytes bound nothing: as large as contexts are
// today.
constexpr std::int64_t kUnknownContext = 1 << 20;
constexpr std::size_t kMaxModelBytes = 256;
constexpr int kMaxDepth = 64;

// Members of a request that hold what the model reads, message by message.
constexpr auto kConversations =
    std::to_array<std::string_view>({"messages", "input", "prompt", "contents", "system", "systemInstruction",
                                     "system_instruction", "instructions"});
// Members that bring text which the body does not hold.
constexpr auto kReferences = std::to_array<std::string_view>(
    {"previous_response_id", "conversation", "cachedContent", "cached_content", "mcp_servers",
     "web_search_options", "container", "file", "files", "file_id", "file_ids", "image", "audio_url"});
// Types of items and parts whose tokens their bytes bound. Any other type may be an image, a file, a search,
// a reference.
constexpr auto kTextTypes = std::to_array<std::string_view>(
    {"text", "input_text", "output_text", "refusal", "message", "function", "function_call",
     "function_call_output", "custom_tool_call", "custom_tool_call_output", "tool_use", "tool_result",
     "reasoning", "reasoning_text", "summary_text", "thinking", "redacted_thinking", "search_result"});
// Members that hold or name what is not text, wherever they stand in a conversation.
constexpr auto kMediaMembers = std::to_array<std::string_view>(
    {"image_url", "video_url", "audio_url", "file_url", "input_audio", "audio", "file_id", "file_data",
     "fileData", "inline_data", "inlineData"});
// Members whose objects are parts again.
constexpr auto kPartHolders =
    std::to_array<std::string_view>({"content", "parts", "output", "functionResponse", "function_response"});

template <std::size_t N>
bool is_one_of(std::string_view text, const std::array<std::string_view, N>& list) noexcept {
  return std::ranges::find(list, text) != list.end();
}

std::optional<std::string_view> string_of(ondemand::value value) noexcept {
  std::string_view text;
  if (!is_type(value, json_type::string) || value.get_string().get(text) != SUCCESS) return std::nullopt;
  return text;
}

enum class Place : std::uint8_t { part, inside };

/// One reading of one body. Each function returns false when the JSON is broken.
class Reader {
 public:
  Reader(CallKind kind, RequestFacts& facts) : kind_(kind), facts_(facts) {}

  bool read(ondemand::value root) {
    return is_type(root, json_type::object) &&
           for_each_member(
               root, [&](std::string_view key, ondemand::value value) { return read_member(key, value); });
  }
  [[nodiscard]] std::int64_t extra_tokens() const noexcept {
    return messages_ * kTokensAroundMessage + tool_tokens_;
  }
  [[nodiscard]] std::int64_t prompts() const noexcept { return prompts_; }

 private:
  bool read_member(std::string_view key, ondemand::value value) {
    if (key == "model") return once(seen_model_) && read_model(value);
    if (key == "stream") {
      facts_.stream = is_true(value);
      return once(seen_stream_);
    }
    if (key == "stream_options") return !is_type(value, json_type::object) || read_stream_options(value);
    if (key == "n" || key == "best_of") return read_choices(value);
    if (key == "generationConfig" || key == "generation_config") {
      return !is_type(value, json_type::object) || read_generation_config(value);
    }
    if (bounds_output(key)) return read_max_output(value);
    if (key == "tools" || key == "functions") return read_tools(value);
    if (is_one_of(key, kConversations)) return read_conversation(key, value);
    if (is_one_of(key, kReferences) && !is_null(value)) facts_.has_unbounded_input = true;
    return true;
  }

  // Two members of one name: parsers differ in which one counts, so the body bounds nothing.
  static bool once(bool& seen) noexcept { return !std::exchange(seen, true); }

  bool read_model(ondemand::value value) {
    const auto model = string_of(value);
    if (model && model->size() <= kMaxModelBytes) facts_.model = *model;
    return true;
  }

  bool read_stream_options(ondemand::value value) {
    return for_each_member(value, [&](std::string_view key, ondemand::value option) {
      if (key == "include_usage") facts_.asks_for_stream_usage = is_true(option);
      return true;
    });
  }

  [[nodiscard]] bool bounds_output(std::string_view key) const noexcept {
    switch (kind_) {
      case CallKind::openai_chat: return key == "max_tokens" || key == "max_completion_tokens";
      case CallKind::openai_completions:
      case CallKind::anthropic_messages: return key == "max_tokens";
      case CallKind::openai_responses: return key == "max_output_tokens";
      case CallKind::other:
        return key == "max_tokens" || key == "max_completion_tokens" || key == "max_output_tokens";
      default: return false;
    }
  }

  /// Of several bounds the largest counts: the caller may have set one that the provider does not know.
  bool read_max_output(ondemand::value value) {
    const auto text = number_text(value);
    const auto most = text ? parse_up(*text, kMaxTokens) : std::nullopt;
    if (most && *most > 0) facts_.max_output_tokens = std::max(*most, facts_.max_output_tokens.value_or(0));
    return true;
  }

  bool read_choices(ondemand::value value) {
    const auto text = number_text(value);
    const auto choices = text ? parse_up(*text, kMaxTokens) : std::nullopt;
    if (choices) facts_.choices = std::clamp(*choices, facts_.choices, kMaxChoices);
    return true;
  }

  bool read_generation_config(ondemand::value value) {
    if (kind_ != CallKind::gemini_generate && kind_ != CallKind::gemini_stream && kind_ != CallKind::other)
      return true;
    return for_each_member(value, [&](std::string_view key, ondemand::value setting) {
      if (key == "maxOutputTokens" || key == "max_output_tokens") return read_max_output(setting);
      if (key == "candidateCount" || key == "candidate_count") return read_choices(setting);
      return true;
    });
  }

  /// Schemas are rendered again by the provider, perhaps with escapes and indents: their bytes count twice.
  bool read_tools(ondemand::value value) {
    if (is_null(value)) return true;
    tool_tokens_ += kTokensAroundTools;
    ondemand::array tools;
    if (!is_type(value, json_type::array)) return true;
    if (value.get_array().get(tools) != SUCCESS) return false;
    std::string_view raw;
    if (tools.raw_json().get(raw) != SUCCESS) return false;
    tool_tokens_ += static_cast<std::int64_t>(raw.size());
    if (tools.reset().error() != SUCCESS) return false;
    for (auto element : tools) {
      ondemand::value tool;
      if (std::move(element).get(tool) != SUCCESS) return false;
      if (is_type(tool, json_type::object) && !read_tool(tool)) return false;
    }
    return true;
  }

  /// Tools that run at the provider (search, code, files, computers) bring tokens that no byte here bounds.
  bool read_tool(ondemand::value tool) {
    const bool is_gemini = kind_ == CallKind::gemini_generate || kind_ == CallKind::gemini_stream;
    return for_each_member(tool, [&](std::string_view key, ondemand::value value) {
      if (is_gemini) {
        if (key != "functionDeclarations" && key != "function_declarations")
          facts_.has_unbounded_input = true;
      } else if (key == "type") {
        const auto type = string_of(value);
        if (!type || (*type != "function" && *type != "custom")) facts_.has_unbounded_input = true;
      }
      return true;
    });
  }

  bool read_conversation(std::string_view key, ondemand::value value) {
    if (is_type(value, json_type::array)) {
      const bool are_prompts = key == "prompt" && kind_ != CallKind::openai_chat;
      std::int64_t prompts = 0;
      const bool whole = for_each_element(value, [&](ondemand::value item) {
        if (is_type(item, json_type::number)) return true;  // a token
        ++messages_;
        ++prompts;
        return scan(item, Place::part, 0);
      });
      if (are_prompts) prompts_ = std::max(prompts_, prompts);
      return whole;
    }
    ++messages_;
    // A stored prompt: its text is at the provider.
    if (key == "prompt" && is_type(value, json_type::object)) facts_.has_unbounded_input = true;
    return scan(value, Place::part, 0);
  }

  bool scan(ondemand::value value, Place place, int depth) {
    if (depth > kMaxDepth) {
      facts_.has_unbounded_input = true;
      return true;
    }
    if (is_type(value, json_type::array)) {
      return for_each_element(value, [&](ondemand::value item) { return scan(item, place, depth + 1); });
    }
    if (!is_type(value, json_type::object)) return true;
    return for_each_member(value, [&](std::string_view key, ondemand::value member) {
      if (place == Place::part && key == "type") {
        const auto type = string_of(member);
        if (!type || !is_one_of(*type, kTextTypes)) facts_.has_unbounded_input = true;
        return true;
      }
      if (is_one_of(key, kMediaMembers) && !is_null(member)) facts_.has_unbounded_input = true;
      const bool holds_parts = place == Place::part && is_one_of(key, kPartHolders);
      return scan(member, holds_parts ? Place::part : Place::inside, depth + 1);
    });
  }

  CallKind kind_;
  RequestFacts& facts_;
  std::int64_t messages_ = 0;
  std::int64_t tool_tokens_ = 0;
  std::int64_t prompts_ = 1;
  bool seen_model_ = false;
  bool seen_stream_ = false;
};

std::string_view without_query(std::string_view path) noexcept {
  path = path.substr(0, path.find_first_of("?#"));
  while (path.size() > 1 && path.ends_with('/')) path.remove_suffix(1);
  return path;
}

int hex_digit(char c) noexcept {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  return -1;
}

std::string percent_decoded(std::string_view text) {
  std::string decoded;
  for (std::size_t i = 0; i < text.size(); ++i) {
    if (text[i] == '%' && i + 2 < text.size() && hex_digit(text[i + 1]) >= 0 && hex_digit(text[i + 2]) >= 0) {
      decoded += static_cast<char>(hex_digit(text[i + 1]) * 16 + hex_digit(text[i + 2]));
      i += 2;
    } else {
      decoded += text[i];
    }
  }
  return decoded;
}

/// The model where the path decides it: ".../models/NAME:generateContent" of Gemini,
/// ".../deployments/NAME/..." of Azure (which ignores the body's model). Empty: the body names it.
std::string model_of_path(CallKind kind, std::string_view path) {
  if (kind == CallKind::other) return {};
  path = without_query(path);
  const bool is_gemini = kind == CallKind::gemini_generate || kind == CallKind::gemini_stream;
  const std::string_view before = is_gemini ? "odels/" : "/deployments/";  // models/ and tunedModels/
  const auto at = path.rfind(before);
  if (at == std::string_view::npos) return {};
  const auto name = path.substr(at + before.size());
  const auto model = name.substr(0, name.find(is_gemini ? ':' : '/'));
  return model.size() <= kMaxModelBytes ? percent_decoded(model) : std::string();
}

}  // namespace

CallKind call_kind(config::Api api, std::string_view path) noexcept {
  if (api == config::Api::generic) return CallKind::other;
  path = without_query(path);
  if (api == config::Api::gemini) {
    if (path.ends_with(":generateContent")) return CallKind::gemini_generate;
    if (path.ends_with(":streamGenerateContent")) return CallKind::gemini_stream;
  }
  if (api == config::Api::anthropic && path.ends_with("/messages")) return CallKind::anthropic_messages;
  // Anthropic and Gemini offer the OpenAI paths too.
  if (path.ends_with("/chat/completions")) return CallKind::openai_chat;
  if (path.ends_with("/completions")) return CallKind::openai_completions;
  if (path.ends_with("/responses")) return CallKind::openai_responses;
  if (path.ends_with("/embeddings")) return CallKind::openai_embeddings;
  return CallKind::other;
}

RequestFacts read_request(CallKind kind, std::string_view path, std::string_view body) {
  RequestFacts facts;
  Reader reader(kind, facts);
  facts.is_json_object = with_json(body, [&](ondemand::value root) { return reader.read(root); });
  if (!facts.is_json_object) {
    // Compressed, a form, another encoding: nothing read so far holds.
    facts = RequestFacts{};
    facts.has_unbounded_input = !body.empty();
  }
  facts.input_token_bound = static_cast<std::int64_t>(body.size());
  if (facts.is_json_object) {
    facts.input_token_bound += reader.extra_tokens();
    facts.choices *= reader.prompts();
  }
  facts.produces_output = kind != CallKind::openai_embeddings;
  if (kind == CallKind::gemini_stream) facts.stream = true;
  if (auto model = model_of_path(kind, path); !model.empty()) facts.model = std::move(model);
  return facts;
}

policy::UsageBound bound_of(const RequestFacts& facts, const policy::ModelPrice* model,
                            std::int64_t default_max_output_tokens) noexcept {
  policy::UsageBound bound{.input_tokens = facts.input_token_bound};
  if (facts.has_unbounded_input && model != nullptr) {
    bound.input_tokens = model->max_input_tokens > 0 ? model->max_input_tokens
                                                     : std::max(facts.input_token_bound, kUnknownContext);
  }
  if (!facts.produces_output) return bound;
  std::int64_t output = default_max_output_tokens;
  if (model != nullptr && model->max_output_tokens > 0) output = model->max_output_tokens;
  if (facts.max_output_tokens) output = *facts.max_output_tokens;
  const auto all =
      static_cast<__int128>(std::max<std::int64_t>(output, 0)) * std::max<std::int64_t>(facts.choices, 1);
  bound.output_tokens = all > kMaxBound ? kMaxBound : static_cast<std::int64_t>(all);
  return bound;
}

std::optional<std::string> with_stream_usage(std::string_view body) {
  constexpr std::string_view kMember = R"("include_usage":true)";
  // What to put in place of body[at, at + length).
  std::size_t at = 0;
  std::size_t length = 0;
  std::string text;
  bool seen = false;

  const bool is_object = with_json(body, [&](ondemand::value root) {
    if (!is_type(root, json_type::object)) return false;
    bool is_empty = true;
    ondemand::object object;
    if (root.get_object().get(object) != SUCCESS) return false;
    const char* const base =
        JsonScratch::of_this_thread().text();  // offsets in the copy are offsets in the body
    const auto offset = [&](const char* place) { return static_cast<std::size_t>(place - base); };
    const bool whole = for_each_member(object, [&](std::string_view key, ondemand::value value) {
      is_empty = false;
      if (key != "stream_options") return true;
      if (std::exchange(seen, true)) return false;
      const std::string_view token = value.raw_json_token();
      at = offset(token.data());
      if (is_null(value)) {
        length = 4;
        text = std::string("{").append(kMember).append("}");
        return true;
      }
      if (!is_type(value, json_type::object)) return true;  // the provider will refuse it
      bool has_options = false;
      bool has_include = false;
      const auto inside = at + 1;
      const bool read = for_each_member(value, [&](std::string_view option, ondemand::value setting) {
        has_options = true;
        if (option != "include_usage") return true;
        if (std::exchange(has_include, true)) return false;
        const bool is_scalar = !is_type(setting, json_type::object) && !is_type(setting, json_type::array);
        const std::string_view old = setting.raw_json_token();
        at = offset(old.data());
        length = old.find_last_not_of(" \t\r\n") + 1;
        text = is_scalar ? "true" : std::string(old.substr(0, length));
        return true;
      });
      if (!has_include) {
        at = inside;
        text = std::string(kMember).append(has_options ? "," : "");
      }
      return read;
    });
    if (!seen) {
      at = body.find('{') + 1;
      text = std::string(R"("stream_options":{)").append(kMember).append(is_empty ? "}" : "},");
    }
    return whole;
  });
  if (!is_object) return std::nullopt;
  std::string changed;
  changed.reserve(body.size() + text.size());
  changed.append(body.substr(0, at)).append(text).append(body.substr(at + length));
  return changed;
}

}  // namespace penstock::gateway
