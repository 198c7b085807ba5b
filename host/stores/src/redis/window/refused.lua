-- Change `R`: counts a refusal. The loop over the changes ends here.
  -- R '': Redis was full and refused a call that opens runs as a whole; the caller reports that.
  elseif kind == 'R' then
    i = i + 2; call('HINCRBY', META, 'refused', 1); st[#st + 1] = 'ok'
  else st[#st + 1] = 'bad'; i = N + 1 end
end
remove_acked()
if closed > 0 then drop_tombstones() end

