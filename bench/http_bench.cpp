// Heads, chunks and event streams: what each call pays for framing.

#include <string>
#include <vector>

#include <benchmark/benchmark.h>

#include "http/event_stream.hpp"
#include "http/message.hpp"

namespace penstock::http {
namespace {

const std::string kRequest =
    "POST /p/openai/v1/chat/completions HTTP/1.1\r\n"
    "Host: gateway.internal:8080\r\n"
    "Authorization: Bearer pk_0123456789abcdef0123456789abcdef\r\n"
    "Content-Type: application/json\r\n"
    "Content-Length: 512\r\n"
    "User-Agent: openai-python/1.30.1 (linux; x86_64)\r\n"
    "Accept-Encoding: gzip, deflate, br, zstd, identity\r\n"
    "\r\n";

const std::string kResponse =
    "HTTP/1.1 200 OK\r\n"
    "Date: Sun, 06 Nov 1994 08:49:37 GMT\r\n"
    "Content-Type: application/json\r\n"
    "Content-Length: 1234\r\n"
    "x-request-id: req_0123456789abcdef0123456789abcdef\r\n"
    "x-ratelimit-remaining-requests: 9999\r\n"
    "Server: cloudflare\r\n"
    "\r\n";

void parse_request(benchmark::State& state) {
  RequestHead head;
  for (auto _ : state) {
    ParseResult result = parse_request_head(kRequest, 64 * 1024, head);
    benchmark::DoNotOptimize(result);
    benchmark::ClobberMemory();
  }
  state.SetLabel(std::to_string(kRequest.size()) + " bytes, 6 fields");
}
BENCHMARK(parse_request);

void parse_response(benchmark::State& state) {
  ResponseHead head;
  for (auto _ : state) {
    ParseResult result = parse_response_head(kResponse, 64 * 1024, false, head);
    benchmark::DoNotOptimize(result);
    benchmark::ClobberMemory();
  }
  state.SetLabel(std::to_string(kResponse.size()) + " bytes, 6 fields");
}
BENCHMARK(parse_response);

/// A sender of single bytes: the whole head, parsed again at each byte.
void parse_request_byte_by_byte(benchmark::State& state) {
  RequestHead head;
  for (auto _ : state) {
    for (std::size_t size = 1; size <= kRequest.size(); ++size) {
      ParseResult result = parse_request_head(std::string_view(kRequest).substr(0, size), 64 * 1024, head);
      benchmark::DoNotOptimize(result);
    }
  }
}
BENCHMARK(parse_request_byte_by_byte);

void decode_chunks(benchmark::State& state) {
  const auto chunk = static_cast<std::size_t>(state.range(0));
  std::string body;
  while (body.size() < 64 * 1024) {
    char header[18];
    body.append(header, write_chunk_header(chunk, header));
    body.append(chunk, 'x');
    body += "\r\n";
  }
  std::vector<char> bytes(body.begin(), body.end());
  ChunkDecoder decoder;
  for (auto _ : state) {
    std::copy(body.begin(), body.end(), bytes.begin());  // decoding compacts in place
    decoder.reset();
    auto step = decoder.decode(bytes.data(), bytes.size());
    benchmark::DoNotOptimize(step);
  }
  state.SetBytesProcessed(state.iterations() * static_cast<std::int64_t>(body.size()));
}
BENCHMARK(decode_chunks)->Arg(64)->Arg(4096);

void read_events(benchmark::State& state) {
  std::string stream;
  for (int i = 0; i < 32; ++i) {
    stream += R"(data: {"id":"chatcmpl-1","object":"chunk","choices":[{"delta":{"content":"word"}}]})"
              "\n\n";
  }
  EventStreamParser parser;
  for (auto _ : state) {
    parser.feed(stream, [](const auto& event) { benchmark::DoNotOptimize(event.data.size()); });
  }
  state.SetItemsProcessed(state.iterations() * 32);
}
BENCHMARK(read_events);

}  // namespace
}  // namespace penstock::http
