-- Which records this window belongs to.
if op == 'belongs' then         -- belongs records -> the records that this belongs to; those given, if to none
  if ARGV[2] ~= '' then call('HSETNX', META, 'records', ARGV[2]) end
  return call('HGET', META, 'records')
end

