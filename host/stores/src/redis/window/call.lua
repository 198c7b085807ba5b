-- A numbered call begins: its arguments, and the stored reply if this number was answered before.
-- call inc req seen_ep seen_tick want lease_ms able item* -> {ep, tick, now, refused, statuses, jobs, next}
-- able: '*', or the caller's capabilities separated by commas
local inc, req, want, lease_ms, able = ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[6]), tonumber(ARGV[7]), ARGV[8]
local token, RQ = inc..'#'..ARGV[3], p..'rq:'..ARGV[2]
local last = call('HMGET', RQ, 'n', 'st', 'jobs')
local ln = tonumber(last[1] or '-1')
local m = facts(); heard(m)
local ep, tick, refused = epoch(m, ARGV[4], tonumber(ARGV[5]), ln >= 0 and ln < req - 1)

-- One delivery: {id, verify, lapsed, attempt, envelope, {step, value}*}, or nil if the run is over.
local function deliver(id, b, lapsed)
  local bep, bv, attempt, _, needs = parse(b)
  local rg, step = cut(id)
  local names = split(needs, '\30')
  local f = {'s', 'e', '='..step, '!'..step}
  for _, n in ipairs(names) do f[#f + 1] = '='..n end
  local v = call('HMGET', p..'h:'..rg, unpack(f))
  if not v[1] and tombed(rg) then return nil end
  local verify = bv == '1' or bep ~= ep or lapsed ~= '0' or v[1] ~= 'o' or v[3] or v[4]
  local vals = {}
  for k, n in ipairs(names) do
    if v[4 + k] then vals[#vals + 1] = n; vals[#vals + 1] = v[4 + k] else verify = true end
  end
  return {id, verify and 1 or 0, lapsed, attempt, v[2] or '', vals}
end

-- ln == req: the reply was lost and the call is repeated. ln > req: a late copy of an older call arrives.
if ln >= req then
  local jobs = {}
  if ln == req then
    for _, id in ipairs(split(last[3], ' ')) do
      local b = call('HGET', OWN, id) == token and call('HGET', BODY, id)
      if b then jobs[#jobs + 1] = deliver(id, b, call('HGET', CNT, id) or '0') end
    end
  end
  return {ep, tick, now, refused, ln == req and split(last[2], ' ') or {'old'}, jobs, -1}
end

