#include "answers.hpp"
#include "text.hpp"

namespace penstock::mock {

namespace {

// Cache reads stand apart from input_tokens here: whole input = input + cache_creation + cache_read.
void append_usage(std::string& out, const Usage& usage, std::int64_t output) {
  append(out, R"({"input_tokens":)", usage.prompt - usage.cached,
         R"(,"cache_creation_input_tokens":0,"cache_read_input_tokens":)", usage.cached,
         R"(,"output_tokens":)", output, R"(,"service_tier":"standard"})");
}

std::string_view stop_reason(const Usage& usage) { return usage.capped ? "max_tokens" : "end_turn"; }

class MessagesStream final : public TokenStream {
 public:
  using TokenStream::TokenStream;

 private:
  void open(std::string& out) override {
    {
      const ChunkInPlace chunk(out, framed);
      append(out, "event: message_start\ndata: {\"type\":\"message_start\",\"message\":{\"id\":\"msg_mock\",",
             R"("type":"message","role":"assistant","model":)", model_,
             R"(,"content":[],"stop_reason":null,"stop_sequence":null)");
      if (!no_usage_) {
        out += R"(,"usage":)";
        append_usage(out, usage_, 1);  // a first count; the last message_delta replaces it
      }
      out += "}}\n\n";
    }
    event(out, "content_block_start", R"(,"index":0,"content_block":{"type":"text","text":""})");
    event(out, "ping", "");
  }
  void piece(std::string& out, std::string_view text) override {
    {
      const ChunkInPlace chunk(out, framed);
      append(out, "event: content_block_delta\ndata: {\"type\":\"content_block_delta\",\"index\":0,",
             R"("delta":{"type":"text_delta","text":")", text, "\"}}\n\n");
    }
    if (extra_usage_) delta(out, "null", completion_sent());
  }
  void end(std::string& out) override {
    event(out, "content_block_stop", R"(,"index":0)");
    std::string reason = "\"";
    append(reason, stop_reason(usage_), "\"");
    delta(out, reason, usage_.completion);
    event(out, "message_stop", "");
  }
  void fail(std::string& out) override {
    event(out, "error", R"(,"error":{"type":"overloaded_error","message":"Overloaded"})");
  }

  void event(std::string& out, std::string_view name, std::string_view members) const {
    const ChunkInPlace chunk(out, framed);
    append(out, "event: ", name, "\ndata: {\"type\":\"", name, "\"", members, "}\n\n");
  }
  // Its count is cumulative: the last one is the bill, a sum would be too much.
  void delta(std::string& out, std::string_view reason, std::int64_t output_tokens) const {
    const ChunkInPlace chunk(out, framed);
    append(out, "event: message_delta\ndata: {\"type\":\"message_delta\",\"delta\":{\"stop_reason\":", reason,
           R"(,"stop_sequence":null})");
    if (!no_usage_) append(out, R"(,"usage":{"output_tokens":)", output_tokens, "}");
    out += "}\n\n";
  }
};

}  // namespace

void answer_messages(const Question& question, Answer& answer) {
  append(answer.headers, "request-id: req_mock_", question.number, "\r\n");
  if (question.call.stream) {
    answer.content_type = "text/event-stream; charset=utf-8";
    answer.stream = std::make_unique<MessagesStream>(question);
    return;
  }
  std::string& out = answer.body;
  out += R"({"id":"msg_mock","type":"message","role":"assistant","model":)";
  append_json_string(out, question.call.model);
  append(out, R"(,"content":[{"type":"text","text":")", words(0, question.text_tokens()),
         R"("}],"stop_reason":")", stop_reason(question.usage), R"(","stop_sequence":null)");
  if (!question.rules.no_usage) {
    out += R"(,"usage":)";
    append_usage(out, question.usage, question.usage.completion);
  }
  out += '}';
}

void answer_count_tokens(const Question& question, Answer& answer) {
  append(answer.body, R"({"input_tokens":)", question.usage.prompt, "}");
}

void complain_anthropic(const Complaint& complaint, Answer& answer) {
  answer.status = complaint.status;
  answer.body += R"({"type":"error","error":{"type":)";
  append_json_string(answer.body, complaint.type);
  answer.body += R"(,"message":)";
  append_json_string(answer.body, complaint.message);
  answer.body += R"(},"request_id":"req_mock"})";
}

}  // namespace penstock::mock
