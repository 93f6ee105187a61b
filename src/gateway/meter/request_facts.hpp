#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "config/config.hpp"
#include "policy/price.hpp"

namespace penstock::gateway {

/// What a request body says that bounds its cost.
struct RequestFacts {
  bool is_json_object = false;
  std::string model;  ///< as the caller typed it: never a label, never logged
  bool stream = false;
  bool asks_for_stream_usage = false;  ///< OpenAI chat: stream_options.include_usage
  std::int64_t input_token_bound =
      0;  ///< bytes of all text and tool schemas plus a constant a message: >= the tokens
  bool has_unbounded_input =
      false;  ///< images, audio, files, references to earlier responses: bytes bound nothing
  std::optional<std::int64_t> max_output_tokens;
  std::int64_t choices = 1;     ///< n, candidateCount, best_of
  bool produces_output = true;  ///< false: embeddings
};

/// How a provider's path tells what kind of call it is.
enum class CallKind : std::uint8_t {
  other,
  openai_chat,
  openai_completions,
  openai_responses,
  openai_embeddings,
  anthropic_messages,
  gemini_generate,
  gemini_stream
};
[[nodiscard]] CallKind call_kind(config::Api api, std::string_view path) noexcept;

/// Reads the facts. `body` is the whole body; it need not be padded. A body that is not JSON gives facts with
/// is_json_object == false, of which only the byte bound is meaningful. `path` names the model of Gemini
/// calls.
[[nodiscard]] RequestFacts read_request(CallKind kind, std::string_view path, std::string_view body);

/// The bound to reserve for: input by bytes (a model's max_input_tokens where bytes bound nothing), output by
/// the request's own bound, else the model's, else `default_max_output_tokens`; times the choices.
[[nodiscard]] policy::UsageBound bound_of(const RequestFacts& facts, const policy::ModelPrice* model,
                                          std::int64_t default_max_output_tokens) noexcept;

/// The body of an OpenAI chat request with `stream_options.include_usage` set, everything else byte for byte.
/// Nothing where the body is not a JSON object.
[[nodiscard]] std::optional<std::string> with_stream_usage(std::string_view body);

}  // namespace penstock::gateway
