-- ARGV: stage, shard, worker, holder, task id, now, takeover attempt or 0, worker key, events kept, whole (1|0), retention
-- Returns {status, record}: claimed | busy | waiting | cancelled | skipped | the final state it has | missing.
local stage, shard, worker, holder, task = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5]
local now, takeover, prefix, maxlen, whole, ttl = ARGV[6], tonumber(ARGV[7]), ARGV[8], ARGV[9], ARGV[10] == '1', ARGV[11]
local raw = redis.call('HGET', SHARDS, shard)
local run = redis.call('HMGET', RUN, 'state', 'cancel', 'stop')
if not raw or not run[1] then return {'missing', ''} end
local rec = cjson.decode(raw)
if FINAL[rec.state] then return {rec.state, raw} end

-- A stage that is over takes no more shards, nor does one that has failed already in a run that is to stop.
local refusal, stage_state = nil, redis.call('HGET', STATES, stage)
if run[2] or run[1] == 'cancelled' or stage_state == 'cancelled' then
  refusal = 'cancelled'
elseif stage_state == 'skipped' then
  refusal = 'skipped'
elseif run[3] and rec.state == 'queued' and shard ~= 'gather'  -- which reports what became of the shards
    and tonumber(redis.call('HGET', STAGE, 'shards_failed') or 0) > 0 then
  refusal = 'skipped'
end
local deps = cjson.decode(redis.call('HGET', STAGE, 'depends_on'))
if not refusal and #deps > 0 then
  local waiting = false
  for _, state in ipairs(redis.call('HMGET', STATES, unpack(deps))) do
    if state == 'failed' or state == 'skipped' or state == 'cancelled' then refusal = 'skipped'
    elseif state ~= 'done' and state ~= 'cached' then waiting = true end
  end
  if waiting and not refusal then return {'waiting', raw} end
end
if refusal then
  rec.state, rec.ended = refusal, tonumber(now)
  raw = cjson.encode(rec)
  redis.call('HSET', SHARDS, shard, raw)
  if whole then move_stage(maxlen, now, stage, refusal, '{}') end
  close_up(maxlen, now)
  return {refusal, raw}
end

if rec.state == 'running' and takeover ~= rec.attempt and rec.holder ~= holder and stands(rec, prefix) then
  return {'busy', raw}
end
if rec.items then
  redis.call('HINCRBY', STAGE, 'items_done', -rec.items)
  rec.items = nil
end
if rec.state == 'running' then  -- its attempt ended without a word, unless it was released
  local last = rec.history and rec.history[#rec.history]
  if not last or last.attempt ~= rec.attempt then
    rec.history = rec.history or {}
    rec.history[#rec.history + 1] = {attempt = rec.attempt, worker = rec.worker,
      error = {message = 'its worker or its process vanished'}}
  end
end
rec.state, rec.attempt, rec.worker, rec.holder, rec.task = 'running', (rec.attempt or 0) + 1, worker, holder, task
rec.started, rec.ended = tonumber(now), nil
raw = cjson.encode(rec)
redis.call('HSET', SHARDS, shard, raw)
if run[1] == 'queued' then
  redis.call('HSET', RUN, 'state', 'running', 'started', now)
  event(maxlen, now, 'run', '', '', '', 'running', '{}')
end
if move_stage(maxlen, now, stage, 'running', '{}') then
  for _, key in ipairs(KEYS) do redis.call('EXPIRE', key, ttl) end
end
event(maxlen, now, 'shard', stage, shard, rec.attempt, 'running', '{"worker":' .. cjson.encode(worker) .. '}')
return {'claimed', raw}
