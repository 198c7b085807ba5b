-- Change `F`: a step has ended.
  if kind == 'F' then           -- F rg step claim_ep ok value nchild (step attempt lane needs)*
    local step, cep, good, val, nc = ARGV[i + 2], ARGV[i + 3], ARGV[i + 4], ARGV[i + 5], tonumber(ARGV[i + 6])
    local c0 = i + 7; i = c0 + 4 * nc
    local s = call('HGET', h, 's')
    if not s and tombed(rg) then ack(rg..'/'..step); st[#st + 1] = 'closed'
    elseif not s then st[#st + 1] = 'lost'
    elseif s == 'c' then st[#st + 1] = 'cancelled'
    else
      if good == '1' then succeeded(h, step, val) else call('HSETNX', h, '!'..step, '1') end
      -- A caller that claimed in another epoch may hold state from before a loss: verify the jobs that it enqueues.
      local verify = (cep == ep and (ln >= 0 or req == 1)) and '0' or '1'
      for c = c0, i - 1, 4 do
        if not done(h, ARGV[c]) and ready(h, ARGV[c + 3], good == '1' and step) then
          add(first, rg, ARGV[c], verify, ARGV[c + 1], ARGV[c + 2], ARGV[c + 3])
        end
      end
      if others(rg, step) == 0 then
        local v = call('HMGET', h, 'n', 'd')
        st[#st + 1] = v[1] == v[2] and 'complete' or 'last'
      else ack(rg..'/'..step); st[#st + 1] = 'ok' end
    end
