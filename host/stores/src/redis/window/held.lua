-- The steps of a run that are leased now.
-- held rg -> (step worker)*; worker is '' if the caller with the lease is no worker
if op == 'held' then
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

