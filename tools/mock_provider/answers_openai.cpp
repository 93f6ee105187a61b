#include <cmath>
#include <cstring>
#include <ctime>
#include <functional>

#include "answers.hpp"
#include "text.hpp"

namespace penstock::mock {

namespace {

constexpr std::string_view kCreated = "1735689600";

std::int64_t monotonic_ns() {
  timespec now{};
  clock_gettime(CLOCK_MONOTONIC, &now);
  return now.tv_sec * 1'000'000'000 + now.tv_nsec;
}

void append_chat_usage(std::string& out, const Usage& usage) {
  append(out, R"({"prompt_tokens":)", usage.prompt, R"(,"completion_tokens":)", usage.completion,
         R"(,"total_tokens":)", usage.prompt + usage.completion,
         R"(,"prompt_tokens_details":{"cached_tokens":)", usage.cached,
         R"(,"audio_tokens":0},"completion_tokens_details":{"reasoning_tokens":)", usage.reasoning,
         R"(,"audio_tokens":0,"accepted_prediction_tokens":0,"rejected_prediction_tokens":0}})");
}

void append_responses_usage(std::string& out, const Usage& usage) {
  append(out, R"({"input_tokens":)", usage.prompt, R"(,"input_tokens_details":{"cached_tokens":)",
         usage.cached, R"(},"output_tokens":)", usage.completion,
         R"(,"output_tokens_details":{"reasoning_tokens":)", usage.reasoning, R"(},"total_tokens":)",
         usage.prompt + usage.completion, "}");
}

std::string_view finish_reason(const Usage& usage) { return usage.capped ? "length" : "stop"; }

class ChatStream final : public TokenStream {
 public:
  using TokenStream::TokenStream;

 private:
  void head(std::string& out) const {
    out += R"(data: {"id":"chatcmpl-)";
    if (stamp_)
      append(out, monotonic_ns());
    else
      out += "mock";
    append(out, R"(","object":"chat.completion.chunk","created":)", kCreated, R"(,"model":)", model_,
           R"(,"service_tier":"default","system_fingerprint":"fp_mock","choices":[)");
  }
  void tail(std::string& out) const { out += include_usage_ ? "],\"usage\":null}\n\n" : "]}\n\n"; }
  void open(std::string& out) override {
    for (std::int64_t i = 0; i < choices_; ++i) {
      const ChunkInPlace chunk(out, framed);
      head(out);
      append(out, R"({"index":)", i, R"(,"delta":{"role":"assistant","content":"","refusal":null},)",
             R"("logprobs":null,"finish_reason":null})");
      tail(out);
    }
  }
  void piece(std::string& out, std::string_view text) override {
    for (std::int64_t i = 0; i < choices_; ++i) {
      const ChunkInPlace chunk(out, framed);
      head(out);
      append(out, R"({"index":)", i, R"(,"delta":{"content":")", text,
             R"("},"logprobs":null,"finish_reason":null})");
      tail(out);
    }
  }
  void end(std::string& out) override {
    for (std::int64_t i = 0; i < choices_; ++i) {
      const ChunkInPlace chunk(out, framed);
      head(out);
      append(out, R"({"index":)", i, R"(,"delta":{},"logprobs":null,"finish_reason":")",
             finish_reason(usage_), "\"}");
      tail(out);
    }
    if (include_usage_ && !no_usage_) {  // after finish_reason: a meter that stops there misses it
      const ChunkInPlace chunk(out, framed);
      head(out);
      out += R"(],"usage":)";
      append_chat_usage(out, usage_);
      out += "}\n\n";
    }
    const ChunkInPlace chunk(out, framed);
    out += "data: [DONE]\n\n";
  }
  void fail(std::string& out) override {
    const ChunkInPlace chunk(out, framed);
    out +=
        "data: {\"error\":{\"message\":\"The server had an error while processing your request.\","
        "\"type\":\"server_error\",\"param\":null,\"code\":null}}\n\n";
  }
};

void append_response_item(std::string& out, std::string_view status, std::string_view text, bool with_text) {
  append(out, R"({"id":"msg_mock","type":"message","status":")", status,
         R"(","role":"assistant","content":[)");
  if (with_text)
    append(out, R"({"type":"output_text","text":")", text, R"(","annotations":[],"logprobs":[]})");
  out += "]}";
}

// The `response` object: without text and usage while it is under way.
void append_response(std::string& out, std::string_view model, std::string_view text, const Usage* usage,
                     bool with_usage, bool done) {
  const bool cut = done && usage->capped;
  append(out, R"({"id":"resp_mock","object":"response","created_at":)", kCreated, R"(,"status":")",
         !done ? "in_progress" : (cut ? "incomplete" : "completed"),
         R"(","error":null,"incomplete_details":)", cut ? R"({"reason":"max_output_tokens"})" : "null",
         R"(,"instructions":null,"metadata":{},"model":)", model, R"(,"output":[)");
  if (done) append_response_item(out, cut ? "incomplete" : "completed", text, true);
  out += R"(],"parallel_tool_calls":true,"temperature":1.0,"tool_choice":"auto","tools":[],)"
         R"("top_p":1.0,"usage":)";
  if (done && with_usage)
    append_responses_usage(out, *usage);
  else
    out += "null";
  out += '}';
}

class ResponsesStream final : public TokenStream {
 public:
  using TokenStream::TokenStream;

 private:
  // Writes `event: NAME` and its data with the running number that every event carries.
  void event(std::string& out, std::string_view name, const std::function<void()>& members) {
    const ChunkInPlace chunk(out, framed);
    append(out, "event: ", name, "\ndata: {\"type\":\"", name, "\",\"sequence_number\":", sequence_++);
    members();
    out += "}\n\n";
  }
  void open(std::string& out) override {
    for (const std::string_view name : {"response.created", "response.in_progress"})
      event(out, name, [&] {
        out += R"(,"response":)";
        append_response(out, model_, "", nullptr, false, false);
      });
    event(out, "response.output_item.added", [&] {
      out += R"(,"output_index":0,"item":)";
      append_response_item(out, "in_progress", "", false);
    });
    event(out, "response.content_part.added", [&] {
      append(out, kPlace, R"(,"part":{"type":"output_text","text":"","annotations":[],"logprobs":[]})");
    });
  }
  void piece(std::string& out, std::string_view text) override {
    text_ += text;
    event(out, "response.output_text.delta",
          [&] { append(out, kPlace, R"(,"delta":")", text, R"(","logprobs":[])"); });
  }
  void end(std::string& out) override {
    event(out, "response.output_text.done",
          [&] { append(out, kPlace, R"(,"text":")", text_, R"(","logprobs":[])"); });
    event(out, "response.content_part.done", [&] {
      append(out, kPlace, R"(,"part":{"type":"output_text","text":")", text_,
             R"(","annotations":[],"logprobs":[]})");
    });
    event(out, "response.output_item.done", [&] {
      out += R"(,"output_index":0,"item":)";
      append_response_item(out, usage_.capped ? "incomplete" : "completed", text_, true);
    });
    event(out, usage_.capped ? "response.incomplete" : "response.completed", [&] {
      out += R"(,"response":)";
      append_response(out, model_, text_, &usage_, !no_usage_, true);
    });
  }
  void fail(std::string& out) override {
    event(out, "error",
          [&] { out += R"(,"code":"server_error","message":"The server had an error.","param":null)"; });
  }

  static constexpr std::string_view kPlace = R"(,"item_id":"msg_mock","output_index":0,"content_index":0)";
  std::string text_;
  int sequence_ = 0;
};

void request_id(const Question& question, Answer& answer) {
  append(answer.headers, "x-request-id: req_mock_", question.number, "\r\nopenai-version: 2020-10-01\r\n");
}

// Bag of hashed words: texts that share words get vectors that are near each other, as real ones would.
std::vector<float> embed(std::string_view text, std::size_t dimensions) {
  std::vector<float> vector(dimensions, 0.0F);
  vector[0] = 0.01F;  // no zero vector, not even of an empty text
  while (!text.empty()) {
    std::uint64_t hash = 14695981039346656037ULL;  // FNV-1a
    for (const char c : take_until(text, ' '))
      hash = (hash ^ static_cast<unsigned char>(c)) * 1099511628211ULL;
    for (int k = 0; k < 4; ++k, hash = hash * 6364136223846793005ULL + 1442695040888963407ULL)
      vector[(hash >> 33) % dimensions] += (hash >> 32 & 1) != 0 ? 1.0F : -1.0F;
  }
  float norm = 0;
  for (const float x : vector) norm += x * x;
  for (float& x : vector) x /= std::sqrt(norm);
  return vector;
}

}  // namespace

void answer_chat(const Question& question, Answer& answer) {
  request_id(question, answer);
  if (question.call.stream) {
    answer.content_type = "text/event-stream";
    answer.stream = std::make_unique<ChatStream>(question);
    return;
  }
  std::string& out = answer.body;
  append(out, R"({"id":"chatcmpl-mock","object":"chat.completion","created":)", kCreated, R"(,"model":)");
  append_json_string(out, question.call.model);
  out += R"(,"choices":[)";
  for (std::int64_t i = 0; i < question.call.choices; ++i) {
    append(out, i == 0 ? "" : ",", R"({"index":)", i, R"(,"message":{"role":"assistant","content":")",
           words(0, question.text_tokens()),
           R"(","refusal":null,"annotations":[]},"logprobs":null,"finish_reason":")",
           finish_reason(question.usage), "\"}");
  }
  out += ']';
  if (!question.rules.no_usage) {
    out += R"(,"usage":)";
    append_chat_usage(out, question.usage);
  }
  out += R"(,"service_tier":"default","system_fingerprint":"fp_mock"})";
}

void answer_responses(const Question& question, Answer& answer) {
  request_id(question, answer);
  if (question.call.stream) {
    answer.content_type = "text/event-stream";
    answer.stream = std::make_unique<ResponsesStream>(question);
    return;
  }
  std::string model;
  append_json_string(model, question.call.model);
  append_response(answer.body, model, words(0, question.text_tokens()), &question.usage,
                  !question.rules.no_usage, true);
}

void answer_embeddings(const Question& question, Answer& answer) {
  request_id(question, answer);
  const std::int64_t asked = question.call.dimensions;
  const auto dimensions = static_cast<std::size_t>(asked < 1 ? 64 : std::min<std::int64_t>(asked, 4096));
  std::string& out = answer.body;
  out += R"({"object":"list","data":[)";
  for (std::size_t i = 0; i < question.call.inputs.size(); ++i) {
    const std::vector<float> vector = embed(question.call.inputs[i], dimensions);
    append(out, i == 0 ? "" : ",", R"({"object":"embedding","index":)", i, R"(,"embedding":)");
    if (question.call.base64) {
      std::string bytes(vector.size() * sizeof(float), '\0');
      std::memcpy(bytes.data(), vector.data(), bytes.size());
      append(out, "\"", base64(bytes), "\"");
    } else {
      for (std::size_t k = 0; k < vector.size(); ++k) {
        char digits[32];
        const auto end = std::to_chars(digits, digits + sizeof digits, vector[k]).ptr;
        append(out, k == 0 ? "[" : ",", std::string_view(digits, static_cast<std::size_t>(end - digits)));
      }
      out += ']';
    }
    out += '}';
  }
  out += R"(],"model":)";
  append_json_string(out, question.call.model);
  if (!question.rules.no_usage)
    append(out, R"(,"usage":{"prompt_tokens":)", question.usage.prompt, R"(,"total_tokens":)",
           question.usage.prompt, "}");
  out += '}';
}

void answer_models(const Request& request, Answer& answer) {
  static constexpr std::string_view kModels[] = {"gpt-4o-mini", "gpt-4o", "text-embedding-3-small",
                                                 "claude-mock", "gemini-2.0-flash"};
  bool anthropic = false;
  for (const Header& header : request.headers)
    anthropic = anthropic || equals_ignoring_case(header.name, "anthropic-version");
  std::string& out = answer.body;
  const auto model = [&](std::string_view id) {
    out += anthropic ? R"({"type":"model","created_at":"2025-01-01T00:00:00Z","display_name":"mock","id":)"
                     : R"({"object":"model","created":1735689600,"owned_by":"mock","id":)";
    append_json_string(out, id);
    out += '}';
  };
  if (request.path.size() > 11) return model(request.path.substr(11));  // /v1/models/{id}
  out += anthropic ? R"({"has_more":false,"first_id":"gpt-4o-mini","last_id":"gemini-2.0-flash","data":[)"
                   : R"({"object":"list","data":[)";
  for (const std::string_view id : kModels) {
    if (id != kModels[0]) out += ',';
    model(id);
  }
  out += "]}";
}

void complain_openai(const Complaint& complaint, Answer& answer) {
  answer.status = complaint.status;
  append(answer.body, R"({"error":{"message":)");
  append_json_string(answer.body, complaint.message);
  answer.body += R"(,"type":)";
  append_json_string(answer.body, complaint.type);
  answer.body += R"(,"param":null,"code":)";
  if (complaint.code.empty())
    answer.body += "null";
  else
    append_json_string(answer.body, complaint.code);
  answer.body += "}}";
}

}  // namespace penstock::mock
