-- Says that a process is alive and has said all it has to say, and counts those that have.
--
-- KEYS: the epoch, the processes. ARGV: this process, or nothing to only look; the epoch that it knows
-- (0 of none): in another one it has to say everything again first. Returns microseconds since 1970, the epoch,
-- and how many processes have said so in the last 15 seconds.
local clock = redis.call('TIME')
local now = clock[1] * 1000000 + clock[2]
local now_ms = math.floor(now / 1000)
local epoch = redis.call('GET', KEYS[1])
if not epoch then
  epoch = string.format('%.0f', now)
end
redis.call('SET', KEYS[1], epoch, 'PX', 3024000000)
if ARGV[1] ~= '' and (ARGV[2] == '0' or ARGV[2] == epoch) then
  redis.call('ZADD', KEYS[2], string.format('%.0f', now_ms), ARGV[1])
end
redis.call('ZREMRANGEBYSCORE', KEYS[2], '-inf', string.format('%.0f', now_ms - 15000))
redis.call('PEXPIRE', KEYS[2], 60000)
return { now, tonumber(epoch), redis.call('ZCARD', KEYS[2]) }
