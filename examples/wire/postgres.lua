-- PostgreSQL's protocol (3.0) for the examples: statements with parameters, and notifications.
--
-- It knows no passwords: connect over the local socket, where PostgreSQL asks the system who you are.
-- What fails on the way throws an error; then the connection is of no more use.

local moonbridge_io = require "moonbridge_io"

local postgres = {}
local Connection = {}
Connection.__index = Connection

local function read(self, size)
  local bytes, status = self.handle:read_call(self.wait, size)
  if not bytes then error(status, 0) end
  if #bytes < size then error("PostgreSQL has closed the connection", 0) end
  return bytes
end

-- Receives a message: its kind, a letter, and its content.
local function receive(self)
  local kind, length = string.unpack(">c1I4", read(self, 5))
  return kind, read(self, length - 4)
end

local function message(kind, content)
  return kind .. string.pack(">I4", #content + 4) .. content
end

-- The text of an error: one of its fields, which begin with a letter and end with a zero byte.
local function problem(content)
  return ("\0" .. content):match("%zM([^%z]*)") or "an error without a text"
end

--- Connects over a local socket.
-- @param folder of the socket
-- @param user, database names
-- @param wait function that is called while there is nothing to read, see `read_call` of handles
-- @return connection; or nil and a message
function postgres.connect(folder, user, database, wait)
  local path = folder .. "/.s.PGSQL.5432"
  local handle, reason = moonbridge_io.localconnect(path)
  if not handle then return nil, path .. ": " .. reason end
  local self = setmetatable({ handle = handle, wait = wait }, Connection)
  local settings = string.pack(">I4zzzzB", 0x30000, "user", user, "database", database, 0)
  assert(handle:flush(message("", settings)))
  repeat
    local kind, content = receive(self)
    if kind == "E" then return nil, problem(content) end
    if kind == "R" and string.unpack(">I4", content) ~= 0 then
      return nil, "PostgreSQL asks for a password"
    end
  until kind == "Z"
  return self
end

local function row(content)
  local values = {}
  local count, at = string.unpack(">I2", content)
  for index = 1, count do
    local length
    length, at = string.unpack(">i4", content, at)
    if length >= 0 then
      values[index] = content:sub(at, at + length - 1)
      at = at + length
    end
  end
  return values
end

--- Runs a statement with its parameters $1, $2 …, which are texts.
-- @return list of rows, which are lists of texts; or nil and a message if PostgreSQL refuses it
function Connection:query(statement, ...)
  local values = { ... }
  local bound = { string.pack(">zzI2I2", "", "", 0, #values) }
  for index, value in ipairs(values) do bound[index + 1] = string.pack(">s4", tostring(value)) end
  bound[#bound + 1] = string.pack(">I2", 0)
  assert(self.handle:flush(message("P", string.pack(">zzI2", "", statement, 0)),
    message("B", table.concat(bound)), message("E", string.pack(">zI4", "", 0)), message("S", "")))
  local rows, failure, is_done = {}, nil, false
  while true do
    local kind, content = receive(self)
    if kind == "D" then
      rows[#rows + 1] = row(content)
    elseif kind == "E" then
      failure, is_done = problem(content), true
    elseif kind == "C" then
      is_done = true
    elseif kind == "Z" and is_done then -- another one answers `ping`
      if failure then return nil, failure end
      return rows
    end
  end
end

--- Asks for a sign of life, which those who wait for notifications ignore.
function Connection:ping()
  assert(self.handle:flush(message("S", "")))
end

--- Waits for a notification on a channel to which the connection listens. Those that come during a query are
-- forgotten.
-- @return the notification's text
function Connection:notification()
  while true do
    local kind, content = receive(self)
    if kind == "A" then return (select(3, string.unpack(">I4zz", content))) end
    if kind == "E" then error(problem(content), 0) end
  end
end

--- Whether the connection, on which nothing is to come, is still there.
function Connection:is_alive()
  local _, status = self.handle:read_nb(1)
  return status == "block"
end

function Connection:close()
  self.handle:close()
end

return postgres
