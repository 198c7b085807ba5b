-- The living workers.
if op == 'workers' then         -- workers -> (worker about)*
  local res = {}; facts()
  for _, who in ipairs(call('ZRANGEBYSCORE', p..'wt', '('..now, '+inf')) do
    local about = call('HGET', p..'w', who)
    if about then res[#res + 1] = (worker(who)); res[#res + 1] = about end
  end
  return res
end

