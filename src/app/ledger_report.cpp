#include "app/ledger_report.hpp"

#include <array>
#include <charconv>

#include <fmt/chrono.h>
#include <fmt/format.h>

#include "observe/text.hpp"

namespace penstock::app {
namespace {

/// One value of a row: its name, its text, and whether JSON quotes it.
struct Cell {
  std::string_view name;
  std::string text;
  enum class Kind : std::uint8_t { text, number } kind = Kind::text;
};
using Row = std::vector<Cell>;

std::string moment(WallTime at) {
  const auto since = at.time_since_epoch();
  const auto second = std::chrono::floor<seconds>(since);
  return fmt::format("{:%Y-%m-%dT%H:%M:%S}.{:03}Z", fmt::gmtime(static_cast<std::time_t>(second.count())),
                     std::chrono::floor<milliseconds>(since - second).count());
}

/// Nine digits, so that columns line up and sums are exact.
std::string usd(NanoUsd amount) {
  const std::int64_t whole = amount.count / kNanoPerUsd;
  const std::int64_t rest = amount.count % kNanoPerUsd;
  return fmt::format("{}{}.{:09}", amount.count < 0 ? "-" : "", whole < 0 ? -whole : whole,
                     rest < 0 ? -rest : rest);
}

std::string_view word(store::Ending ending) {
  switch (ending) {
    case store::Ending::actual: return "actual";
    case store::Ending::estimate: return "estimate";
    case store::Ending::released: return "released";
  }
  return "estimate";
}

std::string id_text(std::uint64_t epoch, std::uint64_t sequence) {
  return to_string(CallId{epoch, sequence});
}

std::string reason_text(const std::optional<Reason>& reason) {
  return reason ? std::string(info(*reason).name) : std::string();
}

Row row_of(const store::CallRecord& call) {
  using enum Cell::Kind;
  Row row{{"call", to_string(call.id)},
          {"at", moment(call.at)},
          {"consumer", std::string(call.consumer.view())},
          {"team", std::string(call.team.view())},
          {"key", std::string(call.key.view())},
          {"route", std::string(call.route.view())},
          {"provider", call.attempts.empty() ? "" : std::string(call.attempts.back().provider.view())},
          {"endpoint", call.attempts.empty() ? "" : std::string(call.attempts.back().endpoint.view())},
          {"model", std::string(call.model.view())},
          {"tag", call.tag},
          {"status", std::to_string(call.status), number},
          {"reason", reason_text(call.reason)},
          {"cost_usd", usd(call.cost)},
          {"cost_estimated", call.cost_estimated ? "true" : "false", number},
          {"duration_ms", fmt::format("{:.3f}", static_cast<double>(call.total.count()) / 1e6), number},
          {"attempts", std::to_string(call.attempts.size()), number}};
  return row;
}

Row row_of(const store::AttemptEntry& attempt) {
  using enum Cell::Kind;
  std::string subjects;
  for (const store::SubjectRef& subject : attempt.subjects)
    subjects += fmt::format("{}{}:{}", subjects.empty() ? "" : " ", to_string(subject.kind), subject.name);
  const auto& end = attempt.end;
  return {{"attempt", id_text(attempt.id.epoch, attempt.id.sequence)},
          {"reserved_at", moment(attempt.reserved_at)},
          {"subjects", std::move(subjects)},
          {"estimate_usd", usd(attempt.estimate)},
          {"ended_at", end ? moment(end->at) : ""},
          {"ending", end ? std::string(word(end->ending)) : "open"},
          {"expired", end && end->expired ? "true" : "false", number},
          {"cost_usd", end ? usd(end->cost) : ""},
          {"tokens", std::to_string(end ? end->tokens : attempt.tokens), number}};
}

/// RFC 4180, and no text that a spreadsheet would take for a formula.
void append_csv(std::string& out, std::string_view text, Cell::Kind kind) {
  const bool is_formula = kind == Cell::Kind::text && !text.empty() &&
                          std::string_view("=+@\t\r").find(text.front()) != std::string_view::npos;
  if (!is_formula && text.find_first_of(",\"\r\n") == std::string_view::npos) {
    out += text;
    return;
  }
  out += '"';
  if (is_formula) out += '\'';
  for (const char c : text) out.append(c == '"' ? 2 : 1, c);
  out += '"';
}

void append_json(std::string& out, std::string_view text) {
  constexpr std::size_t kMost = 4096;  // names are at most 64 bytes, a list of subjects a few hundred
  std::array<char, kMost> buffer;
  out += '"';
  out.append(buffer.data(), observe::write_json_text(text, kMost, buffer.data()));
  out += '"';
}

/// Collects lines and hands them on in large pieces.
class Writer {
 public:
  Writer(ExportFormat format, const Write& write) : format_(format), write_(write) {}

  bool add(const Row& row) {
    if (format_ == ExportFormat::csv) {
      if (!began_) line(row, &Cell::name);
      line(row, &Cell::text);
    } else {
      out_ += '{';
      for (const Cell& cell : row) {
        if (out_.back() != '{') out_ += ',';
        append_json(out_, cell.name);
        out_ += ':';
        if (cell.kind == Cell::Kind::number)
          out_ += cell.text;
        else
          append_json(out_, cell.text);
      }
      out_ += "}\n";
    }
    began_ = true;
    return out_.size() < kPiece || flush();
  }
  bool flush() {
    const bool goes_on = out_.empty() || write_(out_);
    out_.clear();
    return goes_on;
  }

 private:
  static constexpr std::size_t kPiece = 64 * 1024;

  template <class Text>
  void line(const Row& row, Text Cell::* text) {
    for (std::size_t i = 0; i < row.size(); ++i) {
      if (i > 0) out_ += ',';
      append_csv(out_, row[i].*text, row[i].kind);
    }
    out_ += "\r\n";
  }

  ExportFormat format_;
  const Write& write_;
  std::string out_;
  bool began_ = false;
};

}  // namespace

Result<void> export_ledger(store::LedgerDatabase& database, ExportWhat what, ExportFormat format,
                           WallTime from, WallTime to, const Write& write) {
  Writer writer(format, write);
  const auto add = [&](const auto& each) { return writer.add(row_of(each)); };
  auto done = what == ExportWhat::calls ? database.for_each_call(from, to, add)
                                        : database.for_each_attempt(from, to, add);
  if (done) writer.flush();
  return done;
}

std::optional<WallTime> parse_moment(std::string_view text) {
  const auto number = [&](std::size_t at, std::size_t size) -> int {
    int value = -1;
    const char* const begin = text.data() + at;
    const auto [end, error] = std::from_chars(begin, begin + size, value);
    return error == std::errc{} && end == begin + size ? value : -1;
  };
  const bool has_time =
      text.size() == 20 && text[10] == 'T' && text[13] == ':' && text[16] == ':' && text[19] == 'Z';
  if ((text.size() != 10 && !has_time) || text[4] != '-' || text[7] != '-') return std::nullopt;
  const int month = number(5, 2);
  const int day = number(8, 2);
  if (number(0, 4) < 1970 || month < 1 || day < 1) return std::nullopt;
  const std::chrono::year_month_day date{std::chrono::year{number(0, 4)},
                                         std::chrono::month{static_cast<unsigned>(month)},
                                         std::chrono::day{static_cast<unsigned>(day)}};
  if (!date.ok()) return std::nullopt;
  WallTime at{std::chrono::sys_days{date}};
  if (!has_time) return at;
  const int hour = number(11, 2);
  const int minute = number(14, 2);
  const int second = number(17, 2);
  if (hour < 0 || hour > 23 || minute < 0 || minute > 59 || second < 0 || second > 59) return std::nullopt;
  return at + std::chrono::hours{hour} + std::chrono::minutes{minute} + seconds{second};
}

}  // namespace penstock::app
