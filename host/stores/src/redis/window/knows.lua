-- Whether each run is open here and has at least one open job.
if op == 'knows' then           -- knows rg* -> one a run: 1 if it is open and has an open job, else 0
  local res = {}
  for i = 2, #ARGV do
    res[#res + 1] = (call('EXISTS', p..'h:'..ARGV[i]) == 1 and call('SCARD', p..'j:'..ARGV[i]) > 0) and 1 or 0
  end
  return res
end

