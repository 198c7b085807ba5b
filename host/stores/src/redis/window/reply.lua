-- When the caller asks again, the wake-up of sleeping callers, and the reply to the call.
if ARGV[6] ~= '0' then
  if #jobs == 0 then
    call('ZADD', IDLE, now, inc)
    for _, z in ipairs({LEASE, DELAY}) do
      local first = call('ZRANGE', z, 0, 0, 'WITHSCORES')
      if first[2] then
        local at = tonumber(first[2])
        -- No lease counts as lapsed before the calm ends, so no job becomes free earlier.
        if z == LEASE then at = math.max(at, m.calm) end
        local ms = math.max(at - now, 0)
        if nextms < 0 or ms < nextms then nextms = ms end
      end
    end
  else call('ZREM', IDLE, inc) end
end
-- If this call queued more jobs than it hands out, wake the sleeping callers.
if npushed > #jobs then
  call('ZREMRANGEBYSCORE', IDLE, '-inf', now - IDLE_MS)
  if call('ZCARD', IDLE) > 0 then call('PUBLISH', p..'bell', 'jobs') end
end
call('HSET', RQ, 'n', ARGV[3], 'st', table.concat(st, ' '), 'jobs', table.concat(held, ' '))
call('PEXPIRE', RQ, RQ_TTL)
return {ep, tick, now, refused, st, jobs, nextms}
