-- A stamp for a process that is about to read the records.
if op == 'peek' then            -- peek seen_ep seen_tick -> {ep, tick, now, refused}
  local m = facts(); heard(m)
  local ep, tick, refused = epoch(m, ARGV[2], tonumber(ARGV[3]), false)
  return {ep, tick, now, refused}
end

