#include "billing.hpp"

#include <algorithm>

#include "text.hpp"

namespace penstock::mock {

namespace {

void append_line(std::string& out, const Bill::Line& line) {
  append(out, R"({"calls":)", line.calls, R"(,"prompt_tokens":)", line.prompt_tokens,
         R"(,"completion_tokens":)", line.completion_tokens, R"(,"cached_tokens":)", line.cached_tokens,
         R"(,"credits":)", line.credits, R"(,"nano_usd":)", line.nano_usd);
}

template <std::size_t N>
void copy_cut(char (&to)[N], std::string_view from) {
  const std::size_t size = std::min(from.size(), N - 1);
  std::copy_n(from.data(), size, to);
  to[size] = 0;
}

}  // namespace

std::int64_t Prices::cost(const Usage& usage, std::int64_t credits) const {
  const std::int64_t cached_price =
      cached_input_nano_usd_per_token < 0 ? input_nano_usd_per_token : cached_input_nano_usd_per_token;
  return call_nano_usd + credits * credit_nano_usd + usage.cached * cached_price +
         (usage.prompt - usage.cached) * input_nano_usd_per_token +
         usage.completion * output_nano_usd_per_token;
}

void Bill::Line::add(const Line& other) {
  calls += other.calls;
  prompt_tokens += other.prompt_tokens;
  completion_tokens += other.completion_tokens;
  cached_tokens += other.cached_tokens;
  credits += other.credits;
  nano_usd += other.nano_usd;
}

Bill::Account Bill::account(std::string_view credential) {
  if (credential.empty()) credential = "anonymous";
  auto found = index_.find(credential);
  if (found == index_.end()) {
    if (callers_.size() >= kMaxCallers)
      return {0, epoch_};  // on the first caller's bill, so that sums stay right
    found = index_.emplace(credential, static_cast<std::uint32_t>(callers_.size())).first;
    callers_.push_back({std::string(credential), {}});
  }
  return {found->second, epoch_};
}

void Bill::charge(Account account, Kind kind, const Usage& usage, std::int64_t credits) {
  if (account.epoch != epoch_) return;
  callers_[account.caller].lines[static_cast<std::size_t>(kind)].add(
      {1, usage.prompt, usage.completion, usage.cached, credits, prices.cost(usage, credits)});
}

void Bill::clear() {
  callers_.clear();
  index_.clear();
  ++epoch_;
}

void Bill::append_json(std::string& out) const {
  Line all;
  Line by_kind[kKinds];
  out += R"({"callers":{)";
  bool first = true;
  for (const Caller& caller : callers_) {
    Line sum;
    for (std::size_t kind = 0; kind < kKinds; ++kind) {
      sum.add(caller.lines[kind]);
      by_kind[kind].add(caller.lines[kind]);
    }
    if (sum.calls == 0) continue;
    all.add(sum);
    if (!first) out += ',';
    first = false;
    append_json_string(out, caller.credential);
    out += ':';
    append_line(out, sum);
    out += R"(,"kinds":{)";
    bool first_kind = true;
    for (std::size_t kind = 0; kind < kKinds; ++kind) {
      if (caller.lines[kind].calls == 0) continue;
      append(out, first_kind ? "\"" : ",\"", kKindNames[kind], "\":");
      first_kind = false;
      append_line(out, caller.lines[kind]);
      out += '}';
    }
    out += "}}";
  }
  out += R"(},"kinds":{)";
  for (std::size_t kind = 0; kind < kKinds; ++kind) {
    append(out, kind == 0 ? "\"" : ",\"", kKindNames[kind], "\":");
    append_line(out, by_kind[kind]);
    out += '}';
  }
  out += R"(},"total":)";
  append_line(out, all);
  append(out, R"(},"bill_on_disconnect":")", on_disconnect == BillOnDisconnect::full ? "full" : "sent",
         "\"}");
}

void CallLog::add(std::int64_t start_ns, std::int64_t wall_ms, std::string_view method, std::string_view path,
                  int status, std::string_view credential) {
  const std::size_t at = total_ % kMax;
  if (at == ring_.size()) ring_.emplace_back();
  Entry& entry = ring_[at];
  entry.start_ns = start_ns;
  entry.wall_ms = wall_ms;
  entry.status = status;
  copy_cut(entry.method, method);
  copy_cut(entry.path, path);
  copy_cut(entry.credential_tail, credential.substr(credential.size() > 4 ? credential.size() - 4 : 0));
  ++total_;
}

void CallLog::clear() {
  ring_.clear();
  total_ = 0;
}

void CallLog::append_json(std::string& out, std::size_t last) const {
  last = std::min(last, ring_.size());
  append(out, R"({"total":)", total_, R"(,"requests":[)");
  for (std::size_t i = 0; i < last; ++i) {
    const Entry& entry = ring_[(total_ - last + i) % kMax];
    append(out, i == 0 ? "" : ",", R"({"start_ns":)", entry.start_ns, R"(,"wall_ms":)", entry.wall_ms,
           R"(,"status":)", entry.status, R"(,"method":)");
    append_json_string(out, entry.method);
    out += R"(,"path":)";
    append_json_string(out, entry.path);
    out += R"(,"credential_tail":)";
    append_json_string(out, entry.credential_tail);
    out += '}';
  }
  out += "]}";
}

}  // namespace penstock::mock
