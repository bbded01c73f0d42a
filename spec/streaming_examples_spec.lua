-- The examples that stream: each runs as it is.

local http = require "moonbridge_http"
local lfs = require "lfs"
local mime = require "mime"
local process = require "spec.support.process"
local server = require "spec.support.server"
local shared = require "spec.support.shared"

local scratch

local function write(name, text)
  local path = scratch .. "/" .. name
  local file = assert(io.open(path, "wb"))
  file:write(text)
  file:close()
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

  it("says what is missing", function()
    local response = run("stream_file", scratch .. "/none"):request("/")
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
    c:send("PUT /a HTTP/1.1\r\nHost: x\r\nContent-Length: 500\r\n\r\nabc")
    assert.truthy(process.wait_until(function() return #files(folder) == 1 end))
    c:reset()
    assert.truthy(process.wait_until(function() return #files(folder) == 0 end))
    for _, target in ipairs { "/", "/..", "/.a", "/a/b", "/%2e", "/a%2fb" } do
      assert.equal(400, s:request({ method = "PUT", target = target, body = "x" }).status)
    end
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
          local begun
          request:receive_body(function(chunk)
            if not begun then
              request:send_status("200 OK")
              begun = true
            end
            request:send_data(chunk)
            return 1
          end)
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

  it("has 40 lines", function()
    local count = select(2, process.slurp("examples/reverse_proxy.lua"):gsub("\n", "\n"))
    assert.truthy(count <= 40, count)
  end)

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

describe("examples/send_mail.lua", function()
  -- PyPI's aiosmtpd in a virtual environment, storing mails in a folder.
  local function mail_server(folder)
    local venv = server.root .. "/build/test-venv"
    local install = "[ -x %s/bin/aiosmtpd ] || { python3 -m venv %s && %s/bin/pip install -q aiosmtpd; }"
    shared.take "test-venv"
    local code, output = process.run(install:format(venv, venv, venv))
    shared.give_back "test-venv"
    assert.equal(0, code, output)
    local port = server.free_port()
    local running = process.start({ venv .. "/bin/python", "-W", "ignore", "-m", "aiosmtpd", "-n",
      "-l", "127.0.0.1:" .. port, "-c", "aiosmtpd.handlers.Mailbox", folder }, {})
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
