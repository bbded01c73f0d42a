--- A WebSocket client for specs, over the raw client: it sends the frames that it is told to, right or wrong.

local websocket = {}
local Socket = {}
Socket.__index = Socket

local KEY = "dGhlIHNhbXBsZSBub25jZQ=="

--- What a handshake has in answer to KEY (RFC 6455 1.3).
websocket.ACCEPT = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="

websocket.CONTINUATION, websocket.TEXT, websocket.BINARY = 0, 1, 2
websocket.CLOSE, websocket.PING, websocket.PONG = 8, 9, 10

local MASK = "\x12\x34\x56\x78"

--- The beginning of the script of an application: `options`, from the global OPTIONS, whose `close` writes to
-- the log; and `orders`, what texts make it do. "busy" keeps the handler until the file FLAG is removed.
websocket.APP = [[
  local moonbridge, http = require "moonbridge", require "moonbridge.http"
  local options = (load("return " .. (OPTIONS or "{}")))()
  local orders = {
    pid = function(ws) ws:send(moonbridge.io.getpid()) end,
    state = function(ws) ws:send(tostring(ws.state)) end,
    busy = function(ws)
      io.open(FLAG, "w"):close()
      repeat moonbridge.io.poll(nil, nil, 0.01) until not io.open(FLAG)
      ws:send("done")
    end,
  }
  function options.close(ws, code, reason)
    io.stderr:write(("closed %d %q %s\n"):format(code, reason, ws.state))
  end
]]

--- The same with a room, to be continued by `options.open`: a message "say TEXT" is published there.
websocket.ROOM = websocket.APP .. [[
  function orders.leave(ws) ws:unsubscribe("room") ws:send("left") end
  function orders.join(ws) ws:subscribe("room") ws:send("joined") end
  function orders.bye(ws) ws:close(4001, "bye") end
  function options.message(ws, text, kind)
    local said = text:match("^say (.*)")
    if said then return assert(moonbridge.publish("room", said)) end
    if orders[text] then return orders[text](ws) end
    ws:send(text, kind)
  end
]]

local function masked(payload, key)
  local bytes = {}
  for index = 1, #payload do
    bytes[index] = string.char(payload:byte(index) ~ key:byte((index - 1) % 4 + 1))
  end
  return table.concat(bytes)
end

--- The bytes of a frame. `options`: last = false, reserved = bits, key = false for none, length = what it
-- claims.
function websocket.frame(opcode, payload, options)
  options = options or {}
  local key = options.key == nil and MASK or options.key
  local first = opcode | (options.last == false and 0 or 0x80) | (options.reserved or 0)
  local length, mask = options.length or #payload, key and 0x80 or 0
  local header
  if length < 126 then
    header = string.pack("BB", first, length | mask)
  elseif length < 65536 then
    header = string.pack(">BBI2", first, 126 | mask, length)
  else
    header = string.pack(">BBI8", first, 127 | mask, length)
  end
  -- Long payloads of zeros cost no time to mask.
  if not key then return header .. payload end
  if #payload > 10000 then return header .. "\0\0\0\0" .. payload end
  return header .. key .. masked(payload, key)
end

--- The payload of a close frame.
function websocket.reason(code, text)
  return string.pack(">I2", code) .. (text or "")
end

--- The request of a handshake. `headers`: lines that replace or add to the usual ones; false removes one.
function websocket.request(path, headers)
  local lines = {
    Host = "x", Upgrade = "websocket", Connection = "Upgrade",
    ["Sec-WebSocket-Key"] = KEY, ["Sec-WebSocket-Version"] = "13",
  }
  for name, value in pairs(headers or {}) do lines[name] = value end
  local text = { "GET " .. path .. " HTTP/1.1" }
  for name, value in pairs(lines) do
    if value then text[#text + 1] = name .. ": " .. value end
  end
  return table.concat(text, "\r\n") .. "\r\n\r\n"
end

--- Connects to a server of the specs and does the handshake.
-- @return WebSocket, and the head of the response
function websocket.connect(s, path, headers)
  local raw = s:connect()
  assert(raw:send(websocket.request(path or "/", headers)))
  local head = assert(raw:read_when(function(buffer)
    local _, stop = buffer:find("\r\n\r\n", 1, true)
    return stop
  end))
  assert(head:find("^HTTP/1.1 101 "), head)
  return setmetatable({ raw = raw }, Socket), head
end

--- Sends a frame; see `websocket.frame`.
function Socket:frame(opcode, payload, options)
  return self.raw:send(websocket.frame(opcode, payload, options))
end

--- Sends a text.
function Socket:send(text) return assert(self:frame(websocket.TEXT, text)) end

--- Receives a frame, whose first byte is kept as `first`.
-- @return opcode, payload; or nil and how the connection has ended
function Socket:receive(timeout)
  local size
  local header, reason = self.raw:read_when(function(buffer)
    if #buffer < 2 then return nil end
    local length, last = buffer:byte(2), 2
    assert(length < 128, "the server masks")
    if length == 126 then last = 4 elseif length == 127 then last = 10 end
    if #buffer < last then return nil end
    if last > 2 then length = string.unpack(last == 4 and ">I2" or ">I8", buffer, 3) end
    size = length
    return last
  end, timeout)
  if not header then return nil, reason end
  local payload
  payload, reason = self.raw:read(size, timeout)
  if not payload then return nil, reason end
  self.first = header:byte(1)
  return self.first & 15, payload
end

--- Receives a text.
function Socket:text(timeout)
  local opcode, payload = self:receive(timeout)
  assert(opcode == websocket.TEXT, ("opcode %s, %q"):format(opcode, payload))
  return payload
end

--- Sends a text and receives the answer.
function Socket:ask(text)
  self:send(text)
  return self:text()
end

--- Receives a close frame and the end of the connection: code and reason.
function Socket:closing(timeout)
  local opcode, payload = self:receive(timeout)
  assert(opcode == websocket.CLOSE, ("opcode %s, %q"):format(opcode, payload))
  local nothing, ending = self:receive(timeout)
  assert(nothing == nil and ending == "closed", ending)
  if payload == "" then return nil end
  return string.unpack(">I2", payload), payload:sub(3)
end

function Socket:close() self.raw:close() end

--- Answers pings until the server closes the connection; returns the code.
function Socket:keep_silent()
  local opcode, payload = self:receive()
  while opcode == websocket.PING do
    self:frame(websocket.PONG, "")
    opcode, payload = self:receive()
  end
  assert(opcode == websocket.CLOSE, ("opcode %s, %q"):format(opcode, payload))
  return (string.unpack(">I2", payload))
end

--- Answers a ping and then no more; an error unless the server gives the connection up.
function Socket:fall_silent()
  assert(self:receive() == websocket.PING, "no ping")
  assert(self:frame(websocket.PONG, ""))
  assert(self:receive() == websocket.PING, "no ping")
  local opcode, message = self:receive()
  assert(opcode == nil and message == "closed", message)
end

return websocket
