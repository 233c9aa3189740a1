-- ARGV: stage, shard, attempt, done, total or '', now, events kept. Ignored when the attempt is no longer the current one.
local stage, shard, attempt, done, total = ARGV[1], ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4]), ARGV[5]
local raw = redis.call('HGET', SHARDS, shard)
if not raw then return 'missing' end
local rec = cjson.decode(raw)
if rec.attempt ~= attempt or rec.state ~= 'running' then return 'stale' end
local stage_done = redis.call('HINCRBY', STAGE, 'items_done', done - (rec.items or 0))
rec.items = done
redis.call('HSET', SHARDS, shard, cjson.encode(rec))
if total ~= '' then redis.call('HSETNX', STAGE, 'items_total', total) end
event(ARGV[7], ARGV[6], 'progress', stage, shard, attempt, '', cjson.encode(
  {done = stage_done, total = tonumber(redis.call('HGET', STAGE, 'items_total') or '')}))
return 'ok'
