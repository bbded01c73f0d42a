-- `run`: serves until everything is shut down. In a new worker, `serve` returns the worker's
-- functions; a worker never returns from here. Nor does the process of an access log.

local serve, worker_main = ...
local error, pcall, tostring, xpcall = error, pcall, tostring, xpcall
local stdout, stderr, exit = io.stdout, io.stderr, os.exit
local traceback = debug.traceback

local function complain(message)
  stderr:write("The worker failed: ", tostring(message), "\n")
end

-- A worker's life ends by leaving the process; whatever else happens, it is not to go on with what
-- the host program does after `run`.
local function live(pool, step)
  local _, message = pcall(worker_main, pool, step)
  -- Each of these may fail where there is no memory left; the last needs none.
  pcall(step.lift_limit)
  pcall(complain, message)
  pcall(step.abort)
  exit(1)
end

local function explain(message)
  return traceback(tostring(message), 2)
end

-- The life of the process of an access log that is a function: it is called for each request. That it fails,
-- or that there is no memory, concerns this request alone.
local function tell(step)
  local is_over
  repeat
    local ok, request = pcall(step.next)
    is_over = ok and not request
    if ok and request then
      ok, request = xpcall(step.call, explain, request)
    end
    if not ok then pcall(step.failed, tostring(request)) end
  until is_over
  exit(0)
end

-- Returns the exit code, or nil and what is wrong; "checked" and what would be served if the script is only
-- checked.
local function run(options)
  local outcome, pool, step = serve(options)
  if outcome == "worker" then live(pool, step) end
  if outcome == "access log" then tell(pool) end
  return outcome, pool
end

-- What the module exports raises errors at its caller's position.
local function public(options)
  local code, message = run(options)
  if not code then error(message, 2) end
  if code == "checked" then
    -- What the script does after `run` is for a server that has ended.
    stdout:write(message)
    exit(0, true)
  end
  return code
end

return public, run
