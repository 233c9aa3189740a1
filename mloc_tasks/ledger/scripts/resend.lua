-- Notes that a run's messages are sent again, so that of several who find it stranded one sends.
-- KEYS: run, -, -, -, events. ARGV: now, events kept, how often it was resent when the caller looked, reason.
-- Returns ok | changed (it has ended, or somebody else resent it).
local now, maxlen, seen, reason = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
local run = redis.call('HMGET', RUN, 'state', 'resends')
if not run[1] or FINAL[run[1]] or (run[2] or '0') ~= seen then return 'changed' end
redis.call('HSET', RUN, 'resent', now)
redis.call('HINCRBY', RUN, 'resends', 1)
event(maxlen, now, 'resent', '', '', '', '', cjson.encode({reason = reason}))
return 'ok'
