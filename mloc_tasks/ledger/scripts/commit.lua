-- Ends an attempt. ARGV: stage, shard, attempt, state (done | cached | failed | released), now, error JSON or '',
-- result JSON or '', items or '', events kept, whole (1|0)
-- Returns ok | stale | the final state that the shard already has. Sent twice, because the first answer got lost, it
-- says ok twice.
local stage, shard, attempt, state, now = ARGV[1], ARGV[2], tonumber(ARGV[3]), ARGV[4], ARGV[5]
local error, result, items, maxlen, whole = ARGV[6], ARGV[7], tonumber(ARGV[8]), ARGV[9], ARGV[10] == '1'
local raw = redis.call('HGET', SHARDS, shard)
if not raw then return 'missing' end
local rec = cjson.decode(raw)
if rec.attempt ~= attempt then return 'stale' end
if FINAL[rec.state] then return rec.state == state and 'ok' or rec.state end
if not rec.holder then
  local last = rec.history and rec.history[#rec.history]
  return state == 'released' and last and last.attempt == attempt and 'ok' or 'stale'
end

rec.holder = nil
if state == 'released' then
  rec.history = rec.history or {}
  rec.history[#rec.history + 1] = {attempt = attempt, worker = rec.worker, error = cjson.decode(error)}
  redis.call('HSET', SHARDS, shard, cjson.encode(rec))
  event(maxlen, now, 'shard', stage, shard, attempt, 'released', error)
  return 'ok'
end
rec.state, rec.ended = state, tonumber(now)
if error ~= '' then rec.error = cjson.decode(error) end
if items then
  redis.call('HINCRBY', STAGE, 'items_done', items - (rec.items or 0))
  rec.items = items
end
redis.call('HSET', SHARDS, shard, cjson.encode(rec))
event(maxlen, now, 'shard', stage, shard, attempt, state, error ~= '' and error or '{}')
if tonumber(shard) then redis.call('HINCRBY', STAGE, state == 'failed' and 'shards_failed' or 'shards_done', 1) end
if state == 'failed' then
  redis.call('HSETNX', RUN, 'error', error)
  if redis.call('HGET', RUN, 'on_failure') == 'stop' then redis.call('HSET', RUN, 'stop', '1') end
end
if whole then
  if result ~= '' then redis.call('HSET', STAGE, 'result', result) end
  if error ~= '' then redis.call('HSET', STAGE, 'error', error) end
  move_stage(maxlen, now, stage, state, error ~= '' and error or '{}')
end
if state == 'failed' then close_up(maxlen, now) end
return 'ok'
