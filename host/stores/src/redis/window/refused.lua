-- Change `R`: runs were refused for want of room. The loop over the changes ends here.
  elseif kind == 'R' then       -- R '': what opened runs was refused as a whole, because Redis is full; its caller says so
    i = i + 2; call('HINCRBY', META, 'refused', 1); st[#st + 1] = 'ok'
  else st[#st + 1] = 'bad'; i = N + 1 end
end
remove_acked()
if closed > 0 then drop_tombstones() end

