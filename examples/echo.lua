-- A server for a custom protocol, which sends each line back. Idle clients do not occupy a worker.
--
--   lua5.4 examples/echo.lua       or       moonbridge examples/echo.lua
--   then: nc 127.0.0.1 7007       (Debian: netcat-openbsd)

local moonbridge = require "moonbridge"

-- Longer lines, in bytes, are sent back in pieces.
local LONGEST = 65536

-- Seconds of inactivity after which a connection is closed.
local TIMEOUT = 300

moonbridge.listen {
  { proto = "tcp", host = "127.0.0.1", port = tonumber(os.getenv("PORT")) or 7007 },
  connect = function(socket)
    -- Timeout or shutdown: without parking again, the server closes the connection.
    if socket.wakeup == "timeout" or socket.wakeup == "shutdown" then return true end
    local line, status = socket:read(LONGEST, "\n")
    if not line then return true end
    socket:flush(line)
    -- Between two lines the worker can serve other connections.
    if status ~= "eof" then socket:park(TIMEOUT) end
    return true
  end,
}

moonbridge.run()
