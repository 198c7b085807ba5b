-- The keys, the clock, the epoch and what several operations share.
-- The window on the work: one script. What it may do, and the failure that each rule prevents: docs/window.md.
-- KEYS[1]: prefix with a hash tag. Below it:
--   meta {ep, rid, tick, hor, seen, lease, calm, refused, off, records}   the epoch, the server's run_id, a counter of calls, the horizon of dropped tombstones,
--                                   when somebody was last heard, the length of leases, until when no lease is taken for lapsed,
--                                   how many times runs were refused because it was full, how far time here is ahead of the server's clock,
--                                   the identity of the records that this belongs to
--   h:<rg>  {s = o|c, e = envelope, n = steps, d = successes, "=step" = value of a success, "!step" = failed}   one per open run; rg = "run:generation"
--   j:<rg>  set of the run's steps that are queued, delayed or leased
--   body {id -> epoch, verify, attempt, lane, needs}  own {id -> token | "-epoch token" = leased to nobody, see mark()}  cnt {id -> lapsed leases}  lease, delay (zsets)   id = "<rg>/<step>"
--   q:<lane> (list)  lanes (set of those with a list)  w {who -> about}  wt (zset who -> until): who = "worker incarnation", as two may have one name, and callers are known by the latter
--   tomb (zset rg -> closed at)  left:<id> <token> (given back while the window did not know the job)  rq:<inc> {n, st, jobs} (the last call of a caller)  idle (zset of callers that found nothing)  bell (channel)
-- Never error(): one reply an item.
local p, op, call = KEYS[1], ARGV[1], redis.call
local T = call('TIME'); local now = T[1] * 1000 + math.floor(T[2] / 1000)
local META, BODY, OWN, CNT, LEASE, DELAY, TOMB, LANES, IDLE = p..'meta', p..'body', p..'own', p..'cnt', p..'lease', p..'delay', p..'tomb', p..'lanes', p..'idle'
local Q = p..'q:'
local RQ_TTL, TOMB_MS, TOMB_MAX, CHUNK, IDLE_MS, BACK_MS = 120000, 600000, 100000, 64, 60000, 1000

local function split(s, sep) local t = {}; for w in string.gmatch(s, '[^'..sep..']+') do t[#t + 1] = w end; return t end
local function cut(id) local at = string.find(id, '/', 1, true); return string.sub(id, 1, at - 1), string.sub(id, at + 1) end
local function parse(b) return string.match(b, '^([^\31]*)\31([^\31]*)\31([^\31]*)\31([^\31]*)\31(.*)$') end
local function body(ep, verify, attempt, lane, needs) return table.concat({ep, verify, attempt, lane, needs}, '\31') end
local function worker(who) local name, inc = string.match(who, '^(.-) ([^ ]*)$'); return name or who, inc end
local function tombed(rg) return call('ZSCORE', TOMB, rg) end

-- A job that is queued and was leased before keeps a mark in OWN: '-epoch token' where its lease lapsed, '-epoch ' where it was given back.
local function mark(owner) return string.match(owner or '', '^%-([^ ]*) (.*)$') end
-- Whether the holder of this token may take back a job that nobody leases: a rebuild queued it again, or the token's own lease lapsed, which
-- was then no dead worker's and counts no more. It may not where the job was given back, or was leased to another since; nor where the
-- caller does not know the epoch: what it says may be older than a loss.
local function takes_back(id, token, owner, ep, seen_ep)
  local marked, by = mark(owner)
  if token == '' or seen_ep ~= ep or (owner and not marked) then return false end
  if call('EXISTS', p..'left:'..id..' '..token) == 1 then return false end
  if marked ~= ep then return true end
  if by ~= token then return false end
  call('HINCRBY', CNT, id, -1)
  return true
end

-- Time goes on here where the server's clock is set back: otherwise leases, delays and the horizon would lie far ahead.
local function facts()
  local m = call('HMGET', META, 'ep', 'rid', 'tick', 'refused', 'seen', 'lease', 'calm', 'hor', 'off')
  local off = tonumber(m[9] or '0')
  now = now + off
  local seen = tonumber(m[5] or now)
  if seen - now > BACK_MS then off = off + seen - now; now = seen; call('HSET', META, 'off', off) end
  return {ep = m[1], rid = m[2], tick = tonumber(m[3] or '0'), refused = tonumber(m[4] or '0'), seen = seen, lease = tonumber(m[6] or '0'),
    calm = tonumber(m[7] or '0'), hor = tonumber(m[8] or '0')}
end

-- Where nobody was heard for most of a lease, it was this server that stood still, or everybody was cut off from it: whoever lives renews
-- first, so that a lapsed lease means what it says.
local function heard(m)
  if m.lease > 0 and now - m.seen > m.lease * 0.8 then m.calm = now + m.lease; call('HSET', META, 'calm', m.calm) end
end

-- A new epoch where the window is empty (FLUSHALL), another server's (restart, restore, failover), or behind what a caller saw.
local function epoch(m, seen_ep, seen_tick, rewound)
  local rid = string.match(call('INFO', 'server'), 'run_id:(%x+)')
  local ep, tick = m.ep, m.tick
  local behind = ep and seen_ep == ep and (seen_tick > tick or rewound)
  if not ep or m.rid ~= rid or behind then
    ep = T[1]..string.format('%06d', T[2])..string.sub(rid, 1, 6)
    -- Who sleeps is no longer known: all look anew, so that they are rung again.
    call('HSET', META, 'ep', ep, 'rid', rid); call('PUBLISH', p..'bell', 'jobs')
    if behind then tick = seen_tick end
  end
  call('HSET', META, 'tick', tick + 1, 'seen', now)
  return ep, tick + 1, m.refused
end

