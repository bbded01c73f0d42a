-- `run`: serves until everything is shut down. In a new worker, `serve` returns the worker's
-- functions; a worker never returns from here.

local serve, worker_main = ...

return function(options)
  local outcome, pool, step = serve(options)
  if outcome == "worker" then return worker_main(pool, step) end
  return outcome
end
