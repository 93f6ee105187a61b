#include "app/surface.hpp"

#include "gateway/pipeline.hpp"
#include "gateway/problem.hpp"

namespace penstock::app {
namespace {

constexpr std::string_view kIndex =
    R"({"name":"penstock","calls":["/p/{provider}/{path}","/r/{route}/{path}"],"health":"/health","metrics":"/metrics"})"
    "\n";

Awaitable<void> send(http::Exchange& exchange, int status, std::string_view content_type,
                     std::string_view body) {
  exchange.begin_response(status);
  http::append_field(exchange.head(), "Content-Type", content_type);
  exchange.end_head(body.size(), exchange.request.method == "HEAD" ? http::Exchange::Body::bodiless
                                                                   : http::Exchange::Body::follows);
  (void)co_await exchange.finish(body);
}

}  // namespace

Awaitable<void> Surface::handle(http::Exchange& exchange, std::size_t worker) {
  const std::string_view path = exchange.request.path;
  if (path.starts_with("/p/") || path.starts_with("/r/"))
    return gateway::run_call(exchange, workers_[worker]);
  return [](Surface& self, http::Exchange& its, std::size_t index) -> Awaitable<void> {
    const bool reads = its.request.method == "GET" || its.request.method == "HEAD";
    if (reads) {
      if (const auto answer = self.health_.answer(its.request.path,
                                                  self.workers_[index].services.clock.at(its.arrived.mono))) {
        co_await send(its, answer->status, answer->content_type, answer->body);
        co_return;
      }
      if (its.request.path == "/") {
        co_await send(its, 200, "application/json", kIndex);
        co_return;
      }
    }
    co_await gateway::run_unmatched(its, self.workers_[index]);
  }(*this, exchange, worker);
}

void Surface::on_bad_request(const http::FramingError& error, std::string& out) {
  const Error refusal{.reason = Reason::caller_invalid,
                      .status = error.status,
                      .message = "The request is not valid: " + std::string(error.what) + ".",
                      .detail = {},
                      .retry_after = {}};
  const std::string body = gateway::problem_body(refusal, error.status);
  http::append_status_line(out, error.status);
  gateway::append_problem_fields(refusal, out);
  http::append_number_field(out, "Content-Length", body.size());
  out.append("Connection: close\r\n\r\n").append(body);
}

}  // namespace penstock::app
