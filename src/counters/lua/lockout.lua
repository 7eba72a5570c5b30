-- The failure streaks and known blocks of one login name. The rules are those of auth/lockout.
--
-- KEYS: 1 the streak of the name over all unknown blocks, 2 the streak of the name and this block, 3 the known
-- blocks of the name; for `restore` also 4 and later: the streaks of the name and each restored block.
-- ARGV: 1 what to do, 2 this block, 3 whether a look-up of sessions may be claimed, 4 and later the rules; for
-- `restore` also, for each block, its name and the age of its last login.
-- Times are in milliseconds. `now` is defined by the script before this one.
local what, block, may_claim = ARGV[1], ARGV[2], ARGV[3] == '1'
local streak_ttl, failures_max = tonumber(ARGV[4]), tonumber(ARGV[5])
local known_ttl, known_max = tonumber(ARGV[6]), tonumber(ARGV[7])
local PAIR = { first = tonumber(ARGV[8]), wait = tonumber(ARGV[9]), longest = tonumber(ARGV[10]) }
local NAME = { first = tonumber(ARGV[11]), wait = tonumber(ARGV[12]), longest = tonumber(ARGV[13]) }
local RULES_END = 13

-- A streak: the time of the last failure, the number of failures, whether a login was refused since, whether
-- the sessions of the account were looked up since.
local function streak_of(text)
  if not text then
    return { at = 0, failures = 0, refused = 0, looked_up = 0 }
  end
  local at, failures, refused, looked_up = string.match(text, '^(%d+) (%d+) ([01]) ([01])$')
  if not at then
    error('unexpected value of a streak')
  end
  at = math.min(tonumber(at), now)
  if now - at >= streak_ttl then
    return streak_of(nil)
  end
  return {
    at = at,
    failures = tonumber(failures),
    refused = tonumber(refused),
    looked_up = tonumber(looked_up),
  }
end

local function text_of(streak)
  local format = '%.0f %d %d %d'
  return string.format(format, streak.at, streak.failures, streak.refused, streak.looked_up)
end

local function save(key, streak)
  if streak.changed then
    redis.call('SET', key, text_of(streak), 'PX', streak.at + streak_ttl - now)
  end
end

-- The time left of the wait after a streak; zero without a wait.
local function left(rule, streak)
  local wait = 0
  if streak.failures >= failures_max then
    wait = streak_ttl
  elseif streak.failures >= rule.first then
    wait = math.min(rule.wait * 2 ^ (streak.failures - rule.first), rule.longest)
  end
  return math.max(streak.at + wait - now, 0)
end

-- The time left, and 1 for the first refusal of the wait.
local function refuse(rule, streak)
  local time = left(rule, streak)
  local first = 0
  if time > 0 and streak.refused == 0 then
    first, streak.refused, streak.changed = 1, 1, true
  end
  return time, first
end

local function fail(rule, streak)
  local time, first = refuse(rule, streak)
  if time == 0 then
    streak.at, streak.failures = now, math.min(streak.failures + 1, failures_max)
    streak.refused, streak.looked_up, streak.changed = 0, 0, true
  end
  return time, first
end

-- A known block: the time of the last login, and its own streak.
local function known_of(text)
  local seen, streak = string.match(text, '^(%d+) (.+)$')
  if not seen then
    error('unexpected value of a known block')
  end
  return { seen = math.min(tonumber(seen), now), streak = streak_of(streak) }
end

local function save_known(name, entry)
  redis.call('HSET', KEYS[3], name, string.format('%.0f ', entry.seen) .. text_of(entry.streak))
  redis.call('PEXPIRE', KEYS[3], known_ttl)
end

-- Adds a known block. In a full set it replaces the block unseen longest, unless that was seen later.
local function add_known(name, entry)
  if redis.call('HEXISTS', KEYS[3], name) == 0 and redis.call('HLEN', KEYS[3]) >= known_max then
    local all, oldest, oldest_seen = redis.call('HGETALL', KEYS[3]), nil, nil
    for i = 1, #all, 2 do
      local seen = known_of(all[i + 1]).seen
      if not oldest_seen or seen < oldest_seen then
        oldest, oldest_seen = all[i], seen
      end
    end
    if oldest_seen > entry.seen then
      return
    end
    redis.call('HDEL', KEYS[3], oldest)
  end
  save_known(name, entry)
end

local function make_known()
  redis.call('DEL', KEYS[2])
  add_known(block, { seen = now, streak = streak_of(nil) })
end

if what == 'restore' then
  for i = 4, #KEYS do
    local name = ARGV[RULES_END + 2 * (i - 3) - 1]
    local seen = math.max(now - tonumber(ARGV[RULES_END + 2 * (i - 3)]), 0)
    local streak = streak_of(redis.call('GET', KEYS[i]))
    redis.call('DEL', KEYS[i])
    local text = redis.call('HGET', KEYS[3], name)
    if text then
      local entry = known_of(text)
      entry.seen = math.max(entry.seen, seen)
      save_known(name, entry)
    else
      add_known(name, { seen = seen, streak = streak })
    end
  end
  return {}
end
if what == 'release' then
  local name = streak_of(redis.call('GET', KEYS[1]))
  if name.failures > 0 then
    name.looked_up, name.changed = 0, true
    save(KEYS[1], name)
  end
  return {}
end
if what == 'know' then
  make_known()
  return {}
end

-- The rest decides about a login: `check` whether it may go on, `fail` counts a failure, `succeed` a login.
local act = what == 'fail' and fail or refuse
local time, first, claimed = 0, 0, 0
local text = redis.call('HGET', KEYS[3], block)
local known = text and known_of(text)
if known and now - known.seen >= known_ttl then
  known = nil
end
local streak, name = known and known.streak or streak_of(redis.call('GET', KEYS[2])), streak_of(nil)
if known then
  time, first = act(PAIR, streak)
  if streak.changed then
    save_known(block, known)
  end
else
  name = streak_of(redis.call('GET', KEYS[1]))
  local only_name = left(PAIR, streak) == 0 and left(NAME, name) > 0
  if may_claim and only_name and name.looked_up == 0 then
    claimed, time = 1, left(NAME, name)
    name.looked_up, name.changed = 1, true
  else
    local name_time, name_first = act(NAME, name)
    time, first = act(PAIR, streak)
    if time == 0 or name_time > time then
      time, first = name_time, name_first
    end
  end
  save(KEYS[2], streak)
  save(KEYS[1], name)
end
if what == 'succeed' and time == 0 then
  make_known()
  known, streak = { seen = now }, streak_of(nil)
end
return {
  time, first, claimed,
  known and 1 or 0, known and now - known.seen or 0,
  streak.failures, now - streak.at, streak.refused,
  name.failures, now - name.at, name.refused, name.looked_up,
}
