--- Connected handles for the specs of the I/O library.

local moonbridge_io = require "moonbridge_io"
local process = require "spec.support.process"

local pair = {}

--- Two ends of a TCP connection on the loopback interface.
-- @param host address to listen on, default "127.0.0.1"
-- @return the connecting end, the accepting end
function pair.tcp(host)
  local listener = assert(moonbridge_io.tcplisten(host or "127.0.0.1", 0))
  local near = assert(moonbridge_io.tcpconnect(host or "127.0.0.1", listener.local_tcpport))
  local far = assert(listener:accept())
  listener:close()
  return near, far
end

--- Two ends of a local socket.
function pair.unix()
  local path = process.scratch("pair.sock")
  local listener = assert(moonbridge_io.locallisten(path))
  local near = assert(moonbridge_io.localconnect(path))
  local far = assert(listener:accept())
  listener:close()
  os.remove(path)
  return near, far
end

--- Both kinds, for behaviour that they share.
pair.kinds = { TCP = pair.tcp, ["local socket"] = pair.unix }

--- Waits until input can be read; fails when the time of specs is over.
function pair.await(...)
  local set = {}
  for _, handle in ipairs { ... } do set[handle] = true end
  assert(moonbridge_io.poll(set, nil, process.TIMEOUT))
end

--- Packs results with their number, as table.pack, for exact comparisons.
function pair.results(...)
  return table.pack(...)
end

return pair
