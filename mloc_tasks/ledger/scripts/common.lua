-- Shared head of the scripts. KEYS: run, states, stage, shards, events.
local RUN, STATES, STAGE, SHARDS, EVENTS = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
local FINAL = {done = true, failed = true, cancelled = true, skipped = true, cached = true}

local function event(maxlen, now, kind, stage, shard, attempt, state, data)
  redis.call('XADD', EVENTS, 'MAXLEN', '~', maxlen, '*', 't', now, 'kind', kind, 'stage', stage,
    'shard', shard, 'attempt', attempt, 'state', state, 'data', data)
end

-- Moves a stage forward; says whether it moved.
local function move_stage(maxlen, now, stage, state, data)
  local old = redis.call('HGET', STATES, stage)
  if FINAL[old] or old == state then return false end
  redis.call('HSET', STATES, stage, state)
  if FINAL[state] then redis.call('HSET', STAGE, 'ended', now) else redis.call('HSET', STAGE, 'started', now) end
  event(maxlen, now, 'stage', stage, '', '', state, data)
  return true
end
