#include "store/journal/fold.hpp"

#include <algorithm>

namespace penstock::store {

void Fold::set_open(std::vector<AttemptEntry> open) {
  for (AttemptEntry& entry : open) {
    const AttemptId id = entry.id;
    open_.insert_or_assign(id, std::move(entry));
  }
}

void Fold::set_expired(std::vector<AttemptEntry> expired) {
  for (AttemptEntry& entry : expired) {
    const AttemptId id = entry.id;
    if (!entry.end || !entry.end->expired) continue;
    expired_order_.emplace_back(entry.end->at, id);
    expired_.insert_or_assign(id, std::move(entry));
  }
}

void Fold::add(Record record) {
  if (auto* reserved = std::get_if<ReserveRecord>(&record))
    reserve(std::move(*reserved));
  else if (const auto* settled = std::get_if<SettleRecord>(&record))
    settle(*settled);
  else if (const auto* expired = std::get_if<ExpireRecord>(&record))
    end(expired->id,
        {.at = expired->at, .ending = Ending::estimate, .expired = true, .cost = {}, .tokens = -1});
  else if (auto* call = std::get_if<CallRecord>(&record))
    batch_.calls.push_back(std::move(*call));
  else if (auto* budget = std::get_if<BudgetChange>(&record))
    batch_.budget_changes.push_back(std::move(*budget));
}

void Fold::reserve(ReserveRecord record) {
  AttemptEntry entry{.id = record.id,
                     .reserved_at = record.at,
                     .subjects = std::move(record.subjects),
                     .estimate = record.estimate,
                     .tokens = record.tokens,
                     .end = std::nullopt};
  // Asked again after a lost answer: the first one stands.
  if (open_.contains(record.id) || expired_.contains(record.id) || in_batch_.contains(record.id)) {
    ++ignored_;
    return;
  }
  in_batch_.emplace(record.id, batch_.attempts.size());
  batch_.attempts.push_back({.now = entry, .is_new = true, .before = std::nullopt});
  open_.emplace(record.id, std::move(entry));
}

AttemptChange& Fold::change_of(const AttemptEntry& entry) {
  const auto [found, is_first] = in_batch_.try_emplace(entry.id, batch_.attempts.size());
  if (is_first) batch_.attempts.push_back({.now = entry, .is_new = false, .before = entry.end});
  return batch_.attempts[found->second];
}

void Fold::end(const AttemptId& id, AttemptEnd end) {
  const auto found = open_.find(id);
  if (found == open_.end()) {
    ++ignored_;
    return;
  }
  AttemptEntry& entry = found->second;
  if (end.ending == Ending::estimate) end.cost = entry.estimate;
  if (end.ending == Ending::released) end.cost = {};
  if (end.ending == Ending::released)
    end.tokens = 0;
  else if (end.tokens < 0)
    end.tokens = entry.tokens;
  AttemptChange& change = change_of(entry);
  entry.end = end;
  change.now.end = end;
  if (end.expired) {
    expired_order_.emplace_back(end.at, id);
    expired_.emplace(id, std::move(entry));
    forget_expired(end.at);
  }
  open_.erase(found);
}

void Fold::settle(const SettleRecord& record) {
  // A late settlement corrects the charge: it is open again, as it were, for this one step.
  if (const auto late = expired_.find(record.id); late != expired_.end()) {
    open_.emplace(record.id, std::move(late->second));
    expired_.erase(late);
  }
  end(record.id, {.at = record.at,
                  .ending = record.ending,
                  .expired = false,
                  .cost = record.cost,
                  .tokens = record.tokens});
}

std::size_t Fold::expire_others(std::uint64_t epoch, WallTime now) {
  std::vector<AttemptId> dead;
  for (const auto& [id, entry] : open_)
    if (id.epoch != epoch) dead.push_back(id);
  std::ranges::sort(dead);
  for (const AttemptId& id : dead)
    end(id, {.at = now, .ending = Ending::estimate, .expired = true, .cost = {}, .tokens = -1});
  return dead.size();
}

void Fold::forget_expired(WallTime now) {
  while (!expired_order_.empty() &&
         (expired_order_.size() > kMaxExpired || expired_order_.front().first + kKept < now)) {
    expired_.erase(expired_order_.front().second);
    expired_order_.pop_front();
  }
}

LedgerBatch Fold::take() {
  LedgerBatch taken = std::move(batch_);
  batch_ = {};
  in_batch_.clear();
  return taken;
}

}  // namespace penstock::store
