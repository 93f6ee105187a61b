#include "answers.hpp"
#include "text.hpp"

namespace penstock::mock {

namespace {

// Thoughts are not among the candidates' tokens; the total holds both. Cached tokens are part of the
// prompt's.
void append_usage(std::string& out, const Usage& usage, std::int64_t completion) {
  const std::int64_t thoughts = std::min(usage.reasoning, completion);
  append(out, R"({"promptTokenCount":)", usage.prompt, R"(,"candidatesTokenCount":)", completion - thoughts,
         R"(,"totalTokenCount":)", usage.prompt + completion);
  if (thoughts > 0) append(out, R"(,"thoughtsTokenCount":)", thoughts);
  if (usage.cached > 0) append(out, R"(,"cachedContentTokenCount":)", usage.cached);
  out += '}';
}

void append_chunk(std::string& out, std::string_view model, std::string_view text, std::string_view finish,
                  const Usage* usage, std::int64_t completion) {
  append(out, R"({"candidates":[{"content":{"parts":[{"text":")", text, R"("}],"role":"model"},"index":0)");
  if (!finish.empty()) append(out, R"(,"finishReason":")", finish, "\"");
  out += "}]";
  if (usage != nullptr) {
    out += R"(,"usageMetadata":)";
    append_usage(out, *usage, completion);
  }
  append(out, R"(,"modelVersion":)", model, R"(,"responseId":"mock"})");
}

std::string_view finish_reason(const Usage& usage) { return usage.capped ? "MAX_TOKENS" : "STOP"; }

// As server-sent events, or (without alt=sse) as one JSON array that grows.
class GeminiStream final : public TokenStream {
 public:
  GeminiStream(const Question& question, bool sse) : TokenStream(question), sse_(sse) {}

 private:
  void open(std::string&) override {}
  void piece(std::string& out, std::string_view text) override {
    const ChunkInPlace chunk(out, framed);
    begin(out);
    append_chunk(out, model_, text, "", no_usage_ ? nullptr : &usage_, completion_sent());
    if (sse_) out += "\r\n\r\n";
  }
  void end(std::string& out) override {
    const ChunkInPlace chunk(out, framed);
    begin(out);
    append_chunk(out, model_, "", finish_reason(usage_), no_usage_ ? nullptr : &usage_, usage_.completion);
    out += sse_ ? "\r\n\r\n" : "]";
  }
  void fail(std::string& out) override {
    const ChunkInPlace chunk(out, framed);
    begin(out);
    out += R"({"error":{"code":503,"message":"The model is overloaded.","status":"UNAVAILABLE"}})";
    out += sse_ ? "\r\n\r\n" : "]";
  }
  void begin(std::string& out) {
    out += sse_ ? "data: " : (first_ ? "[" : ",\r\n");
    first_ = false;
  }
  bool sse_, first_ = true;
};

}  // namespace

std::optional<GeminiTarget> gemini_target(std::string_view path) {
  constexpr std::string_view kPrefix = "/v1beta/models/";
  if (!path.starts_with(kPrefix)) return std::nullopt;
  path.remove_prefix(kPrefix.size());
  const std::string_view model = take_until(path, ':');
  if (path == "generateContent") return GeminiTarget{model, false};
  if (path == "streamGenerateContent") return GeminiTarget{model, true};
  return std::nullopt;
}

void answer_gemini(const Question& question, Answer& answer) {
  if (question.call.stream) {
    const bool sse = query_value(question.request.query, "alt") == "sse";
    if (sse) answer.content_type = "text/event-stream";
    answer.stream = std::make_unique<GeminiStream>(question, sse);
    return;
  }
  std::string model;
  append_json_string(model, question.call.model);
  append_chunk(answer.body, model, words(0, question.text_tokens()), finish_reason(question.usage),
               question.rules.no_usage ? nullptr : &question.usage, question.usage.completion);
}

void complain_gemini(const Complaint& complaint, Answer& answer) {
  answer.status = complaint.status;
  append(answer.body, R"({"error":{"code":)", complaint.status, R"(,"message":)");
  append_json_string(answer.body, complaint.message);
  append(answer.body, R"(,"status":")",
         complaint.status == 429   ? "RESOURCE_EXHAUSTED"
         : complaint.status == 503 ? "UNAVAILABLE"
         : complaint.status < 500  ? "INVALID_ARGUMENT"
                                   : "INTERNAL",
         "\"}}");
}

}  // namespace penstock::mock
