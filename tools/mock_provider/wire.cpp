#include "wire.hpp"

#include <charconv>

#include "text.hpp"

namespace penstock::mock {

namespace {

bool read_framing(std::string_view name, std::string_view value, Request& request) {
  if (equals_ignoring_case(name, "content-length")) {
    const auto length = to_int(value);
    if (!length || *length < 0 || value.front() == '+' || request.has_length) return false;
    request.content_length = static_cast<std::size_t>(*length);
    request.has_length = true;
  } else if (equals_ignoring_case(name, "transfer-encoding")) {
    if (request.chunked || !equals_ignoring_case(value, "chunked")) return false;
    request.chunked = true;
  }
  return true;
}

void read_other(std::string_view name, std::string_view value, Request& request) {
  switch (name.size()) {
    case 6:
      if (equals_ignoring_case(name, "expect"))
        request.expects_continue = equals_ignoring_case(value, "100-continue");
      if (equals_ignoring_case(name, "x-mock")) request.x_mock = value;
      break;
    case 9:
      if (equals_ignoring_case(name, "x-api-key")) request.credential = value;
      break;
    case 10:
      if (!equals_ignoring_case(name, "connection")) break;
      for (std::string_view rest = value; !rest.empty();) {
        const std::string_view option = trim(take_until(rest, ','));
        if (equals_ignoring_case(option, "close")) request.keep_alive = false;
        if (equals_ignoring_case(option, "keep-alive") && request.http10) request.keep_alive = true;
      }
      break;
    case 13:
      if (!equals_ignoring_case(name, "authorization")) break;
      request.credential =
          equals_ignoring_case(value.substr(0, 7), "bearer ") ? trim(value.substr(7)) : value;
      break;
    case 14:
      if (equals_ignoring_case(name, "x-goog-api-key")) request.credential = value;
      break;
    default: break;
  }
}

bool read_request_line(std::string_view line, Request& request) {
  request.method = take_until(line, ' ');
  request.target = take_until(line, ' ');
  request.http10 = line == "HTTP/1.0";
  request.keep_alive = !request.http10;
  if (request.method.empty() || request.target.empty() || (!request.http10 && line != "HTTP/1.1"))
    return false;
  std::string_view path = request.target;
  if (path.starts_with("http://")) {  // absolute form, as sent to a proxy
    const std::size_t slash = path.find('/', 7);
    path = slash == std::string_view::npos ? std::string_view("/") : path.substr(slash);
  }
  request.path = take_until(path, '?');
  request.query = path;
  return true;
}

}  // namespace

int read_head(std::string_view head, Request& request) {
  auto headers = std::move(request.headers);
  headers.clear();
  request = Request{};
  request.headers = std::move(headers);
  const auto next_line = [&head] {
    const std::size_t end = head.find("\r\n");
    const std::string_view line = head.substr(0, end);
    head.remove_prefix(end + 2);
    return line;
  };
  if (!read_request_line(next_line(), request)) return 400;
  for (std::string_view line = next_line(); !line.empty(); line = next_line()) {
    const std::size_t colon = line.find(':');
    if (colon == 0 || colon == std::string_view::npos) return 400;
    const std::string_view name = line.substr(0, colon);
    if (name.find_first_of(" \t\n\r") != std::string_view::npos ||
        line.find_first_of("\r\n") != std::string_view::npos)
      return 400;
    const std::string_view value = trim(line.substr(colon + 1));
    request.headers.push_back({name, value});
    if ((name.size() == 14 || name.size() == 17) && !read_framing(name, value, request)) return 400;
    read_other(name, value, request);
  }
  if (request.chunked && (request.has_length || request.http10)) return 400;
  return request.content_length > kMaxBodyBytes ? 413 : 0;
}

void ChunkedReader::reset() {
  state_ = State::size_line;
  left_ = 0;
  trailers_.clear();
}

std::size_t ChunkedReader::take(std::string_view input, std::string& body) {
  std::size_t used = 0;
  while (state_ != State::done && state_ != State::bad) {
    const std::string_view rest = input.substr(used);
    if (state_ == State::data) {
      const std::string_view payload = rest.substr(0, left_);
      body += payload;
      used += payload.size();
      left_ -= payload.size();
      if (left_ != 0) break;
      state_ = State::data_end;
      continue;
    }
    const std::size_t end = rest.find("\r\n");
    if (end == std::string_view::npos) {
      if (rest.size() > 4096) state_ = State::bad;
      break;
    }
    const std::string_view line = rest.substr(0, end);
    used += end + 2;
    if (state_ == State::data_end) {
      state_ = line.empty() ? State::size_line : State::bad;
    } else if (state_ == State::size_line) {
      const auto [at, error] = std::from_chars(line.data(), line.data() + line.size(), left_, 16);
      const bool whole = at == line.data() + line.size() || *at == ';';  // an extension may follow
      if (error != std::errc{} || !whole || left_ > kMaxBodyBytes || body.size() + left_ > kMaxBodyBytes)
        state_ = State::bad;
      else
        state_ = left_ == 0 ? State::trailers : State::data;
    } else if (line.empty()) {
      state_ = State::done;
    } else {
      append(trailers_, line, "\r\n");
      if (trailers_.size() > kMaxHeadBytes) state_ = State::bad;
    }
  }
  return used;
}

ChunkInPlace::~ChunkInPlace() {
  if (!framed_) return;
  const std::size_t size = out_.size() - start_ - 10;
  if (size == 0) {
    out_.resize(start_);  // an empty chunk would end the body
    return;
  }
  static constexpr char kHex[] = "0123456789abcdef";
  for (std::size_t i = 0; i < 8; ++i) out_[start_ + i] = kHex[size >> (28 - 4 * i) & 15];
  out_ += "\r\n";
}

std::string_view reason_phrase(int status) {
  switch (status) {
    case 200: return "OK";
    case 201: return "Created";
    case 202: return "Accepted";
    case 204: return "No Content";
    case 301: return "Moved Permanently";
    case 302: return "Found";
    case 304: return "Not Modified";
    case 400: return "Bad Request";
    case 401: return "Unauthorized";
    case 403: return "Forbidden";
    case 404: return "Not Found";
    case 405: return "Method Not Allowed";
    case 408: return "Request Timeout";
    case 409: return "Conflict";
    case 413: return "Content Too Large";
    case 422: return "Unprocessable Content";
    case 429: return "Too Many Requests";
    case 431: return "Request Header Fields Too Large";
    case 500: return "Internal Server Error";
    case 502: return "Bad Gateway";
    case 503: return "Service Unavailable";
    case 504: return "Gateway Timeout";
    case 529: return "Overloaded";
    default: return "Scripted";
  }
}

bool append_faulty(std::string& out, Fault fault, int status, std::string_view head_lines,
                   std::string_view body) {
  const std::size_t start = out.size();
  append(out, "HTTP/1.1 ", status, " ", reason_phrase(status), "\r\n", head_lines);
  const auto with_length = [&] { append(out, "Content-Length: ", body.size(), "\r\n\r\n", body); };
  const auto chunk = [&] {
    {
      const ChunkInPlace framed(out, true);
      out += body;
    }
    out += "0\r\n\r\n";
  };
  switch (fault) {
    case Fault::none: with_length(); return true;
    case Fault::cl_te:
      append(out, "Content-Length: ", body.size(), "\r\nTransfer-Encoding: chunked\r\n\r\n");
      chunk();
      return true;
    case Fault::bad_chunk:
      append(out, "Transfer-Encoding: chunked\r\n\r\nzz\r\n", body, "\r\n0\r\n\r\n");
      return true;
    case Fault::bad_cl: append(out, "Content-Length: ", body.size(), "x\r\n\r\n", body); return false;
    case Fault::two_cl:
      append(out, "Content-Length: ", body.size() + 7, "\r\n");
      with_length();
      return true;
    case Fault::obs_fold:
      out += "X-Folded: one\r\n two\r\n";
      with_length();
      return true;
    case Fault::no_reason:
      out.resize(start);
      append(out, "HTTP/1.1 ", status, "\r\n", head_lines);
      with_length();
      return true;
    case Fault::garbage:
      out.resize(start);
      out.append("\x16\x03\x01\x02 this is not HTTP\r\n\r\n\0\xff", 26);
      return false;
    case Fault::lf_only: {
      out.resize(start);
      append(out, "HTTP/1.1 ", status, " ", reason_phrase(status), "\n");
      for (const char c : head_lines)
        if (c != '\r') out += c;
      append(out, "Content-Length: ", body.size(), "\n\n", body);
      return true;
    }
    case Fault::huge_header:
      append(out, "X-Huge: ", std::string(std::size_t{256} * 1024, 'h'), "\r\n");
      with_length();
      return true;
    case Fault::truncated_head: out += "Content-Len"; return false;
    case Fault::switching:
      out.resize(start);
      append(out, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: mock\r\n\r\n", body);
      return false;
  }
  return false;
}

}  // namespace penstock::mock
