-- The keys, the clock, the epoch, and functions that several operations share.
-- The window is one script. docs/window.md lists its rules and the failure that each rule prevents.
--
-- rg = "run:generation"; id = "<rg>/<step>"; inc = a caller's incarnation; lane = a set of requirements, see q:<lane>.
-- KEYS[1] is the prefix of all keys, with a hash tag. Below the prefix:
--   meta (hash)
--     ep       the epoch
--     rid      the server's run_id
--     tick     a counter of calls
--     hor      the horizon: the newest time of the dropped tombstones, plus 1
--     seen     the time of the last call or renewal
--     lease    the length of leases
--     calm     until this time no lease counts as lapsed
--     refused  how many times Redis was full and refused runs
--     off      how far the window's time is ahead of the server's clock
--     records  the identity of the records that the window belongs to
--   h:<rg> (hash, one for each open run)  s = o (open) or c (cancelled), e = envelope, n = number of steps,
--            d = number of successes, "=step" = the value of a success, "!step" = failed
--   j:<rg> (set)  the run's steps that are queued, delayed or leased
--   body (hash)  id -> epoch, verify, attempt, lane, needs
--   own (hash)  id -> token, or "-epoch token" if the job was leased before and is not leased now, see mark()
--   cnt (hash)  id -> number of lapsed leases
--   lease, delay (zsets)  id -> until
--   q:<lane> (list)  the queued jobs with these requirements
--   lanes (set)  the lanes that have a list
--   w (hash)  who -> about; wt (zset)  who -> until; who = "worker incarnation", because two workers may have the same
--            name, and calls carry only the incarnation
--   tomb (zset)  rg -> closed at
--   left:<id> <token>  the job was given back while the window did not know it
--   rq:<inc> (hash)  n, st, jobs: the number and the stored reply of the caller's last call
--   idle (zset)  callers that found no job -> since
--   bell (channel)  notifications
-- The script never calls error(): each item gets one reply.
local p, op, call = KEYS[1], ARGV[1], redis.call
local T = call('TIME'); local now = T[1] * 1000 + math.floor(T[2] / 1000)
local META, BODY, OWN, CNT, LEASE, DELAY, TOMB, LANES, IDLE =
  p..'meta', p..'body', p..'own', p..'cnt', p..'lease', p..'delay', p..'tomb', p..'lanes', p..'idle'
local Q = p..'q:'
local RQ_TTL, TOMB_MS, TOMB_MAX, CHUNK, IDLE_MS, BACK_MS = 120000, 600000, 100000, 64, 60000, 1000

local function split(s, sep) local t = {}; for w in string.gmatch(s, '[^'..sep..']+') do t[#t + 1] = w end; return t end
local function cut(id)
  local at = string.find(id, '/', 1, true)
  return string.sub(id, 1, at - 1), string.sub(id, at + 1)
end
local function parse(b) return string.match(b, '^([^\31]*)\31([^\31]*)\31([^\31]*)\31([^\31]*)\31(.*)$') end
local function body(ep, verify, attempt, lane, needs) return table.concat({ep, verify, attempt, lane, needs}, '\31') end
local function worker(who) local name, inc = string.match(who, '^(.-) ([^ ]*)$'); return name or who, inc end
local function tombed(rg) return call('ZSCORE', TOMB, rg) end

-- A job that is queued and was leased before has a mark in OWN: '-epoch token' if its lease lapsed, or '-epoch ' if it
-- was given back.
local function mark(owner) return string.match(owner or '', '^%-([^ ]*) (.*)$') end
-- Whether the holder of this token may take back a job that is not leased now. It may if a rebuild queued the job
-- again, or if the token's own lease lapsed; then the lapse is no longer counted, because the worker is alive. It may
-- not if the job was given back, or was leased to another caller since, or if the caller does not know the epoch: its
-- message may be older than a loss.
local function takes_back(id, token, owner, ep, seen_ep)
  local marked, by = mark(owner)
  if token == '' or seen_ep ~= ep or (owner and not marked) then return false end
  if call('EXISTS', p..'left:'..id..' '..token) == 1 then return false end
  if marked ~= ep then return true end
  if by ~= token then return false end
  call('HINCRBY', CNT, id, -1)
  return true
end

-- Reads `meta`. If the server's clock is set back, the window's time continues from where it was; otherwise leases,
-- delays and the horizon would lie far in the future.
local function facts()
  local m = call('HMGET', META, 'ep', 'rid', 'tick', 'refused', 'seen', 'lease', 'calm', 'hor', 'off')
  local off = tonumber(m[9] or '0')
  now = now + off
  local seen = tonumber(m[5] or now)
  if seen - now > BACK_MS then off = off + seen - now; now = seen; call('HSET', META, 'off', off) end
  return {ep = m[1], rid = m[2], tick = tonumber(m[3] or '0'), refused = tonumber(m[4] or '0'), seen = seen,
    lease = tonumber(m[6] or '0'), calm = tonumber(m[7] or '0'), hor = tonumber(m[8] or '0')}
end

-- If no caller was heard for most of a lease, this server stood still, or all callers were cut off from it. Then no
-- lease counts as lapsed for the length of a lease, so that every living worker can renew first.
local function heard(m)
  if m.lease > 0 and now - m.seen > m.lease * 0.8 then m.calm = now + m.lease; call('HSET', META, 'calm', m.calm) end
end

-- Makes a new epoch if the window is empty (FLUSHALL), comes from another server (restart, restore, failover), or is
-- behind the state that a caller has seen.
local function epoch(m, seen_ep, seen_tick, rewound)
  local rid = string.match(call('INFO', 'server'), 'run_id:(%x+)')
  local ep, tick = m.ep, m.tick
  local behind = ep and seen_ep == ep and (seen_tick > tick or rewound)
  if not ep or m.rid ~= rid or behind then
    ep = T[1]..string.format('%06d', T[2])..string.sub(rid, 1, 6)
    -- The list of sleeping callers may be lost. Wake all of them, so that those who sleep again are listed.
    call('HSET', META, 'ep', ep, 'rid', rid); call('PUBLISH', p..'bell', 'jobs')
    if behind then tick = seen_tick end
  end
  call('HSET', META, 'tick', tick + 1, 'seen', now)
  return ep, tick + 1, m.refused
end

