-- Connections with TLS 1.3 move from process to process like any other, whatever their client.
-- Takes long: connections have to become cold.
-- Any version: nothing of it depends on Lua's.

local certificates = require "spec.support.certificates"
local moonbridge_io = require "moonbridge_io"
local process = require "spec.support.process"
local server = require "spec.support.server"
local tables = require "spec.support.tables"
local websocket = require "spec.support.websocket"

local authority, localhost
local running = {}

before_each(function()
  localhost, authority = certificates.signed()
end)

after_each(function()
  for _, clients in ipairs(running) do clients:destroy() end
  running = {}
  server.cleanup()
end)

-- The handler answers with its process and what it knows of the session.
local function start(options, run_options, more)
  return server.start(([[
    local moonbridge, http = require "moonbridge", require "moonbridge_http"
    local moonbridge_io = require "moonbridge_io"
    moonbridge.listen {
      { proto = "tls", host = "127.0.0.1", port = PORT, certificate = %q, key = %q,
        %s alpn = { "http/1.1" } },
      %s
      connect = http.generate_handler({ response_buffering = 10000000, idle_timeout = 60 }, function(request)
        local tls = request.socket.tls
        local peer = tls.peer_certificate
        local text = table.concat({ moonbridge_io.getpid(), tls.version, tls.cipher, tls.alpn or "-",
          tls.server_name or "-", tostring(tls.resumed), peer and peer.fingerprint or "-", "\n" }, " ")
        if request.path == "large" then text = text .. (" "):rep(8000000) end
        request:send_status("200 OK")
        request:send_header("Content-Length", #text)
        request:send_data(text)
        return true
      end),
    }
    moonbridge.run { %s }
  ]]):format(localhost.certificate, localhost.key, more or "", options, run_options or ""))
end

-- What a worker has just answered is still its own for a moment.
local function rest() moonbridge_io.poll(nil, nil, 0.5) end

-- Each request is answered by another process than the one before.
local TURNS = "min_fork = 1, max_fork = 1, max_requests = 1,"

local function connect(s, more)
  local options = tables.with({ ca = authority.certificate, alpn = { "http/1.1" } }, more)
  return assert(moonbridge_io.tlsconnect("localhost", s.port, options))
end

-- Asks over a connection that is kept: the words of the answer.
local function ask(handle, path)
  assert(handle:write("GET ", path or "/", " HTTP/1.1\r\nHost: localhost\r\n\r\n"):flush())
  local length
  repeat
    local line = assert(handle:read(nil, "\n"))
    length = length or tonumber(line:lower():match("^content%-length: (%d+)"))
  until line == "\r\n"
  local words = {}
  for word in handle:read(length):gmatch("%S+") do words[#words + 1] = word end
  return words
end

-- Python's clients, see tls_clients.py.
local function clients(s, count, version)
  local crowd = process.start { "python3", "-u", server.root .. "/spec/support/tls_clients.py",
    tostring(s.port), authority.certificate, version or "1.3", tostring(count) }
  running[#running + 1] = crowd
  function crowd:rounds()
    local rounds = {}
    for answered, failed, pids in self:output():gmatch("answered (%d+) failed (%d+) by ([%d ]*)\n") do
      rounds[#rounds + 1] = { answered = tonumber(answered), failed = tonumber(failed), pids = pids }
    end
    return rounds
  end
  function crowd:wait_round(number)
    assert(process.wait_until(function() return #self:rounds() >= number end, 60), self:log())
    return self:rounds()[number]
  end
  assert.equal(count, crowd:wait_round(1).answered, crowd:log())
  function crowd:again()
    local number = #self:rounds() + 1
    self:signal("USR1")
    return self:wait_round(number)
  end
  return crowd
end

describe("a connection with TLS 1.3", function()
  it("is served by one process after the other, which know what the first one knew", function()
    local s = start(TURNS)
    local handle = connect(s)
    local first = ask(handle)
    local seen = { [first[1]] = true }
    for _ = 1, 9 do
      local words = ask(handle)
      assert.is_nil(seen[words[1]])
      seen[words[1]] = true
      assert.same({ table.unpack(first, 2) }, { table.unpack(words, 2) })
    end
    assert.same({ "1.3", "http/1.1", "localhost", "false", "-" },
      { first[2], first[4], first[5], first[6], first[7] })
    handle:close()
  end)

  it("has its client's certificate wherever it goes", function()
    local own = certificates.make { issuer = authority, name = "client" }
    local s = start(TURNS, "", ("client_ca = %q,"):format(authority.certificate))
    local handle = connect(s, { certificate = own.certificate, key = own.key })
    local fingerprint = certificates.fingerprint(own)
    local first, second = ask(handle), ask(handle)
    assert.not_equal(first[1], second[1])
    assert.same({ fingerprint, fingerprint }, { first[7], second[7] })
    handle:close()
  end)

  it("moves with Python's, curl's and GnuTLS's clients, and with every cipher", function()
    local s = start(TURNS)
    local python = clients(s, 1)
    local last = python:rounds()[1].pids
    for _ = 1, 5 do
      local round = python:again()
      assert.equal(1, round.answered, python:log())
      assert.not_equal(last, round.pids)
      last = round.pids
    end
    for _, cipher in ipairs { "AES_128_GCM_SHA256", "AES_256_GCM_SHA384", "CHACHA20_POLY1305_SHA256" } do
      local url = ("https://localhost:%d/[1-8] "):format(s.port)
      local code, output = process.run(("curl -sS --http1.1 --tls13-ciphers TLS_%s --cacert %s "
        .. "-w '\\n%%{num_connects}\\n' %s 2>&1"):format(cipher, authority.certificate, url))
      assert.equal(0, code, output)
      local seen, count = {}, 0
      for pid in output:gmatch("(%d+) 1%.3 TLS_" .. cipher) do
        assert.is_nil(seen[pid])
        seen[pid], count = true, count + 1
      end
      assert.equal(8, count, output)
      local connects = select(2, output:gsub("\n0%f[\n]", ""))
      assert.equal(7, connects, output)
    end
    local asks = "(for n in 1 2 3 4; do printf 'GET / HTTP/1.1\\r\\nHost: a\\r\\n\\r\\n'; sleep 0.5; done)"
    local code, output = process.run((asks .. " | gnutls-cli --logfile=/dev/null --x509cafile=%s -p %d "
      .. "localhost 2>&1"):format(authority.certificate, s.port))
    assert.equal(0, code, output)
    assert.equal(4, select(2, output:gsub("%d+ 1%.3 TLS_", "")), output)
  end)

  it("goes on after the keys that either side asks for", function()
    local s = start(TURNS)
    -- s_client changes its keys at a line "k", and asks for others at "K".
    local asks = "(for n in 1 2 3 4 5 6; do printf 'GET / HTTP/1.1\\r\\nHost: a\\r\\n\\r\\n'; "
      .. "sleep 0.6; if [ $((n %% 2)) = 0 ]; then echo K; else echo k; fi; sleep 0.3; done) | "
    local code, output = process.run((asks .. "openssl s_client -CAfile %s -tls1_3 -connect localhost:%d "
      .. "-servername localhost 2>&1"):format(authority.certificate, s.port))
    assert.equal(0, code, output)
    assert.equal(6, select(2, output:gsub("KEYUPDATE", "")), output)
    local seen, count = {}, 0
    for pid in output:gmatch("(%d+) 1%.3 TLS_") do
      assert.is_nil(seen[pid])
      seen[pid], count = true, count + 1
    end
    assert.equal(6, count, output)
  end)

  it("survives the kill -9 of its worker, as 200 of 200 idle ones do", function()
    local s = start("min_fork = 3, max_fork = 3,")
    local crowd = clients(s, 200)
    for _ = 1, 3 do
      rest()
      for _, pid in ipairs(s:workers()) do process.kill(pid, "KILL") end
      local round = crowd:again()
      assert.same({ 200, 0 }, { round.answered, round.failed }, crowd:log())
    end
  end)

  it("survives a reload, as 200 of 200 idle ones do", function()
    local s = start("min_fork = 2, max_fork = 2,", 'hangup = "reload"')
    local crowd = clients(s, 200)
    for number = 1, 3 do
      local before = crowd:rounds()[number].pids
      s:signal("HUP")
      assert(s.process:wait_log("Reload complete", nil, number))
      local after
      assert(process.wait_until(function()
        after = crowd:again()
        assert.same({ 200, 0 }, { after.answered, after.failed }, crowd:log())
        for pid in after.pids:gmatch("%d+") do
          if before:find("%f[%d]" .. pid .. "%f[%D]") then return false end
        end
        return true
      end))
    end
    s:signal("TERM")
    assert.equal(0, s:wait())
  end)

  it("is not lost in its handshake to what the last worker has left behind", function()
    local flag = process.scratch("flag")
    local s = server.start { globals = { FLAG = flag }, script = ([[
      local moonbridge, http = require "moonbridge", require "moonbridge_http"
      local moonbridge_io = require "moonbridge_io"
      local function reclaimed() return moonbridge.status()[1].reclaimed end
      moonbridge.listen {
        { proto = "tls", host = "127.0.0.1", port = PORT, certificate = %q, key = %q },
        min_fork = 1, max_fork = 1,
        connect = http.generate_handler({ idle_timeout = 60 }, function(request)
          local before = reclaimed()
          local ends = request.path == "end"
          if ends then
            io.open(FLAG .. "begun", "w"):close()
            repeat moonbridge_io.poll(nil, nil, 0.01) until io.open(FLAG)
          end
          if request.path == "stuck" then
            repeat moonbridge_io.poll(nil, nil, 0.01) until reclaimed() > before
          end
          request:send("200 OK", "text/plain", tostring(moonbridge_io.getpid()))
          return not ends
        end),
      }
      moonbridge.run()
    ]]):format(localhost.certificate, localhost.key) }
    local idle, last = connect(s), connect(s)
    local first = ask(idle)[1]
    assert(last:write("GET /end HTTP/1.1\r\nHost: localhost\r\n\r\n"):flush())
    assert.truthy(process.wait_until(function() return io.open(flag .. "begun") end))
    local begun = assert(moonbridge_io.tlsconnect_nb("localhost", s.port, { ca = authority.certificate }))
    assert(begun:flush_nb())
    assert(io.open(flag, "w")):close()
    assert.truthy(moonbridge_io.poll({ [begun] = true }, nil, 10))
    -- What the supervisor takes from the next worker makes it look at its leases.
    local other, stuck = connect(s), connect(s)
    local second = ask(other)[1]
    assert.not_equal(first, second)
    ask(stuck, "/stuck")
    assert(begun:write("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"):flush_nb())
    assert.truthy(moonbridge_io.poll({ [begun] = true }, nil, 10))
    assert.equal("HTTP/1.1 200 OK\r\n", (begun:read(nil, "\n")))
  end)

  it("waits at no worker when it is idle or its request is incomplete", function()
    local s = start("min_fork = 1, max_fork = 1,")
    local idle, begun = connect(s), connect(s)
    local first = ask(idle)
    assert(begun:write("GET / HTTP/1.1\r\nHos"):flush())
    moonbridge_io.poll(nil, nil, 2)
    process.kill(math.tointeger(tonumber(first[1])), "KILL")
    assert.not_equal(first[1], ask(idle)[1])
    assert(begun:write("t: localhost\r\n"):flush())
    moonbridge_io.poll(nil, nil, 0.3)
    assert(begun:write("Connection: close\r\n\r\n"):flush())
    assert.matches("1.3 TLS_", (begun:read()))
    idle:close()
    begun:close()
  end)

  it("is sent the rest of a response by another worker when its own is replaced", function()
    local s = start(TURNS)
    local slow = connect(s)
    assert(slow:write("GET /large HTTP/1.1\r\nHost: localhost\r\n\r\n"):flush())
    local length
    repeat
      local line = assert(slow:read(nil, "\n"))
      length = length or tonumber(line:lower():match("^content%-length: (%d+)"))
    until line == "\r\n"
    local pid = slow:read(20):match("^%d+")
    assert(process.wait_until(function() return not process.alive(math.tointeger(tonumber(pid))) end))
    local other = connect(s)
    assert.not_equal(pid, ask(other)[1])
    assert.equal(length - 20, #slow:read(length - 20))
    assert.not_equal(pid, ask(slow)[1])
    slow:close()
    other:close()
  end)

  it("ends with close_notify at a shutdown", function()
    local s = start("min_fork = 2, max_fork = 2,")
    local crowd = clients(s, 20)
    s:signal("TERM")
    assert.equal(0, s:wait())
    crowd:signal("TERM")
    assert.equal(0, crowd:wait())
    assert.matches("notified 20 cut 0", crowd:output())
  end)
end)

describe("a WebSocket over TLS", function()
  local function chat()
    return server.start(([[
      local moonbridge, http = require "moonbridge", require "moonbridge_http"
      local moonbridge_io = require "moonbridge_io"
      local chat = http.websocket {
        name = "chat",
        message = function(ws, text)
          ws.state = (ws.state or "") .. text
          ws:send(moonbridge_io.getpid() .. " " .. ws.state)
        end,
        close = function(ws, code) io.stderr:write("closed " .. code .. " " .. ws.state .. "\n") end,
      }
      moonbridge.listen {
        { proto = "tls", host = "127.0.0.1", port = PORT, certificate = %q, key = %q },
        min_fork = 2, max_fork = 2,
        connect = http.generate_handler(chat),
      }
      moonbridge.run { hangup = "reload" }
    ]]):format(localhost.certificate, localhost.key))
  end

  local request = websocket.request("/", { Host = "localhost" })

  it("goes on with its state when its worker is killed, and behind a reload", function()
    local s = chat()
    local handle = connect(s)
    local function say(text)
      assert(handle:write(websocket.frame(websocket.TEXT, text)):flush())
      local first, length = assert(handle:read(2)):byte(1, 2)
      assert.equal(0x81, first)
      return assert(handle:read(length)):match("^(%d+) (.*)$")
    end
    assert(handle:write(request):flush())
    repeat until assert(handle:read(nil, "\n")) == "\r\n"
    local first, state = say("a")
    assert.equal("a", state)
    rest()
    process.kill(math.tointeger(tonumber(first)), "KILL")
    local second
    second, state = say("b")
    assert.equal("ab", state)
    assert.not_equal(first, second)
    s:signal("HUP")
    assert(s.process:wait_log("Reload complete"))
    local third
    third, state = say("c")
    assert.equal("abc", state)
    assert.not_equal(second, third)
    handle:close()
  end)

  it("is told of the end of its worker with TLS 1.2, and so is its handler", function()
    local s = chat()
    local said = process.scratch("said")
    assert(io.open(said, "wb")):write(request, websocket.frame(websocket.TEXT, "old")):close()
    local command = "(cat %s; sleep 30) | openssl s_client -quiet -tls1_2 -CAfile %s -connect localhost:%d "
      .. "-servername localhost"
    local client = process.start { "sh", "-c", command:format(said, authority.certificate, s.port) }
    running[#running + 1] = client
    assert(process.wait_until(function() return client:output():find "%d old" end), client:log())
    s:signal("HUP")
    assert(s.process:wait_log("closed 1001 old"))
    assert(process.wait_until(function() return client:output():find("\x88.\x03\xe9") end), client:output())
  end)
end)

describe("a session ticket", function()
  it("outlives a reload", function()
    local s = start("min_fork = 2, max_fork = 2,", 'hangup = "reload"')
    local session = process.scratch("session")
    local ask_openssl = "(printf 'GET / HTTP/1.0\\r\\n\\r\\n'; sleep 0.3) | openssl s_client -quiet "
      .. "-CAfile %s -connect localhost:%d -servername localhost %s %s 2>&1"
    for number = 0, 2 do
      local option = number == 0 and "-sess_out" or "-sess_in"
      local code, output = process.run(ask_openssl:format(authority.certificate, s.port, option, session))
      assert.equal(0, code, output)
      assert.matches("localhost " .. tostring(number > 0), output, 1, true)
      s:signal("HUP")
      assert(s.process:wait_log("Reload complete", nil, number + 1))
    end
  end)
end)

describe("a connection with TLS 1.2", function()
  it("stays with its worker, and ends with close_notify when that is replaced", function()
    local s = start("min_fork = 2, max_fork = 2,", 'hangup = "reload"')
    local crowd = clients(s, 20, "1.2")
    assert.equal(20, crowd:again().answered)
    s:signal("HUP")
    assert(s.process:wait_log("Reload complete"))
    crowd:signal("TERM")
    assert.equal(0, crowd:wait())
    assert.matches("notified 20 cut 0", crowd:output())
  end)
end)
