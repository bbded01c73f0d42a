-- Waiting on a connection: by itself, or with the caller's wait function.

local native, _, _, moonbridge_io = ...

local native_wait, now = native.wait, native.now

local waiting = {}

--- The maximum duration of a wait, in seconds; 0 or less: the time is up.
function waiting.allowed(job, seconds)
  local left = job.deadline and job.deadline - now()
  return left and left < seconds and left or seconds
end

local allowed = waiting.allowed

--- Waits on a connection.
-- @param x {link, handle, job, waitfunc}
-- @param mode "r", "w" or "rw"; or "expect": as "r", but a function of the caller's is not asked, since it is
--   told what to wait for, but not how long
-- @param seconds how long at most, if not as long as the job says
-- @return true, or nil and a message
function waiting.wait(x, mode, seconds)
  local job, link, waitfunc = x.job, x.link, x.waitfunc
  local limit = allowed(job, seconds or job.stall_timeout)
  if mode == "expect" then
    if waitfunc then return true end
    mode = "r"
  end
  if not waitfunc then
    if limit > 0 and native_wait(link, mode, limit) then return true end
    return nil, "timeout"
  end
  local deadline = now() + limit
  while now() < deadline do
    if native_wait(link, mode, 0) then return true end
    waitfunc(x.handle, mode == "r" and "r" or "w", moonbridge_io)
  end
  return native_wait(link, mode, 0) or nil, "timeout"
end

return waiting
