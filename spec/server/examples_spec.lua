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
    local port = server.free_port()
    local folder = process.scratch("x"):match("^(.*)/")
    local text = process.slurp(server.root .. "/examples/https.lua")
    text = text:gsub("8443", port):gsub("port = 8080", "port = PORT")
    local s = server.start { script = text, env = { HTTPS_FOLDER = folder } }
    local curl = "curl -sS --cacert %s/https.pem https://localhost:%d/ 2>&1"
    local code, output = process.run(curl:format(folder, port))
    assert.equal(0, code, output)
    assert.matches("^Hello over https, TLS 1.3 with TLS_", output)
    local response = s:request("/a?b=c")
    assert.equal(301, response.status)
    assert.equal(("https://localhost:%d/a?b=c"):format(port), response.headers.location)
  end)
end)
