/**
 * Writes a sidecar's row and what it acknowledges, and forgets a few of those that are long gone: one command, so one
 * round trip and one place that knows the time. KEYS: sidecars, seen, live, acks. ARGV: instance, row, live tasks or
 * empty for unchanged, acknowledgements or empty, milliseconds after which a row is forgotten, most rows.
 * Returns the server's time in milliseconds.
 */
export const writePresenceScript = `
local time = redis.call('TIME')
local now = string.format('%d%03d', time[1], math.floor(time[2] / 1000))
local oldest = string.format('%.0f', tonumber(now) - tonumber(ARGV[5]))
local gone = redis.call('ZRANGEBYSCORE', KEYS[2], '-inf', '(' .. oldest, 'LIMIT', 0, 16)
for _, instance in ipairs(gone) do
  redis.call('HDEL', KEYS[1], instance)
  redis.call('HDEL', KEYS[3], instance)
  redis.call('ZREM', KEYS[2], instance)
end
local known = redis.call('ZSCORE', KEYS[2], ARGV[1])
if not known and redis.call('ZCARD', KEYS[2]) >= tonumber(ARGV[6]) then
  return redis.error_reply('TOOMANY sidecars')
end
redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])
redis.call('ZADD', KEYS[2], now, ARGV[1])
if ARGV[3] ~= '' then redis.call('HSET', KEYS[3], ARGV[1], ARGV[3]) end
if ARGV[4] ~= '' then
  redis.call('XADD', KEYS[4], 'MAXLEN', '~', '10000', '*', 'i', ARGV[1], 'a', ARGV[4])
end
return now
`

/** Takes a row away. KEYS: sidecars, seen, live. ARGV: instance. */
export const leavePresenceScript = `
redis.call('HDEL', KEYS[1], ARGV[1])
redis.call('HDEL', KEYS[3], ARGV[1])
return redis.call('ZREM', KEYS[2], ARGV[1])
`

/**
 * One look at the store and at every sidecar that is not forgotten. KEYS: sidecars, seen, live, head, records. ARGV:
 * milliseconds after which a row is forgotten, `1` to read the live tasks too. Returns [server time, head, number of
 * records, then instance, last seen, row and live tasks of each].
 */
export const readPresenceScript = `
local time = redis.call('TIME')
local now = string.format('%d%03d', time[1], math.floor(time[2] / 1000))
local oldest = string.format('%.0f', tonumber(now) - tonumber(ARGV[1]))
local found = { now, redis.call('GET', KEYS[4]) or '', tostring(redis.call('HLEN', KEYS[5])) }
local seen = redis.call('ZRANGEBYSCORE', KEYS[2], oldest, '+inf', 'WITHSCORES')
for at = 1, #seen, 2 do
  local live = ARGV[2] == '1' and redis.call('HGET', KEYS[3], seen[at])
  found[#found + 1] = seen[at]
  found[#found + 1] = seen[at + 1]
  found[#found + 1] = redis.call('HGET', KEYS[1], seen[at]) or ''
  found[#found + 1] = live or ''
end
return found
`
