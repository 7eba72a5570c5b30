-- Counts one request to every bucket, or to none of them.
--
-- A bucket is the time at which it is full again, in microseconds since 1970 (GCRA, as in limiter/bucket.rs).
-- KEYS: the buckets.
-- ARGV: two numbers for each bucket, in microseconds: the refill time of one token, and how far ahead the
-- bucket's time may lie with a whole token still in it.
-- Answer: 1 if the request is allowed, else 0; then for each bucket how far ahead its time lies now.
local clock = redis.call('TIME')
local now = clock[1] * 1000000 + clock[2]

local answer, full = { 1 }, {}
for i, key in ipairs(KEYS) do
  local token, tolerance = tonumber(ARGV[2 * i - 1]), tonumber(ARGV[2 * i])
  local text = redis.call('GET', key) or '0'
  if not string.find(text, '^%d+$') then
    error('unexpected value of a bucket')
  end
  -- No bucket is emptier than empty, even if the server's clock has stepped back.
  full[i] = math.max(now, math.min(tonumber(text), now + tolerance + token))
  if full[i] - now > tolerance then
    answer[1] = 0
  end
end
for i, key in ipairs(KEYS) do
  if answer[1] == 1 then
    full[i] = full[i] + tonumber(ARGV[2 * i - 1])
    redis.call('SET', key, string.format('%.0f', full[i]), 'PX', math.ceil((full[i] - now) / 1000))
  end
  answer[i + 1] = full[i] - now
end
return answer
