-- http.websocket_connect: WebSockets of other servers.

local native, http, parts, arguments = ...
local misuse, rules = arguments.misuse, arguments.rules
local check_options, check_message, check_close =
  arguments.check_options, arguments.check_message, arguments.check_close
local options, request_head, waiting = parts.options, parts.request_head, parts.waiting

local pairs, type = pairs, type
local concat, format, math_type, setmetatable = table.concat, string.format, math.type, setmetatable
local tointeger, yield = math.tointeger, coroutine.yield
local link = parts.native
local now, wait = link.now, waiting.wait

-- What native.receive returns first.
local OVER, WAIT = 3, 5
local KINDS = { "text", "binary" }

-- Default time for connecting and for each wait while something is sent, and for the answer to a close frame,
-- in seconds.
local TIMEOUT, CLOSE_TIMEOUT = 60, 5
local FOREVER = 1e9

local function is_time(it) return math_type(it) and it > 0 and it < 1e9 end

local checks = {
  headers = { "a table", function(it) return type(it) == "table" end },
  protocols = rules.protocols,
  origin = { "a string", function(it) return type(it) == "string" end },
  timeout = { "a positive number of seconds", is_time },
  message_limit = rules.message_limit,
  compress = rules.compress,
  tls = { "a table", function(it) return type(it) == "table" end },
}

local texts = {
  unknown = "unknown option '%s'", similar = "; did you mean '%s'?",
  wrong = "option '%s' is expected to be %s, got %s",
}

-- Checks the URL, and that there are options or nothing. Returns the options.
local function check(url, given)
  if type(url) ~= "string" then
    misuse(3, "bad argument #1 to 'websocket_connect' (URL expected, got %s)", type(url))
  end
  if given == nil then return {} end
  if type(given) ~= "table" then
    misuse(3, "bad argument #2 to 'websocket_connect' (table of options expected, got %s)", type(given))
  end
  return given
end

-- The request of the handshake (RFC 6455 4.1). Fields that are its own cannot be given.
local own = {
  upgrade = true, connection = true, ["sec-websocket-key"] = true, ["sec-websocket-version"] = true,
  ["sec-websocket-protocol"] = true, ["sec-websocket-extensions"] = true, ["content-length"] = true,
  ["transfer-encoding"] = true, expect = true,
}

local function head_of(job, given, key)
  for key_of, value in pairs(given.headers or {}) do
    local name = math_type(key_of) and type(value) == "table" and value[1] or key_of
    if type(name) == "string" and own[name:lower()] then
      return nil, format("header %s is the WebSocket's own", name)
    end
  end
  local head, message = request_head(job)
  if not head then return nil, message end
  local lines = {
    head:sub(1, -3) .. "Upgrade: websocket", "Connection: Upgrade",
    "Sec-WebSocket-Version: " .. native.version, "Sec-WebSocket-Key: " .. key,
  }
  if given.protocols and given.protocols[1] then
    lines[#lines + 1] = "Sec-WebSocket-Protocol: " .. concat(given.protocols, ", ")
  end
  if given.compress then lines[#lines + 1] = "Sec-WebSocket-Extensions: " .. native.offer end
  if given.origin then
    if given.origin:find("%c") then return nil, "invalid origin" end
    lines[#lines + 1] = "Origin: " .. given.origin
  end
  return concat(lines, "\r\n") .. "\r\n\r\n"
end

-- Sends the request and receives the head of the final response.
-- @return status, headers, status line; or nil, a message and its code
local function ask(x, head)
  local pending, message, code = link.send(x.link, head)
  while pending and pending > 0 do
    local ok
    ok, message = wait(x, "w")
    if not ok then return nil, message end
    pending, message, code = link.send(x.link)
  end
  if not pending then return nil, message, code end
  while true do
    local status, headers, line = link.head(x.link, false)
    if status == false then return nil, headers, line end
    if status and (status == 101 or status >= 200) then return status, headers, line end
    if not status then
      local ok
      ok, message = wait(x, "r")
      if not ok then return nil, message end
    end
  end
end

-- The code of an error, if it is a word: an errno could be taken for a status.
local function word(code)
  return type(code) == "string" and code or nil
end

local methods = {}
local meta = { __index = methods, __name = "moonbridge.websocket_client" }

local function connect(waitfunc, url, given)
  local text = url:gsub("^[wW][sS](:)", "http%1"):gsub("^[wW][sS][sS](:)", "https%1")
  local parsed, message = link.parse(text)
  if not parsed then return nil, message end
  local timeout = given.timeout or TIMEOUT
  local job = {
    url = parsed, method = "GET", headers = given.headers, keep = options.KEEPALIVE,
    connect_timeout = timeout, stall_timeout = timeout, deadline = now() + timeout,
  }
  if given.tls then job.tls, job.tls_number = link.tls(given.tls) end
  local key = native.key()
  local head, wrong = head_of(job, given, key)
  if not head then return nil, wrong end
  local connection, failure = parts.connect(job, waitfunc)
  if not connection then return nil, failure, word(job.code) end
  local x = { link = connection.link, handle = connection.handle, job = job, waitfunc = waitfunc }
  local status, headers, line = ask(x, head)
  if status ~= 101 then
    parts.close(job, false)
    if not status then return nil, headers, word(line) end
    return nil, "the server does not accept a WebSocket: " .. line, status
  end
  local limit = tointeger(given.message_limit or 1048576)
  local socket, protocol = native.client(x.handle, key, given.protocols or {}, given.compress or false,
    limit, headers)
  if not socket then
    parts.close(job, false)
    return nil, protocol
  end
  -- From here on each wait has a time of its own.
  job.deadline = nil
  return setmetatable({
    protocol = protocol, headers = headers, socket = x.handle,
    native = socket, connection = connection, job = job, timeout = timeout,
  }, meta)
end

local function of(ws, name)
  local it = type(ws) == "table" and ws.native
  if not it then misuse(3, "bad argument #1 to '%s' (WebSocket expected)", name) end
  return it
end

-- Waits until the connection is ready, or for so many seconds.
local function await(ws, waitfunc, mode, seconds)
  local x = { link = ws.connection.link, handle = ws.socket, job = ws.job, waitfunc = waitfunc }
  return wait(x, mode, seconds)
end

-- Sends what is queued; true, or nil, a message and its code.
local function flush(ws, waitfunc, queued)
  local message, code
  while queued and queued > 0 do
    local ok
    ok, message = await(ws, waitfunc, "w", ws.timeout)
    if not ok then return nil, message end
    queued, message, code = link.send(ws.connection.link)
  end
  if not queued then return nil, message, code end
  return true
end

-- Ends the connection.
local function finish(ws)
  if ws.connection then
    link.close(ws.connection.link, true)
    ws.connection = nil
  end
end

local function receive(ws, waitfunc, seconds)
  local deadline = seconds and now() + seconds
  while true do
    local kind, first, second = native.receive(ws.native)
    if kind < OVER then return first, KINDS[kind] end
    if kind == OVER then
      finish(ws)
      return nil, second, first
    end
    local ok, message = await(ws, waitfunc, "r", deadline and deadline - now() or FOREVER)
    if not ok then return nil, message end
  end
end

local function send(ws, waitfunc, text, is_binary)
  local queued, message, code = native.client_send(ws.native, text, is_binary)
  if not queued then return nil, message, code end
  return flush(ws, waitfunc, queued)
end

-- Says goodbye, and waits for the answer.
local function close(ws, waitfunc, code, reason)
  if not ws.connection then return true end
  native.shut(ws.native, code, reason)
  local deadline = now() + CLOSE_TIMEOUT
  local ok = flush(ws, waitfunc, link.send(ws.connection.link))
  while ok and ws.connection do
    local text, why, ended = receive(ws, waitfunc, deadline - now())
    ok = text or ended or why ~= "timeout"
  end
  finish(ws)
  return true
end

local function seconds_of(seconds, name)
  if seconds ~= nil and not (math_type(seconds) and seconds >= 0) then
    misuse(3, "bad argument to '%s' (number of seconds expected)", name)
  end
  return seconds
end

local function waits_by(waitfunc, name)
  if type(waitfunc) ~= "function" then
    misuse(3, "bad argument #1 to '%s' (function expected, got %s)", name, type(waitfunc))
  end
end

function methods:receive(seconds)
  of(self, "receive")
  return receive(self, nil, seconds_of(seconds, "receive"))
end

function methods:receive_call(waitfunc, seconds)
  of(self, "receive_call")
  waits_by(waitfunc, "receive_call")
  return receive(self, waitfunc, seconds_of(seconds, "receive_call"))
end

function methods:receive_yield(seconds)
  of(self, "receive_yield")
  return receive(self, yield, seconds_of(seconds, "receive_yield"))
end

function methods:receive_nb()
  local kind, first, second = native.receive(of(self, "receive_nb"))
  if kind < OVER then return first, KINDS[kind] end
  if kind == WAIT then return nil, "block" end
  finish(self)
  return nil, second, first
end

function methods:send(text, kind)
  of(self, "send")
  return send(self, nil, check_message(text, kind, "send"))
end

function methods:send_call(waitfunc, text, kind)
  of(self, "send_call")
  waits_by(waitfunc, "send_call")
  return send(self, waitfunc, check_message(text, kind, "send_call"))
end

function methods:send_yield(text, kind)
  of(self, "send_yield")
  return send(self, yield, check_message(text, kind, "send_yield"))
end

function methods:send_nb(text, kind)
  local queued, message, code = native.client_send(of(self, "send_nb"), check_message(text, kind, "send_nb"))
  if not queued then return nil, message, code end
  return queued
end

function methods:flush_nb()
  of(self, "flush_nb")
  if not self.connection then return nil, "WebSocket is closed" end
  local queued, message, code = link.send(self.connection.link)
  if not queued then return nil, message, code end
  return queued
end

function methods:ping(payload)
  if payload ~= nil and (type(payload) ~= "string" or #payload > 125) then
    misuse(2, "bad argument #1 to 'ping' (string of up to 125 bytes expected)")
  end
  if not native.ping(of(self, "ping"), payload or "") then return nil, "WebSocket is closed" end
  return true
end

function methods:close(code, reason)
  of(self, "close")
  return close(self, nil, check_close(code, reason, "close"))
end

function methods:close_call(waitfunc, code, reason)
  of(self, "close_call")
  waits_by(waitfunc, "close_call")
  return close(self, waitfunc, check_close(code, reason, "close_call"))
end

function methods:close_yield(code, reason)
  of(self, "close_yield")
  return close(self, yield, check_close(code, reason, "close_yield"))
end

-- Lua 5.4: `local ws <close> = …`.
function meta.__close(ws) finish(ws) end

--- http.websocket_connect(url, options)
-- @return WebSocket; or nil, a message, and the status if the server has refused it, or a word if TLS has
--   failed
function http.websocket_connect(url, given)
  given = check(url, given)
  check_options(given, checks, texts)
  return connect(nil, url, given)
end

--- The same, calling waitfunc(socket, "r" or "w", moonbridge_io) instead of blocking.
function http.websocket_connect_call(waitfunc, url, given)
  waits_by(waitfunc, "websocket_connect_call")
  given = check(url, given)
  check_options(given, checks, texts)
  return connect(waitfunc, url, given)
end

--- The same with coroutine.yield as waiting function.
function http.websocket_connect_yield(url, given)
  given = check(url, given)
  check_options(given, checks, texts)
  return connect(yield, url, given)
end
