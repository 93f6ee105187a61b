// What a model call asks for, read from its JSON body.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace penstock::mock {

/// Fields of all dialects under one name. Views live until the next read().
struct Call {
  std::string_view model;
  std::int64_t max_tokens = -1;  // -1: not given
  std::int64_t choices = 1;      // OpenAI's n
  std::int64_t content_bytes = 0;
  std::int64_t dimensions = -1;
  std::vector<std::string> inputs;  // of an embedding
  bool stream = false, include_usage = false, base64 = false;

  [[nodiscard]] std::int64_t prompt_tokens() const { return (content_bytes + 3) / 4; }
};

/// Numbers of one answer, however its dialect names them.
struct Usage {
  std::int64_t prompt = 0;      // cached included
  std::int64_t completion = 0;  // reasoning included
  std::int64_t cached = 0, reasoning = 0;
  bool capped = false;  // the answer ended at the caller's max_tokens
};

/// Owns the JSON parser and its buffers, so that a call costs no allocation.
class CallReader {
 public:
  CallReader();
  ~CallReader();
  CallReader(const CallReader&) = delete;
  CallReader& operator=(const CallReader&) = delete;

  /// false: the body is no JSON object.
  [[nodiscard]] bool read(std::string_view body, Call& call);
  [[nodiscard]] bool read_embedding(std::string_view body, Call& call);

  /// Top-level members of an admin body as text: numbers as written, booleans as true/false. `rules` of a
  /// script come as "rules.<key>".
  using Members = std::vector<std::pair<std::string, std::string>>;
  [[nodiscard]] bool read_members(std::string_view body, Members& members);

 private:
  struct Parser;
  std::unique_ptr<Parser> parser_;
};

}  // namespace penstock::mock
