-- A worker reports that it is alive.
if op == 'beat' then            -- beat worker about keep_ms seen_ep seen_tick inc -> {ep, tick, now, refused}
  local m = facts(); heard(m)
  local ep, tick, refused = epoch(m, ARGV[5], tonumber(ARGV[6]), false)
  local who = ARGV[7] and ARGV[2]..' '..ARGV[7] or ARGV[2]
  call('HSET', p..'w', who, ARGV[3]); call('ZADD', p..'wt', now + tonumber(ARGV[4]), who)
  for _, gone in ipairs(call('ZRANGEBYSCORE', p..'wt', '-inf', now, 'LIMIT', 0, CHUNK)) do
    call('ZREM', p..'wt', gone); call('HDEL', p..'w', gone)
  end
  -- A caller that went to sleep before a lease was taken does not know when that lease lapses. The worker with the
  -- lease may be dead and no other worker may call, so a heartbeat wakes the sleepers.
  local lapsed = call('ZRANGEBYSCORE', LEASE, '-inf', now, 'LIMIT', 0, 1)[1]
    or call('ZRANGEBYSCORE', DELAY, '-inf', now, 'LIMIT', 0, 1)[1]
  if lapsed and call('ZCARD', IDLE) > 0 then call('PUBLISH', p..'bell', 'jobs') end
  return {ep, tick, now, refused}
end

