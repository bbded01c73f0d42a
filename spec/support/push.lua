--- A server whose handlers hold responses, and clients that hear them.
--
--     local s = push.start { handler = [[ return request:hold { topics = get.topic } ]] }
--     local stream = push.open(s, "/?topic=news", "news")   -- is subscribed
--     push.publish(s, "news", "text")
--     assert.equal("text", stream:chunk())

local process = require "spec.support.process"
local server = require "spec.support.server"
local status = require "spec.support.status"

local push = {}

local SERVER = [[
  local moonbridge = require "moonbridge"
  local http = require "moonbridge_http"
  BEFORE
  local function connect(number)
    return http.generate_handler(function(request)
      local get = request.get_params
      if request.path == "publish" then
        local message = get.size and get.message:rep(tonumber(get.size)) or get.message
        local ok, text = moonbridge.publish(get.topic, message, get.id and { id = get.id })
        request:send("200 OK", "text/plain", tostring(ok) .. " " .. tostring(text))
        return true
      elseif request.path == "subscribers" then
        request:send("200 OK", "text/plain", tostring(moonbridge.subscribers(get.topic)))
        return true
      elseif request.path == "reload" then
        request:send("200 OK", "text/plain", tostring(moonbridge.reload()))
        return true
      elseif request.path == "pid" then
        request:send("200 OK", "text/plain", number .. " " .. moonbridge.io.getpid())
        return true
      elseif request.path == "status" then
        local held = moonbridge.status().push
        request:send("200 OK", "text/plain", ("%d %d %d %d %d %d"):format(held.held, held.published,
          held.delivered, held.dropped, held.slow, held.refused))
        return true
      end
      HANDLER
    end, { static_headers = { "Server: x" } })
  end
  moonbridge.listen {
    { proto = "tcp", host = "127.0.0.1", port = PORT },
    { proto = "local", path = PATH },
    LISTENER
    pre_fork = 1, min_fork = WORKERS, max_fork = WORKERS, connect = connect(1),
  }
  AFTER
  moonbridge.run {
    shutdown_timeout = SHUTDOWN_TIMEOUT, hold_limit = HOLD_LIMIT,
    access_log = LOG, access_log_format = "json",
  }
]]

local STREAM = [[
  request:send_status("200 OK")
  request:send_header("Content-Type", "text/event-stream")
  request:send_data("hello\n")
  return request:hold { topics = { get.topic or "news" }, last_id = request.headers_value["Last-Event-ID"] }
]]

--- Starts a server.
-- @param options `handler` (Lua text: what is done with `request`, whose parameters are `get`; default: an
--   event stream), `before` and `after` (Lua text of the script before and after its first pool), `tls` (of
--   certificates.make: a further port for it, `tls_port`), `workers` (default 2), `shutdown_timeout` (default
--   5), and those of server.start
function push.start(options)
  options = options or {}
  local path, log = process.scratch("socket"), process.scratch("access.log")
  local tls_port, tls_listener = nil, ""
  if options.tls then
    tls_port = server.free_port()
    tls_listener = ('{ proto = "tls", host = "127.0.0.1", port = %d, certificate = %q, key = %q },'):format(
      tls_port, options.tls.certificate, options.tls.key)
  end
  local parts = {
    BEFORE = options.before or "", AFTER = options.after or "", HANDLER = options.handler or STREAM,
    LISTENER = tls_listener,
  }
  options.script = SERVER:gsub("%u+", parts)
  options.globals = {
    WORKERS = options.workers or 2, PATH = path, LOG = log, HOLD_LIMIT = options.hold_limit,
    SHUTDOWN_TIMEOUT = options.shutdown_timeout or 5,
  }
  local s = server.start(options)
  s.path, s.access_log, s.tls_port = path, log, tls_port
  return s
end

--- The body of the answer to a request.
function push.get(s, target) return s:request(target).body end

--- Publishes a message.
function push.publish(s, topic, message, id)
  local target = ("/publish?topic=%s&message=%s%s"):format(topic, message, id and "&id=" .. id or "")
  assert(push.get(s, target) == "true nil")
end

function push.subscribers(s, topic) return tonumber(push.get(s, "/subscribers?topic=" .. topic)) end

local NAMES = { "held", "published", "delivered", "dropped", "slow", "refused" }

--- What status() says of held connections.
function push.status(s)
  local figures, text = {}, push.get(s, "/status")
  local index = 0
  for number in text:gmatch("%d+") do
    index = index + 1
    figures[NAMES[index]] = tonumber(number)
  end
  return figures
end

--- Waits until so many connections are held.
function push.wait_held(s, count)
  local held
  local done = process.wait_until(function()
    held = push.status(s).held
    return held == count
  end)
  if not done then error(("%s connections are held, not %d"):format(held, count), 2) end
end

--- Asks for a stream.
-- @param options of server.connect, and `method`, `version`, `headers` (text)
-- @return the connection, with the methods `head()` and `chunk()`: the next chunk, "" for the last one
function push.ask(s, target, options)
  options = options or {}
  local c = s:connect(options)
  c:send(("%s %s HTTP/%s\r\nHost: x\r\n%s\r\n"):format(options.method or "GET", target or "/",
    options.version or "1.1", options.headers or ""))
  local stream = setmetatable({}, { __index = c })
  local head
  function stream.head()
    head = head or assert(c:read_until("\r\n\r\n"))
    return head
  end
  function stream.chunk()
    stream.head()
    local size = tonumber((assert(c:read_until("\r\n"))), 16)
    local data = size > 0 and assert(c:read(size)) or ""
    assert(c:read(2) == "\r\n")
    return data
  end
  return stream
end

--- The same, and waits until one more connection is held.
function push.open(s, target, options)
  local before = push.status(s).held
  local stream = push.ask(s, target, options)
  push.wait_held(s, before + 1)
  return stream
end

--- The process id of the push process, or nil: the child that waits by epoll and has no file in memory. Each
-- worker has some, also one that is just beginning.
function push.process(s)
  for _, pid in ipairs(s:children()) do
    local waits, works = false, false
    for name in pairs(status.descriptors(pid)) do
      waits = waits or name == "anon_inode:[eventpoll]"
      works = works or name:find("^/memfd:") ~= nil
    end
    if waits and not works then return pid end
  end
end

return push
