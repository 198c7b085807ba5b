-- Hands out jobs.
-- The lanes (sets of requirements) that the caller can serve. Each call begins with another lane, so that all get their
-- turn. Lanes with the successors of the steps that the caller just finished come first: it has decoded their pictures.
local function served()
  local have, mine = {}, {}
  for _, name in ipairs(split(able, ',')) do have[name] = true end
  for _, lane in ipairs(call('SMEMBERS', LANES)) do
    local good = true
    if able ~= '*' then for _, need in ipairs(split(lane, ',')) do good = good and have[need] end end
    if good then mine[#mine + 1] = lane end
  end
  table.sort(mine)
  local turned = {}
  for k = 1, #mine do
    local lane = mine[(tick + k) % #mine + 1]
    if first[lane] then table.insert(turned, 1, lane) else turned[#turned + 1] = lane end
  end
  return turned
end

local jobs, held = {}, {}
if want > 0 then
  local own, until_ms, taken = {}, {}, {}
  for _, lane in ipairs(served()) do
    while want > 0 do
      local ids = call('LPOP', Q..lane, math.min(want, 256))
      if not ids or #ids == 0 then call('SREM', LANES, lane); break end
      local bodies, lapsed = call('HMGET', BODY, unpack(ids)), call('HMGET', CNT, unpack(ids))
      local leased, delayed = call('ZMSCORE', LEASE, unpack(ids)), call('ZMSCORE', DELAY, unpack(ids))
      for k, id in ipairs(ids) do
        -- A job without a body was acknowledged; a renewal adopted a job that is leased.
        if bodies[k] and not leased[k] and not delayed[k] and not taken[id] then
          local d = deliver(id, bodies[k], lapsed[k] or '0')
          if d then
            jobs[#jobs + 1] = d; held[#held + 1] = id; want = want - 1; taken[id] = true
            own[#own + 1] = id; own[#own + 1] = token
            until_ms[#until_ms + 1] = now + lease_ms; until_ms[#until_ms + 1] = id
          else ack(id) end
        end
      end
    end
  end
  for k = 1, #own, 500 do
    local last = math.min(#own, k + 499)
    call('HSET', OWN, unpack(own, k, last)); call('ZADD', LEASE, unpack(until_ms, k, last))
  end
  remove_acked()
end
local nextms = -1
