#include "policy/line.hpp"

#include <algorithm>
#include <cassert>

namespace penstock::policy {
namespace {

/// More than any wait that a configuration allows; keeps sums of waits far from overflow.
constexpr nanoseconds kLongest = std::chrono::hours{24 * 365};
/// Bounds what an estimate costs.
constexpr std::size_t kMostCounted = 64;

/// How long a limit needs at least for `cost` to start. What starts when a gate opens starts at the beginning
/// of a bucket (WindowLimit), and stays counted for one bucket more than the period.
nanoseconds drain_time(std::int64_t cost, const LimitSpec& limit) noexcept {
  const std::int64_t whole = cost / std::max<std::int64_t>(limit.amount, 1);
  const nanoseconds window = limit.period + limit.period / WindowLimit::kBuckets;
  return whole > kLongest / window ? kLongest : whole * window;
}

}  // namespace

std::string_view to_string(WaitLane lane) noexcept {
  switch (lane) {
    case WaitLane::interactive: return "interactive";
    case WaitLane::standard: return "standard";
    case WaitLane::batch: return "batch";
  }
  return "standard";
}

WaitingLine::WaitingLine(LineSpec spec) : spec_(std::move(spec)) {
  for (std::size_t i = 0; i < kWaitLanes; ++i) lanes_[i].credit = kLaneWeights[i];
}

std::size_t WaitingLine::size(WaitLane lane) const noexcept {
  return lanes_[static_cast<std::size_t>(lane)].deadlines.size();
}

bool WaitingLine::make_room(const Arrival& arrival, std::vector<Id>& displaced) {
  std::size_t calls = waiters_.size() + 1;
  std::uint64_t bytes = bytes_ + arrival.bytes;
  const auto fits = [&] { return calls <= spec_.max_calls && bytes <= spec_.max_bytes; };
  std::vector<Id> victims;
  for (std::size_t lane = kWaitLanes - 1; lane > static_cast<std::size_t>(arrival.lane); --lane) {
    const auto& deadlines = lanes_[lane].deadlines;
    for (auto place = deadlines.rbegin(); place != deadlines.rend() && !fits(); ++place) {
      victims.push_back(place->id);
      --calls;
      bytes -= waiters_.at(place->id).bytes;
    }
  }
  if (!fits()) return false;
  for (const Id id : victims) {
    leave(id);
    displaced.push_back(id);
  }
  return true;
}

std::optional<WaitingLine::Id> WaitingLine::enter(const Arrival& arrival, std::vector<Id>& displaced) {
  if (!make_room(arrival, displaced)) return std::nullopt;
  const auto number = static_cast<std::size_t>(arrival.lane);
  Lane& lane = lanes_[number];
  const auto [consumer_at, is_new_consumer] = lane.consumers.try_emplace(arrival.consumer);
  Consumer& consumer = consumer_at->second;
  if (is_new_consumer) {
    consumer.lane = number;
    consumer.name = arrival.consumer;
    // Behind the one whose turn it was: to leave and come back gains nothing.
    consumer.turn = {lane.virtual_time + 1, ++last_consumer_};
  }
  const auto [flow_at, is_new_flow] =
      consumer.flows.try_emplace(std::vector<Subject>(arrival.own.begin(), arrival.own.end()));
  Flow& flow = flow_at->second;
  if (is_new_flow) {
    flow.consumer = &consumer;
    flow.own = flow_at->first;
  }
  const Id id = ++last_id_;
  set_not_ready(flow);
  flow.queue.insert({arrival.deadline, id});
  lane.deadlines.insert({arrival.deadline, id});
  if (!flow.stopped_by) set_ready(flow);
  waiters_.emplace(
      id,
      Waiter{.flow = &flow, .deadline = arrival.deadline, .bytes = arrival.bytes, .tokens = arrival.tokens});
  bytes_ += arrival.bytes;
  tokens_ += arrival.tokens;
  return id;
}

/// Pre: no gate is known to stop it, and it is not empty.
void WaitingLine::set_ready(Flow& flow) {
  Consumer& consumer = *flow.consumer;
  consumer.ready.emplace(*flow.queue.begin(), &flow);
  lane_of(lanes_, flow).ready.emplace(consumer.turn, &consumer);
}

/// Harmless where it is not ready.
void WaitingLine::set_not_ready(Flow& flow) {
  if (flow.queue.empty()) return;
  Consumer& consumer = *flow.consumer;
  consumer.ready.erase(*flow.queue.begin());
  if (consumer.ready.empty()) lane_of(lanes_, flow).ready.erase(consumer.turn);
}

bool WaitingLine::leave(Id id) {
  const auto found = waiters_.find(id);
  if (found == waiters_.end()) return false;
  const Waiter waiter = found->second;
  waiters_.erase(found);
  bytes_ -= waiter.bytes;
  tokens_ -= waiter.tokens;
  Flow& flow = *waiter.flow;
  Consumer& consumer = *flow.consumer;
  Lane& lane = lane_of(lanes_, flow);
  set_not_ready(flow);
  flow.queue.erase({waiter.deadline, id});
  lane.deadlines.erase({waiter.deadline, id});
  if (!flow.queue.empty()) {
    if (!flow.stopped_by) set_ready(flow);
  } else {
    if (flow.stopped_by) own_gates_.at(*flow.stopped_by).flows.erase(&flow);
    const std::vector<Subject> key = std::move(flow.own);
    consumer.flows.erase(key);
    if (consumer.flows.empty()) {
      const std::uint64_t name = consumer.name;
      lane.consumers.erase(name);
    }
  }
  if (waiters_.empty()) {
    // Nobody tells an empty line of settlements: what it knows of gates grows old.
    open_all();
    last_start_.reset();
  }
  return true;
}

void WaitingLine::expire(MonotonicTime by, std::vector<Id>& expired) {
  for (Lane& lane : lanes_)
    while (!lane.deadlines.empty() && lane.deadlines.begin()->deadline <= by) {
      const Id id = lane.deadlines.begin()->id;
      leave(id);
      expired.push_back(id);
    }
}

void WaitingLine::open_own(std::unordered_map<Subject, OwnGate>::iterator gate) {
  openings_.erase({gate->second.gate.until, gate->first});
  if (gate->second.gate.opens_early) --early_gates_;
  const std::set<Flow*> flows = std::move(gate->second.flows);
  own_gates_.erase(gate);
  for (Flow* const flow : flows) {
    flow->stopped_by.reset();
    set_ready(*flow);
  }
}

void WaitingLine::open_line() noexcept {
  if (line_gate_ && line_gate_->second.opens_early) --early_gates_;
  line_gate_.reset();
}

/// Opens the gates whose time has come.
void WaitingLine::release(MonotonicTime now) {
  if (line_gate_ && line_gate_->second.until <= now) open_line();
  while (!openings_.empty() && openings_.begin()->first <= now)
    open_own(own_gates_.find(openings_.begin()->second));
}

/// Deficit round robin: within a round the higher lanes use their shares first; a round ends when no lane
/// that has somebody ready has something left.
WaitingLine::Lane* WaitingLine::choose_lane() noexcept {
  bool any = false;
  for (Lane& lane : lanes_) {
    if (lane.ready.empty()) continue;
    any = true;
    if (lane.credit > 0) return &lane;
  }
  if (!any) return nullptr;
  for (std::size_t i = 0; i < kWaitLanes; ++i) lanes_[i].credit = kLaneWeights[i];
  return choose_lane();
}

std::optional<WaitingLine::Id> WaitingLine::next(MonotonicTime now) {
  release(now);
  if (line_gate_) return std::nullopt;
  while (Lane* const lane = choose_lane()) {
    const auto [head, flow] = *lane->ready.begin()->second->ready.begin();
    // A gate that was set for another flow of the same subject is noticed here.
    const auto stopped = std::ranges::find_if(flow->own, [&](Subject s) { return own_gates_.contains(s); });
    if (stopped == flow->own.end()) return head.id;
    set_not_ready(*flow);
    flow->stopped_by = *stopped;
    own_gates_.at(*stopped).flows.insert(flow);
  }
  return std::nullopt;
}

void WaitingLine::start(Id id, MonotonicTime now) {
  const auto found = waiters_.find(id);
  if (found == waiters_.end()) return;
  Consumer& consumer = *found->second.flow->consumer;
  Lane& lane = lanes_[consumer.lane];
  if (lane.credit > 0) --lane.credit;
  lane.virtual_time = consumer.turn.first;
  const bool was_ready = lane.ready.erase(consumer.turn) > 0;
  ++consumer.turn.first;
  if (was_ready) lane.ready.emplace(consumer.turn, &consumer);
  if (last_start_) gap_ += (now - *last_start_ - gap_) / 8;
  last_start_ = now;
  leave(id);
}

void WaitingLine::block(Id id, Subject subject, Gate gate) {
  const auto found = waiters_.find(id);
  if (found == waiters_.end()) return;
  const Flow& flow = *found->second.flow;
  if (std::ranges::find(flow.own, subject) == flow.own.end()) {
    open_line();
    line_gate_.emplace(subject, gate);
  } else {
    if (const auto known = own_gates_.find(subject); known != own_gates_.end()) open_own(known);
    own_gates_.emplace(subject, OwnGate{.gate = gate, .flows = {}});
    openings_.emplace(gate.until, subject);
  }
  if (gate.opens_early) ++early_gates_;
}

MonotonicTime WaitingLine::next_opening() const {
  if (line_gate_) return line_gate_->second.until;
  return openings_.empty() ? MonotonicTime::max() : openings_.begin()->first;
}

void WaitingLine::open(std::span<const Subject> subjects) {
  for (const Subject subject : subjects) {
    if (line_gate_ && line_gate_->first == subject && line_gate_->second.opens_early) open_line();
    const auto gate = own_gates_.find(subject);
    if (gate != own_gates_.end() && gate->second.gate.opens_early) open_own(gate);
  }
}

void WaitingLine::open_all() {
  open_line();
  while (!own_gates_.empty()) open_own(own_gates_.begin());
}

std::optional<WaitingLine::Gate> WaitingLine::holds_back(WaitLane lane, std::span<const Subject> own,
                                                         MonotonicTime now) {
  release(now);
  if (line_gate_) return line_gate_->second;
  for (const Subject subject : own)
    if (const auto gate = own_gates_.find(subject); gate != own_gates_.end()) return gate->second.gate;
  const auto number = static_cast<std::size_t>(lane);
  for (std::size_t i = 0; i < kWaitLanes; ++i) {
    if (lanes_[i].ready.empty()) continue;
    if (i <= number || lanes_[number].credit == 0)
      return Gate{.reason = Reason::policy_rate_limited, .until = now, .opens_early = false};
  }
  return std::nullopt;
}

void WaitingLine::passed(WaitLane lane) noexcept {
  std::uint32_t& credit = lanes_[static_cast<std::size_t>(lane)].credit;
  if (credit > 0) --credit;
}

/// How many have that deadline or an earlier one; zero where that would take long to count. Callers who say
/// the same wait come in nearly the order of their deadlines: nearly, since workers read the clock by
/// themselves.
std::int64_t WaitingLine::earlier_in(const std::set<Place>& queue, MonotonicTime deadline) {
  std::size_t later = 0;
  for (auto place = queue.rbegin(); place != queue.rend() && place->deadline > deadline; ++place)
    if (++later > kMostCounted) return 0;
  return static_cast<std::int64_t>(queue.size() - later);
}

/// So many start before it at least, if all that wait are ready.
std::int64_t WaitingLine::ahead_of(const Arrival& arrival) const {
  const auto number = static_cast<std::size_t>(arrival.lane);
  const Lane& lane = lanes_[number];
  const auto consumer = lane.consumers.find(arrival.consumer);
  std::int64_t before = 0;  // of its own flow
  auto others = static_cast<std::int64_t>(lane.deadlines.size());
  auto consumers = static_cast<std::int64_t>(lane.consumers.size());
  if (consumer != lane.consumers.end()) {
    const auto flow =
        consumer->second.flows.find(std::vector<Subject>(arrival.own.begin(), arrival.own.end()));
    for (const auto& [own, each] : consumer->second.flows)
      others -= static_cast<std::int64_t>(each.queue.size());
    --consumers;
    if (flow != consumer->second.flows.end()) before = earlier_in(flow->second.queue, arrival.deadline);
  }
  // Whoever is new to a lane comes behind all its consumers.
  const bool is_new = consumer == lane.consumers.end();
  const std::int64_t in_lane = before + std::min(others, (before + (is_new ? 1 : 0)) * consumers);
  std::int64_t ahead = in_lane;
  for (std::size_t i = 0; i < kWaitLanes; ++i) {
    if (i == number) continue;
    const auto there = static_cast<std::int64_t>(lanes_[i].deadlines.size());
    const std::int64_t share = in_lane * kLaneWeights[i] / kLaneWeights[number];
    ahead += std::min(there, share);
  }
  return ahead;
}

nanoseconds WaitingLine::estimate(const Arrival& arrival, MonotonicTime now) const {
  nanoseconds gates{};
  const auto count = [&](const Gate& gate) {
    if (!gate.opens_early) gates = std::max(gates, gate.until - now);
  };
  if (line_gate_) count(line_gate_->second);
  for (const Subject subject : arrival.own)
    if (const auto gate = own_gates_.find(subject); gate != own_gates_.end()) count(gate->second.gate);
  const std::int64_t ahead = ahead_of(arrival);
  if (ahead == 0) return gates;
  nanoseconds drain{};
  const auto waiting = static_cast<std::int64_t>(waiters_.size());
  for (const LimitSpec& limit : spec_.limits)
    drain = std::max(drain,
                     drain_time(limit.unit == LimitUnit::calls ? ahead : tokens_ / waiting * ahead, limit));
  if (spec_.limits.empty()) drain = gap_ > kLongest / ahead ? kLongest : gap_ * ahead;
  return gates + drain;
}

}  // namespace penstock::policy
