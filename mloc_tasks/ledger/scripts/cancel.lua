-- KEYS: run, states, -, -, events. ARGV: now, events kept. Returns the run's state afterwards, '' where there is no run.
local now, maxlen = ARGV[1], ARGV[2]
local state = redis.call('HGET', RUN, 'state')
if not state then return '' end
if FINAL[state] then return state end
redis.call('HSET', RUN, 'cancel', now)
local busy = false
local states = redis.call('HGETALL', STATES)
for i = 1, #states, 2 do
  if states[i + 1] == 'queued' then
    redis.call('HSET', STATES, states[i], 'cancelled')
    event(maxlen, now, 'stage', states[i], '', '', 'cancelled', '{}')
  elseif states[i + 1] == 'running' then
    busy = true
  end
end
if busy then return state end
redis.call('HSET', RUN, 'state', 'cancelled', 'ended', now)
event(maxlen, now, 'run', '', '', '', 'cancelled', '{}')
return 'cancelled'
