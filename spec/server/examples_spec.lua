-- The examples of servers do what their first lines say.

local process = require "spec.support.process"
local server = require "spec.support.server"
local websocket = require "spec.support.websocket"

local function example(name, options)
  options = options or {}
  options.file = ("%s/examples/%s.lua"):format(server.root, name)
  return server.start(options)
end

describe("examples/echo.lua", function()
  after_each(server.cleanup)

  it("sends each line back, to many clients with few processes", function()
    for _, launcher in ipairs { false, true } do
      local s = example("echo", { launcher = launcher })
      local clients = {}
      for index = 1, 50 do clients[index] = s:connect() end
      for round = 1, 3 do
        for index, c in ipairs(clients) do
          local line = ("line %d of %d\n"):format(round, index)
          c:send(line)
          assert.equal(line, c:read_until("\n"))
        end
      end
      assert.truthy(#s:workers() <= 16)
      clients[1]:send("last words")
      clients[1]:finish()
      assert.same({ "last words", "closed" }, { clients[1]:read_all() })
      s:signal("TERM")
      assert.same({ "", "closed" }, { clients[2]:read_all() })
      assert.equal(0, s:wait())
    end
  end)
end)

describe("examples/static.lua", function()
  after_each(server.cleanup)

  it("serves a folder, with a listing", function()
    local s = example("static")
    assert.truthy(s:request("/").body:find('<a href="./static.lua">', 1, true))
    assert.equal(process.slurp(server.root .. "/examples/static.lua"), s:request("/static.lua").body)
    local folder = process.scratch("folder")
    process.run("mkdir " .. folder .. " && printf hello > " .. folder .. "/index.html")
    assert.equal("hello", example("static", { args = { folder } }):request("/").body)
  end)
end)

describe("examples/interval.lua", function()
  after_each(server.cleanup)

  it("runs its jobs beside the web server", function()
    local s = example("interval", { args = { "0.2" }, env = { TMPDIR = false } })
    assert.truthy(process.wait_until(function()
      return s:request("/").body:find("^The last report was written at")
    end))
    assert.truthy(s:wait_log("%[Pool #1, PID %d+%] still alive\n", nil, 2))
    assert.equal(0, s:stop())
  end)
end)

describe("examples/events.lua", function()
  after_each(server.cleanup)

  it("tells all pages what one says, and those that come back what they have missed", function()
    local s = example("events")
    assert.truthy(s:request("/").body:find("EventSource", 1, true))
    local function listen(last_id)
      local c = s:connect()
      c:send(("GET /events HTTP/1.1\r\nHost: x\r\n%s\r\n"):format(
        last_id and "Last-Event-ID: " .. last_id .. "\r\n" or ""))
      assert(c:read_until("\r\n\r\n"))
      return c
    end
    local function say(text)
      assert.equal(204, s:request { target = "/say", body = "text=" .. text,
        headers = { ["Content-Type"] = "application/x-www-form-urlencoded" } }.status)
    end
    local one, other = listen(), listen()
    -- The subscription follows the headers.
    assert(process.wait_until(function()
      say("first")
      return one:fill(0.1) ~= "timeout" and other:fill(0.1) ~= "timeout"
    end))
    local id = one:read_until("data: first\n\n"):match("id: (%S+)")
    say("two%0Alines")
    assert.truthy(other:read_until("data: two\ndata: lines\n\n"))
    assert.truthy(listen(id):read_until("data: two\ndata: lines\n\n"))
  end)
end)

describe("examples/chat.lua", function()
  after_each(server.cleanup)

  it("lets all clients hear what one says, and says goodbye", function()
    local path = process.scratch("chat")
    local s = example("chat", {
      args = { path },
      -- The flag of a listening socket (proc(5)): its file is there a moment before.
      ready = function()
        local listening = " 00010000 [^\n]* " .. path:gsub("%p", "%%%0") .. "\n"
        return assert(process.slurp("/proc/net/unix")):find(listening)
      end,
    })
    local one = s:connect { path = path }
    assert.equal("You are number 1.\n", one:read_until("\n"))
    local two = s:connect { path = path }
    assert.equal("You are number 2.\n", two:read_until("\n"))
    assert.equal("* 2 has come\n", one:read_until("\n"))
    one:send("hel")
    one:send("lo\nagain\n")
    assert.equal("1: hello\n", two:read_until("\n"))
    assert.equal("1: again\n", two:read_until("\n"))
    local three = s:connect { path = path }
    assert.equal("You are number 3.\n", three:read_until("\n"))
    three:close()
    assert.equal("* 3 has come\n", one:read_until("\n"))
    assert.equal("* 3 has gone\n", one:read_until("\n"))
    assert.equal("* 3 has come\n", two:read_until("\n"))
    assert.equal("* 3 has gone\n", two:read_until("\n"))
    s:signal("TERM")
    assert.equal("* the server shuts down\n", one:read_until("\n"))
    assert.equal(0, s:wait())
    assert.is_nil(require("lfs").attributes(path))
  end)
end)

describe("examples/chat_page.lua", function()
  after_each(server.cleanup)

  it("tells all visitors what one says, and who comes and goes", function()
    local s = example "chat_page"
    assert.truthy(s:request("/").body:find("<title>Chat</title>", 1, true))
    assert.equal(404, s:request("/other").status)
    local one, two = websocket.connect(s, "/chat"), websocket.connect(s, "/chat")
    -- A client that hears itself is subscribed.
    one:send("Ann\nHello?")
    assert.same({ "* Ann has come", "Ann: Hello?" }, { one:text(), one:text() })
    two:send("Bob\nYes.")
    assert.same({ "* Bob has come", "Bob: Yes." }, { one:text(), one:text() })
    two:close()
    assert.equal("* Bob has left", one:text())
    one:send("no name")
    assert.equal(1008, (one:closing()))
  end)
end)

describe("examples/https.lua", function()
  after_each(server.cleanup)

  it("serves https with a certificate of its own, and sends those who ask by http there", function()
    local port, http_port = server.free_port(), server.free_port()
    local folder = process.scratch("x"):match("^(.*)/")
    example("https", { port = port, env = { HTTPS_FOLDER = folder, HTTP_PORT = http_port } })
    local curl = "curl -sS --cacert %s/https.pem https://localhost:%d/ 2>&1"
    local code, output = process.run(curl:format(folder, port))
    assert.equal(0, code, output)
    assert.matches("^Hello over https, TLS 1.3 with TLS_", output)
    code, output = process.run(("curl -sS -o /dev/null -w '%%{http_code} %%{redirect_url}' "
      .. "'http://127.0.0.1:%d/a?b=c'"):format(http_port))
    assert.same({ 0, ("301 https://localhost:%d/a?b=c"):format(port) }, { code, output })
  end)
end)

describe("the examples", function()
  -- What a user may forget or mistype: the example, its arguments, what the sentence about that says, and the
  -- environment.
  local MISTAKES = {
    { "application", { "/nowhere/notes.db" }, "cannot use the database /nowhere/notes.db" },
    { "https", {}, "cannot make /nowhere/https.pem: it needs openssl", { HTTPS_FOLDER = "/nowhere" } },
    { "interval", { "soon" }, "usage: interval.lua [SECONDS]" },
    { "interval", { "0" }, "usage: interval.lua [SECONDS]" },
    { "reverse_proxy", {}, "usage: reverse_proxy.lua URL" },
    { "reverse_proxy", { "127.0.0.1:8000" }, "usage: reverse_proxy.lua URL" },
    { "send_mail", {}, "usage: send_mail.lua HOST PORT FROM TO SUBJECT FILE" },
    { "send_mail", { "127.0.0.1", "25", "me", "<you>", "Hi", "LICENSE" }, "have no place here" },
    { "static", { "/nowhere" }, '"/nowhere" cannot be served: No such file or directory' },
    { "stream_file", { "/nowhere" }, "cannot read /nowhere: No such file or directory" },
    { "upload", {}, "usage: upload.lua FOLDER [BYTES]" },
    { "upload", { ".", "many" }, "usage: upload.lua FOLDER [BYTES]" },
    { "upload", { "/nowhere" }, "cannot use the folder /nowhere" },
  }
  -- Lua's modules that an example needs, and the Debian package in the sentence about that.
  local MODULES = {
    { "application", "dkjson", "lua-dkjson" },
    { "application", "luasql.sqlite3", "lua-sql-sqlite3" },
    { "send_mail", "mime", "lua-socket" },
    { "stream_file", "ltn12", "lua-socket" },
  }

  -- How an example ends that cannot begin.
  local function ends(options)
    local code, output, log = server.run_script(options)
    assert.same({ 2, "" }, { code, output }, log)
    assert.matches("^[^\n]+\n$", log)
    return log
  end

  it("end with one sentence if they are called in the wrong way", function()
    for _, mistake in ipairs(MISTAKES) do
      local name, args, sentence, env = table.unpack(mistake)
      local file = ("%s/examples/%s.lua"):format(server.root, name)
      assert.matches(sentence, ends { file = file, args = args, env = env }, 1, true)
    end
  end)

  it("end with one sentence if a module is missing", function()
    for _, case in ipairs(MODULES) do
      local name, module, package = table.unpack(case)
      local log = ends {
        script = ([[
          package.preload[%q] = function() error("module %%q not found") end
          arg[0] = %q
          dofile(arg[0])
        ]]):format(module, ("%s/examples/%s.lua"):format(server.root, name)),
      }
      assert.matches("(Debian: " .. package .. ")", log, 1, true)
    end
  end)
end)
