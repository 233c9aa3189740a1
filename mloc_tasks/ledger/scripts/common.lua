-- Shared head of the scripts. KEYS: run, states, stage, shards, events.
local RUN, STATES, STAGE, SHARDS, EVENTS = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
local FINAL = {done = true, failed = true, cancelled = true, skipped = true, cached = true}

local function event(maxlen, now, kind, stage, shard, attempt, state, data)
  redis.call('XADD', EVENTS, 'MAXLEN', '~', maxlen, '*', 't', now, 'kind', kind, 'stage', stage,
    'shard', shard, 'attempt', attempt, 'state', state, 'data', data)
end

-- Whether a claim stands: its worker renews its lease, in the same life as when it took the claim.
local function stands(rec, prefix)
  local lease = rec.holder and redis.call('GET', prefix .. rec.worker)
  local life = lease and string.match(rec.holder, '^[^:]*:[^:]*:(.+)$')
  return lease and (not life or life == lease)
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

-- Skips the stages that can start no more, and ends a run in which nothing is left to do, so that neither needs a worker.
-- A run that succeeds is ended by `finish` instead, once its result is in its place.
local function close_up(maxlen, now)
  local states, listed = {}, redis.call('HGETALL', STATES)
  for i = 1, #listed, 2 do states[listed[i]] = listed[i + 1] end
  local stop, moved = redis.call('HEXISTS', RUN, 'stop') == 1, true
  while moved do
    moved = false
    for name, state in pairs(states) do
      local doomed = state == 'queued' and stop
      if state == 'queued' and not doomed then
        for _, above in ipairs(cjson.decode(redis.call('HGET', RUN .. ':stage:' .. name, 'depends_on'))) do
          local over = states[above]
          doomed = doomed or over == 'failed' or over == 'skipped' or over == 'cancelled'
        end
      end
      if doomed then
        states[name], moved = 'skipped', true
        redis.call('HSET', STATES, name, 'skipped')
        redis.call('HSET', RUN .. ':stage:' .. name, 'ended', now)
        event(maxlen, now, 'stage', name, '', '', 'skipped', '{}')
      end
    end
  end
  local final = nil
  for _, state in pairs(states) do
    if not FINAL[state] then return end
    if state == 'failed' then final = 'failed' elseif state == 'cancelled' then final = final or 'cancelled' end
  end
  if final and not FINAL[redis.call('HGET', RUN, 'state')] then
    redis.call('HSET', RUN, 'state', final, 'ended', now)
    event(maxlen, now, 'run', '', '', '', final, final == 'failed' and redis.call('HGET', RUN, 'error') or '{}')
  end
end
