-- `moonbridge --dev`: new code is loaded when a file of the application changes.

local lfs = require "lfs"
local process = require "spec.support.process"
local server = require "spec.support.server"

local APP = [[
  local http = require "moonbridge_http"
  local answer = require "answer"
  listen{ { proto = "tcp", host = "127.0.0.1", port = PORT }, min_fork = 2, max_fork = 4,
    connect = http.generate_handler(answer) }
]]

local ANSWER = [[
return function(request)
  local text = "VERSION " .. (request.path == "lazy" and require "lazy" or "")
  if request.path == "page" then
    local file = assert(io.open("views/page"))
    text = file:read "a"
    file:close()
  end
  request:send_status("200 OK")
  request:send_data(text)
  return true
end
]]

-- The folder of an application that answers with "one".
local function application()
  local folder = process.scratch("app")
  assert(lfs.mkdir(folder))
  local app = { folder = folder }
  function app.write(name, text)
    local file = assert(io.open(folder .. "/" .. name, "w"))
    assert(file:write(text))
    assert(file:close())
  end
  -- As editors do that cannot damage a file.
  function app.replace(name, text)
    app.write(name .. ".new", text)
    assert(os.rename(folder .. "/" .. name .. ".new", folder .. "/" .. name))
  end
  function app.answer(version) return (ANSWER:gsub("VERSION", version)) end
  function app.start(options, port, host, listeners, script)
    port = port or server.free_port()
    script = script or APP:gsub("127.0.0.1", host or "%0"):gsub("{ proto", (listeners or "") .. "%0")
    app.write("app.lua", ("PORT = %d "):format(port) .. script)
    return server.start {
      file = "app.lua", launcher = options or { "--dev" }, cwd = folder, port = port,
      env = { LUA_PATH = ("./?.lua;%s/lua/?.lua;;"):format(server.root) },
    }
  end
  app.write("answer.lua", app.answer "one")
  return app
end

-- An address of this machine that is not the loopback interface's, if it has one.
local function other_address()
  return select(2, process.run("hostname -I")):match("%d+%.%d+%.%d+%.%d+")
end

local function curl(s, arguments) return select(2, s:curl(arguments)) end

local function body(s, path) return s:request(path or "/").body end

local function wait_for_body(s, text, path)
  local found
  local ok = process.wait_until(function()
    found = body(s, path)
    return found == text
  end)
  assert.truthy(ok, tostring(found) .. "\n" .. s:log())
end

describe("moonbridge --dev", function()
  after_each(server.cleanup)

  it("loads the script and its modules anew when they change, however that is done", function()
    local app = application()
    local s = app.start()
    assert.equal("one ", body(s))
    app.write("answer.lua", app.answer "two")
    wait_for_body(s, "two ")
    app.replace("answer.lua", app.answer "three")
    wait_for_body(s, "three ")
    app.write("real.lua", app.answer "four")
    os.remove(app.folder .. "/answer.lua")
    assert(lfs.link("real.lua", app.folder .. "/answer.lua", true))
    wait_for_body(s, "four ")
    app.write("real.lua", app.answer "five")
    wait_for_body(s, "five ")
    app.write("app.lua", ("PORT = %d "):format(s.port) .. APP:gsub("answer%)", "function(request) "
      .. "request:send_status('200 OK') request:send_data('script') return true end)"))
    wait_for_body(s, "script")
    assert.truthy(s:log():find("Changed: " .. app.folder .. "/app.lua\n", 1, true), s:log())
  end)

  it("also when a worker has loaded them, and when they were missing", function()
    local app = application()
    local s = app.start()
    assert.equal(500, s:request("/lazy").status)
    app.write("lazy.lua", "return 'lazy'")
    wait_for_body(s, "one lazy", "/lazy")
    app.write("lazy.lua", "return 'lazier'")
    wait_for_body(s, "one lazier", "/lazy")
  end)

  it("when a file in one of the given folders changes, which may be created later", function()
    local app = application()
    local s = app.start { "--dev", "--watch", "views", "--watch=more" }
    assert(lfs.mkdir(app.folder .. "/views"))
    local function changed(name)
      assert.truthy(s:wait_log("Changed: " .. app.folder .. "/" .. name .. ".*Reload complete"), s:log())
    end
    app.write("views/page", "first")
    changed "views/page\n"
    assert.equal("first", body(s, "/page"))
    assert(lfs.mkdir(app.folder .. "/more"))
    app.write("more/page", "first")
    changed "more/page\n"
  end)

  it("under load, without a request that fails", function()
    local app = application()
    local s = app.start()
    local kept, seen = s:connect(), {}
    for round = 1, 5 do
      app.replace("answer.lua", app.answer("round" .. round))
      local text = ("round%d "):format(round)
      local ok = process.wait_until(function()
        local response = kept:request "/"
        assert.equal(200, response.status)
        assert.equal(200, s:request("/").status)
        seen[response.body] = true
        return response.body == text
      end)
      assert.truthy(ok, s:log())
    end
    assert.truthy(seen["round5 "])
  end)
end)

describe("the page with an error", function()
  after_each(server.cleanup)

  local HTML = { Accept = "text/html,application/xhtml+xml,*/*;q=0.8" }

  local FAILING = [[
return function(request)
  request:send_status("200 OK")
  request:send_header("X-Mine", "y")
  request:send_data(("x"):rep(20000))
  error("oh <dear> " .. request.path)
end
]]

  it("shows an error of a handler with its source, to clients on this machine alone", function()
    local app = application()
    app.write("answer.lua", FAILING)
    local s = app.start(nil, nil, "::")
    local response = s:request { target = "/a", headers = HTML }
    assert.equal(500, response.status)
    assert.equal("text/html; charset=utf-8", response.headers["content-type"])
    assert.equal("close", response.headers.connection)
    assert.equal("no-store", response.headers["cache-control"])
    assert.is_nil(response.headers["x-mine"])
    assert.truthy(response.body:find("<h1>./answer.lua:5: oh &lt;dear&gt; a</h1>", 1, true), response.body)
    assert.truthy(response.body:find(
      "<b>    5    error(&quot;oh &lt;dear&gt; &quot; .. request.path)</b>\n    6  end\n", 1, true))
    assert.truthy(response.body:find("<h2>Traceback</h2>\n<pre>\t[C]: in ", 1, true), response.body)
    local text = s:request "/b"
    assert.equal("text/plain; charset=utf-8", text.headers["content-type"])
    assert.truthy(text.body:find("^500 Internal Server Error\n\nGET /b\n\n%./answer%.lua:5: oh <dear> b\n"),
      text.body)
    assert.truthy(text.body:find("\n>     5    error(", 1, true), text.body)
    for _, name in ipairs { "Forwarded", "X-Forwarded-For" } do
      local forwarded = s:request { target = "/", headers = { Accept = "text/html", [name] = "for=::1" } }
      assert.equal("500 Internal Server Error\n", forwarded.body)
    end
    local elsewhere = other_address()
    if elsewhere then
      assert.equal("500 Internal Server Error\n",
        curl(s, ("-H 'Accept: text/html' http://%s:%d/c"):format(elsewhere, s.port)))
    end
  end)

  it("shows it to the clients of a proxy only if these are on this machine", function()
    local app = application()
    app.write("answer.lua", FAILING)
    local s = app.start(nil, nil, nil, nil, (APP:gsub("port = PORT", "%0, proxy_protocol = true")))
    for header, shown in pairs {
      ["PROXY TCP4 203.0.113.5 127.0.0.1 4711 80\r\n"] = false, ["PROXY UNKNOWN\r\n"] = false,
      ["PROXY TCP4 127.0.0.1 127.0.0.1 4711 80\r\n"] = true,
    } do
      local reply = s:raw(header .. "GET /d HTTP/1.1\r\nHost: a\r\n\r\n")
      assert.equal(shown, reply:find("oh <dear> d", 1, true) ~= nil, reply)
      assert.equal("500", reply:match("^HTTP/1.1 (%d+)"))
    end
  end)

  it("shows nothing of the code without --dev", function()
    local app = application()
    app.write("answer.lua", FAILING)
    local s = app.start {}
    assert.equal("500 Internal Server Error\n", s:request({ target = "/", headers = HTML }).body)
    s:stop()
    assert.falsy(s:log():find("GET / 500", 1, true), s:log())
  end)

  it("shows a reload's error at the ports that were open, until it is mended", function()
    local app = application()
    local path = process.scratch("socket")
    local s = app.start(nil, nil, nil, ('{ proto = "local", path = %q },'):format(path))
    local kept = s:connect()
    assert.equal("one ", kept:request("/").body)
    for round, wrong in ipairs { "return function(", "error('at load')", "return" } do
      app.write("answer.lua", wrong)
      assert.truthy(process.wait_until(function() return s:request("/").status == 500 end), s:log())
      assert.equal(500, kept:request("/").status)
      kept:close()
      assert.truthy(curl(s, ("--unix-socket %s http://a/"):format(path)):find("500 Internal", 1, true))
      if round < 3 then
        assert.truthy(s:request("/").body:find("\n>     1  " .. wrong, 1, true), s:request("/").body)
      end
      local good = "good" .. round
      app.replace("answer.lua", app.answer(good))
      wait_for_body(s, good .. " ")
      kept = s:connect()
      assert.equal(good .. " ", kept:request("/").body)
      assert.equal(good .. " ", curl(s, ("--unix-socket %s http://a/"):format(path)))
    end
  end)

  it("shows that a port cannot be opened, at those that can", function()
    local app = application()
    local taken = server.free_port()
    local occupant = assert(require("socket").bind("127.0.0.1", taken))
    local s = app.start()
    local script = ("PORT = %d "):format(s.port) .. APP
    app.write("app.lua", script:gsub("{ proto", ('{ proto = "tcp", host = "127.0.0.1", port = %d }, %%0')
      :format(taken)))
    assert.truthy(process.wait_until(function() return s:request("/").status == 500 end), s:log())
    assert.truthy(s:request("/").body:find("Address already in use", 1, true))
    occupant:close()
    app.write("app.lua", script .. "-- mended")
    wait_for_body(s, "one ")
  end)

  it("shows what is wrong when the server is started", function()
    local app = application()
    app.write("answer.lua", "return 'no function'")
    local port = server.free_port()
    local wrong = 'listen{ { proto = "tcp", host = "127.0.0.1", port = PORT }, connect = print } error "late"'
    local s = app.start(nil, port, nil, nil, wrong)
    assert.truthy(s:request("/").body:find("late", 1, true))
    app.write("app.lua", ("PORT = %d "):format(port) .. APP)
    assert.truthy(process.wait_until(function()
      return s:request("/").body:find("bad argument to 'generate_handler'", 1, true)
    end), s:log())
    app.write("answer.lua", app.answer "two")
    wait_for_body(s, "two ")
    s:signal("TERM")
    assert.equal(0, s:wait())
  end)

  it("shows that the workers cannot be prepared", function()
    local app = application()
    local s = app.start()
    app.write("app.lua", ("PORT = %d "):format(s.port)
      .. APP:gsub("connect =", "prepare = function() error('unprepared') end, connect ="))
    assert.truthy(process.wait_until(function()
      return s:request("/").body:find("unprepared", 1, true)
    end), s:log())
    app.write("answer.lua", app.answer "two")
    app.write("app.lua", ("PORT = %d "):format(s.port) .. APP)
    wait_for_body(s, "two ")
  end)

  it("is at 127.0.0.1 port 8080 if no port is known; a script that does not exist is an error", function()
    local app = application()
    local script = app.folder .. "/wrong.lua"
    local code, _, log = server.run_script {
      file = server.root .. "/bin/moonbridge", args = { "--dev", script },
    }
    assert.equal(3, code)
    assert.truthy(log:find("No such file", 1, true), log)
    app.write("wrong.lua", "wrong(")
    local s = server.start {
      file = script, launcher = { "--dev" },
      ready = function(self)
        local said = self:log()
        return said:find("No port of the application is known: see http://127%.0%.0%.1:8080/\n.*Adding TCP")
          -- Another server may have the port.
          or said:find("Could not serve a page with the error: [^\n]*Address already in use")
      end,
    }
    s:signal("TERM")
    assert.truthy(({ [0] = true, [3] = true })[s:wait()], s:log())
  end)
end)

describe("with --dev, the log", function()
  after_each(server.cleanup)

  it("has a line for each request", function()
    local app = application()
    app.write("answer.lua", [[
      return function(request)
        if request.path == "error" then error "oh" end
        request:send_status(request.path == "none" and "404 Not Found" or "200 OK")
        if request.path == "reset" then request:finish_headers() error "late" end
        if request.path == "slow" then require "moonbridge_io".poll(nil, nil, 0.2) end
        return true
      end
    ]])
    local s = app.start()
    local connection = s:connect()
    connection:request "/a?b=c"
    connection:request "/none"
    connection:request { target = "/slow", method = "POST", body = "x" }
    s:request "/error"
    s:raw "GET /reset HTTP/1.1\r\nHost: a\r\n\r\n"
    connection:send "GET /bad HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n"
    connection:response()
    s:raw "nonsense\r\n\r\n"
    app.write("answer.lua", "wrong(")
    assert.truthy(process.wait_until(function() return s:request("/page").status == 500 end), s:log())
    -- Also of the generation that shows the page.
    assert.truthy(s:wait_log "T[%d:.]+[Z+-][%d:]* GET /page 500 %- ms\n", s:log())
    for _, line in ipairs {
      "GET /a%?b=c 200 %d+%.%d+ ms", "GET /none 404 %d+%.%d+ ms", "POST /slow 200 [2-9]%d%d+%.%d+ ms",
      "GET /error 500 %d+%.%d+ ms", "GET /reset 200 %d+%.%d+ ms", "GET /bad 400 %- ms", "%- %- 400 %- ms",
    } do
      local _, count = s:log():gsub(" " .. line .. "\n", "")
      assert.equal(1, count, line .. "\n" .. s:log())
    end
  end)

  it("has another one if that is wanted", function()
    local app = application()
    local s = app.start { "--dev", "--access-log-format", "mine {status}" }
    s:request "/"
    assert.truthy(s:wait_log "mine 200\n", s:log())
    s:stop()
    local path = process.scratch("access")
    s = app.start { "--dev", "--access-log", path }
    s:request "/"
    assert.truthy(process.wait_until(function()
      return (process.slurp(path) or ""):find('"status":200', 1, true)
    end))
    s:stop()
    assert.falsy(s:log():find("GET /", 1, true), s:log())
  end)
end)

describe("moonbridge without --dev", function()
  after_each(server.cleanup)

  it("watches nothing, and refuses folders to watch", function()
    local app = application()
    local s = app.start {}
    app.write("answer.lua", app.answer "two")
    assert.equal("one ", body(s))
    local inotify = 0
    for _, pid in ipairs { s.pid, table.unpack(s:children()) } do
      for entry in lfs.dir(("/proc/%d/fd"):format(pid)) do
        local target = lfs.symlinkattributes(("/proc/%d/fd/%s"):format(pid, entry), "target") or ""
        if target:find("inotify", 1, true) then inotify = inotify + 1 end
      end
    end
    assert.equal(0, inotify)
    s:stop()
    local code, _, log = server.run_script {
      file = server.root .. "/bin/moonbridge", args = { "--watch", "views", app.folder .. "/app.lua" },
    }
    assert.equal(1, code)
    assert.truthy(log:find("option --watch needs --dev", 1, true), log)
  end)
end)
