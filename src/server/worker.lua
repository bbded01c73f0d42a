-- A worker's life: prepare, any number of connections, finish. The steps in Rust never call user
-- code; everything that may throw or yield is called from here.

local pool, step = ...
local xpcall = xpcall
local stderr, exit = io.stderr, os.exit
local describe = step.describe

local function tell(name, report)
  step.lift_limit()
  step.disarm()
  local context = step.context()
  stderr:write('Error in "', name, '" function: ', context and context .. ": " or "", report, "\n")
end

local function fail(name, report)
  tell(name, report)
  step.abort()
end

local function guarded(name, f)
  if not f then return end
  local ok, report = xpcall(f, describe)
  step.disarm()
  if not ok then
    tell(name, report)
    -- In development, the HTTP handler shows that instead of its own answers.
    if name ~= "prepare" or not step.show(report) then step.abort() end
    pool.finish = nil
  end
  step.leave_child()
end

local trouble = step.limit()
if trouble then error(trouble, 0) end
guarded("prepare", pool.prepare)
step.ready()

local report = step.serve()
if report ~= nil then fail("connect", report) end

guarded("finish", pool.finish)
step.over()
-- As if the script had ended: finalizers run. Never back into the host's main program.
exit(0, true)
