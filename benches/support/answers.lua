--- Asks a peer as wrk will, and holds its answers to what the case says.

local cjson = require "cjson"
local socket = require "socket"

local answers = {}

local function read_chunked(connection)
  local pieces = {}
  while true do
    local size = tonumber(assert(connection:receive("*l")):match("^%x+"), 16)
    if size > 0 then pieces[#pieces + 1] = assert(connection:receive(size)) end
    assert(connection:receive(2) == "\r\n", "a chunk does not end where it should")
    if size == 0 then return table.concat(pieces) end
  end
end

-- What is received from a connection, which is also added to the list `bytes`.
local function recorded(connection, bytes)
  return {
    receive = function(_, what)
      local text, message = connection:receive(what)
      bytes[#bytes + 1] = text
      if what == "*l" then bytes[#bytes + 1] = "\r\n" end
      return text, message
    end,
  }
end

-- Reads a response: {status, head (all its bytes), length (whether it has a Content-Length), body}.
local function read(connection)
  local lines = {}
  repeat
    lines[#lines + 1] = assert(connection:receive("*l"))
  until lines[#lines] == ""
  local head = table.concat(lines, "\r\n") .. "\r\n"
  local length = head:lower():match("\ncontent%-length: (%d+)")
  local response = { status = tonumber(head:match("^HTTP/1%.1 (%d+)")), head = head, length = length ~= nil }
  if length then
    response.body = length == "0" and "" or assert(connection:receive(tonumber(length)))
  else
    assert(head:lower():find("\ntransfer-encoding: chunked\r", 1, true), "the body has no end:\n" .. head)
    response.body = read_chunked(connection)
  end
  return response
end

local function same(value, other)
  if type(value) ~= "table" or type(other) ~= "table" then return value == other end
  for key, part in pairs(value) do
    if not same(part, other[key]) then return false end
  end
  for key in pairs(other) do
    if value[key] == nil then return false end
  end
  return true
end

local function hold(case, response)
  assert(response.status == (case.status or 200),
    ("its status is %s: %s"):format(response.status, response.body:sub(1, 200)))
  local right = response.body == case.body
  if case.json then right = same(cjson.decode(response.body), case.json) end
  assert(right, "its body is another: " .. response.body:sub(1, 200))
  if case.length ~= nil then
    assert(response.length == case.length, "Content-Length or none, it is the other way:\n" .. response.head)
  end
end

--- A connection to the peer with this port on 127.0.0.1.
function answers.connect(port)
  local connection = assert(socket.connect("127.0.0.1", port))
  connection:setoption("tcp-nodelay", true)
  connection:settimeout(10)
  return connection
end

--- Sends the request of a case so many times, each when the last is answered. An error unless all answers are
-- right.
function answers.ask(connection, case, count)
  for _ = 1, count do
    assert(connection:send(case.request))
    hold(case, read(connection))
  end
end

--- Raises an error unless the peer's answers are right, two of them over one connection.
-- @param port of the peer, on 127.0.0.1
-- @param case as in benches/support/requests.lua; `status` if it is not 200
function answers.check(port, case)
  local connection = answers.connect(port)
  local ok, message = pcall(answers.ask, connection, case, 2)
  connection:close()
  if not ok then error(case.title .. ": " .. message, 0) end
end

--- All bytes of the peer's answer.
function answers.bytes(port, case)
  local connection, bytes = answers.connect(port), {}
  assert(connection:send(case.request))
  read(recorded(connection, bytes))
  connection:close()
  return table.concat(bytes)
end

return answers
