-- timeout(): the remaining time; timeout(seconds): sets or, with 0, stops the timer that kills this
-- process; timeout(seconds, f, ...): the same for the run time of a function.

local set, limit, restore, failed = ...
local error, xpcall = error, xpcall
local traceback = debug.traceback

-- The stack is gone when the error is raised again: its traceback is kept for the log.
local function keep(err)
  failed.error, failed.traceback = err, traceback("", 2)
  return err
end

local function settle(outer, ok, ...)
  restore(outer)
  if not ok then error((...), 0) end
  return ...
end

return function(seconds, f, ...)
  if f == nil then return set(seconds) end
  return settle(limit(seconds), xpcall(f, keep, ...))
end
