#include <charconv>

#include <boost/asio/experimental/awaitable_operators.hpp>
#include <boost/asio/redirect_error.hpp>
#include <boost/asio/use_awaitable.hpp>

#include "gateway/meter/refusal_reader.hpp"
#include "gateway/meter/usage_reader.hpp"
#include "gateway/phases/forward_request.hpp"
#include "gateway/phases/phases.hpp"

namespace penstock::gateway {
namespace {

using http::UpstreamFault;
using CircuitOutcome = policy::CircuitBreaker::Outcome;
using Piece = http::UpstreamConnection::Piece;

/// A provider's Retry-After holds admission back for at most so long: a wrong value must not stop a provider
/// for good.
constexpr std::chrono::minutes kMaxPause{10};
/// After a refusal every good answer is news for so long beyond its Retry-After: it may be a probe's.
constexpr std::chrono::minutes kAttentive{2};
/// Interim heads that wait for the caller, in bytes; further ones are dropped (RFC 9110 15.2: they are
/// hints).
constexpr std::size_t kMaxInterims = 64 * 1024;

CircuitOutcome circuit_outcome(int status) noexcept {
  switch (status) {
    case 500:
    case 502:
    case 503:
    case 504:
    case 529: return CircuitOutcome::failure;
    default: return status < 400 ? CircuitOutcome::success : CircuitOutcome::neutral;
  }
}

/// What a provider's own refusal means; it is passed on all the same.
std::optional<Reason> reason_of(int status) noexcept {
  if (status == 401 || status == 403) return Reason::provider_credential_rejected;
  if (status == 429) return Reason::provider_rate_limited;
  if (status >= 500) return Reason::provider_error;
  return std::nullopt;
}

Error fault_error(UpstreamFault fault, const std::string& provider, std::string detail) {
  Error error;
  error.detail = std::move(detail);
  switch (fault) {
    case UpstreamFault::unreachable:
      error.reason = Reason::provider_unreachable;
      error.message = "Provider " + provider + " cannot be reached.";
      break;
    case UpstreamFault::timeout:
      error.reason = Reason::provider_timeout;
      error.message = "Provider " + provider + " did not answer in time.";
      break;
    case UpstreamFault::closed:
      error.reason = Reason::provider_error;
      error.message = "Provider " + provider + " ended the connection without an answer.";
      break;
    case UpstreamFault::invalid:
    case UpstreamFault::none:
      error.reason = Reason::provider_invalid_response;
      error.message = "Provider " + provider + " sent something that is not valid HTTP.";
      break;
  }
  return error;
}

bool is_dropped(const http::Field& field, bool limited) noexcept {
  if (field.hop_by_hop || field.id == http::FieldId::content_length) return true;
  const std::string_view name = field.name;
  // Names that we answer with ourselves.
  if (name.size() >= 9 && http::equals_ignoring_case(name.substr(0, 9), "penstock-")) return true;
  return limited && (http::equals_ignoring_case(name, "x-ratelimit-limit") ||
                     http::equals_ignoring_case(name, "x-ratelimit-remaining") ||
                     http::equals_ignoring_case(name, "x-ratelimit-reset") ||
                     http::equals_ignoring_case(name, "ratelimit") ||
                     http::equals_ignoring_case(name, "ratelimit-policy"));
}

bool media_type_is(std::string_view content_type, std::string_view wanted) noexcept {
  return content_type.size() >= wanted.size() &&
         http::equals_ignoring_case(content_type.substr(0, wanted.size()), wanted);
}

/// What the provider's clock says, at most once a second: while ours is in doubt.
void tell_time(const Call& call, const ProviderPlan& provider, const http::ResponseHead& answer,
               MonotonicTime now) {
  if (provider.clock_source == 0 || http::find(answer.fields, "age") != nullptr)
    return;  // Age: out of a cache
  const http::Field* const date = http::find(answer.fields, http::FieldId::date);
  if (date == nullptr || now < provider.asked_time.load(std::memory_order_relaxed) + seconds{1}) return;
  provider.asked_time.store(now, std::memory_order_relaxed);
  if (const auto said = http::parse_http_date(date->value))
    call.services.clock.confirm(provider.clock_source, *said, now);
}

/// One attempt on the wire. Its destructor settles the reservation if nothing else did: also when the
/// coroutine is destroyed.
class Forwarding {
 public:
  Forwarding(Call& call, Attempt& attempt, RetryDecision& decision)
      : call_(call),
        exchange_(call.exchange),
        attempt_(attempt),
        decision_(decision),
        provider_(*attempt.provider),
        pool_(call.generation->pools[provider_.index]),
        kind_(call_kind(provider_.config->api, call.path)),
        deadline_(attempt.began + provider_.config->timeouts.total) {}
  ~Forwarding() {
    if (settled_) return;
    if (sent_) charge_unknown();
    settle_as(CircuitOutcome::abandoned);
  }
  Forwarding(const Forwarding&) = delete;
  Forwarding& operator=(const Forwarding&) = delete;

  Awaitable<Outcome> run() {
    choose_body();
    for (bool fresh = false;; fresh = true) {
      if (fresh || !take_idle())
        if (UpstreamFault fault = co_await connect(); fault != UpstreamFault::none) co_return fail(fault);
      const Pieces pieces = request_pieces();
      UpstreamFault fault{};
      if (const auto sent = connection_->try_send(pieces))
        fault = *sent;
      else
        fault = co_await send_rest(pieces);
      note_sent(fault);
      if (fault == UpstreamFault::none && !call_.body_is_whole && !answered_) fault = co_await stream_body();
      if (fault == UpstreamFault::none && !answered_) fault = co_await read_answer_head();
      if (fault == UpstreamFault::none) break;
      // A kept connection that the provider had already ended: nothing was worked on, as far as one can know.
      const bool stale = connection_->reused() && fault == UpstreamFault::closed && call_.body_is_whole &&
                         !fresh && (!sent_ || policy::is_idempotent(exchange_.request.method));
      if (!stale) co_return fail(fault);
      sent_ = false;
    }
    co_return co_await pass_on();
  }

 private:
  void choose_body() {
    body_ = call_.body;
    if (kind_ == CallKind::openai_chat && provider_.config->stream_usage == config::StreamUsage::inject &&
        call_.facts_kind == kind_ && call_.facts.stream && !call_.facts.asks_for_stream_usage) {
      if (call_.changed_body.empty())
        if (auto changed = with_stream_usage(call_.body)) call_.changed_body = std::move(*changed);
      if (!call_.changed_body.empty()) {
        body_ = call_.changed_body;
        usage_injected_ = true;
      }
    }
  }

  using Pieces = std::array<std::string_view, 2>;

  bool take_idle() {
    // A request that may not be repeated must not go into a connection that the provider has ended.
    using Trust = http::UpstreamPool::Trust;
    const bool repeatable = call_.body_is_whole && policy::is_idempotent(exchange_.request.method);
    connection_ = pool_->try_idle(attempt_.began, repeatable ? Trust::trusting : Trust::asking);
    return connection_ != nullptr;
  }

  Awaitable<UpstreamFault> connect() {
    auto lease = co_await pool_->acquire(http::UpstreamPool::Want::fresh, deadline_);
    connection_ = std::move(lease.connection);
    detail_ = std::move(lease.error.what);
    co_return connection_ ? UpstreamFault::none : UpstreamFault::unreachable;
  }

  Pieces request_pieces() {
    std::string& head = connection_->head_buffer();
    const bool whole = call_.body_is_whole;
    build_request_head(call_, attempt_, whole ? std::optional(body_.size()) : std::nullopt, head);
    return {head, whole ? body_ : std::string_view{}};
  }

  void note_sent(UpstreamFault fault) {
    if (fault == UpstreamFault::none) {
      sent_ = true;
      return;
    }
    detail_ = "ended while the request was sent";
    sent_ = sent_ || !connection_->reused() || fault == UpstreamFault::timeout;
  }

  /// Sends what the kernel did not take at once, and listens meanwhile: a provider may answer early and then
  /// take no more.
  Awaitable<UpstreamFault> send_rest(std::span<const std::string_view> pieces) {
    using namespace boost::asio::experimental::awaitable_operators;
    const auto first =
        co_await (connection_->send_rest(pieces, deadline_) || read_heads(deadline_, Beside::sending));
    co_await send_interims();
    if (answered_) {
      note_early_answer();
      co_return UpstreamFault::none;
    }
    co_return first.index() == 0 ? std::get<0>(first) : std::get<1>(first);
  }

  /// What is left of the body is not read, so neither connection can be used again.
  void note_early_answer() {
    answered_early_ = true;
    if (!exchange_.body_finished()) exchange_.close_after();
  }

  /// Passes a large body on as it comes, until it ends or the provider has answered without waiting for it.
  Awaitable<UpstreamFault> stream_body() {
    using namespace boost::asio::experimental::awaitable_operators;
    const bool chunked = exchange_.request.body == http::BodyKind::chunked;
    for (;;) {
      const auto next = co_await (exchange_.read_body() || read_heads(deadline_, Beside::sending));
      co_await send_interims();
      if (answered_) {
        note_early_answer();
        co_return UpstreamFault::none;
      }
      if (next.index() == 1) co_return std::get<1>(next);
      const http::BodyPiece piece = std::get<0>(next);
      if (piece.fault != http::BodyFault::none) {
        caller_fault_ = piece.fault;
        co_return UpstreamFault::closed;
      }
      char size[24];
      if (!piece.data.empty()) {
        const std::string_view header =
            chunked ? std::string_view{size, http::write_chunk_header(piece.data.size(), size)}
                    : std::string_view{};
        const std::string_view pieces[] = {header, piece.data, chunked ? "\r\n" : ""};
        const auto sent = connection_->try_send(pieces);
        const UpstreamFault fault = sent ? *sent : co_await send_rest(pieces);
        if (answered_) co_return UpstreamFault::none;
        if (fault != UpstreamFault::none) {
          // It may have answered before it stopped reading.
          note_early_answer();
          exchange_.close_after();
          co_return UpstreamFault::none;
        }
      }
      if (!piece.done) continue;
      if (chunked) {
        const std::string_view end[] = {"0\r\n\r\n"};
        const auto sent = connection_->try_send(end);
        co_return sent ? *sent : co_await send_rest(end);
      }
      co_return UpstreamFault::none;
    }
  }

  Awaitable<UpstreamFault> read_answer_head() {
    // Whatever went out at once went out when the attempt began.
    const MonotonicTime sent =
        connection_->reused() && call_.body_is_whole ? attempt_.began : std::chrono::steady_clock::now();
    return read_heads(std::min(deadline_, sent + provider_.config->timeouts.first_byte), Beside::nothing);
  }

  /// Reads up to the final head of the answer; interim ones pass on. Beside the sending of the request it may
  /// be cancelled at any wait, so it leaves what cannot be written at once to `send_interims`.
  enum class Beside : std::uint8_t { nothing, sending };
  Awaitable<UpstreamFault> read_heads(MonotonicTime deadline, Beside beside) {
    const bool to_head = exchange_.request.method == "HEAD";
    for (;;) {
      http::UpstreamError error = co_await connection_->read_head(answer_, to_head, deadline);
      if (error.fault != UpstreamFault::none) {
        detail_ = std::move(error.what);
        co_return error.fault;
      }
      if (answer_.status >= 200) break;
      if (answer_.status == 101) {
        detail_ = "switched protocols without being asked";
        co_return UpstreamFault::invalid;
      }
      if (answer_.status == 100) continue;  // ours to the caller went before the body was read
      if (interims_.size() > kMaxInterims) continue;
      http::append_status_line(interims_, answer_.status);
      for (const http::Field& field : answer_.fields)
        if (!is_dropped(field, false)) http::append_field(interims_, field.name, field.value);
      interims_.append("\r\n");
      if (exchange_.try_send_interim(interims_)) interims_.clear();
      if (beside == Beside::nothing) co_await send_interims();
    }
    answered_ = true;
    attempt_.status = answer_.status;
    const MonotonicTime now = std::chrono::steady_clock::now();
    attempt_.first_byte = now - attempt_.began;
    if (call_.services.clock.wants_sources()) [[unlikely]]
      tell_time(call_, provider_, answer_, now);
    co_return UpstreamFault::none;
  }

  Awaitable<void> send_interims() {
    if (interims_.empty()) co_return;
    (void)co_await exchange_.send_interim(interims_);
    interims_.clear();
  }

  /// No answer: what that costs, and whether something may follow.
  Outcome fail(UpstreamFault fault) {
    if (caller_fault_ != http::BodyFault::none) {
      const bool gone = caller_fault_ == http::BodyFault::client_gone;
      call_.refusal = Error{.reason = gone ? Reason::caller_cancelled : Reason::caller_invalid,
                            .status = caller_fault_ == http::BodyFault::too_large ? 413
                                      : caller_fault_ == http::BodyFault::timeout ? 408
                                                                                  : 0,
                            .message = "The request body did not arrive whole.",
                            .detail = {},
                            .retry_after = {}};
      attempt_.reason = call_.refusal->reason;
      charge_unknown();
      settle_as(CircuitOutcome::abandoned);
      return Outcome::failed;
    }
    call_.refusal = fault_error(fault, provider_.config->name, detail_);
    attempt_.reason = call_.refusal->reason;
    if (sent_) charge_unknown();
    if (sent_ && fault == UpstreamFault::timeout && provider_.gate.adapts_concurrency)
      tell({.answer = policy::LimitSigns::Answer::overloaded, .readings = {}, .retry_after = {}});
    settle_as(CircuitOutcome::failure);
    (void)decision_.may_follow(!sent_, std::nullopt);
    return Outcome::failed;
  }

  std::optional<nanoseconds> retry_after() const {
    if (const http::Field* field = http::find(answer_.fields, "retry-after-ms")) {
      std::int64_t ms = 0;
      const auto [end, error] =
          std::from_chars(field->value.data(), field->value.data() + field->value.size(), ms);
      if (error == std::errc{} && ms >= 0 && ms <= 86'400'000) return milliseconds{ms};
    }
    const http::Field* field = http::find(answer_.fields, http::FieldId::retry_after);
    if (field == nullptr) return std::nullopt;
    const auto now = std::chrono::floor<seconds>(std::chrono::system_clock::now().time_since_epoch()).count();
    const auto ms = http::parse_retry_after_ms(field->value, now);
    return ms ? std::optional<nanoseconds>{milliseconds{*ms}} : std::nullopt;
  }

  /// What the head says about the provider's limits: one pass over the fields, where they are heeded at all.
  policy::LimitSigns signs_in_head(std::optional<nanoseconds> after) const {
    using Answer = policy::LimitSigns::Answer;
    policy::LimitSigns signs{.answer = Answer::other, .readings = {}, .retry_after = after};
    if (provider_.gate.learns_limits) {
      std::optional<policy::LimitHeaders> headers;
      for (const http::Field& field : answer_.fields) {
        if (field.id != http::FieldId::other || !policy::LimitHeaders::concerns(field.name)) continue;
        if (!headers) headers.emplace();
        headers->add(field.name, field.value);
      }
      if (headers) signs.readings = headers->readings(provider_clock());
    }
    const auto& requests = signs.readings[static_cast<std::size_t>(policy::LimitDimension::requests)];
    if (answer_.status == 429 ||
        (answer_.status == 403 && (after || (requests && requests->remaining == 0))))  // GitHub
      signs.answer = Answer::rate_limited;
    else if (answer_.status == 529)
      signs.answer = Answer::overloaded;
    else if (answer_.status < 400)
      signs.answer = Answer::good;
    return signs;
  }

  /// Times of day in its fields are by its own clock, which the same answer tells.
  WallTime provider_clock() const {
    const http::Field* const date = http::find(answer_.fields, http::FieldId::date);
    const auto told = date == nullptr ? std::nullopt : http::parse_http_date(date->value);
    return told ? WallTime{seconds{*told}} : WallTime{std::chrono::system_clock::now()};
  }

  /// A body that may say more than its head does.
  bool looks_into_refusal() const {
    if (answer_.status != 429 || !provider_.gate.learns_limits) return false;
    const http::Field* const type = http::find(answer_.fields, http::FieldId::content_type);
    return type != nullptr && media_type_is(type->value, "application/json");
  }

  void heed_refusal(const Piece& body, policy::LimitSigns& signs, std::optional<nanoseconds>& after) {
    if (!body.done) return;
    const RefusalFacts facts = read_refusal(body.data);
    if (facts.is_quota_exhausted) {
      attempt_.reason = Reason::provider_quota_exhausted;
      signs.answer = policy::LimitSigns::Answer::other;
    }
    signs.is_daily = facts.is_daily;
    if (!after) after = signs.retry_after = facts.retry_after;
  }

  /// The body is read into the buffer that the fields are views of: they get a copy of their own.
  void keep_head() {
    std::size_t size = 0;
    for (const http::Field& field : answer_.fields) size += field.name.size() + field.value.size();
    kept_head_.reserve(size);
    const auto keep = [&](std::string_view& text) {
      const std::size_t at = kept_head_.size();
      kept_head_.append(text);
      text = std::string_view(kept_head_).substr(at);
    };
    for (http::Field& field : answer_.fields) {
      keep(field.name);
      keep(field.value);
    }
  }

  /// Tells the state what is news: limits, refusals, and for a while after those the good answers.
  void learn(policy::LimitSigns& signs) {
    using Answer = policy::LimitSigns::Answer;
    const MonotonicTime now = attempt_.began + attempt_.first_byte;
    const bool is_refusal = signs.answer == Answer::rate_limited;
    if (is_refusal && attempt_.reason == Reason::provider_credential_rejected)
      attempt_.reason = Reason::provider_rate_limited;
    if (is_refusal && signs.retry_after && !provider_.gate.learns_limits)
      call_.services.state.pause(provider_.subject,
                                 now + std::min<nanoseconds>(*signs.retry_after, kMaxPause));
    if (!provider_.gate.learns_limits && !provider_.gate.adapts_concurrency) return;
    auto& attentive = provider_.attentive_until;
    if (is_refusal) {
      const auto until =
          now + std::min<nanoseconds>(signs.retry_after.value_or(nanoseconds{0}), kMaxPause) + kAttentive;
      attentive.store(until.time_since_epoch().count(), std::memory_order_relaxed);
      signs.random = call_.worker.random();
    }
    const bool tells = std::ranges::any_of(signs.readings, [](const auto& each) { return each.has_value(); });
    if (is_refusal || tells || signs.answer == Answer::overloaded ||
        now.time_since_epoch().count() < attentive.load(std::memory_order_relaxed))
      tell(signs);
  }

  void tell(const policy::LimitSigns& signs) {
    call_.services.state.learn({.id = attempt_.id, .signs = signs, .now = std::chrono::steady_clock::now()});
  }

  UsageReader::Format answer_format() const noexcept {
    if (answer_.status >= 400 || answer_.body == http::BodyKind::none) return UsageReader::Format::none;
    const http::Field* const encoding = http::find(answer_.fields, http::FieldId::content_encoding);
    if (encoding != nullptr && !http::equals_ignoring_case(encoding->value, "identity"))
      return UsageReader::Format::none;
    const http::Field* const type = http::find(answer_.fields, http::FieldId::content_type);
    if (type == nullptr) return UsageReader::Format::none;
    if (media_type_is(type->value, "text/event-stream")) return UsageReader::Format::event_stream;
    return UsageReader::Format::json;  // also when it is called something else: the reader finds out
  }

  Awaitable<Outcome> pass_on() {
    attempt_.reason = reason_of(answer_.status);
    auto after = retry_after();
    policy::LimitSigns signs = signs_in_head(after);
    Piece piece;
    std::string collected;
    const bool is_refusal = looks_into_refusal();
    if (is_refusal) {
      piece = connection_->buffered_body();
      if (!piece.done) {
        keep_head();
        if (!co_await collect(piece, collected, kMaxRefusalBody)) co_return fail(collect_fault_);
      }
      heed_refusal(piece, signs, after);
    }
    learn(signs);
    if (answer_.status >= 400 && decision_.may_replace(answer_.status, after)) {
      call_.refusal =
          Error{.reason = attempt_.reason.value_or(Reason::provider_error),
                .status = 0,
                .message = "Provider " + provider_.config->name + " answered " +
                           std::to_string(answer_.status) + ".",
                .detail = {},
                .retry_after = after ? std::optional(std::chrono::ceil<seconds>(*after)) : std::nullopt};
      charge_failure();
      settle_as(circuit_outcome(answer_.status));
      // A short answer is read so that the connection can be kept.
      if (!is_refusal) piece = connection_->buffered_body();
      if (piece.done) pool_->release(std::move(connection_), attempt_.began + attempt_.duration);
      co_return Outcome::failed;
    }
    // Failures are charged by their status alone.
    const bool reads = attempt_.endpoint->reads_answer && answer_.status < 400;
    const auto format = reads ? answer_format() : UsageReader::Format::none;
    UsageReader meter(kind_, attempt_.endpoint->prices->units, format, provider_.config->max_metered_bytes);
    if (!attempt_.endpoint->prices->units.empty())
      for (const http::Field& field : answer_.fields) meter.header(field.name, field.value);
    const bool bodiless =
        exchange_.request.method == "HEAD" || answer_.status == 204 || answer_.status == 304;
    begin_answer();

    if (bodiless) {
      conclude(meter, true);
      append_cost();
      exchange_.end_head(answer_.has_content_length && answer_.status != 204
                             ? std::optional(answer_.content_length)
                             : std::nullopt,
                         http::Exchange::Body::bodiless);
      finish_connection();
      (void)co_await exchange_.finish();
      co_return Outcome::replied;
    }

    if (!is_refusal) piece = connection_->buffered_body();
    if (format == UsageReader::Format::json) {
      // The cost stands in the head, so the answer is collected first, up to a bound.
      if (!piece.done && !co_await collect(piece, collected, provider_.config->max_metered_bytes))
        co_return fail(collect_fault_);
      if (piece.done) {
        meter.feed(piece.data);
        conclude(meter, true);
        append_cost();
        const std::string_view trailers = wanted_trailers();
        exchange_.end_head(trailers.empty() ? std::optional(piece.data.size()) : std::nullopt);
        const std::string_view body = piece.data;
        if (!exchange_.try_finish(body, trailers)) (void)co_await exchange_.flush();
        finish_connection();
        co_return Outcome::replied;
      }
    } else if (!reads) {
      // Nothing in the body changes the cost: it is known now.
      settle_cost(meter, true);
      append_cost();
    }
    // Small and complete already: one write.
    if (piece.done && !reads && wanted_trailers().empty()) {
      conclude(meter, true);
      exchange_.end_head(piece.data.size());
      if (!exchange_.try_finish(piece.data)) (void)co_await exchange_.flush();
      finish_connection();
      co_return Outcome::replied;
    }
    cost_trailer_ = reads && exchange_.request.accepts_trailers && !answer_.has_content_length;
    if (cost_trailer_) exchange_.head().append("Trailer: Penstock-Cost\r\n");
    exchange_.end_head(answer_.body == http::BodyKind::length && !usage_injected_
                           ? std::optional(answer_.content_length)
                           : std::nullopt);
    co_return co_await stream(meter, piece);
  }

  void begin_answer() {
    exchange_.begin_response(answer_.status);
    std::string& head = exchange_.head();
    for (const http::Field& field : answer_.fields)
      if (!is_dropped(field, call_.limited)) http::append_field(head, field.name, field.value);
    append_answer_fields(call_, head);
    if (attempt_.reason) http::append_field(head, "Penstock-Reason", info(*attempt_.reason).name);
  }

  void append_cost() {
    char cost[24];
    http::append_field(exchange_.head(), "Penstock-Cost", {cost, format_usd_to(call_.cost(), cost)});
  }

  /// Reads on until the answer is whole (piece.done: in `piece`) or larger than `most` (then what there is).
  Awaitable<bool> collect(Piece& piece, std::string& collected, std::uint64_t most) {
    if (answer_.body == http::BodyKind::length) {
      if (answer_.content_length > most) co_return true;
      collected.reserve(answer_.content_length);
    }
    for (;;) {
      collected.append(piece.data);
      if (piece.fault != UpstreamFault::none) {
        collect_fault_ = piece.fault;
        detail_ = piece.what;
        exchange_.abandon_response();
        co_return false;
      }
      if (piece.done || collected.size() > most) break;
      piece = co_await connection_->read_body(next_deadline());
    }
    piece.data = collected;
    co_return true;
  }

  MonotonicTime next_deadline() const {
    return std::min(deadline_, MonotonicTime{std::chrono::steady_clock::now()} +
                                   provider_.config->timeouts.between_bytes);
  }

  /// Passes the body on piece by piece. A caller who leaves does not end it: what the provider bills is read
  /// to its end, within bounds, or cut where the provider stops billing by that.
  Awaitable<Outcome> stream(UsageReader& meter, Piece piece) {
    InjectedUsageFilter filter;
    std::string filtered;
    std::uint64_t drained = 0;
    MonotonicTime drain_deadline = MonotonicTime::max();
    for (;;) {
      if (attempt_.endpoint->reads_answer) meter.feed(piece.data);
      std::string_view out = piece.data;
      if (usage_injected_) {
        filtered.clear();
        filter.feed(piece.data, filtered);
        if (piece.done) filter.finish(filtered);
        out = filtered;
      }
      if (piece.done) {
        if (!settled_) conclude(meter, true);
        co_await send_last(out);
        finish_connection();
        co_return Outcome::replied;
      }
      if (piece.fault != UpstreamFault::none) {
        detail_ = piece.what;
        cut_by_provider(meter, piece.fault);
        if (!exchange_.client_gone() && !out.empty()) (void)co_await exchange_.send(out);
        exchange_.close_after();  // an answer without its end: the caller must see that
        co_return Outcome::replied;
      }
      if (!exchange_.client_gone()) {
        if (out.empty() && exchange_.head_sent()) {
          // held back by the filter
        } else if (!co_await exchange_.send(out)) {
          drain_deadline = MonotonicTime{std::chrono::steady_clock::now()} + provider_.config->drain_timeout;
          if (provider_.config->on_disconnect == config::OnDisconnect::cancel) {
            cut_by_caller(meter);
            co_return Outcome::replied;
          }
        }
      } else {
        drained += piece.data.size();
        if (drained > provider_.config->drain_bytes) {
          cut_by_caller(meter);
          co_return Outcome::replied;
        }
      }
      piece = co_await connection_->read_body(std::min(next_deadline(), drain_deadline));
      if (exchange_.client_gone() && piece.fault == UpstreamFault::timeout) {
        cut_by_caller(meter);
        co_return Outcome::replied;
      }
    }
  }

  /// The provider's trailers, where the caller takes them: only a chunked body can be followed by them.
  std::string_view wanted_trailers() const noexcept {
    return exchange_.request.accepts_trailers ? std::string_view{connection_->trailers()}
                                              : std::string_view{};
  }

  Awaitable<void> send_last(std::string_view out) {
    std::string trailers = connection_->trailers();
    if (cost_trailer_) {
      char cost[24];
      http::append_field(trailers, "Penstock-Cost", {cost, format_usd_to(call_.cost(), cost)});
    }
    (void)co_await exchange_.finish(out, trailers);
  }

  /// What the answer cost, by what was read of it.
  void settle_cost(UsageReader& meter, bool complete) {
    const policy::PriceList& prices = *attempt_.endpoint->prices;
    attempt_.usage = meter.finish(complete);
    if (answer_.status >= 400 && !attempt_.usage.known) {
      charge_failure();
      return;
    }
    const auto cost = policy::actual_cost(prices, attempt_.model == nullptr ? nullptr : attempt_.model->price,
                                          tightened_bound(meter), attempt_.usage);
    attempt_.cost = cost.amount;
    attempt_.cost_estimated = cost.estimated;
    attempt_.ending = store::Ending::actual;
  }

  /// A stream that told no usage cannot have cost more than the text that it sent.
  policy::UsageBound tightened_bound(const UsageReader& meter) const {
    policy::UsageBound bound = attempt_.bound;
    if (const std::int64_t output = meter.output_token_bound(); output >= 0)
      bound.output_tokens = std::min(bound.output_tokens, output);
    return bound;
  }

  void conclude(UsageReader& meter, bool complete) {
    if (attempt_.ending != store::Ending::actual) settle_cost(meter, complete);
    CircuitOutcome outcome = circuit_outcome(answer_.status);
    if (meter.saw_stream_error()) {
      outcome = CircuitOutcome::failure;
      attempt_.reason = Reason::provider_error;
    }
    settle_as(outcome);
  }

  void cut_by_provider(UsageReader& meter, UpstreamFault fault) {
    attempt_.reason = fault == UpstreamFault::timeout   ? Reason::provider_timeout
                      : fault == UpstreamFault::invalid ? Reason::provider_invalid_response
                                                        : Reason::provider_error;
    if (attempt_.ending != store::Ending::actual) {
      // It may go on on the provider's side: only what it told is sure, and only its most is safe.
      attempt_.usage = meter.finish(false);
      if (attempt_.usage.known)
        settle_cost(meter, false);
      else
        charge_unknown();
    }
    settle_as(CircuitOutcome::failure);
  }

  void cut_by_caller(UsageReader& meter) {
    attempt_.reason = Reason::caller_cancelled;
    if (attempt_.ending != store::Ending::actual) {
      attempt_.usage = meter.finish(false);
      // Where hanging up ends the bill, the text that was sent bounds it; a drain that reached its bound
      // proves nothing.
      if (provider_.config->on_disconnect == config::OnDisconnect::cancel)
        settle_cost(meter, false);
      else
        charge_unknown();
    }
    settle_as(circuit_outcome(answer_.status));
  }

  /// An answer with an error status: free, unless configured otherwise.
  void charge_failure() {
    const policy::PriceList& prices = *attempt_.endpoint->prices;
    attempt_.cost = prices.charge_failures ? prices.per_call : NanoUsd{};
    attempt_.ending = store::Ending::actual;
  }

  /// It may have been billed, and nobody will tell.
  void charge_unknown() {
    if (provider_.config->charge_unknown) {
      attempt_.cost = attempt_.estimate;
      attempt_.cost_estimated = attempt_.estimate > NanoUsd{};
      attempt_.ending = store::Ending::estimate;
    } else {
      attempt_.ending = store::Ending::released;
    }
  }

  void settle_as(CircuitOutcome outcome) {
    if (settled_) return;
    settled_ = true;
    settle(call_, attempt_, outcome);
  }

  void finish_connection() {
    if (!answered_early_) pool_->release(std::move(connection_), attempt_.began + attempt_.duration);
    connection_.reset();
  }

  Call& call_;
  http::Exchange& exchange_;
  Attempt& attempt_;
  RetryDecision& decision_;
  const ProviderPlan& provider_;
  std::shared_ptr<http::UpstreamPool> pool_;
  CallKind kind_;
  MonotonicTime deadline_;
  std::unique_ptr<http::UpstreamConnection> connection_;
  http::ResponseHead answer_;
  std::string_view body_;
  std::string detail_;
  UpstreamFault collect_fault_ = UpstreamFault::none;
  http::BodyFault caller_fault_ = http::BodyFault::none;
  std::string kept_head_;
  std::string interims_;  // heads that wait to be passed on
  bool usage_injected_ = false;
  bool answered_ = false;        // the final head is read
  bool answered_early_ = false;  // ... before the whole request was sent
  bool cost_trailer_ = false;
  bool sent_ = false;
  bool settled_ = false;
};

}  // namespace

Awaitable<Outcome> forward(Call& call, Attempt& attempt, RetryDecision& decision) {
  Forwarding forwarding(call, attempt, decision);
  co_return co_await forwarding.run();
}

}  // namespace penstock::gateway
