-- `run`: serves until everything is shut down. In a new worker, `serve` returns the worker's
-- functions; a worker never returns from here.

local serve, worker_main = ...
local error = error

-- Returns the exit code, or nil and what is wrong.
local function run(options)
  local outcome, pool, step = serve(options)
  if outcome == "worker" then return worker_main(pool, step) end
  return outcome, pool
end

-- What the module exports raises errors at its caller's position.
local function public(options)
  local code, message = run(options)
  if not code then error(message, 2) end
  return code
end

return public, run
