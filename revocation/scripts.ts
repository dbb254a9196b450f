/**
 * Commits one record: log entry, record, expiry, head and push, all or nothing.
 * KEYS: head, log, records, expiry, channel. ARGV: rid, draft as JSON text, expiry in epoch milliseconds.
 * Returns [head after the commit, server time of the record in milliseconds].
 *
 * The draft is embedded as the bytes that came, never decoded and written again. The stream entry comes first: it is
 * the one write that can fail, and Redis does not undo the writes before a failure. A log without a head is a history
 * that nobody can link to, so it goes.
 */
export const commitScript = `
local known = redis.call('HGET', KEYS[3], ARGV[1])
local head = redis.call('GET', KEYS[1])
if known and head then
  local tail = ',"record":' .. ARGV[2] .. '}'
  if string.sub(known, -#tail) ~= tail then
    return redis.error_reply('RIDCONFLICT the rid names another record')
  end
  return { head, string.match(known, '"atMs":(%d+)') }
end
local n, h = 0, '0'
if head then
  local digits, link = string.match(head, '^(%d+):(%x+)$')
  if not digits then return redis.error_reply('BADHEAD the head is not readable') end
  n, h = tonumber(digits), link
else
  redis.call('DEL', KEYS[2])
end
local time = redis.call('TIME')
local at = string.format('%d%03d', time[1], math.floor(time[2] / 1000))
n = n + 1
local id = string.format('%d', n)
local entry = '{"n":' .. id .. ',"atMs":' .. at .. ',"record":' .. ARGV[2] .. '}'
local link = redis.sha1hex(h .. entry)
redis.call('XADD', KEYS[2], 'MAXLEN', '~', '100000', id .. '-0', 'p', h, 'h', link, 'e', entry)
redis.call('HSET', KEYS[3], ARGV[1], entry)
if ARGV[3] ~= '0' then redis.call('ZADD', KEYS[4], ARGV[3], ARGV[1]) end
redis.call('SET', KEYS[1], id .. ':' .. link)
local gone = redis.call('ZRANGEBYSCORE', KEYS[4], '-inf', tonumber(at) - 3600000, 'LIMIT', 0, 16)
for _, rid in ipairs(gone) do
  redis.call('HDEL', KEYS[3], rid)
  redis.call('ZREM', KEYS[4], rid)
end
redis.call('PUBLISH', KEYS[5], entry)
return { id .. ':' .. link, at }
`
