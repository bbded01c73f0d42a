--- Many event streams at once, and what they hear.
--
--     local crowd = streams.open(s.port, 1000, "/events")
--     crowd:wait(function(lines) return lines[#lines] == "the last" end)

local moonbridge_io = require "moonbridge_io"
local process = require "spec.support.process"

local streams = {}
local Crowd = {}
Crowd.__index = Crowd

local open = {}

local REQUEST = "GET %s HTTP/1.1\r\nHost: x\r\n%s\r\n"

--- Opens so many streams, and waits for the heads of their responses.
-- @param port on 127.0.0.1, or a function that connects
-- @param headers (optional) lines of the requests
function streams.open(port, count, target, headers)
  local self = setmetatable({ streams = {} }, Crowd)
  -- LuaSocket cannot wait for descriptors beyond 1,023: low ones stay free for the spec's other connections.
  local low = {}
  for index = 1, 50 do low[index] = assert(io.open "/dev/null") end
  for index = 1, count do
    local handle = type(port) == "function" and port() or assert(moonbridge_io.tcpconnect("127.0.0.1", port))
    self.streams[index] = { handle = handle, text = "" }
    open[handle] = true
    assert(handle:flush(REQUEST:format(target, headers or "")))
  end
  for _, file in ipairs(low) do file:close() end
  self:wait(function(_, stream) return stream.text:find("\r\n\r\n", 1, true) end)
  for _, stream in ipairs(self.streams) do assert(stream.text:find "^HTTP/1.1 200", stream.text) end
  return self
end

local function read(stream)
  local text, status = stream.handle:read_nb()
  stream.text = stream.text .. (text or "")
  if not text or status == "eof" then stream.ending = text and "closed" or status end
end

-- The values of the complete `data:` lines.
local function lines(stream)
  local found = {}
  for line in stream.text:gmatch "data: ([^\n]*)\n" do found[#found + 1] = line end
  return found
end

--- Reads until `done(lines, stream)` is true for all streams; it gets their `data:` lines. An error if one
-- ends before, or if the time is over.
function Crowd:wait(done, timeout)
  local left, start = {}, moonbridge_io.timeref()
  for _, stream in ipairs(self.streams) do
    if not done(lines(stream), stream) then left[stream.handle] = stream end
  end
  while next(left) do
    moonbridge_io.poll(left, nil, 1)
    for handle, stream in pairs(left) do
      local before = #stream.text
      read(stream)
      if #stream.text > before and done(lines(stream), stream) then
        left[handle] = nil
      elseif stream.ending then
        error(("a stream has ended (%s): %q"):format(stream.ending, stream.text:sub(-300)), 2)
      end
    end
    if moonbridge_io.timeref(start) > (timeout or 6 * process.TIMEOUT) then
      local _, stream = next(left)
      error(("a stream has not heard all: %q"):format(stream.text:sub(-300)), 2)
    end
  end
end

--- What each stream has heard, as a list of texts: its `data:` lines, joined by spaces.
function Crowd:heard()
  local all = {}
  for index, stream in ipairs(self.streams) do all[index] = table.concat(lines(stream), " ") end
  return all
end

--- Closes all streams.
function Crowd:close()
  for _, stream in ipairs(self.streams) do
    open[stream.handle] = nil
    stream.handle:close()
  end
end

--- Closes all that is left; for `after_each`.
function streams.cleanup()
  for handle in pairs(open) do handle:close() end
  open = {}
end

return streams
