// The answers, one file per dialect. Everything in them is deterministic: the same call gets the same bytes,
// so that tests can compare a stream with and without a gateway in between. Only request ids in headers count
// up.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

#include "billing.hpp"
#include "call.hpp"
#include "script.hpp"
#include "wire.hpp"

namespace penstock::mock {

/// A body that is made piece by piece, one piece per gap.
class Stream {
 public:
  virtual ~Stream() = default;
  /// Appends the next piece; false when that was the last.
  [[nodiscard]] virtual bool next(std::string& out) = 0;
  /// Completion tokens in the pieces so far; for providers that bill what was sent.
  [[nodiscard]] virtual std::int64_t completion_sent() const { return 0; }
  bool framed = true;  // in chunks; else raw
};

struct Answer {
  int status = 200;
  std::string_view content_type = "application/json";
  std::string interim;   // a whole 1xx head to send first
  std::string headers;   // further header lines, each with its CRLF
  std::string trailers;  // likewise
  std::string body;
  std::unique_ptr<Stream> stream;   // instead of `body`
  std::int64_t stream_length = -1;  // its Content-Length; -1: chunked
  bool close = false;
  bool admin = false;  // no call: not counted among those in flight

  // On whose bill, and what for.
  Kind kind = Kind::other;
  Usage usage;
  std::int64_t credits = 0;
  Bill::Account account;
  bool billed_when_sent = false;

  // How it goes out.
  std::int64_t latency_ns = 0, gap_ns = 0, cut_after_bytes = -1, stall_after_bytes = -1;
  Fault fault = Fault::none;
  bool cut_before_head = false, cut_reset = false;

  /// Empties it, keeping the buffers.
  void clear();
};

/// What a dialect needs to write its answer.
struct Question {
  const Request& request;
  const Call& call;
  const Rules& rules;
  Usage usage;
  std::uint64_t number = 0;  // counts calls, for request ids

  /// Tokens that show up as text, and the events to spread them over.
  [[nodiscard]] std::size_t text_tokens() const;
  [[nodiscard]] std::size_t events() const;
  [[nodiscard]] bool capped() const { return usage.capped; }
};

/// Base of the token streams: text spread over events, an opening, an end, and an error half-way if scripted.
class TokenStream : public Stream {
 public:
  explicit TokenStream(const Question& question);
  bool next(std::string& out) final;
  std::int64_t completion_sent() const final;

 protected:
  virtual void open(std::string& out) = 0;
  virtual void piece(std::string& out, std::string_view text) = 0;
  virtual void end(std::string& out) = 0;
  virtual void fail(std::string& out) = 0;
  [[nodiscard]] std::size_t index() const { return index_; }

  Usage usage_;
  std::string model_;  // as JSON, quotes included
  std::int64_t choices_;
  bool no_usage_, include_usage_, extra_usage_, stamp_;

 private:
  std::size_t text_tokens_, events_, index_ = 0;
  bool sse_error_;
};

/// A refusal in the words of one dialect. `type` is OpenAI's type or Anthropic's; `code` OpenAI's code.
struct Complaint {
  int status;
  std::string_view type, code, message;
};

void answer_chat(const Question& question, Answer& answer);
void answer_responses(const Question& question, Answer& answer);
void answer_embeddings(const Question& question, Answer& answer);
void answer_models(const Request& request, Answer& answer);
void complain_openai(const Complaint& complaint, Answer& answer);

void answer_messages(const Question& question, Answer& answer);
void answer_count_tokens(const Question& question, Answer& answer);
void complain_anthropic(const Complaint& complaint, Answer& answer);

void answer_gemini(const Question& question, Answer& answer);
/// The model in /v1beta/models/{model}:generateContent, and whether it is to be streamed.
struct GeminiTarget {
  std::string_view model;
  bool stream = false;
};
[[nodiscard]] std::optional<GeminiTarget> gemini_target(std::string_view path);
void complain_gemini(const Complaint& complaint, Answer& answer);

void answer_geocode(const Question& question, Answer& answer);
void complain_plain(const Complaint& complaint, Answer& answer);
/// /anything, /bytes, /status, /drip, /chunked, /continue-103; false: no such path.
[[nodiscard]] bool answer_plain(const Question& question, Answer& answer);

}  // namespace penstock::mock
