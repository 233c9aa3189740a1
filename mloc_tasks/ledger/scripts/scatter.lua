-- Ends the scatter attempt of a sharded stage. ARGV: stage, attempt, now, shards, rows or '', events kept.
-- The shard records were written before, under the same attempt; a stale attempt changes nothing.
local stage, attempt, now, shards, rows, maxlen = ARGV[1], tonumber(ARGV[2]), ARGV[3], ARGV[4], ARGV[5], ARGV[6]
local rec = cjson.decode(redis.call('HGET', SHARDS, 'scatter'))
if rec.attempt == attempt and rec.state == 'done' then return 'ok' end  -- sent twice: the first answer got lost
if rec.attempt ~= attempt or rec.state ~= 'running' then return 'stale' end
rec.state, rec.ended, rec.holder = 'done', tonumber(now), nil
redis.call('HSET', SHARDS, 'scatter', cjson.encode(rec))
redis.call('HSET', STAGE, 'shards', shards)
if rows ~= '' then redis.call('HSET', STAGE, 'items_total', rows) end
event(maxlen, now, 'scatter', stage, '', attempt, '', cjson.encode({shards = tonumber(shards), rows = tonumber(rows)}))
return 'ok'
