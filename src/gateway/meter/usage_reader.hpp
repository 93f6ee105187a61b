#pragma once

#include <cstdint>
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
/// JSON answers are collected up to `max_bytes` and read at the end; event streams are read event by event.
/// Any splitting of the bytes gives the same usage. Traps, by provider: OpenAI chat sends usage in an extra
/// event after finish_reason, and `usage: null` before; Responses nests it in response.completed and counts
/// cached tokens inside input; Anthropic's output counts are cumulative (the last one counts) and its input
/// excludes cache reads and writes; Gemini's thoughts are not in candidates, cached is in prompt.
class UsageReader {
 public:
  enum class Format : std::uint8_t { none, json, event_stream };

  /// `units` must outlive the reader.
  UsageReader(CallKind kind, const std::vector<policy::UnitPrice>& units, Format format,
              std::size_t max_bytes);

  /// A field of the answer's head, for units priced by header.
  void header(std::string_view name, std::string_view value);
  void feed(std::string_view bytes);

  /// After the last byte. `complete`: the answer ended as its framing says. Negative, fractional, missing,
  /// null or absurd
  /// (> 10^12) token counts make the usage unknown. A later call gives the same.
  [[nodiscard]] policy::Usage finish(bool complete);

  /// An upper bound of output tokens by what has passed so far (one token per byte of text), for streams that
  /// were cut or that told no usage; -1: no bound (not an event stream of a known kind).
  [[nodiscard]] std::int64_t output_token_bound() const noexcept;
  /// A stream that told an error instead of an end.
  [[nodiscard]] bool saw_stream_error() const noexcept;

 private:
  /// What one answer or event told; taken over only when it was read to its end.
  struct Told;

  void read_event(std::string_view type, std::string_view data);
  void read_units(std::string_view text);
  void take(const Told& told);
  bool take_whole(const Told& told);
  bool take_cumulative(const Told& told);
  void forget_running_units();

  CallKind kind_;
  Format format_;
  const std::vector<policy::UnitPrice>* units_;
  std::size_t max_bytes_;
  std::string body_;  // of a JSON answer
  http::EventStreamParser events_;
  policy::Usage usage_;
  std::int64_t bytes_ = 0;        // of a stream, all of them
  std::int64_t most_output_ = 0;  // output tokens told so far
  bool has_pointers_ = false;     // any unit is found by pointer: each event is parsed
  bool told_input_ = false;
  bool has_told_ = false;    // usage_ holds token counts
  bool is_final_ = false;    // ... told beside an end of the answer: those of all of it
  bool has_end_ = false;     // the stream came to its end
  bool is_broken_ = false;   // a count made no sense
  bool lost_event_ = false;  // an event that may have told usage could not be read
  bool stream_error_ = false;
  bool hides_output_ = false;  // there are output tokens that are not sent as text (reasoning)
  bool is_finished_ = false;
};

/// Takes the one usage event that was injected out of an OpenAI chat stream (`choices` empty, `usage` an
/// object) and passes all other bytes on, holding back at most one event. For providers with stream_usage:
/// inject.
class InjectedUsageFilter {
 public:
  /// Appends to `out` what may pass on.
  void feed(std::string_view bytes, std::string& out);
  void finish(std::string& out);  ///< what was held back, when the stream ended inside an event

 private:
  void end_event(std::string& out);

  std::string held_;
  bool line_is_empty_ = true;  // at the start of a line
  bool after_cr_ = false;      // a '\n' now belongs to the line end before
  bool drop_lf_ = false;       // ... and to an event that was taken out
  bool is_passing_ = false;    // the rest of an event that is too large for a usage event
};

}  // namespace penstock::gateway
