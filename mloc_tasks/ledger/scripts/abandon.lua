-- Frees the claim of a process that died. ARGV: stage, shard, task id, worker, now, events kept.
local stage, shard, task, worker, now, maxlen = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5], ARGV[6]
local raw = redis.call('HGET', SHARDS, shard)
if not raw then return 'missing' end
local rec = cjson.decode(raw)
if rec.state ~= 'running' or rec.task ~= task or rec.worker ~= worker or not rec.holder then return 'stale' end
rec.holder = nil
redis.call('HSET', SHARDS, shard, cjson.encode(rec))
event(maxlen, now, 'shard', stage, shard, rec.attempt, 'lost', '{"worker":' .. cjson.encode(worker) .. '}')
return 'ok'
