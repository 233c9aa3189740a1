-- KEYS: run, states, -, -, events. ARGV: now, events kept, result stage.
-- Ends a run whose stages are all over. Returns {state, moved (1|0)}; 'running' where a stage is still open.
local now, maxlen = ARGV[1], ARGV[2]
local state = redis.call('HGET', RUN, 'state')
if not state then return {'missing', 0} end
if FINAL[state] then return {state, 0} end
local final = 'done'
for _, stage in ipairs(redis.call('HVALS', STATES)) do
  if not FINAL[stage] then return {'running', 0} end
  if stage == 'failed' then final = 'failed'
  elseif stage == 'cancelled' and final ~= 'failed' then final = 'cancelled' end
end
redis.call('HSET', RUN, 'state', final, 'ended', now)
local error = redis.call('HGET', RUN, 'error')
event(maxlen, now, 'run', '', '', '', final, (final == 'failed' and error) or '{}')
return {final, 1}
