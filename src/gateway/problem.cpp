#include "gateway/problem.hpp"

#include "http/message.hpp"
#include "observe/text.hpp"

namespace penstock::gateway {
namespace {

std::string_view problem_type(Reason reason) noexcept {
  // Registered problem types where one fits (draft-ietf-httpapi-ratelimit-headers), else our documentation's
  // name for it.
  switch (reason) {
    case Reason::caller_rate_limited:
    case Reason::policy_rate_limited:
    case Reason::policy_budget_exceeded:
      return "https://iana.org/assignments/http-problem-types#quota-exceeded";
    case Reason::gateway_overloaded:
    case Reason::policy_queue_full:
      return "https://iana.org/assignments/http-problem-types#temporary-reduced-capacity";
    default: return "about:blank";
  }
}

}  // namespace

void append_json_string(std::string& out, std::string_view text) {
  const std::size_t bound = 6 * text.size() + 3;  // every byte as \u00xx: nothing is cut off
  const std::size_t begin = out.size() + 1;
  out.push_back('"');
  out.resize(begin + bound);
  out.resize(
      static_cast<std::size_t>(observe::write_json_text(text, bound, out.data() + begin) - out.data()));
  out.push_back('"');
}

int status_of(const Error& error) noexcept {
  return error.status != 0 ? error.status : info(error.reason).status;
}

std::string problem_body(const Error& error, int status) {
  const ReasonInfo& reason = info(error.reason);
  std::string body = "{\"type\":";
  append_json_string(body, problem_type(error.reason));
  body += ",\"title\":";
  append_json_string(body, reason.title);
  body += ",\"status\":" + std::to_string(status) + ",\"detail\":";
  append_json_string(body, error.message);
  body += ",\"reason\":";
  append_json_string(body, reason.name);
  if (error.retry_after) body += ",\"retry_after\":" + std::to_string(error.retry_after->count());
  body += ",\"error\":{\"message\":";
  append_json_string(body, error.message);
  body += ",\"type\":";
  append_json_string(body, reason.error_type);
  body += ",\"param\":null,\"code\":";
  append_json_string(body, reason.name);
  body += "}}\n";
  return body;
}

void append_problem_fields(const Error& error, std::string& head) {
  const ReasonInfo& reason = info(error.reason);
  http::append_field(head, "Content-Type", "application/problem+json");
  http::append_field(head, "Penstock-Reason", reason.name);
  if (error.retry_after)
    http::append_number_field(head, "Retry-After", static_cast<std::uint64_t>(error.retry_after->count()));
  // The OpenAI and Anthropic SDKs obey it: an answer that waiting a little does not change is not asked for
  // again.
  if (reason.retry == RetryAdvice::no || !error.retry_after)
    http::append_field(head, "x-should-retry", "false");
}

}  // namespace penstock::gateway
