-- Redis's protocol (RESP2) for the examples: commands, answers and messages.
--
-- What fails on the way throws an error; then the connection is of no more use.

local moonbridge_io = require "moonbridge_io"

local redis = {}
local Connection = {}
Connection.__index = Connection

--- Connects.
-- @param address "host:port", or the path of a local socket
-- @param wait function that is called while there is nothing to read, see `read_call` of handles
-- @return connection; or nil and a message
function redis.connect(address, wait)
  local host, port = address:match("^([^/]*):(%d+)$")
  local handle, message
  if host then
    handle, message = moonbridge_io.tcpconnect(host, port)
  else
    handle, message = moonbridge_io.localconnect(address)
  end
  if not handle then return nil, address .. ": " .. message end
  return setmetatable({ handle = handle, wait = wait }, Connection)
end

--- Sends a command without waiting for its answer.
function Connection:send(...)
  local words = { ... }
  local parts = { ("*%d\r\n"):format(#words) }
  for index, word in ipairs(words) do
    word = tostring(word)
    parts[index + 1] = ("$%d\r\n%s\r\n"):format(#word, word)
  end
  assert(self.handle:flush(table.concat(parts)))
end

local function read(self, ...)
  local text, status = self.handle:read_call(self.wait, ...)
  if not text then error(status, 0) end
  if status == "eof" then error("Redis has closed the connection", 0) end
  return text
end

--- Receives an answer or a message: a string, an integer, a list, or nil.
-- @return value; or nil and a message if Redis answers with an error
function Connection:receive()
  local kind, rest = read(self, nil, "\n"):match("^(.)(.*)\r\n$")
  if kind == "+" then
    return rest
  elseif kind == "-" then
    return nil, rest
  end
  local number = math.tointeger(tonumber(rest))
  if kind == ":" and number then
    return number
  elseif kind == "$" and number then
    return number >= 0 and read(self, number + 2):sub(1, -3) or nil
  elseif kind == "*" and number then
    local list = {}
    for index = 1, number do list[index] = self:receive() end
    return list
  end
  error("this is not Redis", 0)
end

--- Sends a command and receives its answer.
function Connection:ask(...)
  self:send(...)
  return self:receive()
end

--- Whether the connection, on which nothing is to come, is still there.
function Connection:is_alive()
  local _, status = self.handle:read_nb(1)
  return status == "block"
end

function Connection:close()
  self.handle:close()
end

return redis
