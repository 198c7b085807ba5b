-- Extends leases, or takes them back after a rebuild.
-- renew lease_ms seen_ep (id token)* -> one a lease: 1 renewed (or taken back), 0 gone, 3 unknown here
if op == 'renew' then
  local m = facts(); heard(m); call('HSET', META, 'seen', now)
  local exp, res = now + tonumber(ARGV[2]), {}
  for i = 4, #ARGV, 2 do
    local id, token = ARGV[i], ARGV[i + 1]
    local rg, step = cut(id)
    local v = call('HMGET', p..'h:'..rg, 's', '='..step, '!'..step)
    local owner = call('HGET', OWN, id)
    local answer = 3
    if v[1] == 'c' or (not v[1] and tombed(rg)) then answer = 0
    elseif owner == token then call('ZADD', LEASE, exp, id); answer = 1
    elseif v[2] or v[3] then answer = 0
    elseif call('HEXISTS', BODY, id) == 1 then
      if takes_back(id, token, owner, m.ep, ARGV[3]) then
        call('HSET', OWN, id, token); call('ZADD', LEASE, exp, id); call('ZREM', DELAY, id); answer = 1
      elseif ARGV[3] == m.ep then answer = 0 end
    end
    res[#res + 1] = answer
  end
  return res
end

