-- Ends the stages of a cancelled run whose workers are gone: nobody else would.
-- KEYS: run, states, -, -, events, then the shards key of each stage that is not over.
-- ARGV: now, events kept, prefix of leases, then these stages' names.
-- Returns ok | alive (a claim of it has a live worker) | changed (not cancelled, or over).
local now, maxlen, prefix = ARGV[1], ARGV[2], ARGV[3]
local run = redis.call('HMGET', RUN, 'state', 'cancel')
if not run[1] or FINAL[run[1]] or not run[2] then return 'changed' end
local held = {}
for i = 6, #KEYS do
  local shards = redis.call('HGETALL', KEYS[i])
  for j = 1, #shards, 2 do
    local rec = cjson.decode(shards[j + 1])
    if rec.state == 'running' then
      if stands(rec, prefix) then return 'alive' end
      rec.state, rec.ended, rec.holder = 'cancelled', tonumber(now), nil
      held[#held + 1] = {KEYS[i], shards[j], cjson.encode(rec)}
    end
  end
end
for _, write in ipairs(held) do redis.call('HSET', unpack(write)) end
for i = 6, #KEYS do
  local stage = ARGV[i - 2]
  if not FINAL[redis.call('HGET', STATES, stage)] then
    redis.call('HSET', STATES, stage, 'cancelled')
    event(maxlen, now, 'stage', stage, '', '', 'cancelled', '{}')
  end
end
return 'ok'
