-- Change `O`: opens a run, or rebuilds it from its records.
  -- O rg ep t0 verify envelope steps ndone (step ok value)* njobs (step attempt lane needs)*
  elseif kind == 'O' then
    local oep, t0, verify = ARGV[i + 2], tonumber(ARGV[i + 3]), ARGV[i + 4]
    local env, steps, nd = ARGV[i + 5], ARGV[i + 6], tonumber(ARGV[i + 7])
    local d0 = i + 8; local nj = tonumber(ARGV[d0 + 3 * nd]); local j0 = d0 + 3 * nd + 1; i = j0 + 4 * nj
    local s, over = call('HGET', h, 's'), tonumber(tombed(rg) or '-1')
    -- A reader whose stamp is later than the tombstone would have found the run's end in the records. If it did not,
    -- the run was removed and then submitted again.
    if t0 <= over then st[#st + 1] = s and 'stale' or 'closed'
    elseif s == 'c' then st[#st + 1] = 'cancelled'
    elseif oep ~= ep or t0 < m.hor then st[#st + 1] = 'stale'
    else
      if not s then call('HSET', h, 's', 'o', 'e', env, 'n', steps, 'd', 0) end
      for d = d0, j0 - 2, 3 do
        if ARGV[d + 1] == '1' then succeeded(h, ARGV[d], ARGV[d + 2]) else call('HSETNX', h, '!'..ARGV[d], '1') end
      end
      for j = j0, i - 1, 4 do
        -- A run that is new here has no outcomes, so exactly the steps without needs are ready.
        local begins = not s and nd == 0 and ARGV[j + 3] == ''
        if begins or (not done(h, ARGV[j]) and ready(h, ARGV[j + 3])) then
          add(pushed, rg, ARGV[j], verify, ARGV[j + 1], ARGV[j + 2], ARGV[j + 3])
        end
      end
      -- Acknowledge the jobs of steps that have an outcome. The run's last open job stays: it is the run's outbox.
      for d = d0, j0 - 2, 3 do
        if others(rg, ARGV[d]) > 0 then ack(rg..'/'..ARGV[d]) end
      end
      st[#st + 1] = 'ok'
    end
