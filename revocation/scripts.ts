/**
 * What both scripts share. The draft is embedded as the bytes that came, never decoded and written again. The stream
 * entry comes first: it is the one write that can fail, and Redis does not undo the writes before a failure. A log
 * without a head is a history that nobody can link to, so it goes.
 */
const append = `
local function readHead()
  local head = redis.call('GET', KEYS[1])
  if not head then return 0, '0' end
  local digits, link = string.match(head, '^(%d+):(%x+)$')
  if not digits then return nil end
  return tonumber(digits), link
end
local function append(n, h, rid, body, expiry)
  if n == 0 then redis.call('DEL', KEYS[2]) end
  local time = redis.call('TIME')
  local at = string.format('%d%03d', time[1], math.floor(time[2] / 1000))
  local id = string.format('%d', n + 1)
  local entry = '{"n":' .. id .. ',"atMs":' .. at .. ',"record":' .. body .. '}'
  local link = redis.sha1hex(h .. entry)
  redis.call('XADD', KEYS[2], 'MAXLEN', '~', '100000', id .. '-0', 'p', h, 'h', link, 'e', entry)
  redis.call('HSET', KEYS[3], rid, entry)
  if expiry ~= '0' then redis.call('ZADD', KEYS[4], expiry, rid) end
  redis.call('SET', KEYS[1], id .. ':' .. link)
  local gone = redis.call('ZRANGEBYSCORE', KEYS[4], '-inf', tonumber(at) - 3600000, 'LIMIT', 0, 16)
  for _, old in ipairs(gone) do
    redis.call('HDEL', KEYS[3], old)
    redis.call('ZREM', KEYS[4], old)
  end
  redis.call('PUBLISH', KEYS[5], entry)
  return id .. ':' .. link, at
end
`

/**
 * Commits one record or lift: log entry, record, expiry, head and push, all or nothing.
 * KEYS: head, log, records, expiry, channel, and for a lift absorbed. ARGV: rid, body as JSON text, expiry in epoch
 * milliseconds, and the rids that a lift names. Returns [head after the commit, server time of the record in
 * milliseconds].
 */
export const commitScript = `${append}
local known = redis.call('HGET', KEYS[3], ARGV[1])
local head = redis.call('GET', KEYS[1])
if known then
  local tail = ',"record":' .. ARGV[2] .. '}'
  if string.sub(known, -#tail) ~= tail then
    return redis.error_reply('RIDCONFLICT the rid names another record')
  end
  if head then return { head, string.match(known, '"atMs":(%d+)') } end
end
local n, h = readHead()
if not n then return redis.error_reply('BADHEAD the head is not readable') end
local after, at = append(n, h, ARGV[1], ARGV[2], ARGV[3])
for i = 4, #ARGV do redis.call('HDEL', KEYS[6], ARGV[i]) end
return { after, at }
`

/**
 * Takes over a bare assertion: a \`revoke\` for ever, with a rid of the store. One that is in force stands for all later
 * ones of its subject. It can add nothing else, so that the right to run it can be given to every sidecar.
 * KEYS: head, log, records, expiry, channel, absorbed, revoked. ARGV: subject, reason, the position at which the subject
 * was seen in the set of subjects, or '' when it was heard, and its provisional rid. Returns the rid that stands for the
 * assertion: it begins with the provisional one, so that an account of either finds what stands under the other.
 *
 * A record that was made after that position stands for it even when it was lifted since: whoever lifted it saw it.
 * The time is part of the rid because a store that was emptied counts from one again: a lift of the old history must
 * not name a record of the new one.
 */
export const absorbScript = `${append}
local n, h = readHead()
if not n then return redis.error_reply('BADHEAD the head is not readable') end
local subject = ARGV[1]
local rid = redis.call('HGET', KEYS[6], subject)
if rid and n > 0 and redis.call('HEXISTS', KEYS[3], rid) == 1 then
  local made = tonumber(string.match(rid, '%-(%d+)$') or '0')
  local later = ARGV[3] ~= '' and made > tonumber(ARGV[3])
  if later or redis.call('HEXISTS', KEYS[6], rid) == 1 then
    if not later then redis.call('SREM', KEYS[7], subject) end
    return rid
  end
end
local time = redis.call('TIME')
rid = string.format('%s-%d%06d-%d', ARGV[4], time[1], time[2], n + 1)
local body = '{"rid":' .. cjson.encode(rid) .. ',"op":"revoke","subject":' .. cjson.encode(subject) ..
  ',"reason":' .. cjson.encode(ARGV[2]) .. ',"by":"bare","expiresAtMs":0}'
append(n, h, rid, body, '0')
redis.call('HSET', KEYS[6], subject, rid, rid, '1')
redis.call('SREM', KEYS[7], subject)
return rid
`
