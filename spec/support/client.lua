--- Raw TCP and plain HTTP clients for specs: they send exactly what they are told and judge strictly.

local socket = require "socket"
local process = require "spec.support.process"

local client = {}
local Connection = {}
Connection.__index = Connection

local open = {} -- connections that cleanup closes

local function connect_unix(path)
  local raw = assert(require "socket.unix"())
  raw:settimeout(process.TIMEOUT)
  assert(raw:connect(path))
  return { raw = raw }
end

local function connect_tcp(host, port, receive_buffer)
  local raw = assert(host:find(":", 1, true) and socket.tcp6() or socket.tcp4())
  raw:settimeout(process.TIMEOUT)
  if receive_buffer then assert(raw:setoption("recv-buffer-size", receive_buffer)) end
  local ok, message = raw:connect(host, port)
  -- "closed": accepted, and reset before LuaSocket looked again. That is the server's answer.
  if message ~= "closed" then assert(ok, message) end
  raw:setoption("tcp-nodelay", true)
  local _, local_port = raw:getsockname()
  return {
    raw = raw, port = tonumber(port), local_port = tonumber(local_port),
    ended = not ok and "reset" or nil,
  }
end

--- Connects to a TCP port (or, with `options.path`, to a Unix socket). `options.receive_buffer`: how
-- many bytes the system takes for a client that does not read, roughly.
-- @return Connection
function client.connect(port, host, options)
  local path, buffer = options and options.path, options and options.receive_buffer
  local self = path and connect_unix(path) or connect_tcp(host or "127.0.0.1", port, buffer)
  self.buffer = ""
  open[self] = true
  return setmetatable(self, Connection)
end

--- Closes all connections that specs left open.
function client.cleanup()
  for connection in pairs(open) do connection:close() end
end

--- Sends all bytes. Returns true, or nil, a message and how many bytes went out.
function Connection:send(bytes)
  self.raw:settimeout(process.TIMEOUT)
  local last, message, sent = self.raw:send(bytes)
  if last then return true end
  return nil, message, sent
end

--- Sends the bytes in pieces of the given size with a pause (seconds) after each.
function Connection:dribble(bytes, size, pause)
  for index = 1, #bytes, size do
    assert(self:send(bytes:sub(index, index + size - 1)))
    if pause then socket.sleep(pause) end
  end
end

--- Ends the sending direction only.
function Connection:finish()
  self.finished = true
  self.raw:shutdown("send")
end

function Connection:close()
  open[self] = nil
  self.raw:close()
end

--- Closes with an RST.
function Connection:reset()
  open[self] = nil
  self.raw:setoption("linger", { on = true, timeout = 0 })
  self.raw:close()
end

-- LuaSocket calls a FIN and an RST both "closed". After an RST the kernel has forgotten the
-- connection; after a FIN it is still in the kernel's table.
local function ending(self)
  if not self.local_port then return "closed" end
  -- The table may be long; a socket that has a peer needs no look at it, nor has one that is not
  -- finished on our side been closed by the other side alone.
  if self.raw:getpeername() then return "closed" end
  if not self.finished then return "reset" end
  local pattern = ("%%x+:%04X %%x+:%04X (%%x%%x) "):format(self.local_port, self.port)
  for _, path in ipairs { "/proc/net/tcp", "/proc/net/tcp6" } do
    if (process.slurp(path) or ""):find(pattern) then return "closed" end
  end
  return "reset"
end

-- Reads what is there or comes within the given seconds into the buffer.
-- Returns nil, or why nothing more comes: "closed", "reset", "timeout".
function Connection:fill(timeout)
  if self.ended then return self.ended end
  if not socket.select({ self.raw }, nil, math.max(0, timeout))[1] then return "timeout" end
  self.raw:settimeout(0)
  local bytes, message, partial = self.raw:receive(65536)
  bytes = bytes or partial or ""
  self.buffer = self.buffer .. bytes
  if message == "closed" and #bytes == 0 then
    self.ended = ending(self)
    return self.ended
  end
end

local function take(self, size)
  local bytes = self.buffer:sub(1, size)
  self.buffer = self.buffer:sub(size + 1)
  return bytes
end

--- Reads until `done(buffer)` returns how many bytes of it to take.
-- @return bytes; or nil, "closed" | "reset" | "timeout", and what is in the buffer (it stays there)
function Connection:read_when(done, timeout)
  local deadline = socket.gettime() + (timeout or process.TIMEOUT)
  while true do
    local size = done(self.buffer)
    if size then return take(self, size) end
    local reason = self:fill(deadline - socket.gettime())
    if reason then return nil, reason, self.buffer end
  end
end

--- Reads exactly `size` bytes; results as read_when.
function Connection:read(size, timeout)
  local deadline = socket.gettime() + (timeout or process.TIMEOUT)
  local parts, length = { self.buffer }, #self.buffer
  local reason
  while length < size and not reason do
    self.buffer = ""
    reason = self:fill(deadline - socket.gettime())
    parts[#parts + 1] = self.buffer
    length = length + #self.buffer
  end
  self.buffer = table.concat(parts)
  if length < size then return nil, reason, self.buffer end
  return take(self, size)
end

--- Reads up to and including the first occurrence of a plain text; results as read_when.
function Connection:read_until(text, timeout)
  return self:read_when(function(buffer)
    local _, last = buffer:find(text, 1, true)
    return last
  end, timeout)
end

--- Reads all until the server ends the connection.
-- @return bytes, "closed" | "reset" | "timeout"
function Connection:read_all(timeout)
  local deadline = socket.gettime() + (timeout or process.TIMEOUT)
  local parts = {}
  local reason
  repeat
    reason = self:fill(deadline - socket.gettime())
    parts[#parts + 1] = self.buffer
    self.buffer = ""
  until reason
  return table.concat(parts), reason
end

--- Whether the server has sent nothing and not closed within the given seconds.
function Connection:silent(seconds)
  return #self.buffer == 0 and self:fill(seconds) == "timeout" and #self.buffer == 0
end

local function parse_head(head)
  local status_line, lines = head:match("^([^\r\n]*)\r\n(.*)\r\n$")
  assert(status_line, "malformed response head: " .. head)
  local version, status, reason = status_line:match("^HTTP/(%d%.%d) (%d%d%d) (.*)$")
  assert(version, "malformed status line: " .. status_line)
  local response = {
    version = version, status = tonumber(status), reason = reason,
    status_line = status_line, head = head, headers = {}, header_list = {},
  }
  for line in lines:gmatch("(.-)\r\n") do
    local name, value = line:match("^([!#$%%&'*+.^_`|~%w%-]+):[ \t]*(.-)[ \t]*$")
    assert(name, "malformed header line: " .. line)
    local key = name:lower()
    local before = response.headers[key]
    response.headers[key] = before and before .. ", " .. value or value
    table.insert(response.header_list, { name, value })
  end
  return response
end

local function read_chunked(self, deadline)
  local parts = {}
  while true do
    local line = assert(self:read_until("\r\n", deadline()))
    local size = tonumber(assert(line:match("^(%x+)\r\n$"), "malformed chunk size: " .. line), 16)
    if size == 0 then break end
    local chunk = assert(self:read(size + 2, deadline()))
    assert(chunk:sub(-2) == "\r\n", "chunk without line end")
    parts[#parts + 1] = chunk:sub(1, -3)
  end
  assert(assert(self:read(2, deadline())) == "\r\n", "trailers are not expected")
  return table.concat(parts)
end

--- Reads one response; an error if it is not well-formed or not complete in time.
-- @param method the request's method ("HEAD" has no body), default GET
-- @return response: status (number), reason, version, headers (lower-case name → value),
--   header_list, head, body, and `until_close` (true: the body ended with the connection)
function Connection:response(method, timeout)
  local limit = socket.gettime() + (timeout or process.TIMEOUT)
  local function deadline() return limit - socket.gettime() end
  local head, reason, rest = self:read_until("\r\n\r\n", deadline())
  if not head then error(("no response (%s), only %q"):format(reason, rest), 2) end
  local response = parse_head(head)
  local status, headers = response.status, response.headers
  if method == "HEAD" or status < 200 or status == 204 or status == 304 then
    response.body = ""
  elseif headers["transfer-encoding"] then
    assert(headers["transfer-encoding"] == "chunked" and not headers["content-length"])
    response.body = read_chunked(self, deadline)
  elseif headers["content-length"] then
    local size = assert(tonumber(headers["content-length"]:match("^%d+$")))
    local body, why, partial = self:read(size, deadline())
    if not body then
      error(("only %d of %d bytes of the body (%s)"):format(#partial, size, why), 2)
    end
    response.body = body
  else
    response.body, response.ending = self:read_all(deadline())
    response.until_close = true
    assert(response.ending == "closed", "the body did not end with a FIN but: " .. response.ending)
  end
  return response
end

--- The bytes of a request.
-- @param options `method` (default GET, with a body POST), `target` (default /), `version` (1.1),
--   `host` (default localhost; false: none), `headers` (name → value or list of {name, value}),
--   `body` (string: sent with Content-Length; list: sent chunked), `close` (true: Connection: close)
function client.format(options)
  local body = options.body
  local lines = { ("%s %s HTTP/%s"):format(
    options.method or body and "POST" or "GET", options.target or "/", options.version or "1.1") }
  local function add(name, value) lines[#lines + 1] = name .. ": " .. value end
  if options.host ~= false then add("Host", options.host or "localhost") end
  for key, value in pairs(options.headers or {}) do
    if type(value) == "table" then add(value[1], value[2]) else add(key, value) end
  end
  if options.close then add("Connection", "close") end
  local payload = ""
  if type(body) == "string" then
    add("Content-Length", #body)
    payload = body
  elseif body then
    add("Transfer-Encoding", "chunked")
    local chunks = {}
    for _, chunk in ipairs(body) do chunks[#chunks + 1] = ("%x\r\n%s\r\n"):format(#chunk, chunk) end
    payload = table.concat(chunks) .. "0\r\n\r\n"
  end
  return table.concat(lines, "\r\n") .. "\r\n\r\n" .. payload
end

--- Sends a request on this connection and reads its response (interim responses are skipped).
-- @param options as client.format; a string is the target
function Connection:request(options)
  if type(options) == "string" then options = { target = options } end
  self:send(client.format(options))
  local response
  repeat
    response = self:response(options.method, options.timeout)
  until response.status >= 200 or response.status == 101
  return response
end

return client
