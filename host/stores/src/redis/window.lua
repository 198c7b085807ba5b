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

if op == 'peek' then            -- peek seen_ep seen_tick -> {ep, tick, now, refused}
  local m = facts(); heard(m)
  local ep, tick, refused = epoch(m, ARGV[2], tonumber(ARGV[3]), false)
  return {ep, tick, now, refused}
end

if op == 'knows' then           -- knows rg* -> 1 where the run is open and has a job that leads on
  local res = {}
  for i = 2, #ARGV do res[#res + 1] = (call('EXISTS', p..'h:'..ARGV[i]) == 1 and call('SCARD', p..'j:'..ARGV[i]) > 0) and 1 or 0 end
  return res
end

if op == 'held' then            -- held rg -> (step worker)*: its steps that somebody leases now; '' for a caller that is no worker
  local res, names = {}, {}; facts()
  for _, who in ipairs(call('HKEYS', p..'w')) do
    local name, inc = worker(who)
    if inc then names[inc] = name end
  end
  local steps = call('SMEMBERS', p..'j:'..ARGV[2]); table.sort(steps)
  for _, step in ipairs(steps) do
    local id = ARGV[2]..'/'..step
    local exp = call('ZSCORE', LEASE, id)
    if exp and tonumber(exp) > now then
      res[#res + 1] = step; res[#res + 1] = names[string.match(call('HGET', OWN, id) or '', '^[^#]*')] or ''
    end
  end
  return res
end

if op == 'beat' then            -- beat worker about keep_ms seen_ep seen_tick inc -> {ep, tick, now, refused}
  local m = facts(); heard(m)
  local ep, tick, refused = epoch(m, ARGV[5], tonumber(ARGV[6]), false)
  local who = ARGV[7] and ARGV[2]..' '..ARGV[7] or ARGV[2]
  call('HSET', p..'w', who, ARGV[3]); call('ZADD', p..'wt', now + tonumber(ARGV[4]), who)
  for _, gone in ipairs(call('ZRANGEBYSCORE', p..'wt', '-inf', now, 'LIMIT', 0, CHUNK)) do call('ZREM', p..'wt', gone); call('HDEL', p..'w', gone) end
  -- Who sleeps since before a lease was taken does not know when it lapses: its worker may be dead, and nobody else calls.
  local lapsed = call('ZRANGEBYSCORE', LEASE, '-inf', now, 'LIMIT', 0, 1)[1] or call('ZRANGEBYSCORE', DELAY, '-inf', now, 'LIMIT', 0, 1)[1]
  if lapsed and call('ZCARD', IDLE) > 0 then call('PUBLISH', p..'bell', 'jobs') end
  return {ep, tick, now, refused}
end

if op == 'belongs' then         -- belongs records -> the records that this belongs to; those given, if to none
  if ARGV[2] ~= '' then call('HSETNX', META, 'records', ARGV[2]) end
  return call('HGET', META, 'records')
end

if op == 'workers' then         -- workers -> (worker about)*
  local res = {}; facts()
  for _, who in ipairs(call('ZRANGEBYSCORE', p..'wt', '('..now, '+inf')) do
    local about = call('HGET', p..'w', who)
    if about then res[#res + 1] = (worker(who)); res[#res + 1] = about end
  end
  return res
end

if op == 'renew' then           -- renew lease_ms seen_ep (id token)* -> 1 renewed (or taken back), 0 gone, 3 unknown here
  local m = facts(); heard(m); call('HSET', META, 'seen', now)
  local exp, res = now + tonumber(ARGV[2]), {}
  for i = 4, #ARGV, 2 do
    local id, token = ARGV[i], ARGV[i + 1]
    local rg, step = cut(id)
    local v = call('HMGET', p..'h:'..rg, 's', '='..step, '!'..step)
    local owner = call('HGET', OWN, id)
    local answer = 3
    if v[1] == 'c' or (not v[1] and tombed(rg)) then answer = 0
    elseif owner == token then call('ZADD', LEASE, exp, id); answer = 1
    elseif v[2] or v[3] then answer = 0
    elseif call('HEXISTS', BODY, id) == 1 then
      if takes_back(id, token, owner, m.ep, ARGV[3]) then
        call('HSET', OWN, id, token); call('ZADD', LEASE, exp, id); call('ZREM', DELAY, id); answer = 1
      elseif ARGV[3] == m.ep then answer = 0 end
    end
    res[#res + 1] = answer
  end
  return res
end

-- call inc req seen_ep seen_tick want lease_ms able item* -> {ep, tick, now, refused, statuses, jobs, next}; able: '*' or capabilities with commas
local inc, req, want, lease_ms, able = ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[6]), tonumber(ARGV[7]), ARGV[8]
local token, RQ = inc..'#'..ARGV[3], p..'rq:'..ARGV[2]
local last = call('HMGET', RQ, 'n', 'st', 'jobs')
local ln = tonumber(last[1] or '-1')
local m = facts(); heard(m)
local ep, tick, refused = epoch(m, ARGV[4], tonumber(ARGV[5]), ln >= 0 and ln < req - 1)

-- One delivery: {id, verify, lapsed, attempt, envelope, {step, value}*}, or nil where the run is over.
local function deliver(id, b, lapsed)
  local bep, bv, attempt, _, needs = parse(b)
  local rg, step = cut(id)
  local names = split(needs, '\30')
  local f = {'s', 'e', '='..step, '!'..step}
  for _, n in ipairs(names) do f[#f + 1] = '='..n end
  local v = call('HMGET', p..'h:'..rg, unpack(f))
  if not v[1] and tombed(rg) then return nil end
  local verify = bv == '1' or bep ~= ep or lapsed ~= '0' or v[1] ~= 'o' or v[3] or v[4]
  local vals = {}
  for k, n in ipairs(names) do
    if v[4 + k] then vals[#vals + 1] = n; vals[#vals + 1] = v[4 + k] else verify = true end
  end
  return {id, verify and 1 or 0, lapsed, attempt, v[2] or '', vals}
end

if ln >= req then               -- the reply was lost and is asked for again, or an old socket repeats itself
  local jobs = {}
  if ln == req then
    for _, id in ipairs(split(last[3], ' ')) do
      local b = call('HGET', OWN, id) == token and call('HGET', BODY, id)
      if b then jobs[#jobs + 1] = deliver(id, b, call('HGET', CNT, id) or '0') end
    end
  end
  return {ep, tick, now, refused, ln == req and split(last[2], ' ') or {'old'}, jobs, -1}
end

local pushed, st = {}, {}
-- What is acknowledged counts no more at once; where else it stands it is removed together with the others, before anybody looks there: a step
-- that is acknowledged is done or its run is over, so that nobody enqueues it in the meantime.
local acked = {}
local function ack(id)
  local rg, step = cut(id)
  call('SREM', p..'j:'..rg, step); acked[#acked + 1] = id
end
local function remove_acked()
  for k = 1, #acked, 500 do
    local last = math.min(#acked, k + 499)
    for _, hash in ipairs({BODY, OWN, CNT}) do call('HDEL', hash, unpack(acked, k, last)) end
    for _, z in ipairs({LEASE, DELAY}) do call('ZREM', z, unpack(acked, k, last)) end
  end
  acked = {}
end
local npushed = 0
local first = {}                -- what goes before the rest of its lane: what has begun is finished before something new begins
local function push(to, id, lane)
  local list = to[lane]
  if not list then list = {}; to[lane] = list end
  list[#list + 1] = id; npushed = npushed + 1
end
local function add(to, rg, step, verify, attempt, lane, needs)   -- what is queued, delayed or leased stays as it is
  local id = rg..'/'..step
  if call('HSETNX', BODY, id, body(ep, verify, attempt, lane, needs)) == 1 then call('SADD', p..'j:'..rg, step); push(to, id, lane) end
end
-- Jobs of the run beside this step's.
local function others(rg, step)
  local n = call('SCARD', p..'j:'..rg)
  if n == 1 then n = n - call('SISMEMBER', p..'j:'..rg, step) end
  return n
end
local function succeeded(h, step, value) if call('HSETNX', h, '='..step, value) == 1 then call('HINCRBY', h, 'd', 1) end end
local closed = 0
local function close(rg)
  for _, step in ipairs(call('SMEMBERS', p..'j:'..rg)) do acked[#acked + 1] = rg..'/'..step end
  call('DEL', p..'h:'..rg, p..'j:'..rg)
  call('ZADD', TOMB, now, rg); closed = closed + 1
  call('PUBLISH', p..'bell', 'over '..rg)
end
-- As many as come, and some more: those that are old, or the oldest ones where there are too many.
local function drop_tombstones()
  local old = call('ZRANGEBYSCORE', TOMB, '-inf', now - TOMB_MS, 'WITHSCORES', 'LIMIT', 0, closed + CHUNK)
  if #old == 0 and call('ZCARD', TOMB) > TOMB_MAX then old = call('ZRANGE', TOMB, 0, closed + 7, 'WITHSCORES') end
  for k = 1, #old, 2 do call('ZREM', TOMB, old[k]) end
  if #old > 0 then call('HSET', META, 'hor', math.max(tonumber(old[#old]) + 1, m.hor)) end
end
local function done(h, step) local v = call('HMGET', h, '='..step, '!'..step); return v[1] or v[2] end
local function ready(h, needs, has)
  for _, n in ipairs(split(needs, '\30')) do if n ~= has and call('HEXISTS', h, '='..n) == 0 then return false end end
  return true
end

local i, N = 9, #ARGV
while i <= N do
  local kind, rg = ARGV[i], ARGV[i + 1]; local h = p..'h:'..rg
  if kind == 'F' then           -- F rg step claim_ep ok value nchild (step attempt lane needs)*
    local step, cep, good, val, nc = ARGV[i + 2], ARGV[i + 3], ARGV[i + 4], ARGV[i + 5], tonumber(ARGV[i + 6])
    local c0 = i + 7; i = c0 + 4 * nc
    local s = call('HGET', h, 's')
    if not s and tombed(rg) then ack(rg..'/'..step); st[#st + 1] = 'closed'
    elseif not s then st[#st + 1] = 'lost'
    elseif s == 'c' then st[#st + 1] = 'cancelled'
    else
      if good == '1' then succeeded(h, step, val) else call('HSETNX', h, '!'..step, '1') end
      -- A caller from another epoch may come from a lost timeline: what it enqueues is verified.
      local verify = (cep == ep and (ln >= 0 or req == 1)) and '0' or '1'
      for c = c0, i - 1, 4 do
        if not done(h, ARGV[c]) and ready(h, ARGV[c + 3], good == '1' and step) then add(first, rg, ARGV[c], verify, ARGV[c + 1], ARGV[c + 2], ARGV[c + 3]) end
      end
      if others(rg, step) == 0 then
        local v = call('HMGET', h, 'n', 'd')
        st[#st + 1] = v[1] == v[2] and 'complete' or 'last'
      else ack(rg..'/'..step); st[#st + 1] = 'ok' end
    end
  elseif kind == 'O' then       -- O rg ep t0 verify envelope steps ndone (step ok value)* njobs (step attempt lane needs)*
    local oep, t0, verify, env, steps, nd = ARGV[i + 2], tonumber(ARGV[i + 3]), ARGV[i + 4], ARGV[i + 5], ARGV[i + 6], tonumber(ARGV[i + 7])
    local d0 = i + 8; local nj = tonumber(ARGV[d0 + 3 * nd]); local j0 = d0 + 3 * nd + 1; i = j0 + 4 * nj
    local s, over = call('HGET', h, 's'), tonumber(tombed(rg) or '-1')
    -- A reader of records from after the run's end would have found that end: it was removed since, and the run was submitted anew.
    if t0 <= over then st[#st + 1] = s and 'stale' or 'closed'
    elseif s == 'c' then st[#st + 1] = 'cancelled'
    elseif oep ~= ep or t0 < m.hor then st[#st + 1] = 'stale'
    else
      if not s then call('HSET', h, 's', 'o', 'e', env, 'n', steps, 'd', 0) end
      for d = d0, j0 - 2, 3 do
        if ARGV[d + 1] == '1' then succeeded(h, ARGV[d], ARGV[d + 2]) else call('HSETNX', h, '!'..ARGV[d], '1') end
      end
      for j = j0, i - 1, 4 do
        -- Of a run that is new here nothing is known: what needs nothing begins.
        local begins = not s and nd == 0 and ARGV[j + 3] == ''
        if begins or (not done(h, ARGV[j]) and ready(h, ARGV[j + 3])) then add(pushed, rg, ARGV[j], verify, ARGV[j + 1], ARGV[j + 2], ARGV[j + 3]) end
      end
      -- Jobs of steps that have an outcome are acknowledged, unless one of them must stay as the run's outbox.
      for d = d0, j0 - 2, 3 do
        if others(rg, ARGV[d]) > 0 then ack(rg..'/'..ARGV[d]) end
      end
      st[#st + 1] = 'ok'
    end
  elseif kind == 'X' then       -- X rg
    i = i + 2; close(rg); st[#st + 1] = 'ok'
  elseif kind == 'C' then       -- C rg
    i = i + 2
    if call('HEXISTS', h, 's') == 1 then call('HSET', h, 's', 'c'); call('PUBLISH', p..'bell', 'cancel '..rg) end
    st[#st + 1] = 'ok'
  elseif kind == 'B' then       -- B id token attempt verify delay_ms
    local id, owner, attempt, verify, delay = ARGV[i + 1], ARGV[i + 2], ARGV[i + 3], ARGV[i + 4], tonumber(ARGV[i + 5]); i = i + 6
    local b, has = call('HGET', BODY, id), call('HGET', OWN, id)
    local taken = b and has ~= owner and takes_back(id, owner, has, ep, ARGV[4])
    if b and (has == owner or taken) then
      local _, _, known, lane, needs = parse(b)
      -- A rebuild may know of a later attempt, and of an outcome.
      if taken then verify = '1'; attempt = math.max(tonumber(attempt), tonumber(known)) end
      call('HSET', BODY, id, body(ep, verify, attempt, lane, needs))
      call('HSET', OWN, id, '-'..ep..' '); call('ZREM', LEASE, id); call('ZADD', DELAY, now + delay, id)
      if delay == 0 then call('PUBLISH', p..'bell', 'jobs') end
      st[#st + 1] = 'ok'
    else
      -- A rebuild may queue it a moment later: a renewal that was sent before this call must not take it then.
      if not b then call('SET', p..'left:'..id..' '..owner, 1, 'PX', RQ_TTL) end
      st[#st + 1] = 'not_owner'
    end
  elseif kind == 'R' then       -- R '': what opened runs was refused as a whole, because Redis is full; its caller says so
    i = i + 2; call('HINCRBY', META, 'refused', 1); st[#st + 1] = 'ok'
  else st[#st + 1] = 'bad'; i = N + 1 end
end
remove_acked()
if closed > 0 then drop_tombstones() end

-- Lapsed leases (counted) and due delays go back into the queue.
local function requeue(z)
  for _, id in ipairs(call('ZRANGEBYSCORE', z, '-inf', now, 'LIMIT', 0, CHUNK)) do
    call('ZREM', z, id)
    local b = call('HGET', BODY, id)
    if z == LEASE and b then
      call('HSET', OWN, id, '-'..ep..' '..(call('HGET', OWN, id) or '')); call('HINCRBY', CNT, id, 1)
    elseif z == LEASE then call('HDEL', OWN, id) end
    if b then local _, _, _, lane = parse(b); push(first, id, lane) end
  end
end
if want > 0 then
  if m.lease ~= lease_ms then call('HSET', META, 'lease', lease_ms) end
  if now >= m.calm then requeue(LEASE) end
  requeue(DELAY)
end
for lane, ids in pairs(first) do
  for k = #ids, 1, -1 do call('LPUSH', Q..lane, ids[k]) end
  call('SADD', LANES, lane)
end
for lane, ids in pairs(pushed) do
  for k = 1, #ids, 500 do call('RPUSH', Q..lane, unpack(ids, k, math.min(#ids, k + 499))) end
  call('SADD', LANES, lane)
end

-- The lanes that the caller serves, beginning with another one each time; before them those in which follows what it has just ended: it has
-- the pictures that this is about.
local function served()
  local have, mine = {}, {}
  for _, name in ipairs(split(able, ',')) do have[name] = true end
  for _, lane in ipairs(call('SMEMBERS', LANES)) do
    local good = true
    if able ~= '*' then for _, need in ipairs(split(lane, ',')) do good = good and have[need] end end
    if good then mine[#mine + 1] = lane end
  end
  table.sort(mine)
  local turned = {}
  for k = 1, #mine do
    local lane = mine[(tick + k) % #mine + 1]
    if first[lane] then table.insert(turned, 1, lane) else turned[#turned + 1] = lane end
  end
  return turned
end

local jobs, held = {}, {}
if want > 0 then
  local own, until_ms, taken = {}, {}, {}
  for _, lane in ipairs(served()) do
    while want > 0 do
      local ids = call('LPOP', Q..lane, math.min(want, 256))
      if not ids or #ids == 0 then call('SREM', LANES, lane); break end
      local bodies, lapsed = call('HMGET', BODY, unpack(ids)), call('HMGET', CNT, unpack(ids))
      local leased, delayed = call('ZMSCORE', LEASE, unpack(ids)), call('ZMSCORE', DELAY, unpack(ids))
      for k, id in ipairs(ids) do
        if bodies[k] and not leased[k] and not delayed[k] and not taken[id] then   -- gone = acknowledged; leased = adopted
          local d = deliver(id, bodies[k], lapsed[k] or '0')
          if d then
            jobs[#jobs + 1] = d; held[#held + 1] = id; want = want - 1; taken[id] = true
            own[#own + 1] = id; own[#own + 1] = token; until_ms[#until_ms + 1] = now + lease_ms; until_ms[#until_ms + 1] = id
          else ack(id) end
        end
      end
    end
  end
  for k = 1, #own, 500 do
    local last = math.min(#own, k + 499)
    call('HSET', OWN, unpack(own, k, last)); call('ZADD', LEASE, unpack(until_ms, k, last))
  end
  remove_acked()
end
local nextms = -1
if ARGV[6] ~= '0' then
  if #jobs == 0 then
    call('ZADD', IDLE, now, inc)
    for _, z in ipairs({LEASE, DELAY}) do
      local first = call('ZRANGE', z, 0, 0, 'WITHSCORES')
      if first[2] then local ms = math.max(tonumber(first[2]) - now, 0); if nextms < 0 or ms < nextms then nextms = ms end end
    end
  else call('ZREM', IDLE, inc) end
end
-- Whoever sleeps is woken where there is something left to take.
if npushed > #jobs then
  call('ZREMRANGEBYSCORE', IDLE, '-inf', now - IDLE_MS)
  if call('ZCARD', IDLE) > 0 then call('PUBLISH', p..'bell', 'jobs') end
end
call('HSET', RQ, 'n', ARGV[3], 'st', table.concat(st, ' '), 'jobs', table.concat(held, ' ')); call('PEXPIRE', RQ, RQ_TTL)
return {ep, tick, now, refused, st, jobs, nextms}
