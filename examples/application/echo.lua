-- A custom protocol on an upgraded connection: sends all bytes back.
--
--   GET /echo with `Connection: Upgrade` and `Upgrade: echo`

local moonbridge_io = require "moonbridge_io"
local page = require "page"

local echo = {}

-- The maximum bytes per read, and the seconds of inactivity after which the connection is closed.
local PIECE, TIMEOUT = 16384, 60

--- GET /echo
function echo.upgrade(request)
  if not (request.headers_flags.Connection.Upgrade and request.headers_flags.Upgrade.echo) then
    return page.fail(request, "426 Upgrade Required", "This address speaks the protocol “echo”.",
      { Connection = "Upgrade", Upgrade = "echo" })
  end
  request:send_status("101 Switching Protocols")
  request:send_header("Connection", "Upgrade")
  request:send_header("Upgrade", "echo")
  request:finish_headers()
  local socket = request.socket
  local input, output = { [socket] = true }, { [socket] = true }
  -- What the client has sent directly after its request is already available.
  local bytes, status = socket:read_nb(PIECE)
  while bytes do
    local left = socket:flush_nb(bytes)
    while left and left > 0 and moonbridge_io.poll(nil, output, TIMEOUT, true) do
      left = socket:flush_nb()
    end
    if left ~= 0 or status == "eof" then break end
    -- A shutdown of the server ends the wait, too.
    if status == "block" and not moonbridge_io.poll(input, nil, TIMEOUT, true) then break end
    bytes, status = socket:read_nb(PIECE)
  end
  return true
end

return echo
