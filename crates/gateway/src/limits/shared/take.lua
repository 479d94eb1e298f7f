-- Takes from all buckets of a call, or from none; one round trip.
--
-- A process states totals: "of this bucket I have taken T since I began". What is recorded for it
-- is replaced by T, so that a statement that is repeated changes nothing, and one with an earlier
-- number than the recorded one is ignored.
--
-- KEYS: the epoch, then the buckets. ARGV: the epoch that the process knows (0 of none), then 12 for
-- each bucket, in this order:
--   kind      rate | budget | slots
--   field     the process and its ledger
--   seq       the number of the statement
--   keep      the total that stands whatever comes of it
--   want      the total that is asked for; `keep` where nothing is
--   more      what others wait for in that process
--   chunk     what it would like to have in advance
--   base      rate: the total that was last acknowledged
--   limit     rate: microseconds of burst; else units
--   ahead     rate: microseconds until the bucket was empty again, when that was last acknowledged
--   epoch     in which that was
--   ttl       milliseconds to keep the key; of a rate beyond the moment when it is empty
--
-- Returns 1 or 0, microseconds since 1970, the epoch, and 4 for each bucket: 0 (as asked), 1 (no
-- room) or 2 (an old statement); the recorded total; what is used of the limit; what is missing.
-- Nothing is given to a process that knows another epoch: the data it knew are lost, and others have
-- to say first what they had.
--
-- Lua's numbers are doubles: all of them stay below 2^53, and none is turned into text but by
-- "%.0f". Rates are counted in microseconds in which they come back.
local FIELDS = 12
local EPOCH_MS = 3024000000 -- 35 days: longer than any bucket
local SLOT_MS = 30000 -- slots of a process that says no more come back after this
local QUIET_S = 3600 -- what a process said of a rate is forgotten after this, if there are many

local function text(number)
  return string.format('%.0f', number)
end

local clock = redis.call('TIME')
local now = clock[1] * 1000000 + clock[2]
local now_ms, now_s = math.floor(now / 1000), clock[1] + 0

local epoch = redis.call('GET', KEYS[1])
if not epoch then
  epoch = text(now)
  redis.call('SET', KEYS[1], epoch, 'PX', EPOCH_MS)
end

-- What was recorded for a ledger: total, number of the statement, and when.
local function recorded(value)
  if not value then
    return nil
  end
  local total, seq, at = string.match(value, '^(%d+) (%d+) (%d+)$')
  return tonumber(total), tonumber(seq), tonumber(at)
end

local known = ARGV[1]
local buckets, all = {}, known == '0' or known == epoch
for i = 2, #KEYS do
  local at = 1 + (i - 2) * FIELDS
  local b = { key = KEYS[i], kind = ARGV[at + 1], field = ARGV[at + 2], gone = {} }
  for n, name in ipairs({ 'seq', 'keep', 'want', 'more', 'chunk', 'base', 'limit', 'ahead' }) do
    b[name] = tonumber(ARGV[at + 2 + n])
  end
  b.ttl = tonumber(ARGV[at + 12])
  local total, seq
  if b.kind == 'slots' then
    -- `others` is what is used but by this ledger; used(T) = others + T, at least 0.
    b.others = 0
    local held = redis.call('HGETALL', b.key)
    for n = 1, #held, 2 do
      local count, number, expires = recorded(held[n + 1])
      if held[n] == b.field then
        total, seq = count, number
      elseif not expires or expires <= now_ms then
        b.gone[#b.gone + 1] = held[n]
      else
        b.others = b.others + count
      end
    end
  else
    total, seq = recorded(redis.call('HGET', b.key, b.field))
    if b.kind == 'budget' then
      b.others = tonumber(redis.call('HGET', b.key, 'sum') or 0) - (total or 0)
    else
      local arrival = tonumber(redis.call('HGET', b.key, 'arrival') or nil)
      local ahead = math.max((arrival or 0) - now, 0)
      -- What the process knew when it was last told, where that is lost.
      if not arrival or epoch ~= ARGV[at + 11] then
        ahead = math.max(ahead, b.ahead)
      end
      b.others = ahead - (total or b.base)
    end
  end
  local function used(of)
    return math.max(b.others + of, 0)
  end
  b.used, b.status, b.missing, b.extra = used, 0, 0, 0
  if seq and b.seq <= seq then
    b.status, b.total, all = 2, total, false
  elseif b.want > b.keep then
    b.missing = used(b.want) - b.limit
    if b.missing > 0 then
      b.status, all = 1, false
    else
      b.missing = 0
      -- Who waits gets what there is; what nobody waits for, a sixteenth of the rest at most.
      local room = b.limit - used(b.want)
      local more = math.min(b.more, room)
      b.extra = more + math.min(b.chunk, math.floor((room - more) / 16))
    end
  end
  buckets[#buckets + 1] = b
end

local answer = { all and 1 or 0, now, tonumber(epoch) }
for _, b in ipairs(buckets) do
  if b.status ~= 2 then
    b.total = all and b.want + b.extra or b.keep
    local stamp, ttl = now_s, b.ttl
    if b.kind == 'budget' then
      redis.call('HSET', b.key, 'sum', text(b.others + b.total))
    elseif b.kind == 'rate' then
      local ahead = b.used(b.total)
      redis.call('HSET', b.key, 'arrival', text(now + ahead))
      ttl = ttl + math.ceil(ahead / 1000)
      if redis.call('HLEN', b.key) > 128 then
        local said = redis.call('HGETALL', b.key)
        for n = 1, #said, 2 do
          local _, _, last = recorded(said[n + 1])
          if last and last < now_s - QUIET_S then
            redis.call('HDEL', b.key, said[n])
          end
        end
      end
    else
      stamp = now_ms + SLOT_MS
      for _, field in ipairs(b.gone) do
        redis.call('HDEL', b.key, field)
      end
    end
    redis.call('HSET', b.key, b.field, text(b.total) .. ' ' .. text(b.seq) .. ' ' .. text(stamp))
    redis.call('PEXPIRE', b.key, text(ttl))
  end
  for _, number in ipairs({ b.status, b.total, b.used(b.total), b.missing }) do
    answer[#answer + 1] = number
  end
end
return answer
