-- Change `C`: marks a run as cancelled.
  elseif kind == 'C' then       -- C rg
    i = i + 2
    if call('HEXISTS', h, 's') == 1 then call('HSET', h, 's', 'c'); call('PUBLISH', p..'bell', 'cancel '..rg) end
    st[#st + 1] = 'ok'
