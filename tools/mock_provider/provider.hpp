// Decides what each request gets and what it costs: no socket and no clock here.
#pragma once

#include <cstdint>
#include <string_view>

#include "answers.hpp"
#include "billing.hpp"
#include "call.hpp"
#include "limits.hpp"
#include "script.hpp"

namespace penstock::mock {

struct Moment {
  std::int64_t mono_ns = 0, unix_ns = 0;
};

/// Counters of the server, shown at /_mock/stats beside the provider's own.
struct Traffic {
  std::uint64_t connections = 0, open_connections = 0, in_flight = 0, max_in_flight = 0, disconnects = 0;
  std::uint64_t bytes_in = 0, bytes_out = 0;
};

class Provider {
 public:
  explicit Provider(const Options& options);

  /// Fills a cleared `answer`. `arrived` is when the head was complete.
  void handle(const Request& request, Moment arrived, Answer& answer);
  /// To be called once for each answer with billed_when_sent, when it ended: how much of it went out.
  void bill_sent(const Answer& answer, bool anything_sent, bool complete);
  /// The answer to what could not be read as a request; it stands in the log, too.
  void refuse(int status, Moment arrived, Answer& answer);
  /// /early: answered from the head alone.
  void answer_early(const Request& request, Moment arrived, Answer& answer);

  Traffic traffic;

 private:
  enum class Dialect : std::uint8_t { openai, anthropic, gemini, plain };
  struct Way {
    Kind kind = Kind::other;
    Dialect dialect = Dialect::plain;
    void (*write)(const Question&, Answer&) = nullptr;  // of a model call; else null
    std::string_view model;                             // where the path names it
    bool stream = false;
  };
  static Way find_way(const Request& request);
  bool read_call(const Request& request, const Way& way, Call& call);
  /// Refuses as limits or script say; false: goes on.
  struct Asker {
    std::string_view path, credential;
    std::int64_t tokens = 0;  // what the call counts against a limit
  };
  bool refused(const Asker& asker, const Way& way, const Call& call, Moment now, Answer& answer);
  void write_answer(const Request& request, const Way& way, const Call& call, Answer& answer);
  void add_delivery(const Call& call, Answer& answer);
  void charge(std::string_view credential, Answer& answer);
  static void complain(Dialect dialect, const Complaint& complaint, Answer& answer);

  void admin(const Request& request, Answer& answer);
  void admin_get(const Request& request, Answer& answer);
  void admin_post(const Request& request, Answer& answer);
  void reset();

  Options options_;
  Rules defaults_, scratch_;
  const Rules* rules_ = nullptr;  // of the request at hand
  Scripts scripts_;
  RateLimits limits_;
  Bill bill_;
  CallLog log_;
  CallReader reader_;
  Random random_;
  std::uint64_t requests_ = 0, streams_ = 0, by_class_[6] = {};
};

}  // namespace penstock::mock
