-- Whether runs are open here, each with a job that leads on.
if op == 'knows' then           -- knows rg* -> 1 where the run is open and has a job that leads on
  local res = {}
  for i = 2, #ARGV do res[#res + 1] = (call('EXISTS', p..'h:'..ARGV[i]) == 1 and call('SCARD', p..'j:'..ARGV[i]) > 0) and 1 or 0 end
  return res
end

