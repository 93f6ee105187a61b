// What is no language model: a paid JSON API, and paths that exercise a proxy.
#include <algorithm>

#include "answers.hpp"
#include "text.hpp"

namespace penstock::mock {

void Answer::clear() {
  std::string old_headers = std::move(headers), old_body = std::move(body);
  *this = Answer{};
  old_headers.clear();
  old_body.clear();
  headers = std::move(old_headers);
  body = std::move(old_body);
}

std::size_t Question::text_tokens() const {
  return static_cast<std::size_t>(
      std::clamp<std::int64_t>(usage.completion / call.choices - usage.reasoning / call.choices, 0, 8192));
}

std::size_t Question::events() const {
  return rules.chunks > 0 ? static_cast<std::size_t>(rules.chunks) : std::max<std::size_t>(text_tokens(), 1);
}

TokenStream::TokenStream(const Question& question)
    : usage_(question.usage),
      choices_(question.call.choices),
      no_usage_(question.rules.no_usage),
      include_usage_(question.call.include_usage),
      extra_usage_(question.rules.extra_usage),
      stamp_(question.rules.stamp),
      text_tokens_(question.text_tokens()),
      events_(question.events()),
      sse_error_(question.rules.sse_error) {
  append_json_string(model_, question.call.model);
}

bool TokenStream::next(std::string& out) {
  if (index_ == 0) open(out);
  if (sse_error_ && index_ == std::max<std::size_t>(1, events_ / 2)) {
    fail(out);
    return false;
  }
  // Fewer words than events: one word each, so that every event says something.
  const std::size_t first = events_ <= text_tokens_ ? index_ * text_tokens_ / events_ : index_;
  const std::size_t last = events_ <= text_tokens_ ? (index_ + 1) * text_tokens_ / events_ : index_ + 1;
  ++index_;
  piece(out, text_tokens_ == 0 ? std::string_view{} : words(first, last - first));
  if (index_ < events_ || (sse_error_ && events_ == 1)) return true;
  end(out);
  return false;
}

std::int64_t TokenStream::completion_sent() const {
  return static_cast<std::int64_t>(static_cast<std::size_t>(usage_.completion) * index_ / events_);
}

namespace {

constexpr std::size_t kMaxEchoBytes = 64 * 1024;
constexpr std::int64_t kDefaultDripGapUs = 10'000;

char letter(std::size_t index) { return static_cast<char>('a' + index % 26); }

/// `size` letters in `pieces` pieces.
class Letters final : public Stream {
 public:
  Letters(std::size_t size, std::size_t piece_size)
      : size_(size), piece_size_(std::max<std::size_t>(piece_size, 1)) {}
  bool next(std::string& out) override {
    const ChunkInPlace chunk(out, framed);
    for (const std::size_t end = std::min(at_ + piece_size_, size_); at_ < end; ++at_) out += letter(at_);
    return at_ < size_;
  }

 private:
  std::size_t size_, piece_size_, at_ = 0;
};

void append_echo(const Request& request, std::string& out) {
  out += R"({"method":)";
  append_json_string(out, request.method);
  out += R"(,"target":)";
  append_json_string(out, request.target);
  out += R"(,"path":)";
  append_json_string(out, request.path);
  out += R"(,"query":)";
  append_json_string(out, request.query);
  out += R"(,"raw_headers":[)";
  for (const Header& header : request.headers) {
    out += &header == request.headers.data() ? "[" : ",[";
    append_json_string(out, header.name);
    out += ',';
    append_json_string(out, header.value);
    out += ']';
  }
  out += R"(],"headers":{)";  // names in lower case, the values of a repeated one joined
  std::vector<std::pair<std::string, std::string>> joined;
  for (const Header& header : request.headers) {
    std::string name(header.name);
    std::ranges::transform(name, name.begin(),
                           [](char c) { return c >= 'A' && c <= 'Z' ? char(c + 32) : c; });
    const auto same = std::ranges::find(joined, name, &std::pair<std::string, std::string>::first);
    if (same == joined.end())
      joined.emplace_back(std::move(name), header.value);
    else
      append(same->second, ", ", header.value);
  }
  for (const auto& entry : joined) {
    if (&entry != joined.data()) out += ',';
    append_json_string(out, entry.first);
    out += ':';
    append_json_string(out, entry.second);
  }
  append(out, R"(},"framing":")", request.chunked ? "chunked" : (request.has_length ? "length" : "none"),
         R"(","trailers":)");
  append_json_string(out, request.trailers);
  append(out, R"(,"body_length":)", request.body.size(), R"(,"body_crc32":)", crc32(request.body));
  const bool echoed = request.body.size() <= kMaxEchoBytes;
  if (!echoed || !is_utf8(request.body)) {
    out += R"(,"body":null)";
    if (echoed) append(out, R"(,"body_base64":")", base64(request.body), "\"");
  } else {
    out += R"(,"body":)";
    append_json_string(out, request.body);
  }
  out += '}';
}

// The number at the end of /bytes/N and its like, at most `most`.
std::optional<std::size_t> number_after(std::string_view path, std::string_view prefix, std::int64_t most) {
  if (!path.starts_with(prefix)) return std::nullopt;
  const auto number = to_int(path.substr(prefix.size()));
  if (!number || *number < 0 || *number > most) return std::nullopt;
  return static_cast<std::size_t>(*number);
}

}  // namespace

void answer_geocode(const Question& question, Answer& answer) {
  const std::string place = percent_decode(query_value(question.request.query, "q").value_or(""));
  const std::uint32_t hash = crc32(place);
  const auto degrees = [](std::uint32_t value, std::uint32_t range) {
    const auto tenths =
        static_cast<std::int64_t>(value % (range * 20)) - static_cast<std::int64_t>(range) * 10;
    return std::to_string(static_cast<double>(tenths) / 10.0);
  };
  append(answer.headers, "X-Credits-Used: ", answer.credits, "\r\n");
  answer.body += R"({"results":[{"formatted":)";
  append_json_string(answer.body, place);
  append(answer.body, R"(,"geometry":{"lat":)", degrees(hash, 90), R"(,"lng":)", degrees(hash >> 8, 180),
         R"(},"confidence":9}],"status":{"code":200,"message":"OK"},"billing":{"credits":)", answer.credits,
         "}}");
}

void complain_plain(const Complaint& complaint, Answer& answer) {
  answer.status = complaint.status;
  answer.body += R"({"error":{"message":)";
  append_json_string(answer.body, complaint.message);
  answer.body += R"(,"code":)";
  append_json_string(answer.body, complaint.code.empty() ? complaint.type : complaint.code);
  answer.body += "}}";
}

bool answer_plain(const Question& question, Answer& answer) {
  const Request& request = question.request;
  constexpr std::int64_t kMaxBytes = 1024LL * 1024 * 1024;  // made as it is sent, so no memory is held
  if (request.path == "/anything" || request.path.starts_with("/anything/")) {
    append_echo(request, answer.body);
  } else if (const auto bytes = number_after(request.path, "/bytes/", kMaxBytes)) {
    answer.content_type = "application/octet-stream";
    if (*bytes == 0) return true;
    answer.stream = std::make_unique<Letters>(*bytes, 64 * 1024);
    answer.stream_length = static_cast<std::int64_t>(*bytes);
  } else if (const auto drops = number_after(request.path, "/drip/", 1'000'000)) {
    answer.content_type = "text/plain";
    if (*drops == 0) return true;
    answer.stream = std::make_unique<Letters>(*drops, 1);
    answer.stream_length = static_cast<std::int64_t>(*drops);
    answer.gap_ns = (question.rules.gap_us > 0 ? question.rules.gap_us : kDefaultDripGapUs) * 1000;
  } else if (const auto size = number_after(request.path, "/chunked/", kMaxBytes)) {
    const auto pieces = static_cast<std::size_t>(question.rules.chunks > 0 ? question.rules.chunks : 4);
    answer.content_type = "text/plain";
    answer.stream =
        std::make_unique<Letters>(*size, std::min((*size + pieces - 1) / pieces, std::size_t{65536}));
    if (query_value(request.query, "trailers") == "1") {
      answer.headers += "Trailer: X-Checksum, X-Length\r\n";
      append(answer.trailers, "X-Checksum: mock\r\nX-Length: ", *size, "\r\n");
    }
  } else if (const auto status = number_after(request.path, "/status/", 599); status && *status >= 200) {
    answer.status = static_cast<int>(*status);
    append(answer.body, R"({"status":)", answer.status, "}");
  } else if (request.path == "/continue-103") {
    answer.interim = "HTTP/1.1 103 Early Hints\r\nLink: </style.css>; rel=preload; as=style\r\n\r\n";
    answer.body = R"({"hinted":true})";
  } else {
    return false;
  }
  return true;
}

}  // namespace penstock::mock
