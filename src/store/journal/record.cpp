#include "store/journal/record.hpp"

#include <algorithm>

namespace penstock::store {
namespace {

constexpr std::uint8_t kNoReason = 255;

void put(ByteWriter& out, AttemptId id) {
  out.put(id.epoch);
  out.put(id.sequence);
}
void put(ByteWriter& out, LanePoint point) {
  out.put(point.segment);
  out.put(point.offset);
}
void put(ByteWriter& out, WallTime at) {
  out.put(static_cast<std::int64_t>(at.time_since_epoch() / nanoseconds{1}));
}
void put(ByteWriter& out, std::optional<Reason> reason) {
  out.put(reason ? static_cast<std::uint8_t>(*reason) : kNoReason);
}
/// What is written can be read again, whatever a bug upstream made of it.
void put(ByteWriter& out, NanoUsd amount) { out.put(std::clamp(amount, NanoUsd{}, kMaxNanoUsd).count); }
void put_status(ByteWriter& out, int status) {
  out.put(static_cast<std::uint16_t>(std::clamp(status, 0, int{UINT16_MAX})));
}

/// A reader that also knows the values that a ledger may hold; anything else makes it not ok.
struct Fields {
  ByteReader in;
  bool ok = true;

  template <std::integral T>
  T get() {
    return in.get<T>();
  }
  template <class Id>
  Id id() {
    const auto epoch = in.get<std::uint64_t>();
    return {.epoch = epoch, .sequence = in.get<std::uint64_t>()};
  }
  WallTime wall() { return WallTime{nanoseconds{in.get<std::int64_t>()}}; }
  LanePoint point() {
    const auto segment = in.get<std::uint64_t>();
    return {.segment = segment, .offset = in.get<std::uint64_t>()};
  }
  NanoUsd money() {
    const NanoUsd amount{in.get<std::int64_t>()};
    ok &= amount >= NanoUsd{} && amount <= kMaxNanoUsd;
    return amount;
  }
  std::int64_t at_least(std::int64_t least) {
    const auto value = in.get<std::int64_t>();
    ok &= value >= least;
    return value;
  }
  Ending ending() {
    const auto value = in.get<std::uint8_t>();
    ok &= value <= static_cast<std::uint8_t>(Ending::released);
    return static_cast<Ending>(value);
  }
  std::optional<Reason> reason() {
    const auto value = in.get<std::uint8_t>();
    if (value == kNoReason) return std::nullopt;
    ok &= value < kReasonCount;
    return static_cast<Reason>(value);
  }
  bool flag() {
    const auto value = in.get<std::uint8_t>();
    ok &= value <= 1;
    return value == 1;
  }
  Name name(const Dictionary& dictionary) {
    const auto found = dictionary.name(in.get<std::uint32_t>());
    ok &= found.has_value();
    return found.value_or(Name());
  }
  [[nodiscard]] bool done() const { return ok && in.at_end(); }
};

ReserveRecord read_reserve(Fields& f, const Dictionary& dictionary) {
  ReserveRecord r;
  r.order = f.get<std::uint64_t>();
  r.id = f.id<AttemptId>();
  r.at = f.wall();
  r.estimate = f.money();
  r.tokens = f.at_least(0);
  const std::size_t count = f.get<std::uint8_t>();
  f.ok &= count <= kMaxSubjects;
  for (std::size_t i = 0; i < count && f.ok; ++i) {
    const SubjectRef* const subject = dictionary.subject(f.get<std::uint32_t>());
    if (subject != nullptr)
      r.subjects.push_back(*subject);
    else
      f.ok = false;
  }
  std::ranges::sort(r.subjects);
  return r;
}

CallRecord read_call(Fields& f, const Dictionary& dictionary) {
  CallRecord c;
  c.id = f.id<CallId>();
  c.at = f.wall();
  c.route = f.name(dictionary);
  c.consumer = f.name(dictionary);
  c.team = f.name(dictionary);
  c.key = f.name(dictionary);
  c.model = f.name(dictionary);
  c.tag = f.in.get_text(kMaxTag);
  c.status = f.get<std::uint16_t>();
  c.reason = f.reason();
  c.cost = f.money();
  c.cost_estimated = f.flag();
  c.total = nanoseconds{f.get<std::int64_t>()};
  const std::size_t count = f.get<std::uint8_t>();
  for (std::size_t i = 0; i < count && f.ok && f.in.ok(); ++i) {
    AttemptRecord& a = c.attempts.emplace_back();
    a.id = f.id<AttemptId>();
    a.provider = f.name(dictionary);
    a.endpoint = f.name(dictionary);
    a.estimate = f.money();
    a.cost = f.money();
    a.ending = f.ending();
    a.status = f.get<std::uint16_t>();
    a.reason = f.reason();
  }
  return c;
}

BudgetChange read_budget(Fields& f) {
  BudgetChange b;
  b.at = f.wall();
  const auto kind = f.get<std::uint8_t>();
  f.ok &= kind <= static_cast<std::uint8_t>(SubjectKind::key);
  b.subject.kind = static_cast<SubjectKind>(kind);
  b.subject.name = f.in.get_text(kMaxText);
  b.before = f.in.get_text(kMaxText);
  b.after = f.in.get_text(kMaxText);
  b.who = f.in.get_text(kMaxText);
  return b;
}

}  // namespace

std::uint64_t order_of(const Record& record) noexcept {
  if (const auto* reserve = std::get_if<ReserveRecord>(&record)) return reserve->order;
  if (const auto* settle = std::get_if<SettleRecord>(&record)) return settle->order;
  if (const auto* expire = std::get_if<ExpireRecord>(&record)) return expire->order;
  return 0;
}

bool Dictionary::define(const DefineRecord& record) {
  if (record.ref != entries_.size() + 1 || record.ref > kMaxRefs) return false;
  if (record.kind == kNameText) {
    entries_.push_back({.subject = std::nullopt, .name = Name(record.text)});
    return true;
  }
  if (record.kind > static_cast<std::uint8_t>(SubjectKind::key)) return false;
  entries_.push_back({.subject = SubjectRef{static_cast<SubjectKind>(record.kind), record.text}, .name = {}});
  return true;
}

const SubjectRef* Dictionary::subject(std::uint32_t ref) const noexcept {
  if (ref == 0 || ref > entries_.size() || !entries_[ref - 1].subject) return nullptr;
  return &*entries_[ref - 1].subject;
}

std::optional<Name> Dictionary::name(std::uint32_t ref) const noexcept {
  if (ref == 0) return Name();
  if (ref > entries_.size() || entries_[ref - 1].subject) return std::nullopt;
  return entries_[ref - 1].name;
}

std::optional<Record> decode_record(RecordType type, std::span<const std::byte> payload,
                                    const Dictionary& dictionary) {
  Fields f{.in = ByteReader(payload)};
  std::optional<Record> made;
  switch (type) {
    case RecordType::epoch: {
      EpochRecord epoch;
      epoch.epoch = f.get<std::uint64_t>();
      epoch.at = f.wall();
      epoch.before = f.point();
      made = epoch;
      break;
    }
    case RecordType::define: {
      DefineRecord define{.ref = f.get<std::uint32_t>(), .kind = f.get<std::uint8_t>(), .text = {}};
      define.text = f.in.get_text(kMaxText);
      made = std::move(define);
      break;
    }
    case RecordType::synced: {
      made = SyncedRecord{.safe = f.point()};
      break;
    }
    case RecordType::reserve: made = read_reserve(f, dictionary); break;
    case RecordType::settle: {
      SettleRecord s;
      s.order = f.get<std::uint64_t>();
      s.id = f.id<AttemptId>();
      s.at = f.wall();
      s.ending = f.ending();
      s.cost = f.money();
      s.tokens = f.at_least(-1);
      made = s;
      break;
    }
    case RecordType::expire: {
      ExpireRecord e;
      e.order = f.get<std::uint64_t>();
      e.id = f.id<AttemptId>();
      e.at = f.wall();
      made = e;
      break;
    }
    case RecordType::call: made = read_call(f, dictionary); break;
    case RecordType::budget: made = read_budget(f); break;
  }
  if (!made || !f.done()) return std::nullopt;
  return made;
}

void encode(ByteWriter& out, const EpochRecord& record) {
  out.put(record.epoch);
  put(out, record.at);
  put(out, record.before);
}

void encode(ByteWriter& out, std::uint32_t ref, std::uint8_t kind, std::string_view text) {
  out.put(ref);
  out.put(kind);
  out.put_text(text.substr(0, kMaxText));
}

void encode(ByteWriter& out, const SyncedRecord& record) { put(out, record.safe); }

void encode(ByteWriter& out, const ReserveRecord& record, std::span<const std::uint32_t> refs) {
  out.put(record.order);
  put(out, record.id);
  put(out, record.at);
  put(out, record.estimate);
  out.put(std::max<std::int64_t>(0, record.tokens));
  out.put(static_cast<std::uint8_t>(refs.size()));
  for (const std::uint32_t ref : refs) out.put(ref);
}

void encode(ByteWriter& out, const SettleRecord& record) {
  out.put(record.order);
  put(out, record.id);
  put(out, record.at);
  out.put(static_cast<std::uint8_t>(record.ending));
  put(out, record.cost);
  out.put(std::max<std::int64_t>(-1, record.tokens));
}

void encode(ByteWriter& out, const ExpireRecord& record) {
  out.put(record.order);
  put(out, record.id);
  put(out, record.at);
}

void encode(ByteWriter& out, const CallRecord& call, std::span<const std::uint32_t> refs) {
  out.put(call.id.epoch);
  out.put(call.id.sequence);
  put(out, call.at);
  for (const std::uint32_t ref : refs.first(5)) out.put(ref);
  refs = refs.subspan(5);
  out.put_text(std::string_view(call.tag).substr(0, kMaxTag));
  put_status(out, call.status);
  put(out, call.reason);
  put(out, call.cost);
  out.put(static_cast<std::uint8_t>(call.cost_estimated));
  out.put(static_cast<std::int64_t>(call.total.count()));
  out.put(static_cast<std::uint8_t>(call.attempts.size()));
  for (const AttemptRecord& attempt : call.attempts) {
    put(out, attempt.id);
    out.put(refs[0]);
    out.put(refs[1]);
    refs = refs.subspan(2);
    put(out, attempt.estimate);
    put(out, attempt.cost);
    out.put(static_cast<std::uint8_t>(attempt.ending));
    put_status(out, attempt.status);
    put(out, attempt.reason);
  }
}

void encode(ByteWriter& out, const BudgetChange& change) {
  put(out, change.at);
  out.put(static_cast<std::uint8_t>(change.subject.kind));
  for (const std::string_view text : {std::string_view(change.subject.name), std::string_view(change.before),
                                      std::string_view(change.after), std::string_view(change.who)})
    out.put_text(text.substr(0, kMaxText));
}

}  // namespace penstock::store
