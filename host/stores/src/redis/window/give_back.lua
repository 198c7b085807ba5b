-- Change `B`: returns a job to the queue.
  elseif kind == 'B' then       -- B id token attempt verify delay_ms
    local id, owner, attempt = ARGV[i + 1], ARGV[i + 2], ARGV[i + 3]
    local verify, delay = ARGV[i + 4], tonumber(ARGV[i + 5]); i = i + 6
    local b, has = call('HGET', BODY, id), call('HGET', OWN, id)
    local taken = b and has ~= owner and takes_back(id, owner, has, ep, ARGV[4])
    if b and (has == owner or taken) then
      local _, _, known, lane, needs = parse(b)
      -- The rebuild may have read a later attempt or an outcome from the records.
      if taken then verify = '1'; attempt = math.max(tonumber(attempt), tonumber(known)) end
      call('HSET', BODY, id, body(ep, verify, attempt, lane, needs))
      call('HSET', OWN, id, '-'..ep..' '); call('ZREM', LEASE, id); call('ZADD', DELAY, now + delay, id)
      if delay == 0 then call('PUBLISH', p..'bell', 'jobs') end
      st[#st + 1] = 'ok'
    else
      -- A rebuild may enqueue the job a moment later. The key `left:` then stops a renewal that was sent before this
      -- call from taking the job.
      if not b then call('SET', p..'left:'..id..' '..owner, 1, 'PX', RQ_TTL) end
      st[#st + 1] = 'not_owner'
    end
