// One epoll loop on one thread. A connection has one answer under way at a time; pipelined requests wait in
// its input buffer. Timers are a heap of due times; a timer that no longer counts is recognised by its
// ticket.
#include <algorithm>
#include <cerrno>
#include <ctime>
#include <queue>
#include <string>
#include <string_view>
#include <system_error>
#include <vector>

#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "mock_provider.hpp"
#include "provider.hpp"
#include "text.hpp"
#include "wire.hpp"

namespace penstock::mock {

namespace {

constexpr std::size_t kHighWater =
    std::size_t{256} * 1024;                               // of unsent bytes: a slow reader stops the stream
constexpr std::size_t kBacklog = std::size_t{128} * 1024;  // of unread requests while an answer is under way
constexpr std::size_t kKeepCapacity = std::size_t{1024} * 1024;
constexpr std::int64_t kLingerNs = 1'000'000'000;

std::int64_t clock_ns(clockid_t clock) {
  timespec now{};
  clock_gettime(clock, &now);
  return now.tv_sec * 1'000'000'000 + now.tv_nsec;
}

class Descriptor {
 public:
  explicit Descriptor(int fd, const char* what) : fd_(fd) {
    if (fd < 0) throw std::system_error(errno, std::generic_category(), what);
  }
  ~Descriptor() { close(fd_); }
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
  [[nodiscard]] int get() const { return fd_; }

 private:
  int fd_;
};

struct Connection {
  enum class Phase : std::uint8_t { reading, delayed, streaming, stalled, lingering };
  int fd = -1;
  std::uint32_t generation = 0;  // so that an event never reaches a reused descriptor
  std::uint64_t timer = 0;       // ticket of the timer that counts
  bool open = false;
  Phase phase = Phase::reading;

  std::string in;
  std::size_t used = 0;       // bytes of `in` that belong to answered requests
  std::size_t scanned = 0;    // bytes after `used` without an end of head
  std::size_t head_size = 0;  // 0: the head is not complete
  std::size_t content_length = 0, body_at = 0, request_size = 0;
  bool chunked = false;
  ChunkedReader chunks;
  std::string body;  // decoded from chunks
  Moment arrived;

  std::string out;
  std::size_t sent = 0;
  std::uint32_t interest = 0;
  bool close_after = false, linger = false, reset = false, peer_closed = false, paused = false;

  Answer answer;  // the one under way
  bool head_only = false, http10 = false, keep_alive = true, in_flight = false;
  std::int64_t due_ns = 0, budget = -1;

  [[nodiscard]] std::size_t unsent() const { return out.size() - sent; }
};

struct Timer {
  std::int64_t due_ns;
  int fd;
  std::uint64_t ticket;
  bool operator>(const Timer& other) const { return due_ns > other.due_ns; }
};

int make_listener(std::uint16_t port) {
  const int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  const int one = 1;
  setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(port);
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  if (fd >= 0 && bind(fd, reinterpret_cast<sockaddr*>(&address), sizeof address) == 0 &&
      listen(fd, 4096) == 0)
    return fd;
  const int error = errno;
  if (fd >= 0) close(fd);
  errno = error;
  return -1;
}

}  // namespace

class MockProvider::Server {
 public:
  explicit Server(const Options& options)
      : provider_(options),
        listener_(make_listener(options.port), "cannot listen on 127.0.0.1"),
        epoll_(epoll_create1(EPOLL_CLOEXEC), "epoll_create1"),
        wake_(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK), "eventfd"),
        buffer_(std::size_t{64} * 1024) {
    watch(listener_.get(), kListener);
    watch(wake_.get(), kWake);
  }
  ~Server() {
    for (const auto& connection : connections_)
      if (connection && connection->open) close(connection->fd);
  }
  Server(const Server&) = delete;
  Server& operator=(const Server&) = delete;

  void run();
  void stop() const noexcept {
    const std::uint64_t one = 1;
    [[maybe_unused]] const auto written =
        write(wake_.get(), &one, sizeof one);  // only fails if already signalled
  }
  [[nodiscard]] std::uint16_t port() const noexcept {
    sockaddr_in address{};
    socklen_t size = sizeof address;
    getsockname(listener_.get(), reinterpret_cast<sockaddr*>(&address), &size);
    return ntohs(address.sin_port);
  }

 private:
  static constexpr std::uint64_t kListener = ~0ULL, kWake = ~0ULL - 1;
  enum class Read : std::uint8_t { incomplete, complete, refused };

  void watch(int fd, std::uint64_t tag) const {
    epoll_event event{};
    event.events = EPOLLIN;
    event.data.u64 = tag;
    if (epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, fd, &event) != 0)
      throw std::system_error(errno, std::generic_category(), "epoll_ctl");
  }
  static std::uint64_t tag_of(const Connection& c) {
    return std::uint64_t{c.generation} << 32 | static_cast<std::uint32_t>(c.fd);
  }

  void accept_all();
  void on_event(const epoll_event& event);
  void on_readable(Connection& c);
  void on_timers();

  void advance(Connection& c);
  Read read_request(Connection& c);
  void forget_request(Connection& c);
  Read refuse(Connection& c, int status);
  void begin(Connection& c);
  void deliver(Connection& c, Answer& answer);
  void pump(Connection& c);
  void end(Connection& c, Answer& answer, bool complete);
  bool spend_budget(Connection& c, Answer& answer, std::size_t from);
  void arm(Connection& c, std::int64_t due_ns);
  void flush(Connection& c);
  void update_interest(Connection& c) const;
  void close_gracefully(Connection& c);
  void gone(Connection& c);
  void close_now(Connection& c);

  Provider provider_;
  Descriptor listener_, epoll_, wake_;
  std::vector<char> buffer_;
  std::vector<std::unique_ptr<Connection>> connections_;  // by descriptor
  std::priority_queue<Timer, std::vector<Timer>, std::greater<>> timers_;
  std::uint64_t last_ticket_ = 0;
  std::uint32_t last_generation_ = 0;
  Moment now_;
  Request request_;
  Answer answer_;  // reused, so that an answer without delay allocates nothing
};

void MockProvider::Server::run() {
  prctl(PR_SET_TIMERSLACK, 1UL);  // of this thread only
  std::vector<epoll_event> events(256);
  for (;;) {
    timespec timeout{};
    const timespec* wait = nullptr;
    if (!timers_.empty()) {
      const std::int64_t left = std::max<std::int64_t>(timers_.top().due_ns - clock_ns(CLOCK_MONOTONIC), 0);
      timeout = {left / 1'000'000'000, left % 1'000'000'000};
      wait = &timeout;
    }
    const int n = epoll_pwait2(epoll_.get(), events.data(), static_cast<int>(events.size()), wait, nullptr);
    if (n < 0 && errno != EINTR) throw std::system_error(errno, std::generic_category(), "epoll_pwait2");
    now_ = {clock_ns(CLOCK_MONOTONIC), clock_ns(CLOCK_REALTIME)};
    for (int i = 0; i < n; ++i) {
      const epoll_event& event = events[static_cast<std::size_t>(i)];
      if (event.data.u64 == kWake) return;
      if (event.data.u64 == kListener)
        accept_all();
      else
        on_event(event);
    }
    on_timers();
  }
}

void MockProvider::Server::accept_all() {
  for (;;) {
    const int fd = accept4(listener_.get(), nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (fd < 0) return;
    const int one = 1;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    const auto at = static_cast<std::size_t>(fd);
    if (at >= connections_.size()) connections_.resize(at + 64);
    connections_[at] = std::make_unique<Connection>();
    Connection& c = *connections_[at];
    c.fd = fd;
    c.generation = ++last_generation_ & 0x7fffffff;  // never looks like kListener
    c.open = true;
    c.interest = EPOLLIN;
    watch(fd, tag_of(c));
    ++provider_.traffic.connections;
    ++provider_.traffic.open_connections;
  }
}

void MockProvider::Server::on_event(const epoll_event& event) {
  Connection& c = *connections_[event.data.u64 & 0xffffffff];
  if (!c.open || tag_of(c) != event.data.u64) return;
  if ((event.events & (EPOLLHUP | EPOLLERR)) != 0) return gone(c);
  if ((event.events & EPOLLOUT) != 0) {
    flush(c);
    if (c.open && c.paused && c.unsent() < kHighWater) {
      c.paused = false;
      if (c.phase == Connection::Phase::streaming) pump(c);
      advance(c);
    }
  }
  if (c.open && (event.events & EPOLLIN) != 0) on_readable(c);
}

void MockProvider::Server::on_readable(Connection& c) {
  const ssize_t n = recv(c.fd, buffer_.data(), buffer_.size(), 0);
  if (n < 0 && (errno == EAGAIN || errno == EINTR)) return;
  if (n <= 0) {
    // A client that closes its side during a stream has left; before a plain answer it may still be reading.
    if (n < 0 || c.phase != Connection::Phase::delayed) {
      if (c.unsent() == 0 || c.phase != Connection::Phase::reading) return gone(c);
    }
    c.peer_closed = true;
    c.close_after = true;
    return update_interest(c);
  }
  provider_.traffic.bytes_in += static_cast<std::uint64_t>(n);
  if (c.phase == Connection::Phase::lingering || c.close_after)
    return;  // read only so that close sends no reset
  c.in.append(buffer_.data(), static_cast<std::size_t>(n));
  advance(c);
}

void MockProvider::Server::on_timers() {
  while (!timers_.empty() && timers_.top().due_ns <= now_.mono_ns) {
    const Timer timer = timers_.top();
    timers_.pop();
    Connection& c = *connections_[static_cast<std::size_t>(timer.fd)];
    if (!c.open || c.timer != timer.ticket) continue;
    switch (c.phase) {
      case Connection::Phase::delayed: deliver(c, c.answer); break;
      case Connection::Phase::streaming: pump(c); break;
      case Connection::Phase::lingering: close_now(c); continue;
      case Connection::Phase::reading:
      case Connection::Phase::stalled: continue;
    }
    advance(c);
  }
}

/// Answers what is complete in the input, then sends.
void MockProvider::Server::advance(Connection& c) {
  while (c.open && c.phase == Connection::Phase::reading && !c.close_after) {
    if (c.unsent() > kHighWater) {
      c.paused = true;
      break;
    }
    const Read read = read_request(c);
    if (read == Read::complete) begin(c);
    if (read != Read::complete) break;
  }
  if (!c.open) return;
  if (c.used == c.in.size()) {
    c.in.clear();
    if (c.in.capacity() > kKeepCapacity) std::string().swap(c.in);
  } else {
    c.in.erase(0, c.used);
  }
  c.used = 0;
  flush(c);
}

MockProvider::Server::Read MockProvider::Server::read_request(Connection& c) {
  bool parsed = false;
  if (c.head_size == 0) {
    while (std::string_view(c.in).substr(c.used).starts_with("\r\n")) c.used += 2;
    const std::string_view rest = std::string_view(c.in).substr(c.used);
    const std::size_t end = rest.find("\r\n\r\n", c.scanned > 3 ? c.scanned - 3 : 0);
    if (std::min(end, rest.size()) > kMaxHeadBytes) return refuse(c, 431);
    if (end == std::string_view::npos) {
      c.scanned = rest.size();
      return Read::incomplete;
    }
    c.arrived = now_;
    if (const int status = read_head(rest.substr(0, end + 4), request_); status != 0)
      return refuse(c, status);
    parsed = true;
    c.head_size = end + 4;
    c.chunked = request_.chunked;
    c.content_length = request_.content_length;
    if (request_.path == "/early" || request_.path.starts_with("/early/")) {
      answer_.clear();
      provider_.answer_early(request_, c.arrived, answer_);
      c.head_only = c.http10 = false;
      deliver(c, answer_);
      c.linger = true;
      return Read::refused;
    }
  }
  const std::string_view raw = std::string_view(c.in).substr(c.used + c.head_size);
  bool complete = raw.size() >= c.content_length;
  if (c.chunked) {
    c.body_at += c.chunks.take(raw.substr(c.body_at), c.body);
    if (c.chunks.state() == ChunkedReader::State::bad) return refuse(c, 400);
    complete = c.chunks.state() == ChunkedReader::State::done;
  }
  if (!complete) {
    if (parsed && request_.expects_continue) c.out += "HTTP/1.1 100 Continue\r\n\r\n";
    if (c.chunked && c.body_at > kBacklog) {  // decoded: the raw form need not be kept
      c.in.erase(c.used + c.head_size, c.body_at);
      c.body_at = 0;
    }
    return Read::incomplete;
  }
  if (!parsed) [[maybe_unused]]
    const int again = read_head(std::string_view(c.in).substr(c.used, c.head_size), request_);
  request_.body = c.chunked ? std::string_view(c.body) : raw.substr(0, c.content_length);
  request_.trailers = c.chunks.trailers();
  c.request_size = c.head_size + (c.chunked ? c.body_at : c.content_length);
  return Read::complete;
}

void MockProvider::Server::forget_request(Connection& c) {
  c.used += c.request_size;
  c.scanned = c.head_size = c.content_length = c.body_at = c.request_size = 0;
  if (c.chunked) {
    c.chunks.reset();
    c.body.clear();
    if (c.body.capacity() > kKeepCapacity) std::string().swap(c.body);
  }
  c.chunked = false;
}

MockProvider::Server::Read MockProvider::Server::refuse(Connection& c, int status) {
  answer_.clear();
  provider_.refuse(status, now_, answer_);
  c.head_only = c.http10 = false;
  deliver(c, answer_);
  c.linger = true;
  return Read::refused;
}

void MockProvider::Server::begin(Connection& c) {
  answer_.clear();
  provider_.handle(request_, c.arrived, answer_);
  c.head_only = request_.method == "HEAD";
  c.http10 = request_.http10;
  c.keep_alive = request_.keep_alive;
  forget_request(c);
  c.in_flight = !answer_.admin;
  if (c.in_flight)
    provider_.traffic.max_in_flight =
        std::max(++provider_.traffic.in_flight, provider_.traffic.max_in_flight);
  c.due_ns = now_.mono_ns + answer_.latency_ns;
  if (answer_.latency_ns <= 0) return deliver(c, answer_);
  c.answer = std::move(answer_);
  c.phase = Connection::Phase::delayed;
  arm(c, c.due_ns);
}

/// Puts the head and what is due of the body into the output.
void MockProvider::Server::deliver(Connection& c, Answer& answer) {
  if (answer.cut_before_head) {
    c.reset = answer.cut_reset;
    c.close_after = true;
    return end(c, answer, false);
  }
  std::string& out = c.out;
  out += answer.interim;
  if (answer.fault != Fault::none) {
    while (answer.stream != nullptr && answer.body.size() < kKeepCapacity) {
      answer.stream->framed = false;
      if (!answer.stream->next(answer.body)) break;
    }
    std::string lines;
    append(lines, "Content-Type: ", answer.content_type, "\r\n", answer.headers);
    if (!append_faulty(out, answer.fault, answer.status, lines, answer.body)) c.close_after = true;
    return end(c, answer, true);
  }

  const bool closes =
      answer.close || !c.keep_alive || (c.http10 && answer.stream && answer.stream_length < 0);
  const bool bodiless = answer.status == 204 || answer.status == 304;
  append(out, "HTTP/1.1 ", answer.status, " ", reason_phrase(answer.status),
         "\r\nContent-Type: ", answer.content_type, "\r\n");
  if (answer.stream == nullptr) {
    if (!bodiless) append(out, "Content-Length: ", answer.body.size(), "\r\n");
  } else if (answer.stream_length >= 0) {
    append(out, "Content-Length: ", answer.stream_length, "\r\n");
  } else if (!c.http10) {
    out += "Transfer-Encoding: chunked\r\n";
  }
  if (answer.stream != nullptr && answer.content_type.starts_with("text/event-stream"))
    out += "Cache-Control: no-cache\r\n";
  if (closes)
    out += "Connection: close\r\n";
  else if (c.http10)
    out += "Connection: keep-alive\r\n";
  append(out, answer.headers, "\r\n");
  if (closes) answer.close = true;

  c.budget = answer.cut_after_bytes >= 0 ? answer.cut_after_bytes : answer.stall_after_bytes;
  if (c.head_only || bodiless) return end(c, answer, true);
  if (answer.stream == nullptr) {
    const std::size_t from = out.size();
    out += answer.body;
    if (!spend_budget(c, answer, from)) end(c, answer, true);
    return;
  }
  answer.stream->framed = answer.stream_length < 0 && !c.http10;
  if (&answer != &c.answer) c.answer = std::move(answer);
  c.phase = Connection::Phase::streaming;
  pump(c);
}

void MockProvider::Server::pump(Connection& c) {
  Answer& answer = c.answer;
  for (;;) {
    if (c.unsent() > kHighWater) flush(c);
    if (!c.open) return;
    if (c.unsent() > kHighWater) {
      c.paused = true;
      return;
    }
    const std::size_t from = c.out.size();
    const bool more = answer.stream->next(c.out);
    if (!more && answer.stream->framed) append(c.out, "0\r\n", answer.trailers, "\r\n");
    if (spend_budget(c, answer, from)) return;
    if (!more) return end(c, answer, true);
    if (answer.gap_ns > 0) {
      c.due_ns += answer.gap_ns;
      return arm(c, c.due_ns);
    }
  }
}

/// Counts body bytes against the cut or stall; true: it is reached, and the answer goes no further.
bool MockProvider::Server::spend_budget(Connection& c, Answer& answer, std::size_t from) {
  if (c.budget < 0) return false;
  const auto produced = static_cast<std::int64_t>(c.out.size() - from);
  if (produced <= c.budget) {
    c.budget -= produced;
    return false;
  }
  c.out.resize(from + static_cast<std::size_t>(c.budget));
  if (answer.cut_after_bytes >= 0) {
    c.reset = answer.cut_reset;
    c.close_after = true;
    end(c, answer, false);
  } else {
    if (&answer != &c.answer) c.answer = std::move(answer);
    c.phase = Connection::Phase::stalled;
  }
  return true;
}

void MockProvider::Server::end(Connection& c, Answer& answer, bool complete) {
  if (c.in_flight) --provider_.traffic.in_flight;
  c.in_flight = false;
  if (answer.billed_when_sent) provider_.bill_sent(answer, !answer.cut_before_head, complete);
  if (answer.close) c.close_after = true;
  answer.stream.reset();
  c.phase = Connection::Phase::reading;
  c.budget = -1;
}

void MockProvider::Server::arm(Connection& c, std::int64_t due_ns) {
  c.timer = ++last_ticket_;
  timers_.push({due_ns, c.fd, c.timer});
}

void MockProvider::Server::flush(Connection& c) {
  while (c.sent < c.out.size()) {
    const ssize_t n = send(c.fd, c.out.data() + c.sent, c.unsent(), MSG_NOSIGNAL);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0 && errno != EAGAIN) return gone(c);
    if (n < 0) break;
    c.sent += static_cast<std::size_t>(n);
    provider_.traffic.bytes_out += static_cast<std::uint64_t>(n);
  }
  if (c.sent == c.out.size()) {
    c.out.clear();
    c.sent = 0;
    if (c.out.capacity() > kKeepCapacity) std::string().swap(c.out);
    if (c.close_after && c.phase == Connection::Phase::reading) return close_gracefully(c);
  } else if (c.sent > kHighWater) {
    c.out.erase(0, c.sent);
    c.sent = 0;
  }
  update_interest(c);
}

void MockProvider::Server::update_interest(Connection& c) const {
  const bool full = c.phase != Connection::Phase::lingering && c.in.size() - c.used > kBacklog &&
                    (c.phase != Connection::Phase::reading || c.paused);
  std::uint32_t wanted = c.unsent() > 0 ? std::uint32_t{EPOLLOUT} : 0U;
  if (!full && !c.peer_closed) wanted |= EPOLLIN;
  if (wanted == c.interest) return;
  c.interest = wanted;
  epoll_event event{};
  event.events = wanted;
  event.data.u64 = tag_of(c);
  epoll_ctl(epoll_.get(), EPOLL_CTL_MOD, c.fd, &event);
}

/// Closes now, or (where the client may still be sending) lets it read the answer first: a close with unread
/// input would send a reset, which can destroy the answer on its way.
void MockProvider::Server::close_gracefully(Connection& c) {
  if (!c.linger || c.peer_closed) return close_now(c);
  shutdown(c.fd, SHUT_WR);
  c.in.clear();
  c.used = 0;
  c.phase = Connection::Phase::lingering;
  arm(c, now_.mono_ns + kLingerNs);
  update_interest(c);
}

/// The client went away.
void MockProvider::Server::gone(Connection& c) {
  if (c.in_flight) {
    ++provider_.traffic.disconnects;
    --provider_.traffic.in_flight;
    c.in_flight = false;
    if (c.answer.billed_when_sent)
      provider_.bill_sent(c.answer, c.phase != Connection::Phase::delayed, false);
  }
  close_now(c);
}

void MockProvider::Server::close_now(Connection& c) {
  if (c.reset) {
    const struct linger none = {1, 0};
    setsockopt(c.fd, SOL_SOCKET, SO_LINGER, &none, sizeof none);
  }
  close(c.fd);
  c.open = false;
  c.answer.clear();
  std::string().swap(c.in);
  std::string().swap(c.out);
  std::string().swap(c.body);
  --provider_.traffic.open_connections;
}

MockProvider::MockProvider(Options options) : server_(std::make_unique<Server>(options)) {}
MockProvider::~MockProvider() = default;
void MockProvider::run() { server_->run(); }
void MockProvider::stop() noexcept { server_->stop(); }
std::uint16_t MockProvider::port() const noexcept { return server_->port(); }

}  // namespace penstock::mock
