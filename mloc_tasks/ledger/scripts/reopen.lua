-- Takes a run that has ended back to work: the one move backwards, as a new generation of the run.
-- KEYS: run, states, -, -, events, then the stage and shards keys of each stage to reopen.
-- ARGV: now, events kept, retention, the generation that the caller saw, then each stage's name and 1 for all of it
-- (also what is done), 0 for what is not done.
-- Returns ok | changed (somebody else reopened it) | missing | the state of a run that is still going.
local now, maxlen, ttl, expected = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
local state = redis.call('HGET', RUN, 'state')
if not state then return 'missing' end
if not FINAL[state] then return state end
if (redis.call('HGET', RUN, 'generation') or '0') ~= expected then return 'changed' end
local generation = redis.call('HINCRBY', RUN, 'generation', 1)

-- Attempts go on counting, so that one of an earlier generation stays stale; `base` is where the budget starts anew.
local function requeue(stage_key, rec, all)
  if rec.error then
    rec.history = rec.history or {}
    rec.history[#rec.history + 1] = {attempt = rec.attempt, worker = rec.worker, error = rec.error}
  end
  if rec.items then redis.call('HINCRBY', stage_key, 'items_done', -rec.items) end
  rec.state, rec.base, rec.generation, rec.fresh = 'queued', rec.attempt, generation, all or nil
  rec.error, rec.items, rec.holder, rec.worker, rec.task, rec.started, rec.ended = nil, nil, nil, nil, nil, nil, nil
  return cjson.encode(rec)
end

local function reopen_record(stage_key, shards_key, id, all)
  local rec = cjson.decode(redis.call('HGET', shards_key, id) or '{"state":"queued"}')
  redis.call('HSET', shards_key, id, requeue(stage_key, rec, all))
end

-- The stage's rows are counted and split again: `floor` keeps the new shards' attempts above all that were.
local function forget_shards(stage_key, shards_key)
  local floor = tonumber(redis.call('HGET', stage_key, 'floor') or 0)
  local ends = redis.call('HMGET', shards_key, 'scatter', 'gather')
  for _, raw in ipairs(redis.call('HVALS', shards_key)) do
    floor = math.max(floor, cjson.decode(raw).attempt or 0)
  end
  redis.call('DEL', shards_key)
  redis.call('HSET', shards_key, 'scatter', ends[1], 'gather', ends[2])
  redis.call('HDEL', stage_key, 'shards', 'shards_done', 'items_done', 'items_total')
  redis.call('HSET', stage_key, 'floor', floor, 'generation', generation)
end

local function reopen_open_shards(stage_key, shards_key)
  local shards = redis.call('HGETALL', shards_key)
  for i = 1, #shards, 2 do
    local rec = tonumber(shards[i]) and cjson.decode(shards[i + 1])
    if rec and rec.state ~= 'done' and rec.state ~= 'cached' then
      redis.call('HSET', shards_key, shards[i], requeue(stage_key, rec, false))
    end
  end
end

local names = {}
for i = 6, #KEYS, 2 do
  local stage_key, shards_key = KEYS[i], KEYS[i + 1]
  local name, all = ARGV[i - 1], ARGV[i] == '1'
  if redis.call('HGET', stage_key, 'scattered') == '1' then
    local scatter = cjson.decode(redis.call('HGET', shards_key, 'scatter'))
    if scatter.state == 'done' and not all then
      reopen_open_shards(stage_key, shards_key)
    else
      forget_shards(stage_key, shards_key)
      reopen_record(stage_key, shards_key, 'scatter', all)
    end
    reopen_record(stage_key, shards_key, 'gather', all)
  else
    reopen_record(stage_key, shards_key, '0', all)
    redis.call('HDEL', stage_key, 'shards_done')
  end
  redis.call('HDEL', stage_key, 'error', 'result', 'started', 'ended', 'unfit', 'fingerprint', 'shards_failed')
  redis.call('HSET', STATES, name, 'queued')
  event(maxlen, now, 'stage', name, '', '', 'queued', cjson.encode({generation = generation}))
  redis.call('EXPIRE', stage_key, ttl)
  redis.call('EXPIRE', shards_key, ttl)
  names[#names + 1] = name
end
redis.call('HDEL', RUN, 'error', 'stop', 'cancel', 'started', 'ended', 'resent', 'resends')
redis.call('HSET', RUN, 'state', 'queued')
event(maxlen, now, 'run', '', '', '', 'queued', cjson.encode({generation = generation, stages = names}))
for _, key in ipairs({RUN, STATES, EVENTS}) do redis.call('EXPIRE', key, ttl) end
return 'ok'
