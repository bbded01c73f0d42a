-- http.websocket: the handshake, and the calls of the application's functions.

local native, http, io, arguments = ...
local misuse, is_list, rules = arguments.misuse, arguments.is_list, arguments.rules
local check_options, check_message = arguments.check_options, arguments.check_message
local check_close = arguments.check_close

local error, getmetatable, type = error, getmetatable, type
local format, math_type, setmetatable, xpcall = string.format, math.type, setmetatable, xpcall
local tointeger, tonumber, tostring = math.tointeger, tonumber, tostring
local traceback = debug and debug.traceback or tostring
local native_send, native_close, begin = native.send, native.close, native.begin
local value, set_value, protocol_of = native.value, native.set_value, native.protocol
local finish, keep, note_traceback = native.finish, native.keep, native.note_traceback
local closed, leave_session = native.closed, native.leave_session
local resume, start, next_event, rest =
  native.events.resume, native.events.start, native.events.next, native.events.rest

-- What `next_event` returns first.
local OVER, PARKED = 3, 4
local KINDS = { "text", "binary" }

-- Close codes of this side.
local INTERNAL_ERROR, RESTART = 1011, 1012

-- A handler that has queued so many bytes for a client waits until that takes some.
local QUEUED = 256 * 1024

-- The time for that while a connection is opened, in seconds.
local STALL_TIMEOUT = 60

-- The options of http.websocket.

local function is_function(it) return type(it) == "function" end

local function is_time(it) return it == false or math_type(it) and it > 0 and it < 1e9 end

local function is_origin(text)
  return text == "*" or text == "null" or text:find("^%a[%w+.-]*://[^/%s]+$") ~= nil
end

local checks = {
  open = { "a function", is_function },
  message = { "a function", is_function },
  close = { "a function", is_function },
  name = { "a string", function(it) return type(it) == "string" and it ~= "" and #it <= 200 end },
  protocols = rules.protocols,
  origins = { 'a list of origins such as "https://example.com", or "*"', function(it)
    return it == "*" or is_list(it, is_origin)
  end },
  message_limit = rules.message_limit,
  heartbeat = { "a positive number of seconds, or false", is_time },
  timeout = { "a positive number of seconds, or false", is_time },
  compress = rules.compress,
}

local texts = {
  unknown = 'Unknown option "%s" of websocket', similar = '; did you mean "%s"?',
  wrong = 'Option "%s" of websocket is expected to be %s',
}

local function seconds(it, default)
  if it == nil then return default end
  return it or nil
end

-- WebSockets as the application sees them: {socket, handler's name} while an event is handled.

local SOCKET, STALL, POLL = 1, 2, 3
local methods = {}

local function socket_of(ws, name)
  local socket = type(ws) == "table" and ws[SOCKET]
  if not socket then misuse(3, "bad argument #1 to '%s' (WebSocket expected)", name) end
  return socket
end

-- Waits until the client has taken so much that little is queued; false if it does not in time.
local function await_room(ws)
  local socket, stall, poll = ws[SOCKET], ws[STALL], ws[POLL]
  local queued = socket:flush_nb()
  while queued and queued > QUEUED / 2 do
    if not poll(nil, { [socket] = true }, stall) then return false end
    local left = socket:flush_nb()
    if not left then return false end
    queued = left
  end
  return queued ~= nil
end

function methods.send(ws, text, kind)
  local socket = socket_of(ws, "send")
  local is_binary
  text, is_binary = check_message(text, kind, "send")
  local queued = native_send(socket, text, is_binary)
  if not queued then return nil, "WebSocket is closed" end
  if queued > QUEUED and not await_room(ws) then return nil, "the client takes nothing" end
  return true
end

function methods.close(ws, code, reason)
  local socket = socket_of(ws, "close")
  native_close(socket, check_close(code, reason, "close"))
  return true
end

local function subscribe(ws, topic, hears, name)
  local socket = socket_of(ws, name)
  if type(topic) ~= "string" or #topic < 1 or #topic > 255 then
    misuse(3, "bad argument #1 to '%s' (name of 1 to 255 bytes expected)", name)
  end
  if not native.is_worker() then misuse(3, "%s needs a server: this process is no worker of one", name) end
  if not native.subscribe(socket, topic, hears) then
    misuse(3, "%s: a WebSocket can hear 32 topics at most", name)
  end
  return true
end

function methods.subscribe(ws, topic) return subscribe(ws, topic, true, "subscribe") end

function methods.unsubscribe(ws, topic) return subscribe(ws, topic, false, "unsubscribe") end

local live = { __name = "moonbridge.websocket" }

function live.__index(ws, key)
  if key == "state" then return value(ws[SOCKET]) end
  if key == "protocol" then return protocol_of(ws[SOCKET]) end
  return methods[key]
end

function live.__newindex(ws, key, it)
  if key ~= "state" then
    misuse(2, "a WebSocket keeps nothing but 'state', which has to be a string")
  end
  if math_type(it) then it = tostring(it) end
  if it ~= nil and type(it) ~= "string" then
    misuse(2, "the state of a WebSocket is expected to be a string, got %s", type(it))
  end
  if not set_value(ws[SOCKET], it) then
    misuse(2, "the state of a WebSocket is longer than 4096 bytes")
  end
end

-- The event is over: the connection may be anywhere by now.
local stale = { __name = "moonbridge.websocket" }

function stale.__index()
  misuse(2, "the event of this WebSocket is over: it can be used within its functions only")
end

stale.__newindex = stale.__index

local function new(socket, stall, poll)
  return setmetatable({ socket, stall, poll }, live)
end

local function retire(ws)
  if ws then
    ws[SOCKET], ws[STALL], ws[POLL] = nil, nil, nil
    setmetatable(ws, stale)
  end
end

-- Keeps the traceback for the log: the error is passed on when the stack is gone.
local function trace(err)
  note_traceback(traceback("", 2))
  return err
end

-- The handlers of all WebSockets by their names. A connection finds its handler by that, in whatever process.

local handlers, unnamed = {}, 0

local function register(options, handler)
  local name = options.name
  if not name then
    unnamed = unnamed + 1
    name = "#" .. unnamed
  elseif handlers[name] then
    misuse(3, 'there is a WebSocket with the name "%s" already', name)
  end
  handlers[name] = handler
  return name
end

local function list(it)
  if type(it) == "string" then return { it } end
  return it
end

-- Refuses a request.
local function refuse(request, status, reason)
  request:send_status(status)
  request:send_header("Content-Type", "text/plain; charset=UTF-8")
  if status:find("^426") then
    request:send_header("Upgrade", "websocket")
    request:send_header("Connection", "Upgrade")
    request:send_header("Sec-WebSocket-Version", "13")
  end
  request:send_data(reason, "\n")
  return true
end

-- Runs the first event. If the connection is closed in it, the server ends it as it does after any other
-- response: nothing of the client is read any more.
local function open(socket, handler, request, note_failure)
  local ws = new(socket, STALL_TIMEOUT, io.poll)
  local failed, failure
  local function fail(err)
    if not failed then
      failed, failure = true, err
      note_failure(err, traceback("", 2))
    end
  end
  if not xpcall(handler.open, fail, ws, request) then native_close(socket, INTERNAL_ERROR, "") end
  local code, reason = closed(socket)
  if code then
    if handler.close then xpcall(handler.close, fail, ws, code, reason) end
    leave_session(socket)
  else
    keep(socket, handler.native)
  end
  retire(ws)
  if failed then error(failure, 0) end
end

-- Accepts a request, or refuses it.
local function upgrade(request, handler, name, meta)
  local lists, values = request.headers_csv_string, request.headers_value
  local origin = values["Origin"]
  local accept, protocol, extensions, bits = native.judge(handler.native, {
    method = request.method, http = request.version, host = request.host,
    has_body = lists["Transfer-Encoding"] ~= "" or tonumber(values["Content-Length"] or 0) > 0,
    upgrade = lists["Upgrade"], connection = lists["Connection"],
    version = values["Sec-WebSocket-Version"] or "", key = values["Sec-WebSocket-Key"] or "",
    protocols = lists["Sec-WebSocket-Protocol"], extensions = lists["Sec-WebSocket-Extensions"],
    has_origin = origin ~= nil, origin = origin or "",
  })
  if not accept then return refuse(request, protocol, extensions) end
  local socket = request.socket
  local label = format("%s %s [%s]", request.method, request.target, request.id)
  request:send_status("101 Switching Protocols")
  request:send_header("Upgrade", "websocket")
  request:send_header("Connection", "Upgrade")
  request:send_header("Sec-WebSocket-Accept", accept)
  if protocol then request:send_header("Sec-WebSocket-Protocol", protocol) end
  if extensions then request:send_header("Sec-WebSocket-Extensions", extensions) end
  -- The answer leaves when `open` has returned: then the client hears its topics.
  meta.finish_later()
  begin(socket, handler.native, name, label, protocol, bits)
  if handler.open then open(socket, handler, request, meta.note_failure) end
  return true
end

--- http.websocket{open=, message=, close=, …}: a function that a handler calls with a request.
function http.websocket(options)
  if type(options) ~= "table" then
    misuse(2, "bad argument #1 to 'websocket' (table of options expected, got %s)", type(options))
  end
  check_options(options, checks, texts)
  if native.is_worker() and native.is_serving() then
    misuse(2, "http.websocket has to be called before requests are handled: all workers need its functions")
  end
  local handler = {
    open = options.open, message = options.message, close = options.close,
    native = native.handler {
      protocols = options.protocols, origins = list(options.origins),
      compress = options.compress or false, limit = tointeger(options.message_limit or 1048576),
      heartbeat = seconds(options.heartbeat, 30), timeout = seconds(options.timeout, nil),
    },
  }
  local name = register(options, handler)
  return function(request)
    local meta = type(request) == "table" and getmetatable(request)
    if type(meta) ~= "table" or not meta.finish_later then
      misuse(2, "a WebSocket is called with the request that is being handled")
    end
    return upgrade(request, handler, name, meta)
  end
end

--- A function that serves a connection which has become a WebSocket. It returns true when that is over,
-- or the server's again.
return function(times, poll)
  local stall, drain = times.stall_timeout or nil, times.drain_timeout or nil
  local limit = times.response_timeout or nil

  -- Ends the connection. Outside a worker, all is sent first.
  local function leave(socket)
    if finish(socket, drain, stall) then return true end
    local queued = socket:flush_nb()
    while queued and queued > 0 and poll(nil, { [socket] = true }, stall) do
      queued = socket:flush_nb()
    end
    if queued == 0 then socket:close() else socket:reset() end
    return true
  end

  -- Runs the events that there are. Returns nothing if the connection is parked; outside a worker, how long
  -- to wait for it; or true and an error if it is over.
  local function run(socket, handler)
    local failed = start(socket, handler.native)
    local ws, err
    local function call(f, ...)
      ws = ws or new(socket, stall, poll)
      -- The log tells of the first error alone.
      local ok, text = xpcall(f, failed and tostring or trace, ws, ...)
      if not ok and not failed then
        failed, err = true, text
        native_close(socket, INTERNAL_ERROR, "")
      end
    end
    local message = handler.message
    local kind, first, second = next_event(socket, handler.native, stall)
    while kind < OVER do
      if message then call(message, first, KINDS[kind]) end
      kind, first, second = next_event(socket, handler.native, stall)
    end
    if kind == OVER and handler.close then call(handler.close, first, second) end
    retire(ws)
    return kind, first, failed, err
  end

  return function(socket)
    while true do
      local name = resume(socket, limit)
      local handler = name and handlers[name]
      if not handler then
        rest(false)
        native_close(socket, RESTART, "")
        return leave(socket)
      end
      local kind, limit_of_wait, failed, err = run(socket, handler)
      rest(failed or false)
      if kind == OVER then
        leave(socket)
        if failed then error(err, 0) end
        return true
      end
      if kind == PARKED then return true end
      poll({ [socket] = true }, nil, limit_of_wait)
    end
  end
end
