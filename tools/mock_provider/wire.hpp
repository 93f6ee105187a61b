// HTTP/1.1 as this server reads it: heads, chunked request bodies, and the deliberate faults of its answers.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace penstock::mock {

inline constexpr std::size_t kMaxHeadBytes = 64 * 1024;
inline constexpr std::size_t kMaxBodyBytes = 64 * 1024 * 1024;

struct Header {
  std::string_view name, value;
};

/// Views into the connection's input buffer; valid until that changes.
struct Request {
  std::string_view method, target, path, query;
  std::vector<Header> headers;
  std::string_view credential;  // of Authorization (less "Bearer "), x-api-key or x-goog-api-key
  std::string_view x_mock;
  std::string_view body;
  std::string_view trailers;  // raw lines
  std::size_t content_length = 0;
  bool has_length = false, chunked = false, http10 = false, keep_alive = true, expects_continue = false;
};

/// Reads a whole head, blank line included. Returns 0, or the status to refuse it with. Strict on framing, so
/// that a proxy which forwards something ambiguous is found out here.
[[nodiscard]] int read_head(std::string_view head, Request& request);

/// Decodes a chunked request body piece by piece.
class ChunkedReader {
 public:
  enum class State : std::uint8_t { size_line, data, data_end, trailers, done, bad };
  void reset();
  /// Takes what it can from `input`, appends payload to `body`; returns the bytes taken.
  std::size_t take(std::string_view input, std::string& body);
  [[nodiscard]] State state() const { return state_; }
  [[nodiscard]] std::string_view trailers() const { return trailers_; }

 private:
  State state_ = State::size_line;
  std::size_t left_ = 0;
  std::string trailers_;
};

/// Ways in which an answer breaks the rules of RFC 9112. README.md says what each puts on the wire.
enum class Fault : std::uint8_t {
  none,
  cl_te,
  bad_chunk,
  bad_cl,
  two_cl,
  obs_fold,
  no_reason,
  garbage,
  lf_only,
  huge_header,
  truncated_head,
  switching
};
inline constexpr std::string_view kFaultNames[] = {"none",    "cl_te",       "bad_chunk",      "bad_cl",
                                                   "two_cl",  "obs_fold",    "no_reason",      "garbage",
                                                   "lf_only", "huge_header", "truncated_head", "switching"};

[[nodiscard]] std::string_view reason_phrase(int status);

/// Puts a complete answer with `fault` on the wire; false: the connection is to be closed after it.
[[nodiscard]] bool append_faulty(std::string& out, Fault fault, int status, std::string_view head_lines,
                                 std::string_view body);

/// A chunk opened in `out` with a size of fixed width, so that the payload is written in place.
class ChunkInPlace {
 public:
  ChunkInPlace(std::string& out, bool framed) : out_(out), start_(out.size()), framed_(framed) {
    if (framed_) out_ += "00000000\r\n";
  }
  ~ChunkInPlace();
  ChunkInPlace(const ChunkInPlace&) = delete;
  ChunkInPlace& operator=(const ChunkInPlace&) = delete;

 private:
  std::string& out_;
  std::size_t start_;
  bool framed_;
};

}  // namespace penstock::mock
