--- What a server says of itself, and what the kernel says of its connections: which processes have each.

local lfs = require "lfs"
local process = require "spec.support.process"

local status = {}

--- A statement of a handler that answers with the pool's figures; `moonbridge` must be the module.
status.ANSWER = [[
  for name, value in pairs(moonbridge.status()[1]) do request:send_data(name, "=", value, " ") end
]]

--- Seconds after which an idle connection is the supervisor's.
status.COLD = 1.5

local SCRIPT = [[
  moonbridge = require "moonbridge"
  mio, http = require "moonbridge_io", require "moonbridge_http"
  moonbridge.listen {
    { proto = "tcp", host = "127.0.0.1", port = PORT },
    POOL
    connect = http.generate_handler(function(request)
      BEFORE
      request:send_status("200 OK")
      if request.path == "status" then
        FIGURES
      else
        request:send_data(ANSWER)
      end
      return true
    end, { OPTIONS }),
  }
  RUN
]]

--- The script of a server whose handler answers /status with `status.ANSWER`. All parts are Lua text.
-- @param parts table: `pool`, fields of the pool; `options`, those of the handler's options; `before`, what
--   the handler does first; `answer`, what it sends for other paths (the worker's pid); `run`, the last
--   statement (moonbridge.run())
function status.script(parts)
  local pool = parts.pool and parts.pool .. "," or ""
  local texts = {
    POOL = pool, OPTIONS = parts.options or "", BEFORE = parts.before or "",
    FIGURES = status.ANSWER, ANSWER = parts.answer or "mio.getpid()", RUN = parts.run or "moonbridge.run()",
  }
  return (SCRIPT:gsub("%u+", texts))
end

--- A figure of the first pool, e.g. "parked". The server answers /status with `status.ANSWER`.
function status.figure(s, name)
  return tonumber(s:request("/status").body:match(name .. "=(%d+)"))
end

--- Waits until the figure is what is expected; an error if it never is.
function status.wait_figure(s, name, expected, timeout)
  local figure
  local reached = process.wait_until(function()
    figure = status.figure(s, name)
    return figure == expected
  end, timeout)
  assert(reached, ("%s is %s instead of %s"):format(name, figure, expected))
end

-- The inode of the server's end of a TCP connection, or nil.
local function inode(connection)
  local pattern = (":%04X %%x+:%04X %%x%%x %%S+ %%S+ %%S+ +%%d+ +%%d+ (%%d+) "):format(
    connection.port, connection.local_port)
  for _, path in ipairs { "/proc/net/tcp", "/proc/net/tcp6" } do
    local found = (process.slurp(path) or ""):match(pattern)
    if found then return found end
  end
end

--- What a process has open: a set of paths, and of what the kernel calls the rest ("socket:[1234]").
function status.descriptors(pid)
  local folder, names = ("/proc/%d/fd"):format(pid), {}
  local listed, iterator, state = pcall(lfs.dir, folder)
  if not listed then return names end
  for fd in iterator, state do
    local name = lfs.symlinkattributes(folder .. "/" .. fd, "target")
    if name then names[name] = true end
  end
  return names
end

--- Which processes have the connection open: "supervisor", "worker PID", or several with commas.
function status.holders(s, connection)
  local number = inode(connection)
  if not number then return "" end
  local name, found = ("socket:[%s]"):format(number), {}
  if status.descriptors(s.pid)[name] then found[1] = "supervisor" end
  for _, pid in ipairs(s:workers()) do
    if status.descriptors(pid)[name] then found[#found + 1] = "worker " .. pid end
  end
  return table.concat(found, ", ")
end

--- Waits until the server's end of a TCP connection is gone; true, or nil when the time is over.
function status.wait_gone(connection, timeout)
  return process.wait_until(function()
    -- The kernel may leave one out of a list that changes while it is read.
    return not inode(connection) and not inode(connection)
  end, timeout)
end

--- Waits until these processes have it; returns who has it then.
function status.wait_holders(s, connection, expected, timeout)
  process.wait_until(function() return status.holders(s, connection) == expected end, timeout)
  return status.holders(s, connection)
end

return status
