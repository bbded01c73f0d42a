-- The examples that stream: each runs as it is.

local http = require "moonbridge_http"
local lfs = require "lfs"
local mime = require "mime"
local callbacks = require "spec.support.callbacks"
local certificates = require "spec.support.certificates"
local process = require "spec.support.process"
local server = require "spec.support.server"
local shared = require "spec.support.shared"

local scratch

local function write(name, text)
  local path = scratch .. "/" .. name
  process.write(path, text)
  return path
end

local function run(example, ...)
  return server.start { file = server.root .. "/examples/" .. example .. ".lua", args = { ... } }
end

local function files(folder)
  local list = {}
  for name in lfs.dir(folder) do
    if name ~= "." and name ~= ".." then list[#list + 1] = name end
  end
  table.sort(list)
  return list
end

before_each(function()
  scratch = process.scratch("example"):match("^(.*)/")
end)

after_each(function()
  http.close_idle_connections()
  server.cleanup()
end)

describe("examples/stream_file.lua", function()
  it("streams a file through the filters", function()
    local text = ("A line of the file.\n\0"):rep(50000)
    local s = run("stream_file", write("file", text))
    local response = s:request("/")
    assert.equal(200, response.status)
    assert.equal(text, (mime.unb64(response.body)))
    assert.equal(76, #response.body:match("^[^\r\n]*"))
  end)

  it("can be read with the command in its head", function()
    local path = write("file", ("A line of the file.\n"):rep(1000))
    local code, output = run("stream_file", path):curl("URL/ | base64 -d | cmp - " .. path .. " && echo same")
    assert.same({ 0, "same\n" }, { code, output })
  end)

  it("says what is missing", function()
    local path = write("file", "text")
    local s = run("stream_file", path)
    os.remove(path)
    local response = s:request("/")
    assert.equal(404, response.status)
    assert.truthy(response.body:find("No such file or directory"))
  end)
end)

describe("examples/upload.lua", function()
  it("stores an upload", function()
    local folder = scratch .. "/stored"
    lfs.mkdir(folder)
    local s = run("upload", folder, "200000")
    local body = ("\0\1\2\3"):rep(50000)
    local response = s:request { method = "PUT", target = "/a.bin", body = body }
    assert.same({ 201, "200000 bytes\n" }, { response.status, response.body })
    assert.equal(body, process.slurp(folder .. "/a.bin"))
    assert.equal(201, s:request({ method = "PUT", target = "/b", body = { "ab", "c" } }).status)
    assert.equal("abc", process.slurp(folder .. "/b"))
    assert.same({ "a.bin", "b" }, files(folder))
  end)

  it("stops one that is too large, and leaves nothing behind", function()
    local folder = scratch .. "/stored"
    lfs.mkdir(folder)
    local s = run("upload", folder, "1000")
    local response = s:request { method = "PUT", target = "/a", body = ("x"):rep(500000) }
    assert.same({ 413, "no more than 1000 bytes are stored\n" }, { response.status, response.body })
    local chunks = { ("x"):rep(600), ("x"):rep(600) }
    assert.equal(413, s:request({ method = "PUT", target = "/a", body = chunks }).status)
    assert.same({}, files(folder))
  end)

  it("leaves nothing behind if the client goes, or chooses odd names", function()
    local folder = scratch .. "/stored"
    lfs.mkdir(folder)
    local s = run("upload", folder, "1000")
    local c = s:connect()
    c:send("PUT /a HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n")
    assert.truthy(process.wait_until(function() return #files(folder) == 1 end))
    c:reset()
    assert.truthy(process.wait_until(function() return #files(folder) == 0 end))
    for _, target in ipairs { "/", "/..", "/.a", "/a/b", "/%2e", "/a%2fb" } do
      assert.equal(400, s:request({ method = "PUT", target = target, body = "x" }).status)
    end
    assert.equal(400, s:request({ method = "OPTIONS", target = "*" }).status)
  end)
end)

describe("examples/reverse_proxy.lua", function()
  local APPLICATION = [[
    local moonbridge = require "moonbridge"
    local http = require "moonbridge_http"
    moonbridge.listen {
      { proto = "tcp", host = "127.0.0.1", port = PORT },
      connect = http.generate_handler({ request_body_size_limit = false }, function(request)
        if request.path == "echo" then
          ]] .. callbacks.ECHO .. [[
        elseif request.path == "abort" then
          request:send_status("200 OK")
          request:send_body(function() return ("x"):rep(1e6), function() return nil, "no more" end end)
        elseif request.path == "moved" then
          request:send_status("302 Found")
          request:send_header("Location", "/elsewhere")
        elseif request.path == "big" then
          local n = 0
          request:send_status("200 OK")
          request:send_body(function()
            n = n + 1
            return n <= 1000 and ("x"):rep(65536) or ""
          end)
        else
          request:send_status("200 Fine")
          request:send_header("Set-Cookie", "a=b; Expires=Wed, 21 Oct 2026 07:28:00 GMT")
          request:send_header("Set-Cookie", "c=d")
          request:send_data(request.method, " ", request.path, request.query, " ",
            request.headers_csv_string["x-a"], " ", request.headers_csv_string["x-forwarded-for"])
        end
        return true
      end),
    }
    moonbridge.run()
  ]]

  it("passes requests and responses on", function()
    local app = server.start(APPLICATION)
    local proxy = run("reverse_proxy", app.url)
    local c = proxy:connect()
    local response = c:request { target = "/a/b?c=d", headers = { ["X-A"] = "e" } }
    assert.equal("GET a/b?c=d e 127.0.0.1", response.body)
    assert.equal("Fine", response.reason)
    local cookies = {}
    for _, field in ipairs(response.header_list) do
      if field[1]:lower() == "set-cookie" then cookies[#cookies + 1] = field[2] end
    end
    table.sort(cookies)
    assert.same({ "a=b; Expires=Wed, 21 Oct 2026 07:28:00 GMT", "c=d" }, cookies)
    assert.equal("", c:request({ method = "HEAD", target = "/a" }).body)
    assert.equal("abc", c:request({ target = "/echo", body = "abc" }).body)
    assert.equal("abcdef", c:request({ target = "/echo", body = { "abc", "def" } }).body)
    local moved = c:request("/moved")
    assert.same({ 302, "/elsewhere" }, { moved.status, moved.headers.location })
  end)

  it("speaks TLS on both sides", function()
    local made, authority = certificates.signed()
    local app = server.start((APPLICATION:gsub('proto = "tcp"', ('proto = "tls", certificate = %q, key = %q')
      :format(made.certificate, made.key))))
    local proxy = server.start {
      file = server.root .. "/examples/reverse_proxy.lua", args = { "https://localhost:" .. app.port },
      env = { CERTIFICATE = made.certificate, KEY = made.key, UPSTREAM_CA = authority.certificate },
    }
    local url = ("https://localhost:%d/"):format(proxy.port)
    local tls = { ca = authority.certificate }
    assert.equal("GET a  127.0.0.1", (assert(http.request { url = url .. "a", tls = tls })))
    local body = ("x"):rep(1000000)
    assert.equal(body, (assert(http.request { url = url .. "echo", tls = tls, body = body })))
    local distrustful = server.start {
      file = server.root .. "/examples/reverse_proxy.lua", args = { "https://localhost:" .. app.port },
    }
    local response = distrustful:request("/")
    assert.equal(502, response.status)
    assert.matches("not issued by a trusted authority", response.body, 1, true)
  end)

  it("streams both ways in flat memory", function()
    local app = server.start(APPLICATION)
    local proxy = run("reverse_proxy", app.url)
    local upload = write("upload", ("0123456789abcdef"):rep(2000000))
    local code, output = proxy:curl("-T " .. upload .. " URL/echo | cmp - " .. upload .. " && echo same")
    assert.same({ 0, "same\n" }, { code, output })
    code, output = proxy:curl("URL/big | wc -c")
    assert.same({ 0, "65536000\n" }, { code, output })
    for _, pid in ipairs(proxy:workers()) do
      local peak = tonumber(process.slurp("/proc/" .. pid .. "/status"):match("VmHWM:%s+(%d+)"))
      assert.truthy(peak < 48 * 1024, peak .. " KiB")
    end
  end)

  it("answers 502 without upstream, and resets what it cannot complete", function()
    local proxy = run("reverse_proxy", "http://127.0.0.1:" .. server.free_port())
    local response = proxy:request("/")
    assert.same({ 502, "Connection refused\n" }, { response.status, response.body })
    local app = server.start(APPLICATION)
    proxy = run("reverse_proxy", app.url)
    local c = proxy:connect()
    c:send("GET /abort HTTP/1.1\r\nHost: x\r\n\r\n")
    assert.equal("reset", select(2, c:read_all()))
    assert.truthy(proxy:wait_log("upstream failed: Connection reset by peer"))
  end)
end)

-- An upstream that answers in the words of `answers`, by path, else with the head that it got. /events
-- ends when the file go_on is there.
local function raw_upstream(answers)
  local list = {}
  for path, answer in pairs(answers) do list[#list + 1] = ("[%q] = %q,"):format(path, answer) end
  return server.start([[
    local moonbridge = require "moonbridge"
    local answers, go_on = {]] .. table.concat(list, "\n") .. [[}, "]] .. scratch .. [[/go_on"
    moonbridge.listen {
      { proto = "tcp", host = "127.0.0.1", port = PORT },
      connect = function(socket)
        local lines = {}
        repeat
          local line = socket:read(nil, "\n")
          if line == "" then return true end
          lines[#lines + 1] = line
        until line == "\r\n"
        local path = lines[1]:match(" /(%S*) ")
        if path == "hang" then socket:read() end
        local head = table.concat(lines)
        socket:flush(answers[path] or ("HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s"):format(#head, head))
        for _ = 1, path == "events" and 300 or 0 do
          if io.open(go_on) then break end
          moonbridge.io.poll(nil, nil, 0.05)
        end
        return true
      end,
    }
    moonbridge.run()
  ]])
end

describe("examples/reverse_proxy.lua as an intermediary (RFC 9110 7.6)", function()
  local function proxied(answers, head)
    local proxy = run("reverse_proxy", raw_upstream(answers or {}).url)
    if head then return proxy:raw(head .. "\r\nConnection: close\r\n\r\n"), proxy end
    return proxy
  end

  it("appends the client's address to its X-Forwarded-For, in one line", function()
    local text = proxied(nil, "GET /echo HTTP/1.1\r\nHost: x\r\nX-Forwarded-For: 1.1.1.1\r\n"
      .. "x-forwarded-for: 2.2.2.2, 3.3.3.3\r\nX-Forwarded-For:")
    local lines = {}
    for value in text:lower():gmatch("\r\nx%-forwarded%-for: ([^\r]*)") do lines[#lines + 1] = value end
    assert.same({ "1.1.1.1, 2.2.2.2, 3.3.3.3, 127.0.0.1" }, lines)
  end)

  it("says which host and scheme the client has asked for, whatever the client says of that", function()
    local text = proxied(nil, "GET /echo HTTP/1.1\r\nHost: shop.example:81\r\nX-Forwarded-Proto: gopher\r\n"
      .. "X-Forwarded-Host: evil.example\r\nForwarded: for=evil;host=evil.example"):lower()
    assert.truthy(text:find("\r\nx-forwarded-host: shop.example:81\r\n", 1, true), text)
    assert.truthy(text:find("\r\nx-forwarded-proto: http\r\n", 1, true), text)
    assert.falsy(text:find("evil") or text:find("gopher"), text)
  end)

  it("adds itself to Via, of requests and of responses", function()
    local answer = "HTTP/1.0 200 OK\r\nVia: 1.1 cache\r\n\r\nbody"
    local proxy = proxied { old = answer }
    local response = proxy:request { target = "/echo", headers = { Via = "1.0 first, 1.1 second" } }
    assert.truthy(response.body:lower():find("\r\nvia: 1.0 first, 1.1 second, 1.1 moonbridge\r\n", 1, true))
    assert.equal("1.1 moonbridge", response.headers.via)
    assert.equal("1.1 cache, 1.0 moonbridge", proxy:request("/old").headers.via)
  end)

  it("counts Max-Forwards of OPTIONS and TRACE down, and answers itself at 0 (RFC 9110 7.6.2)", function()
    local proxy = proxied()
    local function forwarded(method, value)
      local headers = { ["Max-Forwards"] = value }
      local response = proxy:request { method = method, target = "/echo", headers = headers }
      return response.status, response.body:lower():match("\r\nmax%-forwards: ([^\r]*)")
    end
    assert.same({ 200, "9" }, { forwarded("OPTIONS", "10") })
    assert.same({ 200, "0" }, { forwarded("TRACE", "1") })
    assert.same({ 204 }, { forwarded("OPTIONS", "0") })
    assert.same({ 405 }, { forwarded("TRACE", "00") })
    assert.same({ 400 }, { forwarded("TRACE", "-1") })
    assert.same({ 400 }, { forwarded("TRACE", "1, 2") })
    -- Other methods ignore it.
    assert.same({ 200, "0" }, { forwarded("GET", "0") })
  end)

  it("passes on neither what Connection names nor other fields of one connection", function()
    local text = proxied(nil, "GET /echo HTTP/1.1\r\nHost: x\r\nConnection: X-One , x-two\r\n"
      .. "Connection: X-FORWARDED-FOR\r\nX-One: secret\r\nX-Two: secret\r\nX-Forwarded-For: secret\r\n"
      .. "Keep-Alive: secret\r\nTE: secret\r\n"
      .. "Trailer: secret\r\nProxy-Connection: secret\r\nProxy-Authorization: secret\r\nUpgrade: secret\r\n"
      .. "X-Three: stays")
    assert.falsy(text:find("secret"))
    assert.truthy(text:lower():find("\r\nx%-forwarded%-for: 127.0.0.1\r\n"))
    assert.truthy(text:find("stays"))
    assert.truthy(text:lower():find("\r\nvia: 1.1 "))
    local answer = "HTTP/1.1 200 OK\r\nConnection: X-One, close\r\nX-One: secret\r\nKeep-Alive: secret\r\n"
      .. "Proxy-Authenticate: secret\r\nTrailer: secret\r\nUpgrade: secret\r\nX-Three: stays\r\n"
      .. "Content-Length: 0\r\n\r\n"
    text = proxied({ [""] = answer }, "GET / HTTP/1.1\r\nHost: x")
    assert.falsy(text:find("secret"))
    assert.truthy(text:find("stays"))
  end)

  it("answers OPTIONS * itself, and passes other OPTIONS on", function()
    local text, proxy = proxied(nil, "OPTIONS * HTTP/1.1\r\nHost: x")
    assert.equal("HTTP/1.1 204 No Content\r\n", text:match("^[^\n]*\n"))
    local response = proxy:request { method = "OPTIONS", target = "/echo" }
    assert.truthy(response.body:find("^OPTIONS /echo "))
    assert.falsy(proxy:log():find("Error"))
  end)

  it("sends what the client may take, whatever the upstream makes of it", function()
    local proxy = proxied {
      equal = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\nhello",
      list = "HTTP/1.1 200 OK\r\nContent-Length: 5, 5\r\n\r\nhello",
      reset = "HTTP/1.1 205 Reset Content\r\nContent-Length: 5\r\n\r\nhello",
      chunks = "HTTP/1.1 205 Reset Content\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
      none = "HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\n",
      cached = "HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n",
      hints = "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 200\r\nContent-Length: 2\r\n\r\nok",
      old = "HTTP/1.0 200 OK\r\n\r\nuntil the end",
      differing = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
      other = "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n",
      nonsense = "nonsense\r\n\r\n",
      minus = "HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\nhello",
      hex = "HTTP/1.1 200 OK\r\nContent-Length: 0x5\r\n\r\nhello",
      empty = "HTTP/1.1 200 OK\r\nContent-Length:\r\n\r\nhello",
      vast = "HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999\r\n\r\nhello",
      both = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
      coded = "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\nhello",
      named = "HTTP/1.1 200 OK\r\nConnection: Content-Length\r\nContent-Length: 5\r\n\r\nhello",
      more = "HTTP/1.1 205 Reset Content\r\nContent-Length: 99999\r\n\r\nhello",
      control = "HTTP/1.1 200 OK\r\nX-A: a\0b\r\n\r\nhello",
      high = "HTTP/1.1 999 Odd\r\nContent-Length: 2\r\n\r\nok",
      low = "HTTP/1.1 099 Odd\r\nContent-Length: 2\r\n\r\nok",
      nothing = "",
    }
    local expected = {
      equal = { 200, "hello" }, list = { 200, "hello" }, reset = { 205, "" }, chunks = { 205, "" },
      none = { 204, "" }, cached = { 304, "" }, hints = { 200, "ok" }, old = { 200, "until the end" },
    }
    local c = proxy:connect()
    for path, result in pairs(expected) do
      local response = c:request("/" .. path)
      assert.same(result, { response.status, response.body }, path)
    end
    for _, path in ipairs { "differing", "other", "nonsense", "nothing" } do
      assert.equal(502, c:request("/" .. path).status, path)
    end
    assert.equal("", c:request({ method = "HEAD", target = "/equal" }).body)
    assert.equal(200, c:request("/hints").status)
    assert.falsy(proxy:log():find("Error"), proxy:log())
  end)

  it("passes each piece on at once", function()
    local proxy = proxied { events = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\ndata: 1\n\n" }
    local c = proxy:connect()
    c:send("GET /events HTTP/1.1\r\nHost: x\r\n\r\n")
    local head_and_data = c:read_until("data: 1\n\n", 5)
    write("go_on", "")
    assert.truthy(head_and_data)
    assert.equal("\r\n0\r\n\r\n", c:read_until("0\r\n\r\n"))
  end)

  it("passes interim responses on at once, to those who can take them (RFC 9110 15.2)", function()
    local hints = "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\nConnection: X-One\r\nX-One: secret\r\n"
      .. "Content-Length: 5\r\n\r\n"
    local proxy = proxied {
      events = hints,
      hints = "HTTP/1.1 100 Continue\r\n\r\n" .. hints .. "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
    }
    local expected = "HTTP/1.1 103 Early Hints\r\nVia: 1.1 moonbridge\r\nlink: </a>\r\n\r\n"
    local c = proxy:connect()
    c:send("GET /events HTTP/1.1\r\nHost: x\r\n\r\n")
    local received = c:read_until("\r\n\r\n")
    write("go_on", "")
    assert.equal(expected, received)
    local text = proxy:raw("GET /hints HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    assert.equal(expected .. "HTTP/1.1 200 OK\r\n", text:sub(1, #expected + 17))
    assert.matches("^HTTP/1.1 200 OK\r\n", proxy:raw("GET /hints HTTP/1.0\r\nHost: x\r\n\r\n"))
    assert.falsy(proxy:log():find("Error"), proxy:log())
  end)

  it("answers a body that cannot be understood with 400, and leaves its worker alive", function()
    local proxy = proxied()
    local text = proxy:raw("POST /hang HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
      .. "3\r\nabc\r\nzz\r\n")
    assert.equal("HTTP/1.1 400 Bad Request\r\n", text:match("^[^\n]*\n"))
    local c = proxy:connect()
    c:send("POST /hang HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nabc")
    c:close()
    assert.equal(200, proxy:request("/echo").status)
    assert.falsy(proxy:log():find("Error"), proxy:log())
  end)

  it("answers 504 if the upstream does not answer in time", function()
    local proxy = server.start {
      file = server.root .. "/examples/reverse_proxy.lua", args = { raw_upstream({}).url },
      env = { TIMEOUT = 0.3 },
    }
    local c = proxy:connect()
    assert.equal(504, c:request("/hang").status)
    assert.equal(200, c:request("/echo").status)
    assert.falsy(proxy:log():find("Error"), proxy:log())
  end)

  it("sends a request to its end, though the upstream has begun its response before", function()
    local app = server.start [[
      require("moonbridge").listen {
        { proto = "tcp", host = "127.0.0.1", port = PORT },
        connect = function(socket)
          repeat until socket:read(nil, "\n") == "\r\n"
          socket:flush("HTTP/1.1 200 OK\r\n\r\nearly ")
          local count = socket:drain(20000000)
          socket:flush(count)
          return true
        end,
      }
      require("moonbridge").run()
    ]]
    local proxy = run("reverse_proxy", app.url)
    local path = write("large", ("x"):rep(20000000))
    local code, output = proxy:curl("-H Expect: --data-binary @" .. path .. " URL")
    assert.same({ 0, "early 20000000" }, { code, output }, proxy:log())
  end)

  it("sends a request to its end, though the upstream has completed its response before", function()
    local app = server.start [[
      require("moonbridge").listen {
        { proto = "tcp", host = "127.0.0.1", port = PORT },
        connect = function(socket)
          repeat until socket:read(nil, "\n") == "\r\n"
          socket:flush("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nearly")
          io.stderr:write("received ", socket:drain(), "\n")
          return true
        end,
      }
      require("moonbridge").run()
    ]]
    local proxy = run("reverse_proxy", app.url)
    local path = write("large", ("x"):rep(20000000))
    local code, output = proxy:curl("-T - URL <" .. path)
    assert.same({ 0, "early" }, { code, output }, proxy:log())
    proxy:stop()
    local received = app:wait_log("received (%d+)")
    assert.truthy(tonumber(received) > 20000000, received)
  end)

  it("announces the end of a connection whose request the upstream has refused", function()
    local proxy = proxied { refuse = "HTTP/1.1 413 Content Too Large\r\nContent-Length: 3\r\n\r\nbig" }
    local c = proxy:connect()
    c:send("POST /refuse HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n")
    local head
    assert.truthy(process.wait_until(function()
      c:send("abc")
      head = c:read_until("\r\n\r\n", 0.05)
      return head
    end))
    assert.truthy(head:find("^HTTP/1.1 413 ") and head:find("\r\nConnection: close\r\n"), head)
    assert.equal("big", c:read(3))
  end)
end)

describe("examples/send_mail.lua", function()
  -- PyPI's aiosmtpd in a virtual environment, storing mails in a folder.
  local function mail_server(folder, ...)
    local venv = server.root .. "/build/test-venv"
    local install = "[ -x %s/bin/aiosmtpd ] || { python3 -m venv %s && %s/bin/pip install -q aiosmtpd; }"
    shared.take "test-venv"
    local code, output = process.run(install:format(venv, venv, venv))
    shared.give_back "test-venv"
    assert.equal(0, code, output)
    local port = server.free_port()
    local argv = { venv .. "/bin/python", "-W", "ignore", "-m", "aiosmtpd", "-n",
      "-l", "127.0.0.1:" .. port, ... }
    for _, word in ipairs { "-c", "aiosmtpd.handlers.Mailbox", folder } do argv[#argv + 1] = word end
    local running = process.start(argv, {})
    assert.truthy(process.wait_until(function() return server.listening(port) or running:status() end))
    return port, running
  end

  it("delivers a file to a real mail server, streamed", function()
    local port, running = mail_server(scratch .. "/mails")
    finally(function() running:destroy() end)
    local line = "A line of text, and ü.\n"
    local text = ".\n..\n.leading dot\n" .. line:rep(100000) .. "the end"
    local code, output, log = server.run_script {
      file = server.root .. "/examples/send_mail.lua",
      args = { "127.0.0.1", port, "me@example.org", "you@example.org", "Greetings", write("text", text) },
    }
    assert.same({ 0, "" }, { code, log })
    assert.truthy(output:find("^sent %d+ bytes to you@example.org\n$"))
    local list = files(scratch .. "/mails/new")
    assert.equal(1, #list)
    local mail = process.slurp(scratch .. "/mails/new/" .. list[1])
    assert.truthy(mail:find("\nSubject: Greetings\n"))
    assert.truthy(mail:find("X-RcptTo: you@example.org", 1, true))
    assert.equal(text, mail:match("\n\n(.*)$"):gsub("\n*$", "") .. "")
  end)

  it("goes over to TLS if the server has it", function()
    local made = certificates.make()
    local port, running = mail_server(scratch .. "/mails", "--tlscert", made.certificate,
      "--tlskey", made.key)
    finally(function() running:destroy() end)
    local function send(ca)
      local code, output, log = server.run_script {
        file = server.root .. "/examples/send_mail.lua", env = { MAIL_CA = ca },
        args = { "localhost", port, "me@example.org", "you@example.org", "Secret", write("text", "Hello") },
      }
      return code, output .. log
    end
    local code, said = send(made.certificate)
    assert.equal(0, code, said)
    assert.equal(1, #files(scratch .. "/mails/new"))
    code, said = send(nil)
    assert.equal(1, code)
    assert.matches("not issued by a trusted authority", said)
  end)

  it("says what the server objects to", function()
    local port, running = mail_server(scratch .. "/mails")
    finally(function() running:destroy() end)
    local code, _, log = server.run_script {
      file = server.root .. "/examples/send_mail.lua",
      args = { "127.0.0.1", port, "me@example.org", "you@example.org", "Hi",
        write("text", ("overlong"):rep(1000)) },
    }
    assert.equal(1, code)
    assert.truthy(log:find("the server says: 5"))
  end)
end)
