-- Change `O`: a run is opened, or rebuilt from its records.
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
