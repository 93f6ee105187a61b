#!lua name=@LIBRARY@
-- The shared state's steps, each atomic: it reads and plans all, then writes all, or says no and writes nothing.
--
-- Keys, all under ps:{domain}: so that a cluster keeps them together:
--   m             hash: epoch, run (the server's run_id), learn and grace (learning mode's ends), gen
--   s:<subject>   hash: f (in flight), x (expired, not settled), p (paused until), e (epoch), z and y (starts), and
--                 one field per budget ("d", "m") and per limit ("c60000000": calls in 60 s)
--   s:<subject>#<limit>   hash: the limit's buckets before the current one, by number modulo SLOTS
--   r:<attempt>   what a reservation took, or "T": it was given up before it came
--   rx, xx        sorted sets of r: keys: open ones by lease end, expired ones by when they expired
--   replicas      sorted set: when each was last heard of;  i:<replica>: what it declares;  pending, published: learning
--
-- Times are microseconds. Numbers are doubles: whole and at most 2^53 - 1, which is checked on the way in; they go
-- through cmsgpack or "%.0f", never through tostring, which keeps 14 digits.
-- Every reply begins with a code and the wall clock. Codes as in redis_state.cpp.
-- A budget: {generation, start, end, settled, held, overrun, and start, settled, held, overrun of the window before}.
-- A limit: {generation, sum, current bucket, its count}.

local MAX = 9007199254740991
local BUCKETS = 60
local SLOTS = 61
local CONCURRENCY_WAIT = 1000000 -- nobody knows when a running attempt ends
local STARTS_BUCKET = 1000000
local DAY = 86400000000
local TOMBSTONE_MS = 600000
local EXPIRED_KEPT = 3600000000
local MOST_EXPIRED = 100000
local REPLICA_LIVE = 10000000
local REPLICA_KNOWN = 60000000

local OK, DUPLICATE, ENDED, DENIED = 1, 2, 3, 0
local NEW_EPOCH, BAD_ARGUMENTS, UNKNOWN, UNDECLARED, OTHER_WINDOW, LEARNING = -1, -2, -4, -5, -6, -7


-- What elapses and what names windows: the server's clock for both. Tests load the library with the other one.
local function server_clock()
  local time = redis.call('TIME')
  local now = time[1] * 1000000 + time[2]
  return now, now
end
local function given_clock(args)
  return tonumber(args[3]), tonumber(args[4])
end
local clock = @CLOCK@

local function whole(text)
  local number = tonumber(text)
  if number and number >= 0 and number <= MAX and number == math.floor(number) then return number end
  return nil
end

local function text(number) return string.format('%.0f', number) end

local function add(a, b) return math.min(MAX, a + b) end

-- The limit as it stands at `bucket`, and in it what apply() must change. Reads only.
local function advanced(ring, limit, bucket)
  local now = {limit[1], limit[2], limit[3], limit[4]}
  if bucket <= now[3] then return now end -- a clock that goes back is not followed
  if bucket - now[3] > BUCKETS then
    if now[2] > now[4] then now.wipe = true end
    now[2] = 0
  elseif now[2] > 0 then
    if now[2] > now[4] then
      local entered = {}
      for b = now[3] + 1, bucket do entered[#entered + 1] = b % SLOTS end
      local counts = redis.call('HMGET', ring, unpack(entered))
      for i = 1, #entered do
        if counts[i] then -- its slot is that of the one which leaves
          now[2] = now[2] - tonumber(counts[i])
          now.gone = now.gone or {}
          now.gone[#now.gone + 1] = entered[i]
        end
      end
    end
    if now[4] > 0 then now.kept = now[4] end
    now.kept_slot = now[3] % SLOTS
  end
  now[3] = bucket
  now[4] = 0
  return now
end

local function apply(ring, limit)
  if limit.wipe then redis.call('DEL', ring) end
  if limit.gone then redis.call('HDEL', ring, unpack(limit.gone)) end
  if limit.kept then redis.call('HSET', ring, limit.kept_slot, limit.kept) end
end

-- How long until `cost` fits, as policy::WindowLimit::wait_for.
local function wait_for(ring, before, now, amount, cost, length, mono)
  if cost > amount then return math.huge end
  local excess = now[2] - (amount - cost)
  if excess <= 0 then return 0 end
  local first = math.max(0, now[3] - BUCKETS)
  local last = now[3] - 1
  local slots = {}
  for b = first, last do slots[#slots + 1] = b % SLOTS end
  local counts = #slots > 0 and redis.call('HMGET', ring, unpack(slots)) or {}
  local b = first
  while b <= last do
    local count = 0
    if b < before[3] then
      count = tonumber(counts[b - first + 1] or 0)
    elseif b == before[3] then
      count = before[4]
    end
    excess = excess - count
    if excess <= 0 then break end
    b = b + 1
  end
  return (b + SLOTS) * length - mono
end

local function take(limit, cost)
  limit[2] = limit[2] + cost
  limit[4] = limit[4] + cost
end

-- Changes what was counted in `bucket`; never below zero, and not what has left the window.
local function correct(ring, limit, bucket, delta)
  if bucket > limit[3] or bucket < limit[3] - BUCKETS then return end
  delta = math.min(delta, MAX - limit[2])
  if bucket == limit[3] then
    delta = math.max(delta, -limit[4])
    limit[4] = limit[4] + delta
  else
    local slot = bucket % SLOTS
    local count = tonumber(redis.call('HGET', ring, slot) or 0)
    delta = math.max(delta, -count)
    if delta == 0 then return end
    redis.call('HSET', ring, slot, text(count + delta))
  end
  limit[2] = limit[2] + delta
end

-- The budget in the window of `wall`; nil when the client's idea of that window does not hold. Windows only move
-- forward, as policy::Budget::advance.
local function in_window(budget, wall, first, last)
  if wall < budget[3] then return budget end
  if not (first <= wall and wall < last) then return nil end
  return {budget[1], math.max(first, budget[3]), last, 0, 0, 0, budget[2], budget[4], budget[5], budget[6]}
end

-- The places of settled, held and overrun in the window that a hold is pinned to.
local function places(budget, start)
  if budget[2] == start then return 4, 5, 6 end
  if budget[7] == start then return 8, 9, 10 end
  return nil
end

local function is_learning(learn, mono) return learn and tonumber(learn) > mono end

-- What learning has found for a budget: {epoch, start, restored, adopted, database, overrun, own by replica, unapplied
-- by replica, base of settled, base of overrun}. The base is what it cost beyond the holds counted here; the highest
-- account wins. docs/decisions/0008-shared-state-in-redis.md
local function rebase(budget, learnt)
  local own, unapplied = 0, 0
  for _, amount in pairs(learnt[7]) do own = add(own, amount) end
  for _, amount in pairs(learnt[8]) do unapplied = add(unapplied, amount) end
  local total = math.max(learnt[3], own, add(learnt[5], unapplied))
  local overrun = math.min(learnt[6], total)
  local settled = math.max(0, total - overrun - learnt[4])
  budget[4] = math.max(0, math.min(MAX, budget[4] + settled - learnt[9]))
  budget[6] = math.max(0, math.min(MAX, budget[6] + overrun - learnt[10]))
  learnt[9], learnt[10] = settled, overrun
end

-- KEYS: m, r:<attempt>, rx, subjects...
-- ARGV: epoch, replica, mono, wall, estimate, tokens, lease, mode (0: ask; 1: adopt what was admitted without this
-- server; 2: and its limits are published already), reserved at (wall, adopt only), then for each subject: concurrency (-1: none), is a provider, budgets,
-- [id, limit, is hard, window start, end], limits, [id, amount, counts tokens, bucket length].
-- Reply: code, wall; DENIED: subject (from 0), 1 for a budget or 2 for limits, retry after (-1: never), for limits
-- 1 where a settlement may make room before that.
local function reserve(keys, args)
  local meta = redis.call('HMGET', keys[1], 'epoch', 'learn')
  local mono, wall = clock(args)
  if meta[1] ~= args[1] then return {NEW_EPOCH, wall} end
  local adopts, is_counted = args[8] ~= '0', args[8] == '2'
  local held = redis.call('GET', keys[2])
  if held == 'T' then return {ENDED, wall} end
  if held then
    if not adopts or cmsgpack.unpack(held)[1] == args[1] then return {DUPLICATE, wall} end
  end
  local estimate, tokens, lease = whole(args[5]), whole(args[6]), whole(args[7])
  if not (estimate and tokens and lease) then return {BAD_ARGUMENTS, wall} end
  local learning = is_learning(meta[2], mono)
  local reserved_at = adopts and whole(args[9]) or wall

  local subjects = {}
  local refusal
  local at = 10
  for i = 4, #keys do
    local key = keys[i]
    local concurrency, starts, budgets = tonumber(args[at]), args[at + 1] == '1', tonumber(args[at + 2])
    at = at + 3
    local fields = {'f', 'p', 'e'}
    local budgets_at = at
    for _ = 1, budgets do
      fields[#fields + 1] = args[at]
      at = at + 5
    end
    local limits = tonumber(args[at])
    at = at + 1
    local limits_at = at
    for _ = 1, limits do
      fields[#fields + 1] = args[at]
      at = at + 4
    end
    if starts then
      fields[#fields + 1] = 'z'
      fields[#fields + 1] = 'y'
    end
    local values = redis.call('HMGET', key, unpack(fields))
    if values[3] ~= args[1] then return {UNDECLARED, wall} end
    local subject = {key = key, in_flight = tonumber(values[1] or 0), paused = tonumber(values[2] or 0),
                     concurrency = concurrency, budgets = {}, limits = {}, place = i - 4, starts = starts}
    local value = 4
    for b = 1, budgets do
      local p = budgets_at + 5 * (b - 1)
      local limit, first, last = whole(args[p + 1]), whole(args[p + 3]), whole(args[p + 4])
      if not (limit and first and last) then return {BAD_ARGUMENTS, wall} end
      if not values[value] then return {UNDECLARED, wall} end
      local budget = in_window(cmsgpack.unpack(values[value]), wall, first, last)
      if not budget then return {OTHER_WINDOW, wall} end
      budget.id = args[p]
      subject.budgets[b] = budget
      value = value + 1
      if args[p + 2] == '1' and not adopts then
        if learning then return {LEARNING, wall, tonumber(meta[2]) - mono} end
        if not refusal and estimate > limit - budget[4] - budget[5] - budget[6] then
          refusal = {DENIED, wall, i - 4, 1, estimate > limit and -1 or budget[3] - wall}
        end
      end
    end
    for l = 1, limits do
      local p = limits_at + 4 * (l - 1)
      local amount, length = whole(args[p + 1]), whole(args[p + 3])
      if not (amount and length and length > 0) then return {BAD_ARGUMENTS, wall} end
      if not values[value] then return {UNDECLARED, wall} end
      local before = cmsgpack.unpack(values[value])
      local ring = key .. '#' .. args[p]
      local limit = advanced(ring, before, math.floor(mono / length))
      limit.id, limit.ring, limit.before, limit.amount, limit.length = args[p], ring, before, amount, length
      limit.tokens = args[p + 2] == '1'
      limit.cost = is_counted and 0 or limit.tokens and tokens or 1
      subject.limits[l] = limit
      value = value + 1
    end
    if starts then
      local before = values[value] and cmsgpack.unpack(values[value]) or {0, 0, 0, 0}
      local limit = advanced(key .. '#z', before, math.floor(mono / STARTS_BUCKET))
      limit.id, limit.ring, limit.cost = 'z', key .. '#z', 1
      subject.limits[limits + 1] = limit
      local day = math.floor(wall / DAY)
      local today = values[value + 1] and cmsgpack.unpack(values[value + 1]) or {day, 0}
      subject.today = {day, today[1] == day and today[2] + 1 or 1}
    end
    subjects[#subjects + 1] = subject
  end
  if refusal then return refusal end

  if not adopts then
    -- The longest wait of what no settlement opens, else of the others, as MemoryState::refusal_of.
    local longest, place, early = 0, 0, 1
    local function wait_longer(subject, wait, opens_early)
      if wait <= 0 then return end
      local its_early = opens_early and wait < math.huge and 1 or 0
      if its_early < early or (its_early == early and wait > longest) then
        longest, place, early = wait, subject.place, its_early
      end
    end
    for _, subject in ipairs(subjects) do
      wait_longer(subject, subject.paused - mono, false)
      if subject.concurrency >= 0 and subject.in_flight >= subject.concurrency then
        wait_longer(subject, CONCURRENCY_WAIT, true)
      end
      for _, limit in ipairs(subject.limits) do
        if limit.amount then
          wait_longer(subject, wait_for(limit.ring, limit.before, limit, limit.amount, limit.cost, limit.length, mono),
                      limit.tokens and subject.in_flight > 0)
        end
      end
    end
    if longest > 0 then return {DENIED, wall, place, 2, longest == math.huge and -1 or longest, early} end
  end

  local hold = {args[1], estimate, tokens, 0, #subjects}
  for _, subject in ipairs(subjects) do
    local key = subject.key
    local writes = {'f', subject.in_flight + 1}
    hold[#hold + 1] = key
    local pins = #hold + 1
    hold[pins] = 0
    for _, budget in ipairs(subject.budgets) do
      -- What was admitted before this window began is not this window's.
      if reserved_at >= budget[2] then
        budget[5] = add(budget[5], estimate)
        hold[pins] = hold[pins] + 1
        hold[#hold + 1], hold[#hold + 2], hold[#hold + 3] = budget.id, budget[1], budget[2]
        if adopts then
          local found = redis.call('HGET', key, budget.id .. '+')
          local learnt = found and cmsgpack.unpack(found)
          if learnt and learnt[1] == args[1] and learnt[2] == budget[2] then
            learnt[4] = add(learnt[4], estimate)
            rebase(budget, learnt)
            writes[#writes + 1], writes[#writes + 2] = budget.id .. '+', cmsgpack.pack(learnt)
          end
        end
        writes[#writes + 1], writes[#writes + 2] = budget.id, cmsgpack.pack(budget)
      end
    end
    local tickets = #hold + 1
    hold[tickets] = 0
    for _, limit in ipairs(subject.limits) do
      apply(limit.ring, limit)
      limit[2], limit[4] = add(limit[2], limit.cost), add(limit[4], limit.cost)
      writes[#writes + 1], writes[#writes + 2] = limit.id, cmsgpack.pack({limit[1], limit[2], limit[3], limit[4]})
      if limit.tokens then
        hold[tickets] = hold[tickets] + 1
        hold[#hold + 1], hold[#hold + 2] = limit.id, limit[1]
        hold[#hold + 1], hold[#hold + 2] = limit[3], limit.length
      end
    end
    if subject.today then writes[#writes + 1], writes[#writes + 2] = 'y', cmsgpack.pack(subject.today) end
    redis.call('HSET', key, unpack(writes))
  end
  redis.call('SET', keys[2], cmsgpack.pack(hold))
  redis.call('ZADD', keys[3], text(mono + lease), keys[2])
  return {OK, wall}
end

-- Ends an open hold, or corrects an expired one: `charge` is what it cost (nil: it expires, charged at its estimate),
-- `used` its tokens (-1: as estimated). Returns the worst overrun and its subject's place.
local function finish(hold, mono, charge, used)
  local estimate, tokens, expired = hold[2], hold[3], hold[4] == 1
  local overrun = charge and math.max(0, charge - estimate) or 0
  local counted = math.min(charge or estimate, estimate)
  local worst, worst_place = 0, 0
  local at = 6
  for place = 1, hold[5] do
    local key = hold[at]
    local pins = hold[at + 1]
    at = at + 2
    local pins_at = at
    local fields = {'f', 'x'}
    for _ = 1, pins do
      fields[#fields + 1] = hold[at]
      at = at + 3
    end
    local tickets = hold[at]
    at = at + 1
    local tickets_at = at
    for _ = 1, tickets do
      fields[#fields + 1] = hold[at]
      at = at + 4
    end
    local values = redis.call('HMGET', key, unpack(fields))
    if values[1] then
      local in_flight, kept = tonumber(values[1]), tonumber(values[2] or 0)
      local writes
      if expired then
        writes = {'x', math.max(0, kept - 1)}
      elseif charge then
        writes = {'f', math.max(0, in_flight - 1)}
      else
        writes = {'f', math.max(0, in_flight - 1), 'x', kept + 1}
      end
      for b = 1, pins do
        local p = pins_at + 3 * (b - 1)
        local budget = values[2 + b] and cmsgpack.unpack(values[2 + b])
        if budget and budget[1] == hold[p + 1] then
          local settled, held, over = places(budget, hold[p + 2])
          if settled then
            if expired then
              budget[settled] = math.max(0, budget[settled] - (estimate - counted))
            else
              budget[held] = math.max(0, budget[held] - estimate)
              budget[settled] = add(budget[settled], counted)
            end
            budget[over] = add(budget[over], overrun)
            writes[#writes + 1], writes[#writes + 2] = hold[p], cmsgpack.pack(budget)
          end
          if overrun > worst then worst, worst_place = overrun, place - 1 end
        end
      end
      for t = 1, tickets do
        local p = tickets_at + 4 * (t - 1)
        local before = values[2 + pins + t] and cmsgpack.unpack(values[2 + pins + t])
        if before and before[1] == hold[p + 1] and charge and not expired and used >= 0 and used ~= tokens then
          local ring = key .. '#' .. hold[p]
          local limit = advanced(ring, before, math.floor(mono / hold[p + 3]))
          apply(ring, limit)
          correct(ring, limit, hold[p + 2], used - tokens)
          writes[#writes + 1], writes[#writes + 2] = hold[p], cmsgpack.pack({limit[1], limit[2], limit[3], limit[4]})
        end
      end
      redis.call('HSET', key, unpack(writes))
    end
  end
  return worst, worst_place
end

-- KEYS: m, r:<attempt>, rx, xx. ARGV: epoch, replica, mono, wall, ending (0 actual, 1 estimate, 2 released), cost,
-- tokens (-1: as estimated). Reply: code, wall, overrun, its subject's place in the reservation.
local function settle(keys, args)
  local mono, wall = clock(args)
  local cost, used = whole(args[6]), args[7] == '-1' and -1 or whole(args[7])
  if not (cost and used) then return {BAD_ARGUMENTS, wall} end
  local held = redis.call('GET', keys[2])
  if not held then
    -- Given up before it came: should it come later, it must not hold anything.
    if args[5] == '2' then redis.call('SET', keys[2], 'T', 'PX', TOMBSTONE_MS) end
    return {UNKNOWN, wall}
  end
  if held == 'T' then return {DUPLICATE, wall} end
  local hold = cmsgpack.unpack(held)
  redis.call('DEL', keys[2])
  redis.call('ZREM', hold[4] == 1 and keys[4] or keys[3], keys[2])
  if hold[1] ~= redis.call('HGET', keys[1], 'epoch') then return {UNKNOWN, wall} end
  local charge = args[5] == '0' and cost or args[5] == '1' and hold[2] or 0
  if args[5] == '2' then used = 0 end
  local overrun, place = finish(hold, mono, charge, used)
  return {OK, wall, overrun, place}
end

-- Charges what has outlived its lease. KEYS: m, rx, xx. ARGV: epoch, replica, mono, wall, how many at most.
-- Reply: code, wall, whether there is more, r: keys of the expired.
local function reap(keys, args)
  local mono, wall = clock(args)
  local most = tonumber(args[5])
  local epoch = redis.call('HGET', keys[1], 'epoch')
  local due = redis.call('ZRANGEBYSCORE', keys[2], '-inf', text(mono), 'LIMIT', 0, most)
  local reply = {OK, wall, #due == most and 1 or 0}
  for _, key in ipairs(due) do
    redis.call('ZREM', keys[2], key)
    local held = redis.call('GET', key)
    if held and held ~= 'T' then
      local hold = cmsgpack.unpack(held)
      if hold[1] == epoch then
        finish(hold, mono, nil, -1)
        hold[4] = 1
        redis.call('SET', key, cmsgpack.pack(hold))
        redis.call('ZADD', keys[3], text(mono), key)
        reply[#reply + 1] = key
      else
        redis.call('DEL', key) -- its amount is in what was restored
      end
    end
  end
  -- Nobody will settle these any more.
  local old = redis.call('ZRANGEBYSCORE', keys[3], '-inf', '(' .. text(mono - EXPIRED_KEPT), 'LIMIT', 0, most)
  local surplus = redis.call('ZCARD', keys[3]) - MOST_EXPIRED
  if #old == 0 and surplus > 0 then old = redis.call('ZRANGE', keys[3], 0, math.min(surplus, most) - 1) end
  if #old == most then reply[3] = 1 end
  for _, key in ipairs(old) do
    local hold = cmsgpack.unpack(redis.call('GET', key))
    local at = 6
    for _ = 1, hold[5] do
      local subject = hold[at]
      at = at + 2 + 3 * hold[at + 1]
      at = at + 1 + 4 * hold[at]
      if redis.call('EXISTS', subject) == 1 and hold[1] == epoch then redis.call('HINCRBY', subject, 'x', -1) end
    end
    redis.call('DEL', key)
    redis.call('ZREM', keys[3], key)
  end
  return reply
end

-- Whether another replica declares `id` ('' for the subject itself).
local function is_elsewhere(base, replica, subject, id)
  for _, other in ipairs(redis.call('ZRANGE', base .. 'replicas', 0, -1)) do
    if other ~= replica then
      local declared = redis.call('HGET', base .. 'i:' .. other, subject)
      if declared and (id == '' or string.find(declared, ' ' .. id .. ' ', 1, true)) then return true end
    end
  end
  return false
end

local function forget_id(subject, id)
  redis.call('HDEL', subject, id, id .. '+')
  redis.call('DEL', subject .. '#' .. id)
end

-- Makes a subject's budgets and limits, or raises them to what this replica knows. Idempotent; the order of replicas
-- does not matter.
-- KEYS: m, subject, i:<replica>. ARGV: epoch, replica, mono, wall, the ids as " d m c60000000 ", budgets, [id, window
-- start, end, database (settled and overrun), its overrun, unapplied, own], limits, [id, bucket length, own (0 but in a
-- new epoch), starts, [age, count]].
local function publish(keys, args)
  local meta = redis.call('HMGET', keys[1], 'epoch', 'learn')
  local mono, wall = clock(args)
  if meta[1] ~= args[1] then return {NEW_EPOCH, wall} end
  local learning = is_learning(meta[2], mono)
  local subject, replica = keys[2], args[2]
  local base = string.sub(keys[1], 1, -2)

  local before = redis.call('HGET', keys[3], subject)
  if before then
    for id in string.gmatch(before, '%S+') do
      if not string.find(args[5], ' ' .. id .. ' ', 1, true) and not is_elsewhere(base, replica, subject, id) then
        forget_id(subject, id)
      end
    end
  end

  local at = 6
  local writes = {'e', args[1]}
  if redis.call('HGET', subject, 'e') ~= args[1] then writes = {'e', args[1], 'f', 0, 'x', 0} end

  local count = tonumber(args[at])
  at = at + 1
  for _ = 1, count do
    local id, first, last = args[at], whole(args[at + 1]), whole(args[at + 2])
    local database, overrun = whole(args[at + 3]), whole(args[at + 4])
    local unapplied, own = whole(args[at + 5]), whole(args[at + 6])
    at = at + 7
    if not (first and last and database and overrun and unapplied and own) then return {BAD_ARGUMENTS, wall} end
    local found = redis.call('HMGET', subject, id, id .. '+')
    local budget = found[1] and cmsgpack.unpack(found[1])
    local learnt = found[2] and cmsgpack.unpack(found[2])
    if budget then
      budget = in_window(budget, wall, first, last)
      if not budget then return {OTHER_WINDOW, wall} end
    elseif first <= wall and wall < last then
      budget = {redis.call('HINCRBY', keys[1], 'gen', 1), first, last, 0, 0, 0, 0, 0, 0, 0}
      learnt = nil
    else
      return {OTHER_WINDOW, wall}
    end
    if not learnt or learnt[1] ~= args[1] then
      -- What a restored server says is one account among others; its holds are no longer known to be open.
      local restored = add(add(budget[4], budget[5]), budget[6])
      budget[4], budget[5], budget[6] = 0, 0, 0
      learnt = {args[1], budget[2], restored, 0, 0, 0, {}, {}, 0, 0}
    end
    if learnt and learnt[1] == args[1] and learnt[2] == budget[2] and (learning or not found[1]) then
      learnt[5], learnt[6] = math.max(learnt[5], database), math.max(learnt[6], overrun)
      learnt[7][replica] = math.max(learnt[7][replica] or 0, own)
      learnt[8][replica] = math.max(learnt[8][replica] or 0, unapplied)
      rebase(budget, learnt)
      writes[#writes + 1], writes[#writes + 2] = id .. '+', cmsgpack.pack(learnt)
    else
      -- It counts already: the higher spend wins.
      local missing = add(database, unapplied) - budget[4] - budget[5] - budget[6]
      if missing > 0 then budget[4] = add(budget[4], missing) end
    end
    writes[#writes + 1], writes[#writes + 2] = id, cmsgpack.pack(budget)
  end

  count = tonumber(args[at])
  at = at + 1
  for _ = 1, count do
    local id, length, own, starts = args[at], whole(args[at + 1]), whole(args[at + 2]), tonumber(args[at + 3])
    at = at + 4
    if not (length and own and starts) then return {BAD_ARGUMENTS, wall} end
    local ring = subject .. '#' .. id
    local found = redis.call('HMGET', subject, id, id .. '+')
    local limit, learnt
    if found[1] then
      limit = advanced(ring, cmsgpack.unpack(found[1]), math.floor(mono / length))
      apply(ring, limit)
      learnt = found[2] and cmsgpack.unpack(found[2])
    else
      redis.call('DEL', ring)
      limit = {redis.call('HINCRBY', keys[1], 'gen', 1), 0, 0, 0}
      for s = 0, starts - 1 do
        local age, past = whole(args[at + 2 * s]), whole(args[at + 2 * s + 1])
        limit = advanced(ring, limit, math.floor(math.max(0, mono - age) / length))
        apply(ring, limit)
        past = math.min(past, MAX - limit[2])
        take(limit, past)
      end
    end
    at = at + 2 * starts
    -- Starts that this replica made and the server has lost count as of now: the safe side.
    if not learnt or learnt[1] ~= args[1] then
      learnt = {args[1], limit[2], 0, {}}
    end
    learnt[4][replica] = math.max(learnt[4][replica] or 0, own)
    local all = 0
    for _, amount in pairs(learnt[4]) do all = add(all, amount) end
    local lost = math.max(0, all - learnt[2]) - learnt[3]
    if lost > 0 then
      limit = advanced(ring, limit, math.floor(mono / length))
      apply(ring, limit)
      take(limit, math.min(lost, MAX - limit[2]))
      learnt[3] = learnt[3] + lost
    end
    writes[#writes + 1], writes[#writes + 2] = id, cmsgpack.pack({limit[1], limit[2], limit[3], limit[4]})
    writes[#writes + 1], writes[#writes + 2] = id .. '+', cmsgpack.pack(learnt)
  end
  redis.call('HSET', subject, unpack(writes))
  redis.call('HSET', keys[3], subject, args[5])
  return {OK, wall}
end

-- This replica no longer has the subject. KEYS: m, subject, i:<replica>.
local function undeclare(keys, args)
  local _, wall = clock(args)
  local base = string.sub(keys[1], 1, -2)
  local ids = redis.call('HGET', keys[3], keys[2])
  redis.call('HDEL', keys[3], keys[2])
  if ids and not is_elsewhere(base, args[2], keys[2], '') then
    for id in string.gmatch(ids, '%S+') do redis.call('DEL', keys[2] .. '#' .. id) end
    redis.call('DEL', keys[2], keys[2] .. '#z')
  elseif ids then
    for id in string.gmatch(ids, '%S+') do
      if not is_elsewhere(base, args[2], keys[2], id) then forget_id(keys[2], id) end
    end
  end
  return {OK, wall}
end

-- First of all on a new connection. A server that was restarted or failed over has another run_id, whatever it
-- remembers: a new epoch begins, in which hard budgets wait until its members have published what they know, or until
-- the longest lease has passed. KEYS: m. ARGV: epoch, replica, mono, wall, run_id, longest lease, grace, members.
local function attach(keys, args)
  local mono, wall = clock(args)
  local base = string.sub(keys[1], 1, -2)
  local meta = redis.call('HMGET', keys[1], 'epoch', 'run', 'learn')
  local epoch = meta[1]
  if not epoch or meta[2] ~= args[5] then
    epoch = text(wall) .. '-' .. args[2]
    meta[3] = text(mono + tonumber(args[6]))
    redis.call('HSET', keys[1], 'epoch', epoch, 'run', args[5], 'learn', meta[3], 'grace', text(mono + tonumber(args[7])))
    redis.call('DEL', base .. 'pending', base .. 'published')
    for _, member in ipairs(redis.call('ZRANGE', base .. 'replicas', 0, -1)) do redis.call('SADD', base .. 'pending', member) end
  end
  local learning = is_learning(meta[3], mono)
  if learning then
    for i = 8, #args do
      if redis.call('SISMEMBER', base .. 'published', args[i]) == 0 then redis.call('SADD', base .. 'pending', args[i]) end
    end
  end
  redis.call('ZADD', base .. 'replicas', text(wall), args[2])
  return {OK, wall, epoch, learning and 1 or 0}
end

local function end_learning(base, meta_key, mono)
  if redis.call('SCARD', base .. 'pending') > 0 then return end
  local meta = redis.call('HMGET', meta_key, 'learn', 'grace')
  if not is_learning(meta[1], mono) then return end
  redis.call('HSET', meta_key, 'learn', is_learning(meta[2], mono) and meta[2] or '0')
end

-- This replica has published all it knows. KEYS: m. ARGV: epoch, replica, mono, wall.
local function published(keys, args)
  local mono, wall = clock(args)
  if redis.call('HGET', keys[1], 'epoch') ~= args[1] then return {NEW_EPOCH, wall} end
  local base = string.sub(keys[1], 1, -2)
  redis.call('SADD', base .. 'published', args[2])
  redis.call('SREM', base .. 'pending', args[2])
  end_learning(base, keys[1], mono)
  return {OK, wall}
end

-- About once a second. KEYS: m. ARGV: epoch, replica, mono, wall.
-- Reply: code, wall, whether it was known, microseconds of learning left, how many replicas live, names of the known.
local function beat(keys, args)
  local mono, wall = clock(args)
  local meta = redis.call('HMGET', keys[1], 'epoch', 'learn')
  if meta[1] ~= args[1] then return {NEW_EPOCH, wall} end
  local base = string.sub(keys[1], 1, -2)
  local replicas = base .. 'replicas'
  local known = redis.call('ZSCORE', replicas, args[2]) and 1 or 0
  redis.call('ZADD', replicas, text(wall), args[2])
  for _, lost in ipairs(redis.call('ZRANGEBYSCORE', replicas, '-inf', text(wall - REPLICA_KNOWN))) do
    redis.call('ZREM', replicas, lost)
    redis.call('DEL', base .. 'i:' .. lost)
  end
  local reply = {OK, wall, known, is_learning(meta[2], mono) and tonumber(meta[2]) - mono or 0,
                 redis.call('ZCOUNT', replicas, text(wall - REPLICA_LIVE), '+inf')}
  for _, name in ipairs(redis.call('ZRANGE', replicas, 0, -1)) do reply[#reply + 1] = name end
  return reply
end

-- An orderly end. KEYS: m. ARGV: epoch, replica, mono, wall.
local function leave(keys, args)
  local mono, wall = clock(args)
  local base = string.sub(keys[1], 1, -2)
  redis.call('ZREM', base .. 'replicas', args[2])
  redis.call('SREM', base .. 'pending', args[2])
  redis.call('DEL', base .. 'i:' .. args[2])
  end_learning(base, keys[1], mono)
  return {OK, wall}
end

-- A provider said when to come back; never shortens. KEYS: m, subject. ARGV: epoch, replica, mono, wall, until.
local function pause(keys, args)
  local _, wall = clock(args)
  local before = tonumber(redis.call('HGET', keys[2], 'p') or 0)
  local till = whole(args[5])
  if till and till > before and redis.call('EXISTS', keys[2]) == 1 then redis.call('HSET', keys[2], 'p', text(till)) end
  return {OK, wall}
end

-- KEYS: m, subject. ARGV: epoch, replica, mono, wall, budgets, [id], limits, [id, bucket length].
-- Reply: code, wall, in flight, starts in the last minute and today, then for each budget start (-1: none), end,
-- settled, held, overrun, and for each limit its sum.
local function view(keys, args)
  local mono, wall = clock(args)
  local subject = keys[2]
  local fields = {'f', 'z', 'y'}
  local at = 6
  local budgets = tonumber(args[5])
  for _ = 1, budgets do
    fields[#fields + 1] = args[at]
    at = at + 1
  end
  local limits = tonumber(args[at])
  at = at + 1
  for l = 0, limits - 1 do fields[#fields + 1] = args[at + 2 * l] end
  local values = redis.call('HMGET', subject, unpack(fields))
  local starts, today = 0, 0
  if values[2] then
    starts = advanced(subject .. '#z', cmsgpack.unpack(values[2]), math.floor(mono / STARTS_BUCKET))[2]
  end
  if values[3] then
    local counted = cmsgpack.unpack(values[3])
    if counted[1] == math.floor(wall / DAY) then today = counted[2] end
  end
  local reply = {OK, wall, tonumber(values[1] or 0), starts, today}
  for b = 1, budgets do
    local budget = values[3 + b] and cmsgpack.unpack(values[3 + b]) or {0, -1, 0, 0, 0, 0}
    for i = 2, 6 do reply[#reply + 1] = budget[i] end
  end
  for l = 1, limits do
    local found = values[3 + budgets + l]
    local sum = 0
    if found then
      local p = at + 2 * (l - 1)
      sum = advanced(subject .. '#' .. args[p], cmsgpack.unpack(found), math.floor(mono / tonumber(args[p + 1])))[2]
    end
    reply[#reply + 1] = sum
  end
  return reply
end

local function register(name, callback, flags)
  redis.register_function{function_name = '@LIBRARY@_' .. name, callback = callback, flags = flags}
end
register('reserve', reserve, {})
register('settle', settle, {'allow-oom'}) -- frees more than it takes
register('reap', reap, {'allow-oom'})
register('publish', publish, {})
register('undeclare', undeclare, {'allow-oom'})
register('attach', attach, {})
register('published', published, {})
register('beat', beat, {})
register('leave', leave, {'allow-oom'})
register('pause', pause, {})
register('view', view, {'no-writes'})
