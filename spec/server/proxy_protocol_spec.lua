-- The PROXY protocol on a listener: the header is read before any handler has the connection, and what it has
-- told stays with the connection.
-- Any version: nothing of it depends on Lua's.

local client = require "spec.support.client"
local process = require "spec.support.process"
local proxies = require "spec.support.proxies"
local server = require "spec.support.server"
local socket = require "socket"
local status = require "spec.support.status"

local V1 = "PROXY TCP4 192.0.2.1 198.51.100.1 56324 443\r\n"
local SIGNATURE = "\r\n\r\n\0\r\nQUIT\n"

-- A header of version 2.
local function binary(command, family, block)
  return SIGNATURE .. string.pack(">BBs2", command, family, block)
end

local V2 = binary(0x21, 0x11, "\192\0\2\7\198\51\100\1\220\4\1\187"
  .. string.pack(">Bs2Bs2", 2, "a.example", 5, "id"))

-- PORT is without the protocol, PROXIED with it, LOCAL is a socket.
local APP = [[
  local moonbridge = require "moonbridge"
  local http = require "moonbridge_http"
  local function describe(value)
    if type(value) ~= "table" then return tostring(value) end
    local parts = {}
    for name, field in pairs(value) do parts[#parts + 1] = name .. "=" .. describe(field) end
    table.sort(parts)
    return "{" .. table.concat(parts, " ") .. "}"
  end
  local app = http.generate_handler(function(request)
    if request.path == "slow" then os.execute("exec sleep 2") end
    request:send_status("200 OK")
    if request.path == "status" then
      ]] .. status.ANSWER .. [[
    else
      request:send_data(tostring(request.socket.remote_ip), " ", describe(request.socket.proxy))
    end
    return true
  end)
  moonbridge.listen {
    { proto = "tcp", host = "127.0.0.1", port = PORT },
    { proto = "tcp", host = "127.0.0.1", port = PROXIED, proxy_protocol = true, trusted = TRUSTED },
    { proto = "local", path = LOCAL, proxy_protocol = true, trusted = TRUSTED },
    min_fork = 2, max_fork = 2,
    connect = app,
  }
  moonbridge.listen {
    { proto = "tcp", host = "127.0.0.1", port = RAW, proxy_protocol = true },
    connect = function(handle)
      handle:flush("hello ", describe(handle.proxy), "\n")
      handle:flush(tostring(handle.wakeup), " ", handle:read(100, "\n") or "end", "\n")
      return true
    end,
  }
  moonbridge.run(OPTIONS)
]]

local function start(options)
  options = options or {}
  local proxied, raw, path = server.free_port(), server.free_port(), process.scratch("socket")
  local script = APP:gsub("TRUSTED", options.trusted or "nil"):gsub("OPTIONS", options.run or "")
  local s = server.start { script = script, globals = { PROXIED = proxied, RAW = raw, LOCAL = path } }
  s.proxied_port = proxied
  function s.proxied() return client.connect(proxied) end
  function s.raw() return client.connect(raw) end
  function s.by_path() return client.connect(nil, nil, { path = path }) end
  return s
end

-- The server ends the connection without a word.
local function closed(c)
  local bytes, reason = c:read_all()
  assert.equal("", bytes)
  assert.not_equal("timeout", reason)
end

local GET = "GET / HTTP/1.1\r\nHost: a\r\n\r\n"
local TOLD = "127.0.0.1 {command=PROXY destination_ip=198.51.100.1 destination_port=443 source_ip=192.0.2.1 "
  .. "source_port=56324 tlvs={} transport=stream version=1}"

describe("the PROXY protocol", function()
  after_each(function()
    proxies.stop()
    client.cleanup()
    server.cleanup()
  end)

  it("tells whose a connection is, in both versions, and remote_ip stays the proxy's", function()
    local s = start()
    local one, two = s.proxied(), s.proxied()
    one:send(V1 .. GET)
    two:send(V2 .. GET)
    assert.equal(TOLD, one:response().body)
    assert.equal("127.0.0.1 {command=PROXY destination_ip=198.51.100.1 destination_port=443 "
      .. "source_ip=192.0.2.7 source_port=56324 tlvs={2=a.example 5=id} transport=stream version=2}",
      two:response().body)
    one:send(GET)
    assert.equal(TOLD, one:response().body)
    local by_path = s.by_path()
    by_path:send(V1 .. GET)
    assert.equal("nil " .. TOLD:match(" (.*)"), by_path:response().body)
    assert.equal("127.0.0.1 nil", s:request("/").body)
  end)

  it("tells IPv6 addresses and paths of local sockets", function()
    local s = start()
    local c = s.proxied()
    c:send("PROXY TCP6 2001:db8::1 ::1 1 2\r\n" .. GET)
    assert.truthy(c:response().body:find("source_ip=2001:db8::1 ", 1, true))
    c = s.proxied()
    c:send(binary(0x21, 0x31, ("\0"):rep(108) .. "/run/a" .. ("\0"):rep(102)) .. GET)
    assert.truthy(c:response().body:find("destination_path=/run/a source_path= ", 1, true))
  end)

  it("leaves a proxy's own connections as they are: health checks", function()
    local s = start()
    for _, header in ipairs { "PROXY UNKNOWN\r\n", binary(0x20, 0, ""), binary(0x20, 0x11, ("x"):rep(12)) } do
      local c = s.proxied()
      c:send(header .. GET)
      local body = c:response().body
      assert.truthy(body:find("^127.0.0.1 {command=LOCAL tlvs={} version=%d}$"), body)
    end
    local c = s.proxied()
    c:send("PROXY UNKNOWN\r\n")
    c:finish()
    closed(c)
    assert.equal(0, status.figure(s, "proxy_errors"))
  end)

  it("calls a handler that speaks first once the header is there, with what is after it", function()
    local s = start()
    local c = s.raw()
    assert.is_true(c:silent(0.1))
    c:dribble(V1, 5, 0.002)
    assert.truthy(c:read_until("\n"):find("^hello {.*source_ip=192.0.2.1 "))
    c:send("line\n")
    assert.equal("nil line\n", c:read_until("\n"))
    c = s.raw()
    c:send(V1 .. "line\nmore")
    c:read_until("\n")
    assert.equal("nil line\n", c:read_until("\n"))
  end)

  it("closes connections without a valid header, counts them, and tells the log", function()
    local s = start()
    local bad = {
      GET, "PROXY TCP4 1 2 3 4\r\n" .. GET, "PROXY UNKNOWN\n" .. GET, "PROXY " .. ("x"):rep(200),
      binary(0x31, 0x11, ("x"):rep(12)), binary(0x21, 0x11, ("x"):rep(4081)), binary(0x21, 0x11, "short"),
      "\r\n\r\n\0\r\nQUIT.", "",
    }
    for _, bytes in ipairs(bad) do
      local c = s.proxied()
      c:send(bytes)
      if bytes == "" then c:finish() end
      closed(c)
    end
    -- A client that ends in the middle of its header.
    local c = s.proxied()
    c:send("PROXY TCP4")
    socket.sleep(0.1)
    c:finish()
    closed(c)
    assert.equal(#bad + 1, status.figure(s, "proxy_errors"))
    local _, lines = s:log():gsub("no valid PROXY header", "")
    assert.equal(1, lines)
    assert.truthy(s:log():find("Connections closed because they had no valid PROXY header: 1. The last one, "
      .. "from 127.0.0.1: the connection begins with something else", 1, true), s:log())
    s:signal("TERM")
    assert.equal(0, s:wait())
    local rest = s:log():match("%[Pool #1%] Connections closed because they had [%a ]+: (%d+) more\n")
    assert.equal(#bad, tonumber(rest), s:log())
  end)

  it("waits for the header without a worker, for 5 seconds at most", function()
    local s = start()
    local silent, begun = {}, {}
    for i = 1, 10 do
      silent[i], begun[i] = s.proxied(), s.proxied()
      begun[i]:send("PROXY TCP4 192.0.2.1 ")
    end
    for _ = 1, 10 do assert.equal("127.0.0.1 nil", s:request("/").body) end
    local c, d = table.remove(silent), table.remove(begun)
    socket.sleep(1.5)
    c:send(V1 .. GET)
    d:send("198.51.100.1 56324 443\r\n" .. GET)
    assert.equal(TOLD, c:response().body)
    assert.equal(TOLD, d:response().body)
    for i = 1, 9 do
      closed(silent[i])
      closed(begun[i])
    end
    assert.equal(18, status.figure(s, "proxy_errors"))
    assert.truthy(s:log():find("it did not come within 5 s", 1, true))
  end)

  it("counts incomplete headers in waiting_input_limit", function()
    local s = start { run = "{ waiting_input_limit = 65536 }" }
    local incomplete = binary(0x21, 0x11, ("x"):rep(4000)):sub(1, -2)
    local kept = {} -- one that is collected is closed
    for i = 1, 40 do
      kept[i] = s.proxied()
      kept[i]:send(incomplete)
    end
    assert.truthy(s:wait_log("w%a+ closed: together they held more than 65536 bytes of input"))
    assert.truthy(status.figure(s, "shed") > 0)
  end)

  it("demands the header of trusted peers, and takes that of nobody else", function()
    local s = start { trusted = '{"10.0.0.0/8", "unix"}' }
    local c = s.proxied()
    c:send(GET)
    assert.equal("127.0.0.1 nil", c:response().body)
    c = s.proxied()
    c:send(V1 .. GET)
    assert.equal(400, c:response().status)
    c = s.by_path()
    c:send(V1 .. GET)
    assert.equal("nil " .. TOLD:match(" (.*)"), c:response().body)
    c = s.by_path()
    c:send(GET)
    closed(c)
    s = start { trusted = '{"127.0.0.1"}' }
    c = s.proxied()
    c:send(V1 .. GET)
    assert.equal(TOLD, c:response().body)
  end)

  -- Each connection is asked before and after what `move` does to the server.
  local function travels(s, move)
    local cold, hot, silent = s.proxied(), s.proxied(), s.proxied()
    cold:send(V1 .. GET)
    assert.equal(TOLD, cold:response().body)
    socket.sleep(1.5)
    hot:send(V1 .. GET)
    assert.equal(TOLD, hot:response().body)
    local half, begun = s.proxied(), s.proxied()
    half:send(V1 .. "GET / HTTP/1.1\r\n")
    begun:send("PROXY TCP4 ")
    socket.sleep(0.1)
    move()
    hot:send(GET)
    cold:send(GET)
    half:send("Host: a\r\n\r\n")
    begun:send("192.0.2.1 198.51.100.1 56324 443\r\n" .. GET)
    silent:send(V1 .. GET)
    for name, c in pairs { hot = hot, cold = cold, half = half, begun = begun, silent = silent } do
      assert.equal(TOLD, c:response().body, name)
    end
    assert.equal(0, status.figure(s, "proxy_errors"))
  end

  it("stays with a connection whose worker is killed", function()
    local s = start()
    travels(s, function()
      local workers = s:workers()
      for _, pid in ipairs(workers) do process.kill(pid, "KILL") end
      socket.sleep(0.2)
    end)
  end)

  it("stays with a connection whose worker is busy", function()
    local s = start()
    travels(s, function()
      local slow = s:connect()
      slow:send("GET /slow HTTP/1.1\r\nHost: a\r\n\r\n")
      socket.sleep(0.2)
    end)
  end)

  it("stays with a connection at a reload", function()
    local s = start { run = '{ hangup = "reload" }' }
    travels(s, function()
      s:signal("HUP")
      assert(process.wait_until(function() return s:log():find("Reload complete", 1, true) end), s:log())
    end)
  end)

  it("is read of connections that wait at a port when the server ends", function()
    local s = start()
    local slow = { s:connect(), s:connect() }
    for _, c in ipairs(slow) do c:send("GET /slow HTTP/1.1\r\nHost: a\r\n\r\n") end
    socket.sleep(0.2)
    local waiting, silent, begun = s.proxied(), s.raw(), s.proxied()
    waiting:send(V1 .. GET)
    begun:send("PROXY ")
    s:signal("TERM")
    assert.equal(TOLD, waiting:response().body)
    closed(silent)
    closed(begun)
    assert.equal(0, s:wait())
    assert.is_nil(s:log():find("PROXY", 1, true))
  end)

  -- HAProxy and nginx in front: what they tell is the address that their client has.
  local function is_told_of(s, port, version)
    local users = {}
    for i = 1, 5 do users[i] = client.connect(port) end
    for _ = 1, 3 do
      for _, user in ipairs(users) do
        user:send(GET)
        local body = user:response().body
        local expected = ("source_ip=127.0.0.1 source_port=%d "):format(user.local_port)
        assert.truthy(body:find(expected, 1, true), body)
        assert.truthy(body:find("version=" .. version, 1, true), body)
        assert.truthy(body:find(("destination_port=%d "):format(port), 1, true), body)
      end
    end
    assert.equal(0, status.figure(s, "proxy_errors"))
  end

  for version, option in ipairs { "send-proxy", "send-proxy-v2" } do
    it("is understood as HAProxy speaks it: " .. option, function()
      local s = start()
      local port = proxies.start("HAProxy", { s.proxied_port },
        { mode = "tcp", backend = "", server = option .. " check inter 50ms" })
      is_told_of(s, port, version)
      -- Health checks go on in the meantime, and find the server well.
      local accepted = status.figure(s, "accepted")
      assert(process.wait_until(function() return status.figure(s, "accepted") > accepted + 10 end))
      is_told_of(s, port, version)
    end)
  end

  it("carries values that HAProxy adds", function()
    local s = start()
    local port = proxies.start("HAProxy", { s.proxied_port }, { backend = "http-reuse always", frontend = [[
    unique-id-format id-%ci
    ]], server = "send-proxy-v2 proxy-v2-options unique-id,crc32c" })
    local user = client.connect(port)
    user:send(GET)
    local body = user:response().body
    -- PP2_TYPE_CRC32C and PP2_TYPE_UNIQUE_ID.
    assert.truthy(body:find("tlvs={3=.... 5=id%-127%.0%.0%.1}"), body)
  end)

  it("is refused in options that make no sense", function()
    for fields, message in pairs {
      ['proxy_protocol = 1'] = 'Field "proxy_protocol" of listener #1 must be a boolean, not a number',
      ['trusted = {"::1"}'] = 'Field "trusted" of listener #1 is of use with proxy_protocol = true only',
      ['proxy_protocol = true, trusted = {"10.0.0.0/33"}'] =
        'Field "trusted" of listener #1: "10.0.0.0/33" is not a network',
      ['proxy_protocol = true, trusted = {"10.0.0.7/8"}'] = '"10.0.0.7/8" has more than 8 bits',
      ['proxy_protocol = true, trusted = {"localhost"}'] = '"localhost" is not a network',
      ['proxy_protocol = true, trusted = "::1"'] = "must be a list of networks",
      ['proto = "status", proxy_protocol = true'] = "status listeners read no PROXY headers",
      ['proxy_protocol = true, trusted = {1}'] = "must be a list of strings, but has a number",
    } do
      local code, _, log = server.run_script {
        script = ([[
          require "moonbridge".listen { { port = PORT, %s }, connect = print }
        ]]):format(fields:find("proto =", 1, true) and fields or 'proto = "tcp", ' .. fields),
      }
      assert.not_equal(0, code)
      assert.truthy(log:find(message, 1, true), log)
    end
  end)
end)
