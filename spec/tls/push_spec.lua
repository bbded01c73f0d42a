-- Connections with TLS 1.3 hear topics: the process that holds them goes on with their keys.
-- Any version: nothing of it depends on Lua's.

local certificates = require "spec.support.certificates"
local http = require "moonbridge_http"
local moonbridge_io = require "moonbridge_io"
local process = require "spec.support.process"
local push = require "spec.support.push"
local server = require "spec.support.server"
local websocket = require "spec.support.websocket"

local authority, localhost
local running = {}

before_each(function()
  localhost, authority = certificates.signed()
end)

after_each(function()
  for _, client in ipairs(running) do client:destroy() end
  running = {}
  server.cleanup()
end)

local CHAT = [[
  moonbridge.topic("news", { history = 10 })
  local chat = http.websocket {
    name = "chat", heartbeat = HEARTBEAT,
    open = function(ws, request)
      ws.state = request.get_params.name
      ws:subscribe("room")
      ws:send("welcome")
    end,
    message = function(ws, text)
      local said = text:match("^say (.*)")
      if said then return assert(moonbridge.publish("room", said)) end
      ws:send(ws.state .. " " .. text .. " " .. moonbridge.io.getpid())
    end,
    close = function(ws, code) io.stderr:write("closed " .. tostring(code) .. "\n") end,
  }
]]

local HANDLER = [[
  if request.path == "chat" then return chat(request) end
  local once, timeout = get.once and true, tonumber(get.timeout)
  if not once then
    request:send_status("200 OK")
    request:send_header("Content-Type", "text/event-stream")
    request:send_data("hello\n")
  end
  return request:hold { topics = "news", once = once, timeout = timeout, farewell = "bye\n",
    heartbeat = get.beat and { tonumber(get.beat), "beat\n" }, overflow = get.overflow,
    last_id = request.headers_value["Last-Event-ID"] }
]]

-- A server with a port for TLS beside the plain one.
local function start(options)
  options = options or {}
  options.tls = localhost
  options.before = CHAT:gsub("HEARTBEAT", options.heartbeat or "nil") .. (options.before or "")
  options.handler = options.handler or HANDLER
  return push.start(options)
end

local Client = {}
Client.__index = Client

local function connect(s)
  local options = { ca = authority.certificate, min_version = "1.3" }
  local handle = assert(moonbridge_io.tlsconnect("localhost", s.tls_port, options))
  return setmetatable({ handle = handle, buffer = "" }, Client)
end

function Client:send(text) assert(self.handle:write(text):flush()) end

-- What comes until `done(buffer)` gives where it ends. Nil, what has come and the end if it never does.
function Client:read_when(done)
  local deadline, status = os.time() + 30, nil
  while true do
    local stop = done(self.buffer)
    if stop then
      local text = self.buffer:sub(1, stop)
      self.buffer = self.buffer:sub(stop + 1)
      return text
    end
    if status == "eof" then return nil, self.buffer, status end
    local data
    data, status = self.handle:read_nb(65536)
    if not data then return nil, self.buffer, status end
    self.buffer = self.buffer .. data
    if data == "" and status == "block" then
      assert(os.time() < deadline, "nothing comes; so far " .. self.buffer:sub(-200))
      moonbridge_io.poll({ [self.handle] = true }, nil, 1)
    end
  end
end

function Client:read_until(text)
  return assert(self:read_when(function(buffer) return select(2, buffer:find(text, 1, true)) end))
end

function Client:read_all()
  local _, text, status = self:read_when(function() end)
  return text, status
end

function Client:get(target, headers)
  self:send(("GET %s HTTP/1.1\r\nHost: localhost\r\n%s\r\n"):format(target, headers or ""))
end

-- Opens a stream.
local function open(s, target, headers)
  local client = connect(s)
  client:get(target or "/", headers)
  return client
end

local function open_many(s, count, target)
  local clients = {}
  for index = 1, count do clients[index] = open(s, target) end
  push.wait_held(s, count)
  return clients
end

local function run(argv)
  local client = process.start(argv)
  running[#running + 1] = client
  return client
end

-- Kills as many workers as there are, each when it has just answered.
local function kill_workers(s)
  local count = 0
  repeat
    local pid = push.get(s, "/pid"):match("%d+$")
    process.kill(math.tointeger(tonumber(pid)), "KILL")
    assert(process.wait_until(function()
      local ok, other = pcall(push.get, s, "/pid")
      return ok and other:match("%d+$") ~= pid
    end))
    count = count + 1
  until count == 2
end

describe("a held response over TLS", function()
  it("shows each message to curl -N when it comes, and the connection is kept after it", function()
    local s = start()
    local curl = run { "curl", "-sSN", "--cacert", authority.certificate, "-w", "%{num_connects};",
      ("https://localhost:%d/?beat=60&timeout=8"):format(s.tls_port),
      ("https://localhost:%d/pid"):format(s.tls_port) }
    push.wait_held(s, 1)
    local all = "hello\n"
    for number = 1, 3 do
      push.publish(s, "news", number .. "%0A")
      all = all .. number .. "\n"
      curl:expect_output(all)
    end
    assert.equal(0, curl:wait())
    assert.matches("^hello\n1\n2\n3\n1;1 %d+0;$", curl:output())
  end)

  it("is completed by a message, time after time, with requests in between", function()
    local s = start()
    local client = connect(s)
    for number = 1, 5 do
      client:get("/?once=1")
      push.wait_held(s, 1)
      -- The next request may be there already.
      if number % 2 == 0 then client:get("/pid") end
      push.publish(s, "news", "message" .. number)
      client:read_until("message" .. number)
      if number % 2 == 1 then client:get("/pid") end
      client:read_until("200 OK")
      client:read_when(function(buffer) return select(2, buffer:find("\r\n\r\n1 %d+")) end)
    end
  end)

  it("goes on after the keys that either side asks for, and ends with close_notify", function()
    local s = start()
    -- s_client changes its keys at a line "k", and asks for others at "K".
    local shell = "mkfifo %s; (printf 'GET /?timeout=8 HTTP/1.0\\r\\n\\r\\n'; cat %s) | "
      .. "timeout 60 openssl s_client -CAfile %s -connect localhost:%d -servername localhost 2>&1"
    local pipe = process.scratch("pipe")
    local client = run { "sh", "-c", shell:format(pipe, pipe, authority.certificate, s.tls_port) }
    push.wait_held(s, 1)
    local keyboard = assert(io.open(pipe, "w"))
    local function updates() return select(2, client:output():gsub("KEYUPDATE", "")) end
    local function say(number)
      push.publish(s, "news", "message" .. number .. ";")
      client:expect_output("message" .. number .. ";")
    end
    for number = 1, 4 do
      say(number)
      keyboard:write(number % 2 == 0 and "K\n" or "k\n"):flush()
      assert(process.wait_until(function() return updates() == number end), client:output())
    end
    say(5)
    client:expect_output("closed")
    keyboard:close()
    assert.is_nil(client:output():find("error", 1, true), client:output())
  end)

  it("outlives its workers and reloads, and hears each message once and in order", function()
    local s = start()
    local clients = open_many(s, 40)
    local expected, number = "", 0
    local function publish()
      number = number + 1
      push.publish(s, "news", number .. ";", number)
      expected = expected .. number .. ";"
    end
    for _ = 1, 2 do
      publish()
      kill_workers(s)
      publish()
      assert.equal("true", push.get(s, "/reload"))
      publish()
    end
    for _, client in ipairs(clients) do
      local text = client:read_until(number .. ";"):gsub("^.-\r\n\r\n", "")
      text = text:gsub("%x+\r\n", ""):gsub("\r\n", "")
      assert.equal("hello\n" .. expected, text)
    end
    local back = open(s, "/", "Last-Event-ID: " .. number - 1 .. "\r\n")
    back:read_until(number .. ";")
    assert.equal(41, push.status(s).held)
  end)

  it("ends when the process that holds it is killed, which is started again", function()
    local s = start()
    local client = open_many(s, 1)[1]
    client:read_until("hello\n")
    process.kill(push.process(s), "KILL")
    local text, status = client:read_all()
    assert.not_equal("eof", status, text)
    assert(process.wait_until(function() return push.process(s) end))
    client = open_many(s, 1)[1]
    push.publish(s, "news", "again")
    client:read_until("again")
  end)

  it("ends when its client says that it sends no more, or what it must not", function()
    local s = start()
    local python = run { "python3", "-u", "-c", [[
import signal, socket, ssl, sys
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])
context = ssl.create_default_context(cafile=sys.argv[2])
def connect():
    plain = socket.create_connection(("127.0.0.1", int(sys.argv[1])), timeout=30)
    it = context.wrap_socket(plain, server_hostname="localhost")
    it.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
    text = b""
    while b"hello" not in text:
        text += it.recv(4096)
    return it
polite, rude = connect(), connect()
print("ready")
signal.sigwait([signal.SIGUSR1])
try:
    polite.unwrap()
except OSError:
    pass
print("polite")
signal.sigwait([signal.SIGUSR1])
plain = socket.socket(fileno=rude.detach())
plain.settimeout(30)
plain.sendall(b"\x17\x03\x03\x00\x20" + b"x" * 32)
print("alert" if plain.recv(65536)[:1] == b"\x17" else "nothing")
]], tostring(s.tls_port), authority.certificate }
    python:expect_output("ready")
    local other = open(s)
    push.wait_held(s, 3)
    python:signal "USR1"
    push.wait_held(s, 2)
    python:expect_output("polite")
    python:signal "USR1"
    push.wait_held(s, 1)
    python:expect_output("alert")
    push.publish(s, "news", "still")
    other:read_until("still")
  end)

  it("is dropped if its client is too slow, which others do not notice", function()
    local s = start()
    local slow = open(s)
    local fast = open(s)
    push.wait_held(s, 2)
    fast:read_until("hello\n\r\n")
    local sent = 0
    repeat
      assert.equal("true nil", push.get(s, "/publish?topic=news&message=x&size=500000"))
      fast:read_when(function(buffer) return select(2, buffer:find("^7A120\r\nx+\r\n")) end)
      sent = sent + 1
    until push.status(s).slow > 0 or sent > 100
    push.wait_held(s, 1)
    assert.not_equal("eof", select(2, slow:read_all()))
  end)

  it("loses its oldest messages instead by choice, but no part of one", function()
    local s = start()
    local slow = open(s, "/?overflow=drop_oldest")
    push.wait_held(s, 1)
    local count = 0
    repeat
      push.get(s, "/publish?topic=news&message=x&size=500000")
      count = count + 1
    until push.status(s).dropped > 3 or count > 100
    push.publish(s, "news", "last")
    local text = slow:read_until("last\r\n"):gsub("^.-\r\n\r\n", "")
    local status = push.status(s)
    assert.truthy(status.dropped > 0 and status.slow == 0 and status.held == 1)
    local total, at = 0, 1
    while at <= #text do
      local size, first = text:match("^(%x+)\r\n()", at)
      total, at = total + tonumber(size, 16), first + tonumber(size, 16) + 2
    end
    assert.equal(6 + (count - status.dropped) * 500000 + 4, total)
  end)

  it("ends with close_notify after all that waits for a client that is slow", function()
    local s = start()
    local slow = connect(s)
    slow:send("GET /?timeout=5 HTTP/1.0\r\n\r\n")
    push.wait_held(s, 1)
    push.get(s, "/publish?topic=news&message=x&size=20000000")
    assert(process.wait_until(function() return push.subscribers(s, "news") == 0 end))
    assert.equal(1, push.status(s).held)
    local text, status = slow:read_all()
    assert.equal("eof", status)
    assert.equal(20000000, #text:match("hello\n(x+)$"))
    push.wait_held(s, 0)
  end)

  it("is told of a shutdown, and ends with close_notify", function()
    local s = start()
    local stream, once = open(s), open(s, "/?once=1")
    push.wait_held(s, 2)
    s:signal("TERM")
    assert.equal(0, s:wait())
    local text, status = stream:read_all()
    assert.matches("bye\n\r\n0\r\n\r\n$", text)
    assert.equal("eof", status)
    text, status = once:read_all()
    assert.matches("\r\n\r\nbye\n$", text)
    assert.equal("eof", status)
  end)

  it("is possible after a reload that brings TLS", function()
    local mark = process.scratch("mark")
    local port = server.free_port()
    local s = server.start(([[
      local moonbridge, http = require "moonbridge", require "moonbridge_http"
      local again = io.open(%q)
      if not again then io.open(%q, "w"):close() end
      moonbridge.topic("news", { history = 1 })
      moonbridge.listen {
        again and { proto = "tls", host = "127.0.0.1", port = %d, certificate = %q, key = %q }
          or { proto = "tcp", host = "127.0.0.1", port = PORT },
        connect = http.generate_handler(function(request)
          request:send_status("200 OK")
          return request:hold { topics = "news", heartbeat = { 0.1, "beat" } }
        end),
      }
      moonbridge.run { hangup = "reload" }
    ]]):format(mark, mark, port, localhost.certificate, localhost.key))
    s:signal("HUP")
    assert(s.process:wait_log("Reload complete"))
    s.tls_port = port
    open(s):read_until("beat")
  end)
end)

describe("a WebSocket over TLS that hears a topic", function()
  local function upgrade(s, name)
    local client = connect(s)
    client:send(websocket.request("/chat?name=" .. name, { Host = "localhost" }))
    client:read_until("\r\n\r\n")
    function client:frame(opcode, text) self:send(websocket.frame(opcode, text)) end
    function client:receive()
      local frame = assert(self:read_when(function(buffer)
        return #buffer >= 2 and #buffer >= 2 + buffer:byte(2) and 2 + buffer:byte(2)
      end))
      return frame:sub(3), frame:byte(1) & 15
    end
    function client:say(text) self:frame(websocket.TEXT, text) end
    assert.equal("welcome", client:receive())
    return client
  end

  it("hears and is answered, whatever becomes of workers and generations", function()
    local s = start()
    local one, other = upgrade(s, "one"), upgrade(s, "other")
    for round = 1, 3 do
      push.wait_held(s, 2)
      one:say("say round" .. round)
      assert.equal("round" .. round, one:receive())
      assert.equal("round" .. round, other:receive())
      other:say("ask" .. round)
      assert.matches("^other ask" .. round .. " %d+$", (other:receive()))
      push.wait_held(s, 2)
      kill_workers(s)
      push.publish(s, "room", "killed" .. round)
      assert.equal("killed" .. round, one:receive())
      assert.equal("killed" .. round, other:receive())
      assert.equal("true", push.get(s, "/reload"))
      push.publish(s, "room", "reloaded" .. round)
      assert.equal("reloaded" .. round, one:receive())
      assert.equal("reloaded" .. round, other:receive())
    end
  end)

  it("is kept as long as it answers pings, and is told of a shutdown", function()
    local s = start { heartbeat = "1" }
    local client = upgrade(s, "one")
    for _ = 1, 3 do
      local text, opcode = client:receive()
      assert.same({ "", websocket.PING }, { text, opcode })
      client:frame(websocket.PONG, "")
    end
    push.publish(s, "room", "here")
    assert.equal("here", client:receive())
    s:signal("TERM")
    local text, opcode
    repeat text, opcode = client:receive() until opcode ~= websocket.PING
    assert.same({ 1001, websocket.CLOSE }, { (string.unpack(">I2", text)), opcode })
    client:frame(websocket.CLOSE, text)
    assert.equal("eof", select(2, client:read_all()))
    assert.equal(0, s:wait())
  end)

  it("is lost if it does not answer pings, which its handler is told", function()
    local s = start { heartbeat = "1" }
    local client = upgrade(s, "one")
    client:read_all()
    assert(s.process:wait_log("closed 1006"))
    push.wait_held(s, 0)
  end)

  it("is lost if its client sends what is no record, which its handler is told", function()
    local s = start()
    local python = run { "python3", "-u", "-c", [[
import socket, ssl, sys
context = ssl.create_default_context(cafile=sys.argv[2])
it = context.wrap_socket(socket.create_connection(("127.0.0.1", int(sys.argv[1])), timeout=30),
    server_hostname="localhost")
it.sendall(b"GET /chat?name=x HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n")
text = b""
while b"welcome" not in text:
    text += it.recv(4096)
plain = socket.socket(fileno=it.detach())
plain.settimeout(30)
# A frame after it is none of the client's.
plain.sendall(b"\x17\x03\x03\x00\x20" + b"x" * 32 + b"\x81\x84\x00\x00\x00\x00evil")
plain.recv(65536)
]], tostring(s.tls_port), authority.certificate }
    assert(s.process:wait_log("closed 1006"), python:log())
    push.wait_held(s, 0)
  end)

  it("talks to our own client", function()
    local s = start()
    local url = ("wss://localhost:%d/chat?name=own"):format(s.tls_port)
    local ws = assert(http.websocket_connect(url, { tls = { ca = authority.certificate } }))
    assert.equal("welcome", ws:receive(30))
    push.wait_held(s, 1)
    push.publish(s, "room", "news")
    assert.equal("news", ws:receive(30))
    assert(ws:send("hello"))
    assert.matches("^own hello %d+$", (ws:receive(30)))
    assert.is_true(ws:close())
    local _, message = http.websocket_connect(url)
    assert.matches("certificate", message)
    assert.has_error(function() http.websocket_connect(url, { tls = { cert = "" } }) end)
  end)

  it("gets on with Python's websockets", function()
    local s = start { before = [[
      local conversation = http.websocket {
        protocols = { "chat" }, compress = true,
        open = function(ws) ws:subscribe("room") end,
        message = function(ws, text, kind)
          if text == "fail" then error("on purpose") end
          if text == "bye" then
            ws:send("last")
            return ws:close(4001, "bye")
          end
          ws:send(text, kind)
        end,
      }
    ]], handler = "return conversation(request)" }
    local command = ("cd %s && SSL_CERT_FILE=%s timeout 100 /usr/bin/python3 spec/support/websocket_peer.py "
      .. "client wss://localhost:%d/ 2>&1"):format(server.root, authority.certificate, s.tls_port)
    local code, output = process.run(command)
    assert.equal(0, code, output)
    assert.equal("all well\n", output)
  end)
end)
