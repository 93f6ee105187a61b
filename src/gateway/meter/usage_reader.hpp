#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "config/config.hpp"
#include "gateway/meter/request_facts.hpp"
#include "http/event_stream.hpp"
#include "policy/price.hpp"

namespace penstock::gateway {

/// Reads usage out of an answer as its bytes pass by; never changes or delays them. One per attempt.
///
/// JSON answers are collected up to `max_bytes` and read at the end; event streams are read event by event. Any splitting of the bytes
/// gives the same usage. Traps, by provider: OpenAI chat sends usage in an extra event after finish_reason, and `usage: null`
/// before; Responses nests it in response.completed and counts cached tokens inside input; Anthropic's output counts are cumulative
/// (the last one counts) and its input excludes cache reads and writes; Gemini's thoughts are not in candidates, cached is in prompt.
class UsageReader {
 public:
  enum class Format : std::uint8_t { none, json, event_stream };

  /// `units` must outlive the reader.
  UsageReader(CallKind kind, const std::vector<policy::UnitPrice>& units, Format format, std::size_t max_bytes);

  /// A field of the answer's head, for units priced by header.
  void header(std::string_view name, std::string_view value);
  void feed(std::string_view bytes);

  /// After the last byte. `complete`: the answer ended as its framing says. Negative, fractional, missing, null or absurd
  /// (> 10^12) token counts make the usage unknown. A later call gives the same.
  [[nodiscard]] policy::Usage finish(bool complete);

  /// An upper bound of output tokens by what has passed so far (one token per byte of text), for streams that were cut or that told no
  /// usage; -1: no bound (not an event stream of a known kind).
  [[nodiscard]] std::int64_t output_token_bound() const noexcept;
  /// A stream that told an error instead of an end.
  [[nodiscard]] bool saw_stream_error() const noexcept;

 private:
  struct State;
  std::shared_ptr<State> state_;  // the implementer may choose members instead; no allocation for Format::none
};

/// Takes the one usage event that was injected out of an OpenAI chat stream (`choices` empty, `usage` an object) and passes
/// all other bytes on, holding back at most one event. For providers with stream_usage: inject.
class InjectedUsageFilter {
 public:
  /// Appends to `out` what may pass on.
  void feed(std::string_view bytes, std::string& out);
  void finish(std::string& out);  ///< what was held back, when the stream ended inside an event

 private:
  std::string held_;
};

}  // namespace penstock::gateway
