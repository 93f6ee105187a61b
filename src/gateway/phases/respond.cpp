#include <charconv>

#include "gateway/phases/phases.hpp"
#include "gateway/problem.hpp"

namespace penstock::gateway {
namespace {

void append_number(std::string& out, std::int64_t number) {
  char digits[24];
  const auto end = std::to_chars(digits, digits + sizeof digits, number).ptr;
  out.append(digits, end);
}

/// X-RateLimit-* and RateLimit* (draft-ietf-httpapi-ratelimit-headers-10) of the caller's inbound limit.
void append_limit_fields(const Call& call, std::string& head) {
  const auto reset = std::chrono::ceil<seconds>(call.limit_answer.reset_after).count();
  const auto unix_now = std::chrono::floor<seconds>(call.exchange.arrived.wall.time_since_epoch()).count();
  head.append("X-RateLimit-Limit: ");
  append_number(head, call.limit.amount);
  head.append("\r\nX-RateLimit-Remaining: ");
  append_number(head, call.limit_answer.remaining);
  head.append("\r\nX-RateLimit-Reset: ");
  append_number(head, unix_now + reset);
  head.append("\r\nRateLimit-Policy: \"caller\";q=");
  append_number(head, call.limit.amount);
  head.append(";w=");
  append_number(head, std::chrono::ceil<seconds>(call.limit.period).count());
  head.append("\r\nRateLimit: \"caller\";r=");
  append_number(head, call.limit_answer.remaining);
  head.append(";t=");
  // RFC: Retry-After must not be earlier than t says, so a refused call tells the same moment twice.
  append_number(head, call.limit_answer.allowed
                          ? reset
                          : std::chrono::ceil<seconds>(call.limit_answer.retry_after).count());
  head.append("\r\n");
}

}  // namespace

void append_answer_fields(Call& call, std::string& head) {
  head.append("Penstock-Call: ");
  const std::size_t at = head.size();
  head.resize(at + kCallIdLength);
  write_call_id(call.id, head.data() + at);
  head.append("\r\n");
  if (!call.attempts.empty())
    http::append_field(head, "Penstock-Provider", call.attempts.back().provider->config->name);
  head.append("Penstock-Waited: ");
  append_number(head, std::chrono::duration_cast<milliseconds>(call.waited).count());
  head.append("ms\r\n");
  if (call.limited) append_limit_fields(call, head);
}

Awaitable<void> respond(Call& call) {
  http::Exchange& exchange = call.exchange;
  const Error& error = *call.refusal;
  const int status = status_of(error);
  if (exchange.client_gone()) co_return;
  const std::string body = problem_body(error, status);
  exchange.begin_response(status);
  append_problem_fields(error, exchange.head());
  append_answer_fields(call, exchange.head());
  char cost[24];
  http::append_field(exchange.head(), "Penstock-Cost", {cost, format_usd_to(call.cost(), cost)});
  exchange.end_head(body.size(), exchange.request.method == "HEAD" ? http::Exchange::Body::bodiless
                                                                   : http::Exchange::Body::follows);
  (void)co_await exchange.finish(body);
}

}  // namespace penstock::gateway
