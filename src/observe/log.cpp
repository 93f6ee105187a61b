#include "observe/log.hpp"

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <charconv>
#include <chrono>
#include <condition_variable>
#include <cstring>
#include <limits>
#include <memory>
#include <mutex>
#include <thread>
#include <utility>

#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <sys/stat.h>
#include <unistd.h>

#include "observe/metrics.hpp"
#include "observe/text.hpp"

// Why not a library: docs/decisions/0006-own-json-lines.md.
namespace penstock::observe {
namespace {

constexpr std::size_t kBufferBytes = 1024 * 1024;
constexpr std::size_t kFieldBytes = 512;  ///< of one text, escaped
constexpr std::size_t kLineBytes = 8 * 1024;
constexpr milliseconds kFlushEvery{100};
/// Without progress for so long, neither `flush` nor the end of the process waits for a reader any longer.
constexpr milliseconds kStall{1'000};
/// PIPE_BUF: what a pipe or a terminal that polls as writable takes without blocking.
constexpr std::size_t kSafeWrite = 4096;

constexpr std::string_view name_of(Level level) noexcept {
  switch (level) {
    case Level::debug: return "debug";
    case Level::info: return "info";
    case Level::warn: return "warn";
    case Level::error: return "error";
  }
  return "error";
}

char* two_digits(unsigned value, char* out) noexcept {
  *out++ = static_cast<char>('0' + value / 10 % 10);
  *out++ = static_cast<char>('0' + value % 10);
  return out;
}

/// "2026-11-24T07:47:31.123456Z" (RFC 3339). The calendar is worked out once a second on each thread.
char* put_time(WallTime at, char* out) noexcept {
  struct Cached {
    std::int64_t second = std::numeric_limits<std::int64_t>::min();
    char text[19];
  };
  thread_local Cached cached;
  const auto second = std::chrono::floor<seconds>(at);
  if (const auto count = second.time_since_epoch().count(); count != cached.second) {
    const auto day = std::chrono::floor<std::chrono::days>(second);
    const std::chrono::year_month_day date{day};
    const std::chrono::hh_mm_ss clock{second - day};
    const auto year = static_cast<unsigned>(static_cast<int>(date.year()));
    char* p = two_digits(year / 100, cached.text);
    p = two_digits(year, p);
    *p++ = '-';
    p = two_digits(static_cast<unsigned>(date.month()), p);
    *p++ = '-';
    p = two_digits(static_cast<unsigned>(date.day()), p);
    *p++ = 'T';
    p = two_digits(static_cast<unsigned>(clock.hours().count()), p);
    *p++ = ':';
    p = two_digits(static_cast<unsigned>(clock.minutes().count()), p);
    *p++ = ':';
    two_digits(static_cast<unsigned>(clock.seconds().count()), p);
    cached.second = count;
  }
  out = put({cached.text, sizeof cached.text}, out);
  *out++ = '.';
  const auto micros = static_cast<unsigned>((at - second).count() / 1'000);
  out = two_digits(micros / 10'000, out);
  out = two_digits(micros / 100, out);
  out = two_digits(micros, out);
  *out++ = 'Z';
  return out;
}

/// One line on the stack of whoever logs, so that the lock is held for a memcpy only. A field that might not
/// fit is left out.
class Line {
 public:
  Line(WallTime at, Level level, std::string_view message) noexcept {
    end_ = put("{\"time\":\"", text_);
    end_ = put_time(at, end_);
    end_ = put("\",\"level\":\"", end_);
    end_ = put(name_of(level), end_);
    *end_++ = '"';
    text("message", message);
  }

  void text(std::string_view key, std::string_view value) noexcept {
    if (!has_room(2 * kFieldBytes)) return;
    end_ = put(",\"", end_);
    end_ = write_json_text(key, kFieldBytes, end_);
    end_ = put("\":\"", end_);
    end_ = write_json_text(value, kFieldBytes, end_);
    *end_++ = '"';
  }
  /// For keys that are literals of this file.
  void label(std::string_view key, std::string_view value) noexcept {
    if (value.empty() || !start(key, kFieldBytes)) return;
    *end_++ = '"';
    end_ = write_json_text(value, kFieldBytes, end_);
    *end_++ = '"';
  }
  /// value / 10^decimals: a JSON number without an exponent.
  void number(std::string_view key, std::int64_t value, int decimals = 0) noexcept {
    if (start(key, kMaxDecimal)) end_ = write_decimal(value, decimals, end_);
  }
  void number(std::string_view key, std::uint64_t value) noexcept {
    if (start(key, kMaxDecimal)) end_ = std::to_chars(end_, end_ + kMaxDecimal, value).ptr;
  }
  void time_ms(std::string_view key, nanoseconds value) noexcept { number(key, value.count() / 1'000, 3); }
  void call_id(CallId id) noexcept {
    if (!start("call", kCallIdLength)) return;
    *end_++ = '"';
    write_call_id(id, end_);
    end_ += kCallIdLength;
    *end_++ = '"';
  }
  void yes(std::string_view key) noexcept {
    if (start(key, 4)) end_ = put("true", end_);
  }
  [[nodiscard]] std::string_view finish() noexcept {
    end_ = put("}\n", end_);
    return {text_, end_};
  }

 private:
  static constexpr std::size_t kMarks = 16;  ///< quotes, colon, comma, and the line's end

  [[nodiscard]] bool has_room(std::size_t bytes) const noexcept {
    return static_cast<std::size_t>(text_ + sizeof text_ - end_) >= bytes + kMarks;
  }
  [[nodiscard]] bool start(std::string_view key, std::size_t bytes) noexcept {
    if (!has_room(key.size() + bytes)) return false;
    end_ = put(",\"", end_);
    end_ = put(key, end_);
    end_ = put("\":", end_);
    return true;
  }

  char text_[kLineBytes];
  char* end_ = text_;
};

/// A buffer whose pages are touched only as far as it was ever filled.
struct Buffer {
  std::unique_ptr<char[]> bytes = std::make_unique_for_overwrite<char[]>(kBufferBytes);
  std::size_t size = 0;

  [[nodiscard]] std::string_view view() const noexcept { return {bytes.get(), size}; }
};

/// Whether one large write may block for as long as the reader likes: pipes, sockets, terminals.
bool may_block(int fd) noexcept {
  struct stat info{};
  if (fstat(fd, &info) != 0) return false;
  return S_ISFIFO(info.st_mode) || S_ISSOCK(info.st_mode) || isatty(fd) != 0;
}

}  // namespace

struct Log::Impl {
  Impl(int to, Level least, Counter* lost)
      : fd(to), chunk(may_block(to) ? kSafeWrite : kBufferBytes), dropped(lost), level(least) {
    // The writer takes no signal: they belong to the threads that handle them, and a closed pipe must be
    // EPIPE only.
    sigset_t all;
    sigset_t before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    writer = std::thread([this] { run(); });
    pthread_sigmask(SIG_SETMASK, &before, nullptr);
  }

  ~Impl() {
    {
      const std::lock_guard lock(mutex);
      stopping = true;
    }
    wake.notify_one();
    writer.join();
  }

  void append(std::string_view line) {
    bool notify = false;
    {
      const std::lock_guard lock(mutex);
      if (gone || front.size + line.size() > kBufferBytes) {
        drop(1);
        return;
      }
      std::memcpy(front.bytes.get() + front.size, line.data(), line.size());
      front.size += line.size();
      appended += line.size();
      if (front.size > kBufferBytes / 2 && !urgent) notify = urgent = true;
    }
    if (notify) wake.notify_one();
  }

  void flush() {
    std::unique_lock lock(mutex);
    const std::uint64_t target = appended;
    while (handled < target) {
      urgent = true;
      wake.notify_one();
      const std::uint64_t before = moved;
      if (progress.wait_for(lock, kStall) == std::cv_status::timeout && moved == before) return;
    }
  }

  void run() {
    std::unique_lock lock(mutex);
    for (;;) {
      wake.wait_for(lock, kFlushEvery, [this] { return urgent || stopping; });
      urgent = false;
      if (front.size == 0) {
        if (stopping) return;
        continue;
      }
      std::swap(front, back);
      lock.unlock();
      write_out(back.view());
      lock.lock();
      handled += back.size;
      back.size = 0;
      progress.notify_all();
    }
  }

  /// Writes all of `bytes`, waiting for a slow reader meanwhile; drops and counts the lines that cannot be
  /// written.
  void write_out(std::string_view bytes) {
    auto since = std::chrono::steady_clock::now();
    // A line that lost its rest is ended first, so that the next one stands alone.
    if (mid_line && wait_writable(since) && ::write(fd, "\n", 1) == 1) mid_line = false;
    while (!bytes.empty() && !gone && wait_writable(since)) {
      const ssize_t n = ::write(fd, bytes.data(), std::min(bytes.size(), chunk));
      if (n > 0) {
        mid_line = bytes[static_cast<std::size_t>(n) - 1] != '\n';
        bytes.remove_prefix(static_cast<std::size_t>(n));
        moved += static_cast<std::uint64_t>(n);
        if (!stopping) since = std::chrono::steady_clock::now();
      } else if (n == 0 || (errno != EINTR && errno != EAGAIN)) {
        // A full disk may have room again later; a closed pipe or descriptor stays so.
        gone = n < 0 && (errno == EPIPE || errno == EBADF || errno == ECONNRESET);
        break;
      }
    }
    drop(std::count(bytes.begin(), bytes.end(), '\n'));
  }

  /// Waits until `fd` takes bytes; at the end of the process no longer than kStall after `since`.
  [[nodiscard]] bool wait_writable(std::chrono::steady_clock::time_point since) {
    for (;;) {
      pollfd poller{.fd = fd, .events = POLLOUT, .revents = 0};
      const int n = poll(&poller, 1, static_cast<int>(kFlushEvery.count()));
      if (stopping && std::chrono::steady_clock::now() - since > kStall) gone = true;
      if (gone || n > 0) return !gone;  // an error of the descriptor shows in the write
    }
  }

  void drop(std::int64_t lines) noexcept {
    if (dropped != nullptr) dropped->add(lines);
  }

  const int fd;
  const std::size_t chunk;
  Counter* const dropped;
  std::atomic<Level> level;
  std::atomic<bool> gone{false};        ///< nobody reads any more
  std::atomic<bool> stopping{false};    ///< from then on a slow reader gets kStall in all
  std::atomic<std::uint64_t> moved{0};  ///< bytes written
  bool mid_line = false;                ///< the writer's: the last byte written was not a line's end

  std::mutex mutex;  ///< of all below
  std::condition_variable wake;
  std::condition_variable progress;
  Buffer front;  ///< callers append
  Buffer back;   ///< the writer's while it writes
  std::uint64_t appended = 0;
  std::uint64_t handled = 0;  ///< written or dropped
  bool urgent = false;

  std::thread writer;  // last: it uses all above
};

Log::Log(int fd, Level level, Counter* dropped) : impl_(std::make_unique<Impl>(fd, level, dropped)) {}
Log::~Log() = default;

void Log::set_level(Level level) noexcept { impl_->level.store(level, std::memory_order_relaxed); }

bool Log::enabled(Level level) const noexcept {
  return level >= impl_->level.load(std::memory_order_relaxed);
}

void Log::flush() { impl_->flush(); }

void Log::write(Level level, std::string_view message, std::initializer_list<Field> fields) {
  if (!enabled(level)) return;
  Line line(std::chrono::system_clock::now(), level, message);
  for (const Field& field : fields) line.text(field.key, field.text);
  impl_->append(line.finish());
}

void Log::call(const CallLine& call) {
  if (!enabled(Level::info)) return;
  Line line(call.at, Level::info, "call");
  line.call_id(call.call);
  line.label("method", call.method);
  line.label("provider", call.provider);
  line.label("endpoint", call.endpoint);
  line.label("route", call.route);
  line.label("consumer", call.consumer);
  line.label("team", call.team);
  line.label("key", call.key);
  line.label("model", call.model);
  line.label("tag", call.tag);
  line.number("status", std::int64_t{call.status});
  line.label("reason", call.reason);
  line.label("detail", call.detail);
  line.number("attempts", std::int64_t{call.attempts});
  line.number("cost_usd", call.cost.count, 9);
  if (call.cost_estimated) line.yes("cost_estimated");
  if (call.input_tokens != 0) line.number("input_tokens", call.input_tokens);
  if (call.output_tokens != 0) line.number("output_tokens", call.output_tokens);
  line.time_ms("total_ms", call.total);
  line.time_ms("upstream_ms", call.upstream);
  if (call.waited.count() != 0) line.time_ms("waited_ms", call.waited);
  if (call.first_byte.count() != 0) line.time_ms("first_byte_ms", call.first_byte);
  line.number("bytes_in", call.bytes_in);
  line.number("bytes_out", call.bytes_out);
  impl_->append(line.finish());
}

}  // namespace penstock::observe
