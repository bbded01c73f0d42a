-- A server for a protocol of its own: sends each line back. Clients that say nothing cost no process.
--
--   lua5.4 examples/echo.lua       or       moonbridge examples/echo.lua
--   then: nc 127.0.0.1 7007

local moonbridge = require "moonbridge"

-- A line that is longer, in bytes, comes back in pieces.
local LONGEST = 65536

-- Seconds of silence after which a connection is closed.
local PATIENCE = 300

moonbridge.listen {
  { proto = "tcp", host = "127.0.0.1", port = tonumber(os.getenv("PORT")) or 7007 },
  connect = function(socket)
    -- The silence was too long, or the server shuts down: what is not parked again is closed.
    if socket.wakeup == "timeout" or socket.wakeup == "shutdown" then return true end
    local line, status = socket:read(LONGEST, "\n")
    if not line then return true end
    socket:flush(line)
    -- Between two lines another connection may have this process.
    if status ~= "eof" then socket:park(PATIENCE) end
    return true
  end,
}

moonbridge.run()
