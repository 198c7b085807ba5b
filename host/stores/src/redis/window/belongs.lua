-- Reads or binds the identity of the records that this window belongs to.
-- belongs records -> the bound identity; binds `records` if it is not '' and no identity is bound
if op == 'belongs' then
  if ARGV[2] ~= '' then call('HSETNX', META, 'records', ARGV[2]) end
  return call('HGET', META, 'records')
end

