-- Helpers that all changes share, and the loop over the changes of a call. Each branch of the loop has a file of its
-- own.
local pushed, st = {}, {}
-- ack() removes a step from its run's set of open jobs now. remove_acked() deletes the job's other keys in one batch,
-- before the claim reads them. In between no change enqueues the step again, because it is done or its run is over.
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
-- Jobs that go to the front of their queue, so that a started run ends before a new one starts.
local first = {}
local function push(to, id, lane)
  local list = to[lane]
  if not list then list = {}; to[lane] = list end
  list[#list + 1] = id; npushed = npushed + 1
end
local function add(to, rg, step, verify, attempt, lane, needs)   -- does nothing to a queued, delayed or leased job
  local id = rg..'/'..step
  if call('HSETNX', BODY, id, body(ep, verify, attempt, lane, needs)) == 1 then
    call('SADD', p..'j:'..rg, step); push(to, id, lane)
  end
end
-- The number of the run's open jobs without this step's job.
local function others(rg, step)
  local n = call('SCARD', p..'j:'..rg)
  if n == 1 then n = n - call('SISMEMBER', p..'j:'..rg, step) end
  return n
end
local function succeeded(h, step, value)
  if call('HSETNX', h, '='..step, value) == 1 then call('HINCRBY', h, 'd', 1) end
end
local closed = 0
local function close(rg)
  for _, step in ipairs(call('SMEMBERS', p..'j:'..rg)) do acked[#acked + 1] = rg..'/'..step end
  call('DEL', p..'h:'..rg, p..'j:'..rg)
  call('ZADD', TOMB, now, rg); closed = closed + 1
  call('PUBLISH', p..'bell', 'over '..rg)
end
-- Drops a few more tombstones than the call made: the expired ones, or the oldest ones if there are more than TOMB_MAX.
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
