-- Responses over TLS 1.2 are held, too: the worker has the keys and passes on what the push process says.
-- Any version: nothing of it depends on Lua's.

local certificates = require "spec.support.certificates"
local faults = require "spec.support.faults"
local posix = require "spec.support.posix"
local process = require "spec.support.process"
local push = require "spec.support.push"
local server = require "spec.support.server"

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

local BEFORE = [[
  local posix = package.loadlib(POSIX, "luaopen_posix")()
]]

local HANDLER = [[
  if request.path == "fork" then
    local child = posix.fork()
    if child == 0 then
      moonbridge.io.poll(nil, nil, 30)
      os.exit(0)
    end
    request:send("200 OK", "text/plain", tostring(child))
    return true
  end
  if request.path == "leave" then
    request:send("200 OK", "text/plain", "leaving")
    return false
  end
  local once, timeout = get.once and true, tonumber(get.timeout)
  if not once then
    request:send_status("200 OK")
    request:send_header("Content-Type", "text/event-stream")
    request:send_data("hello\n")
  end
  return request:hold { topics = "news", once = once, timeout = timeout, farewell = "bye\n",
    heartbeat = get.beat and { tonumber(get.beat), "beat\n" }, overflow = get.overflow,
    otherwise = get.otherwise and "404 Not Found" }
]]

-- A server with a port for TLS beside the plain one.
local function start(options)
  options = options or {}
  options.tls = localhost
  options.before, options.handler = BEFORE:gsub("POSIX", ("%q"):format(posix.path())), HANDLER
  return push.start(options)
end

local function run(argv)
  local client = process.start(argv)
  running[#running + 1] = client
  return client
end

-- curl, with these options and for these targets over one connection.
local function curl(s, options, ...)
  local argv = { "curl", "-sSN", "--tls-max", "1.2", "--cacert", authority.certificate,
    table.unpack(options) }
  for _, target in ipairs { ... } do
    argv[#argv + 1] = ("https://localhost:%d%s"):format(s.tls_port, target)
  end
  return run(argv)
end

local function client(s, target, ...)
  local script = server.root .. "/spec/support/tls_stream.py"
  return run { "python3", "-u", script, tostring(s.tls_port), authority.certificate, target, ... }
end

-- A stream that has begun.
local function open(s, target, ...)
  local before = push.status(s).held
  local stream = client(s, target, ...)
  push.wait_held(s, before + 1)
  stream:expect_output("hello\n")
  return stream
end

local function worker(s) return math.tointeger(tonumber(push.get(s, "/pid"):match("%d+$"))) end

-- What a worker has open.
local function descriptors(pid)
  local _, count = process.run(("ls /proc/%d/fd | wc -l"):format(pid))
  return tonumber(count)
end

describe("a held response over TLS 1.2", function()
  it("shows each message to curl -N when it comes, and the connection is kept after it", function()
    local s = start()
    local stream = curl(s, { "-w", "%{num_connects};" }, "/?timeout=8", "/pid", "/?once=1", "/pid")
    push.wait_held(s, 1)
    local all = "hello\n"
    for number = 1, 3 do
      push.publish(s, "news", number .. "%0A")
      all = all .. number .. "\n"
      stream:expect_output(all)
    end
    stream:expect_output(all .. "1;")
    push.wait_held(s, 1)
    push.publish(s, "news", "message")
    assert.equal(0, stream:wait(), stream:log())
    assert.matches("^hello\n1\n2\n3\n1;1 %d+0;message0;1 %d+0;$", stream:output())
  end)

  it("has heartbeats, and another status if no message comes", function()
    local s = start()
    local beating = curl(s, {}, "/?beat=0.1")
    beating:expect_output("beat\nbeat\n")
    local once = curl(s, { "-w", "%{http_code};" }, "/?once=1&timeout=0.1",
      "/?once=1&timeout=0.1&otherwise=1")
    assert.equal(0, once:wait(), once:log())
    assert.equal("204;404;", once:output())
  end)

  it("lets requests wait that its client sends meanwhile", function()
    local s = start()
    local requests = "GET /?once=1&timeout=0.5 HTTP/1.1\r\nHost: x\r\n\r\n"
      .. "GET /pid HTTP/1.1\r\nHost: x\r\n\r\n"
    local _, output = process.run(("(printf '%s'; sleep 2) | timeout 3 openssl s_client -quiet -tls1_2 "
      .. "-CAfile %s -connect localhost:%d -servername localhost 2>&1"):format(requests,
      authority.certificate, s.tls_port))
    assert.matches("204 No Content.*200 OK.*\r\n\r\n1 %d+$", output)
  end)

  it("ends when its client is gone, or says that it sends no more", function()
    local s = start()
    local one, other = open(s, "/"), open(s, "/")
    assert.equal(2, push.subscribers(s, "news"))
    one:signal "KILL"
    push.wait_held(s, 1)
    other:signal "TERM"
    other:expect_output("left")
    push.wait_held(s, 0)
    assert.equal(0, push.subscribers(s, "news"))
  end)

  it("is dropped if its client is too slow, which others do not notice", function()
    local s = start { workers = 1 }
    local slow, fast = open(s, "/", "1.1", "slow"), open(s, "/")
    local sent = 0
    repeat
      assert.equal("true nil", push.get(s, "/publish?topic=news&message=x&size=100000"))
      sent = sent + 1
      assert(process.wait_until(function() return #fast:output() > sent * 100000 end))
    until push.status(s).slow > 0 or sent > 500
    push.wait_held(s, 1)
    slow:signal "USR1"
    slow:expect_output("\ncut")
  end)

  it("keeps what waits for a slow client, and ends with close_notify after it", function()
    local s = start()
    local slow = open(s, "/?timeout=5", "1.0", "slow")
    push.get(s, "/publish?topic=news&message=x&size=20000000")
    -- The message is in the way of what is read after it.
    push.publish(s, "news", "last")
    assert(process.wait_until(function() return push.status(s).delivered == 2 end))
    assert(process.wait_until(function() return push.subscribers(s, "news") == 0 end))
    slow:signal "USR1"
    slow:expect_output("\nnotified")
    assert.equal(20000000, #slow:output():match("hello\n(x+)last\nnotified$"))
    push.wait_held(s, 0)
  end)

  it("hears of the end of its worker, at a reload and otherwise", function()
    local s = start { workers = 2 }
    local streams = { curl(s, {}, "/"), curl(s, {}, "/"), curl(s, {}, "/") }
    push.wait_held(s, 3)
    local once = curl(s, { "-w", "%{http_code}" }, "/?once=1")
    push.wait_held(s, 4)
    local cleartext = open(s, "/?timeout=100", "1.0")
    assert.equal("true", push.get(s, "/reload"))
    for _, stream in ipairs(streams) do
      assert.equal(0, stream:wait(), stream:log())
      assert.equal("hello\nbye\n", stream:output())
    end
    assert.equal(0, once:wait(), once:log())
    assert.equal("bye\n200", once:output())
    cleartext:expect_output("bye\n\nnotified")
    push.wait_held(s, 0)

    s = start { workers = 1 }
    local stream = curl(s, {}, "/")
    push.wait_held(s, 1)
    assert.equal("leaving", push.get(s, "/leave"))
    assert.equal(0, stream:wait(), stream:log())
    assert.equal("hello\nbye\n", stream:output())
  end)

  it("hears of a shutdown", function()
    local s = start()
    local slow, stream = open(s, "/", "1.1", "slow"), open(s, "/")
    push.get(s, "/publish?topic=news&message=x&size=8000000")
    s:signal "TERM"
    stream:expect_output("bye\n\r\n0\r\n\r\n\nnotified")
    slow:signal "USR1"
    slow:expect_output("bye\n\r\n0\r\n\r\n\nnotified")
    assert.equal(0, s:wait())
  end)

  it("is cut when its worker or the push process is killed", function()
    local s = start { workers = 1 }
    local stream = open(s, "/")
    process.kill(worker(s), "KILL")
    stream:expect_output("\ncut")
    push.wait_held(s, 0)
    stream = open(s, "/", "1.0")
    process.kill(push.process(s), "KILL")
    stream:expect_output("\ncut")
    -- `open` counts from there.
    push.wait_held(s, 0)
    stream = open(s, "/")
    push.publish(s, "news", "again")
    stream:expect_output("again")
  end)

  it("ends with its worker, whatever that has forked", function()
    local s = start { workers = 1 }
    local stream, other = open(s, "/"), open(s, "/")
    local child = math.tointeger(tonumber(push.get(s, "/fork")))
    push.publish(s, "news", "still")
    stream:expect_output("still")
    other:signal "KILL"
    push.wait_held(s, 1)
    process.kill(worker(s), "KILL")
    stream:expect_output("\ncut")
    push.wait_held(s, 0)
    process.kill(child, "KILL")
  end)

  it("costs its worker two descriptors, and no time", function()
    local s = start { workers = 1 }
    local pid, streams = worker(s), {}
    -- The connection that has told the process may still be there.
    process.wait_asleep(pid)
    local before = descriptors(pid)
    for index = 1, 12 do streams[index] = client(s, "/?topic=news") end
    push.wait_held(s, 12)
    assert(process.wait_until(function() return descriptors(pid) == before + 24 end))
    for number = 1, 20 do
      push.publish(s, "news", number .. ";")
      assert.equal(pid, worker(s))
    end
    for _, stream in ipairs(streams) do
      stream:expect_output("20;")
      local text = stream:output():gsub("^.-\r\n\r\n", ""):gsub("%x+\r\n", ""):gsub("\r\n", "")
      assert.equal("hello\n1;2;3;4;5;6;7;8;9;10;11;12;13;14;15;16;17;18;19;20;", text)
      stream:signal "KILL"
    end
    push.wait_held(s, 0)
    assert(process.wait_until(function() return descriptors(pid) == before end))
  end)

  it("is reset if there is no descriptor for it", function()
    local s = faults.server(([[
      local moonbridge, http = require "moonbridge", require "moonbridge_http"
      moonbridge.listen {
        { proto = "tls", host = "127.0.0.1", port = PORT, certificate = %q, key = %q },
        min_fork = 1, max_fork = 1,
        connect = http.generate_handler(function(request)
          request:send_status("200 OK")
          request:send_data("hello\n")
          return request:hold { topics = "news" }
        end),
      }
      moonbridge.run()
    ]]):format(localhost.certificate, localhost.key))
    s.tls_port = s.port
    s.faults:set { call = "socketpair", process = "workers", errno = "EMFILE", count = 1 }
    local refused = client(s, "/")
    refused:expect_output("\ncut")
    assert(s.process:wait_log("A connection could not be held: Too many open files"))
    client(s, "/"):expect_output("hello\n")
  end)
end)
