-- A protocol of its own on a connection that began with HTTP: sends all bytes back.
--
--   GET /echo with `Connection: Upgrade` and `Upgrade: echo`

local moonbridge_io = require "moonbridge_io"
local page = require "page"

local echo = {}

-- Bytes at once, and seconds of silence after which the connection is closed.
local PIECE, PATIENCE = 16384, 60

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
  -- What the client sent right behind its request is there without any waiting.
  local bytes, status = socket:read_nb(PIECE)
  while bytes do
    local left = socket:flush_nb(bytes)
    while left and left > 0 and moonbridge_io.poll(nil, output, PATIENCE, true) do
      left = socket:flush_nb()
    end
    if left ~= 0 or status == "eof" then break end
    -- A shutdown of the server ends the waiting as well.
    if status == "block" and not moonbridge_io.poll(input, nil, PATIENCE, true) then break end
    bytes, status = socket:read_nb(PIECE)
  end
  return true
end

return echo
