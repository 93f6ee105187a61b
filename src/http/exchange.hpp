#pragma once

#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include <boost/container/static_vector.hpp>

#include "base/async.hpp"
#include "base/time.hpp"
#include "http/message.hpp"
#include "http/transport.hpp"

namespace penstock::http {

struct ServerOptions {
  std::uint64_t max_header_bytes = 32 * 1024;
  std::uint64_t max_body_bytes = 32 * 1024 * 1024;
  milliseconds header_timeout{10'000};
  milliseconds body_timeout{30'000};
  milliseconds idle_timeout{75'000};
  milliseconds write_timeout{30'000};
};

/// Why a request body ended early.
enum class BodyFault : std::uint8_t { none, client_gone, timeout, too_large, invalid };

/// The next bytes of a body; views into a buffer until the next read.
struct BodyPiece {
  std::string_view data;
  bool done = false;
  BodyFault fault = BodyFault::none;
  std::string_view what;  ///< of `invalid`
};

/// The bytes of a client's connection: one growing buffer, reused for all its requests.
struct InBuffer {
  std::unique_ptr<char[]> data;
  std::size_t capacity = 0;
  std::size_t begin = 0;  ///< first byte not yet used
  std::size_t end = 0;    ///< one past the last byte read

  [[nodiscard]] std::string_view view() const noexcept { return {data.get() + begin, end - begin}; }
  [[nodiscard]] std::size_t space() const noexcept { return capacity - end; }
  void grow(std::size_t new_capacity);
  void compact() noexcept;  ///< moves what is not used to the front
};

/// One request and its response on a client's connection. Lives in the connection's coroutine; a handler
/// replies exactly once.
///
/// Views of `request` are valid until the handler returns. All writes are bounded by the write timeout; after
/// a failed one the client is gone and nothing more is written.
class Exchange {
 public:
  Exchange(Transport& transport, InBuffer& in, std::string& out, const ServerOptions& options);
  Exchange(const Exchange&) = delete;
  Exchange& operator=(const Exchange&) = delete;

  RequestHead request;
  std::string_view peer;  ///< the client's address as text
  Now arrived{};          ///< when the head was complete

  /// What a handler wants to remember of a connection from one request to the next.
  struct Memory {
    Memory() = default;
    Memory(const Memory&) = delete;
    Memory& operator=(const Memory&) = delete;
    virtual ~Memory() = default;
  };
  std::unique_ptr<Memory> memory;

  /// The next piece of the request body; sends 100 Continue before the first read if the client waits for it.
  [[nodiscard]] Awaitable<BodyPiece> read_body();
  /// All of it, if it has come together with the head (the usual small body); nothing where there is more to
  /// read.
  [[nodiscard]] std::optional<std::string_view> take_whole_body();
  /// All of it, contiguous: in the connection's buffer if it fits, else in a buffer of the exchange.
  [[nodiscard]] Awaitable<BodyPiece> read_whole_body(std::uint64_t max_bytes);
  [[nodiscard]] bool body_finished() const noexcept { return body_done_; }
  [[nodiscard]] std::uint64_t body_bytes() const noexcept { return body_bytes_; }

  /// Sends an interim response (103) at once. Not for HTTP/1.0 clients.
  [[nodiscard]] Awaitable<bool> send_interim(std::string_view head);
  /// The same without waiting; false: nothing was written. A client that takes only a part is given up.
  [[nodiscard]] bool try_send_interim(std::string_view head);

  /// Starts the response's head in the connection's output buffer; fields are added with append_field to
  /// `head()`.
  void begin_response(int status);
  [[nodiscard]] std::string& head() noexcept { return out_; }
  /// Ends the head. `length`: of the body that will follow; none: not known (chunked, or until close for
  /// HTTP/1.0). `bodiless`: a response to HEAD or a 204/304, which may tell a length all the same.
  enum class Body : std::uint8_t { follows, bodiless };
  void end_head(std::optional<std::uint64_t> length, Body body = Body::follows);
  /// Sends the head if it has not gone yet, and a piece of the body. False: the client is gone.
  [[nodiscard]] Awaitable<bool> send(std::string_view piece);
  /// The last piece, the end of the body and trailers (field lines with CRLF; only for chunked bodies and
  /// HTTP/1.1).
  [[nodiscard]] Awaitable<bool> finish(std::string_view piece = {}, std::string_view trailers = {});

  /// Forgets a head that has not gone: another response will be begun.
  void abandon_response() noexcept { begun_ = false; }
  /// finish() if the kernel takes it all at once; false: call `flush`. Without a coroutine, for the usual
  /// small answer.
  [[nodiscard]] bool try_finish(std::string_view piece = {}, std::string_view trailers = {});
  [[nodiscard]] Awaitable<bool> flush();  ///< the rest of what try_finish could not write

  [[nodiscard]] bool response_begun() const noexcept { return begun_; }
  [[nodiscard]] bool head_sent() const noexcept { return head_sent_; }
  [[nodiscard]] bool finished() const noexcept { return finished_; }
  [[nodiscard]] bool client_gone() const noexcept { return client_gone_; }
  [[nodiscard]] int status() const noexcept { return status_; }
  [[nodiscard]] std::uint64_t bytes_sent() const noexcept { return bytes_sent_; }
  [[nodiscard]] bool chunked_response() const noexcept { return framing_ == Framing::chunked; }
  /// The connection ends after this response.
  void close_after() noexcept { keep_alive_ = false; }
  [[nodiscard]] bool keeps_alive() const noexcept { return keep_alive_; }
  [[nodiscard]] Transport& transport() noexcept { return transport_; }

 private:
  friend class Connection;
  enum class Framing : std::uint8_t { none, length, chunked, until_close };

  void start_request(Now now);  ///< after `request` was parsed and its head taken off the buffer
  [[nodiscard]] Awaitable<bool> write(std::span<const std::string_view> pieces);
  using Pieces = boost::container::static_vector<std::string_view, 6>;
  [[nodiscard]] Pieces last_pieces(std::string_view piece, std::string_view trailers, char* size);
  [[nodiscard]] Awaitable<bool> fill(char* data, std::size_t size, std::size_t& got, BodyFault& fault);
  [[nodiscard]] Awaitable<bool> send_continue();
  [[nodiscard]] BodyPiece take_buffered();

  Transport& transport_;
  InBuffer& in_;
  std::string& out_;
  const ServerOptions& options_;
  ChunkDecoder chunks_;
  std::uint64_t body_left_ = 0;
  std::uint64_t body_bytes_ = 0;
  std::unique_ptr<char[]> body_buffer_;  // for streamed bodies, beside the head's buffer
  std::string whole_body_;
  std::string unwritten_;
  std::string body_rest_;  // of the next request, read past the end of a chunked body
  int status_ = 0;
  Framing framing_ = Framing::none;
  std::uint64_t bytes_sent_ = 0;
  std::uint64_t response_left_ = 0;
  bool body_done_ = true;
  bool continue_pending_ = false;
  bool begun_ = false;
  bool head_sent_ = false;
  bool finished_ = false;
  bool client_gone_ = false;
  bool keep_alive_ = true;
};

}  // namespace penstock::http
