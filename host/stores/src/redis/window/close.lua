-- Change `X`: closes a run that is over.
  elseif kind == 'X' then       -- X rg
    i = i + 2; close(rg); st[#st + 1] = 'ok'
