-- http.request: connections that are kept, and those that are not.

local callback = require "moonbridge_callback"
local callbacks = require "spec.support.callbacks"
local http = require "moonbridge_http"
local process = require "spec.support.process"
local scripted = require "spec.support.scripted"
local server = require "spec.support.server"

local chunks = callbacks.chunks
local always, literal = scripted.always, scripted.literal
local ok, play = scripted.ok, scripted.play

after_each(scripted.cleanup)

-- The connections that the requests came by.
local function connections(s)
  local list = {}
  for index, request in ipairs(s:requests()) do list[index] = request.connection end
  return list
end

describe("kept connections", function()
  it("are used again", function()
    local s = always(ok("x"))
    for _ = 1, 3 do http.request(s.url) end
    http.request { url = s.url, body = "abc" }
    http.request { url = s.url, body = chunks("abc") }
    http.request { url = s.url, method = "DELETE", receive = callback.receive.concat() }
    assert.same({ 1, 1, 1, 1, 1, 1 }, connections(s))
  end)

  it("are used again after chunked and empty responses", function()
    local s = play [[
      read(c) c:send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n")
      read(c) c:send("HTTP/1.1 204 No Content\r\n\r\n")
      read(c) c:send("HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n")
      read(c) c:send("HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 1\r\n\r\nx")
      read(c) c:send("HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nx")
    ]]
    for _ = 1, 5 do assert.truthy(http.request(s.url)) end
    assert.same({ 1, 1, 1, 1, 1 }, connections(s))
  end)

  it("are not kept if either side says so", function()
    local s = always(ok("x", "Connection: close\r\n"))
    http.request(s.url)
    http.request(s.url)
    assert.same({ 1, 2 }, connections(s))
    s = play [[
      while true do
        local head = read(c)
        if not head then break end
        c:send("HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nx")
        if head:find("close") then break end
      end
    ]]
    http.request { url = s.url, keepalive = false }
    http.request { url = s.url, headers = { Connection = "close" } }
    http.request { url = s.url, keepalive = 0 }
    http.request { url = s.url }
    assert.same({ 1, 2, 3, 4 }, connections(s))
    assert.truthy(s:requests()[1].head:find("\r\nConnection: close"))
    assert.truthy(s:requests()[2].head:find("\r\nConnection: close"))
  end)

  it("are replaced if the server has closed them meanwhile", function()
    local s = play [[
      read(c) c:send("HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nx")
      c:close()
      io.stderr:write("closed\n")
    ]]
    for number = 1, 3 do
      assert.equal("x", (http.request { url = s.url, body = "p" .. number }))
      assert.truthy(s.server:wait_log("closed", nil, number))
    end
    assert.same({ 1, 2, 3 }, connections(s))
  end)

  it("that break without a word: what may be repeated is, on a new one", function()
    -- The first connection is closed when the second request comes in.
    local script = [[
      read(c) c:send("HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nx")
      if number == 1 then read(c) end
    ]]
    local s = play(script)
    assert.equal("x", (http.request(s.url)))
    assert.equal("x", (http.request(s.url)))
    assert.same({ 1, 1, 2 }, connections(s))
    s = play(script)
    assert.equal("x", (http.request(s.url)))
    local body, message = http.request { url = s.url, body = "order" }
    assert.is_nil(body)
    assert.equal("connection closed before the response was complete", message)
    assert.same({ 1, 1 }, connections(s))
  end)

  it("expire", function()
    local s = always(ok("x"))
    http.request { url = s.url, keepalive = 0.05 }
    require "socket".sleep(0.1)
    http.close_idle_connections()
    s = play [[while read(c) do c:send("HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nx") end]]
    http.request { url = s.url, keepalive = 0.05 }
    require "socket".sleep(0.1)
    http.request(s.url)
    assert.same({ 1, 2 }, connections(s))
  end)

  it("belong to one server, and to one process", function()
    local s, t = always(ok("s")), always(ok("t"))
    for _ = 1, 2 do
      assert.equal("s", (http.request(s.url)))
      assert.equal("t", (http.request(t.url)))
    end
    assert.same({ 1, 1 }, connections(s))
    assert.same({ 1, 1 }, connections(t))
  end)

  it("are closed on demand", function()
    local s = always(ok("x"))
    http.request(s.url)
    http.close_idle_connections()
    http.request(s.url)
    assert.same({ 1, 2 }, connections(s))
  end)
end)

-- A URL that was asked for before, over a kept connection: the client takes a shorter way there, which must
-- end like the long one.
describe("a repeated request", function()
  -- What becomes of the second request if the server treats it so, and how many requests it gets.
  local function second(script)
    local s = play("read(c) c:send(" .. literal(ok("first")) .. ") " .. script)
    assert.equal("first", (http.request(s.url)))
    local results = table.pack(pcall(http.request, s.url))
    return s, table.unpack(results, 2, results.n)
  end

  it("returns what the first one does", function()
    local s = always("HTTP/1.1 404 Not Found\r\nContent-Length: 2\r\nA: 1\r\na: 2\r\n\r\nno")
    for _ = 1, 3 do
      local body, status, headers, line = http.request(s.url)
      assert.same({ "no", 404, "1, 2", "HTTP/1.1 404 Not Found" }, { body, status, headers["A"], line })
    end
    assert.equal(1, s:requests()[3].connection)
  end)

  it("takes responses that come in pieces, or after interim ones", function()
    local response = ok("ok")
    for _, pieces in ipairs {
      { response:sub(1, 7), response:sub(8) },
      { response:sub(1, -2), response:sub(-1) },
      { "HTTP/1.1 103 Early Hints\r\n\r\n" .. response },
      { "HTTP/1.1 103 Early Hints\r\n\r\n", response },
      { "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n" },
      { "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n", "\r\n" },
      { "HTTP/1.0 200 OK\r\n\r\nok" },
    } do
      local script = "read(c) "
      for _, piece in ipairs(pieces) do
        script = script .. "c:send(" .. literal(piece) .. ") socket.sleep(0.02) "
      end
      local s, body, status = second(script)
      assert.same({ "ok", 200 }, { body, status })
      assert.same({ 1, 1 }, connections(s))
    end
  end)

  it("follows redirects", function()
    local s = second [[
      read(c) c:send("HTTP/1.1 302 Found\r\nLocation: /there\r\nContent-Length: 4\r\n\r\nmove")
      read(c) c:send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
    ]]
    assert.truthy(s:requests()[3].head:find("^GET /there "))
    assert.same({ 1, 1, 1 }, connections(s))
  end)

  it("goes out again on a new connection if the server closes without a word", function()
    local s, body = second 'if number == 1 then read(c) end'
    assert.equal("first", body)
    assert.same({ 1, 1, 2 }, connections(s))
  end)

  it("fails as the first one does, and its connection is not used again", function()
    local closed = "connection closed before the response was complete"
    for bytes, expected in pairs {
      ["HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nok"] = closed,
      ["HTTP/1.1 200 OK\r\nContent-Le"] = closed,
      ["HTTP/1.1 100 Continue\r\n\r\n"] = closed,
      ["220 mail.example ESMTP\r\n"] = "the server does not speak HTTP/1",
      ["HTTP/1.1 101 Switching Protocols\r\n\r\n"] = "the server switches protocols without being asked",
    } do
      local s, body, message = second("if number == 1 then read(c) c:send(" .. literal(bytes) .. ") end")
      assert.same({ nil, expected }, { body, message })
      assert.equal("first", (http.request(s.url)))
      assert.same({ 1, 1, 2 }, connections(s))
    end
  end)

  it("uses no connection on which the server has said more than was asked for", function()
    local script = "if number == 1 then read(c) c:send(%s) read(c) end"
    local s = second(script:format(literal(ok("ok") .. ok("evil"))))
    assert.equal("first", (http.request(s.url)))
    assert.same({ 1, 1, 2 }, connections(s))
  end)

  it("waits for a slow server after quick answers, and for a quick one after slow answers", function()
    local s = play [[
      for index = 1, 60 do
        if not read(c) then break end
        if index % 20 > 15 then socket.sleep(0.005) end
        c:send(("HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%d"):format(#tostring(index), index))
      end
    ]]
    for index = 1, 60 do assert.equal(tostring(index), (http.request(s.url))) end
  end)
end)

describe("in a server", function()
  -- A server whose handler asks another one, with an option to ask it before the workers are forked.
  local function front(upstream, early)
    return server.start {
      script = [[
        local moonbridge = require "moonbridge"
        local http = require "moonbridge_http"
        if EARLY ~= "" then io.stderr:write("early ", (http.request(UPSTREAM)), "\n") end
        moonbridge.listen {
          { proto = "tcp", host = "127.0.0.1", port = PORT },
          min_fork = 2, max_fork = 2,
          connect = http.generate_handler(function(request)
            local body, status = http.request(UPSTREAM)
            request:send_status("200 OK")
            request:send_data(moonbridge.io.getpid(), " ", tostring(body), " ", status)
            return true
          end),
        }
        moonbridge.run()
      ]],
      globals = { UPSTREAM = upstream, EARLY = early and "yes" or "" },
    }
  end

  local APPLICATION = [[
    local moonbridge = require "moonbridge"
    local http = require "moonbridge_http"
    moonbridge.listen {
      { proto = "tcp", host = "127.0.0.1", port = PORT },
      connect = http.generate_handler(function(request)
        request:send_status("200 OK")
        request:send_data(request.socket.remote_tcpport)
        return true
      end),
    }
    moonbridge.run()
  ]]

  it("a worker uses its connections again, and never those of the process that forked it", function()
    local app = server.start(APPLICATION)
    local s = front(app.url, true)
    local owners = {} -- port of a connection → the process that used it
    local count, ports = 0, 0
    for _ = 1, 40 do
      local pid, port, status = s:request("/").body:match("^(%d+) (%d+) (%d+)$")
      assert.equal("200", status)
      if not owners[port] then ports = ports + 1 end
      owners[port] = owners[port] or pid
      assert.equal(owners[port], pid)
      count = count + 1
    end
    assert.truthy(ports <= 2, ports .. " connections for " .. count .. " requests")
    assert.is_nil(owners[s:log():match("early (%d+)")])
  end)

  it("a body beyond the memory of a worker is the error that Lua throws; the next one succeeds", function()
    local app = server.start [[
      local moonbridge = require "moonbridge"
      local http = require "moonbridge_http"
      moonbridge.listen {
        { proto = "tcp", host = "127.0.0.1", port = PORT },
        connect = http.generate_handler(function(request)
          request:send_status("200 OK")
          for _ = 1, request.path == "large" and 800 or 1 do request:send_data(("x"):rep(65536)) end
          return true
        end),
      }
      moonbridge.run()
    ]]
    local s = server.start {
      script = [[
        local moonbridge = require "moonbridge"
        local http = require "moonbridge_http"
        moonbridge.listen {
          { proto = "tcp", host = "127.0.0.1", port = PORT },
          memory_limit = 20 * 1024 * 1024, min_fork = 1, max_fork = 1,
          connect = http.generate_handler(function(request)
            local done, result = pcall(http.request, UPSTREAM .. "/" .. request.path)
            request:send_status("200 OK")
            request:send_data(tostring(done), " ", done and #result or result)
            return true
          end),
        }
        moonbridge.run()
      ]],
      globals = { UPSTREAM = app.url },
    }
    for _ = 1, 2 do
      assert.equal("true 65536", s:request("/small").body)
      assert.equal("false not enough memory", s:request("/large").body)
    end
  end)

  it("names with several addresses are tried in turn", function()
    local app = server.start(APPLICATION)
    local body, status = http.request("http://localhost:" .. app.port .. "/")
    assert.truthy(tonumber(body))
    assert.equal(200, status)
  end)
end)

describe("the pool of idle connections", function()
  it("keeps 8 for a server and 64 in all, and closes the oldest", function()
    local app = server.start [[
      local moonbridge = require "moonbridge"
      local http = require "moonbridge_http"
      moonbridge.listen {
        { proto = "tcp", host = "0.0.0.0", port = PORT },
        connect = http.generate_handler(function(request)
          request:send_status("200 OK")
          request:send_data("Hello")
          return true
        end),
      }
      moonbridge.run()
    ]]
    local function open_connections()
      local wanted, found = (":%04X"):format(app.port), 0
      for line in io.lines("/proc/net/tcp") do
        local _, remote, state = line:match("^%s*%d+: (%S+) (%S+) (%S+)")
        if state == "01" and remote:sub(-5) == wanted then found = found + 1 end
      end
      return found
    end
    -- Each request holds its connection until all have one.
    local function at_once(hosts, each)
      local threads = {}
      for host = 1, hosts do
        for _ = 1, each do
          local url = ("http://127.0.0.%d:%d/"):format(host, app.port)
          local thread = coroutine.wrap(function()
            assert(http.request { url = url, head = function() coroutine.yield() end })
          end)
          thread()
          threads[#threads + 1] = thread
        end
      end
      for _, thread in ipairs(threads) do thread() end
    end
    at_once(1, 5)
    assert.equal(5, open_connections())
    at_once(1, 12)
    assert.truthy(process.wait_until(function() return open_connections() == 8 end))
    at_once(12, 7)
    assert.truthy(process.wait_until(function() return open_connections() == 64 end))
    http.close_idle_connections()
    assert.truthy(process.wait_until(function() return open_connections() == 0 end))
  end)
end)
