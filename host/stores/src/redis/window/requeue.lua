-- Puts jobs with a lapsed lease, jobs with a due delay, and new jobs into the queues.
-- Requeues the jobs in `z` (LEASE or DELAY) whose time is over. A lapsed lease is counted in CNT.
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

