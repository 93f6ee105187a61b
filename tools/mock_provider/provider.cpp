#include "provider.hpp"

#include <algorithm>

#include "text.hpp"

namespace penstock::mock {

namespace {

constexpr std::int64_t kDefaultMaxTokens = 64;
constexpr std::int64_t kDefaultCompletionTokens = 42;

std::int64_t max_tokens(const Call& call) {
  return call.max_tokens < 0 ? kDefaultMaxTokens : call.max_tokens;
}

Usage usage_of(const Call& call, const Rules& rules, Kind kind) {
  Usage usage;
  usage.prompt = rules.prompt_tokens.value_or(call.prompt_tokens());
  usage.cached = std::min(rules.cached_tokens, usage.prompt);
  if (kind == Kind::embeddings) return usage;
  const std::int64_t said = rules.completion_tokens.value_or(kDefaultCompletionTokens);
  const std::int64_t cap = rules.over_max ? said : max_tokens(call);
  usage.capped = said > cap;
  usage.completion = std::min(said, cap) * call.choices;
  usage.reasoning = std::min(rules.reasoning_tokens * call.choices, usage.completion);
  return usage;
}

// `delay-<N>us` as a model's name is N microseconds of latency; -1: some other model.
std::int64_t delay_us(std::string_view model) {
  if (!model.starts_with("delay-") || !model.ends_with("us")) return -1;
  return to_int(model.substr(6, model.size() - 8)).value_or(-1);
}

std::string_view error_type(int status) {
  switch (status) {
    case 401: return "authentication_error";
    case 403: return "permission_error";
    case 404: return "not_found_error";
    case 413: return "request_too_large";
    case 429: return "rate_limit_error";
    case 529: return "overloaded_error";
    default: return status < 500 ? "invalid_request_error" : "api_error";
  }
}

}  // namespace

Provider::Provider(const Options& options)
    : options_(options), defaults_(options), scratch_(options), random_(options.seed) {}

Provider::Way Provider::find_way(const Request& request) {
  const std::string_view path = request.path;
  const bool post = request.method == "POST";
  if (post && path == "/v1/chat/completions") return {Kind::chat, Dialect::openai, answer_chat, {}, false};
  if (post && path == "/v1/messages") return {Kind::messages, Dialect::anthropic, answer_messages, {}, false};
  if (post && path == "/v1/responses") return {Kind::responses, Dialect::openai, answer_responses, {}, false};
  if (post && path == "/v1/embeddings")
    return {Kind::embeddings, Dialect::openai, answer_embeddings, {}, false};
  if (post && path == "/v1/messages/count_tokens")
    return {Kind::other, Dialect::anthropic, answer_count_tokens, {}, false};
  if (path.starts_with("/v1/messages")) return {Kind::other, Dialect::anthropic, nullptr, {}, false};
  if (const auto target = gemini_target(path); post && target)
    return {Kind::gemini, Dialect::gemini, answer_gemini, target->model, target->stream};
  if (path.starts_with("/v1beta/")) return {Kind::other, Dialect::gemini, nullptr, {}, false};
  if (path.starts_with("/v1/")) return {Kind::other, Dialect::openai, nullptr, {}, false};
  if (path == "/geocode") return {Kind::geocode, Dialect::plain, answer_geocode, {}, false};
  return {};
}

void Provider::complain(Dialect dialect, const Complaint& complaint, Answer& answer) {
  switch (dialect) {
    case Dialect::openai: complain_openai(complaint, answer); break;
    case Dialect::anthropic: complain_anthropic(complaint, answer); break;
    case Dialect::gemini: complain_gemini(complaint, answer); break;
    case Dialect::plain: complain_plain(complaint, answer); break;
  }
}

bool Provider::read_call(const Request& request, const Way& way, Call& call) {
  if (way.write == nullptr || way.kind == Kind::geocode) return true;
  const bool good = way.kind == Kind::embeddings ? reader_.read_embedding(request.body, call)
                                                 : reader_.read(request.body, call);
  if (!way.model.empty()) {
    call.model = way.model;
    call.stream = way.stream;
  }
  return good;
}

bool Provider::refused(const Asker& asker, const Way& way, const Call& call, Moment now, Answer& answer) {
  if (limits_.applies_to(asker.path)) {
    const auto verdict =
        limits_.take(asker.credential, asker.tokens, now.mono_ns, now.unix_ns, answer.headers);
    if (!verdict.admitted) {
      std::string message;
      if (limits_.settings().style == LimitStyle::openai)
        append(message, "Rate limit reached for ", call.model, " on ",
               verdict.by_requests ? "requests per min (RPM)" : "tokens per min (TPM)", ": Limit ",
               verdict.limit, ", Used ", verdict.limit - verdict.remaining, ", Requested ", verdict.requested,
               ". Please try again in ", go_duration(verdict.wait_ns), ".");
      else
        append(message, "This request would exceed your rate limit of ", verdict.limit,
               verdict.by_requests ? " requests" : " tokens", " per minute.");
      const std::string_view type = way.dialect != Dialect::openai ? "rate_limit_error"
                                    : verdict.by_requests          ? "requests"
                                                                   : "tokens";
      complain(way.dialect, {limits_.settings().status, type, "rate_limit_exceeded", message}, answer);
      return true;
    }
  }
  int status = rules_->status;
  if (rules_->error_rate >= 0) {
    const bool fails = std::uniform_real_distribution<double>(0, 1)(random_) < rules_->error_rate;
    status = !fails ? 0 : (status == 0 ? 500 : status);
  }
  if (status < 400) return false;
  const std::string_view type = rules_->error_code.empty() ? error_type(status) : rules_->error_code;
  complain(way.dialect, {status, type, rules_->error_code, "Scripted failure."}, answer);
  return true;
}

void Provider::write_answer(const Request& request, const Way& way, const Call& call, Answer& answer) {
  answer.kind = way.kind;
  if (way.kind == Kind::geocode) answer.credits = rules_->credits.value_or(1);
  if (way.kind == Kind::other && rules_->credits) {
    answer.credits = *rules_->credits;
    append(answer.headers, "X-Credits-Used: ", answer.credits, "\r\n");
  }
  const Question question{request, call, *rules_, answer.usage, requests_};
  if (way.write != nullptr) {
    way.write(question, answer);
  } else if (request.path == "/v1/models" || request.path.starts_with("/v1/models/")) {
    answer_models(request, answer);
  } else if (!answer_plain(question, answer)) {
    complain(way.dialect, {404, "not_found_error", "", "No such endpoint."}, answer);
  }
  if (rules_->status != 0 && rules_->error_rate < 0) answer.status = rules_->status;
}

void Provider::add_delivery(const Call& call, Answer& answer) {
  const Rules& rules = *rules_;
  const std::int64_t delay = delay_us(call.model);
  answer.latency_ns = delay >= 0 ? delay * 1000 : rules.latency.draw_ns(random_);
  if (answer.gap_ns == 0) answer.gap_ns = rules.gap_us * 1000;
  answer.cut_after_bytes = rules.cut_after_bytes;
  answer.stall_after_bytes = rules.stall_after_bytes;
  answer.cut_before_head = rules.cut_before_head;
  answer.cut_reset = rules.cut_reset;
  answer.fault = rules.fault;
  answer.headers += rules.headers;
  if (!rules.retry_after.empty()) append(answer.headers, "Retry-After: ", rules.retry_after, "\r\n");
}

void Provider::charge(std::string_view credential, Answer& answer) {
  if (!rules_->bill.value_or(answer.status < 400)) return;
  answer.account = bill_.account(credential);
  answer.billed_when_sent = bill_.on_disconnect == BillOnDisconnect::sent;
  if (!answer.billed_when_sent) bill_.charge(answer.account, answer.kind, answer.usage, answer.credits);
}

void Provider::bill_sent(const Answer& answer, bool anything_sent, bool complete) {
  if (!anything_sent) return;
  Usage usage = answer.usage;
  if (!complete && answer.stream != nullptr && answer.kind != Kind::other)
    usage.completion = std::min(usage.completion, answer.stream->completion_sent());
  bill_.charge(answer.account, answer.kind, usage, answer.credits);
}

void Provider::handle(const Request& request, Moment arrived, Answer& answer) {
  if (request.path.starts_with("/_mock/")) return admin(request, answer);
  ++requests_;
  rules_ = &defaults_;
  std::string wrong;
  if (!scripts_.empty() || !request.query.empty() || !request.x_mock.empty()) {
    scratch_ = defaults_;
    scripts_.apply(request.path, scratch_);
    apply_query(request.query, scratch_);
    wrong = apply_header(request.x_mock, scratch_);
    rules_ = &scratch_;
  }
  std::string key;  // of Gemini's ?key=
  std::string_view credential = request.credential;
  if (credential.empty() && !request.query.empty()) {
    key = percent_decode(query_value(request.query, "key").value_or(""));
    credential = key;
  }

  const Way way = find_way(request);
  Call call;
  if (!wrong.empty()) {
    complain(way.dialect, {400, "invalid_request_error", "", wrong}, answer);
  } else if (!read_call(request, way, call)) {
    complain(way.dialect, {400, "invalid_request_error", "", "The body is not a JSON object."}, answer);
  } else {
    answer.usage =
        way.write != nullptr && way.kind <= Kind::gemini ? usage_of(call, *rules_, way.kind) : Usage{};
    if (way.write == answer_count_tokens) answer.usage.prompt = call.prompt_tokens();
    // As OpenAI counts against a limit: what the call may produce, not what it does.
    const bool generates = way.kind <= Kind::gemini && way.kind != Kind::embeddings;
    const std::int64_t tokens = answer.usage.prompt + (generates ? max_tokens(call) * call.choices : 0);
    if (!refused({request.path, credential, tokens}, way, call, arrived, answer))
      write_answer(request, way, call, answer);
  }
  if (way.write == answer_count_tokens) answer.usage = {};  // counting is free
  add_delivery(call, answer);
  charge(credential, answer);
  if (answer.stream != nullptr) ++streams_;
  const int status = answer.cut_before_head ? 0 : answer.status;
  ++by_class_[std::min(status / 100, 5)];
  log_.add(arrived.mono_ns, arrived.unix_ns / 1'000'000, request.method, request.path, status, credential);
}

void Provider::refuse(int status, Moment arrived, Answer& answer) {
  complain_plain({status, "invalid_request_error", "", "Not an acceptable HTTP/1.1 request."}, answer);
  answer.close = true;
  ++requests_;
  ++by_class_[4];
  log_.add(arrived.mono_ns, arrived.unix_ns / 1'000'000, "-", "-", status, "");
}

void Provider::answer_early(const Request& request, Moment arrived, Answer& answer) {
  complain_plain({413, "request_too_large", "", "Too large: refused before the body was read."}, answer);
  answer.close = true;
  ++requests_;
  ++by_class_[4];
  log_.add(arrived.mono_ns, arrived.unix_ns / 1'000'000, request.method, request.path, 413,
           request.credential);
}

}  // namespace penstock::mock
