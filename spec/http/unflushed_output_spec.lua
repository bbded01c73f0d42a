-- What a handler has sent and not flushed reaches its client while the handler goes on, over any connection,
-- however much it is; and also when the process exits.

local certificates = require "spec.support.certificates"
local client = require "spec.support.client"
local faults = require "spec.support.faults"
local moonbridge_io = require "moonbridge_io"
local process = require "spec.support.process"
local server = require "spec.support.server"

local SCRIPT = [[
  local moonbridge, http = require "moonbridge", require "moonbridge_http"
  local mio = require "moonbridge_io"

  local function exists(path)
    local file = io.open(path)
    return file and file:close()
  end

  -- Ways to go on until the file `path` is there.
  local ways = {
    lua = function(path) while not exists(path) do end end,
    foreign = function(path) os.execute("while ! test -e " .. path .. "; do sleep 0.05; done") end,
    poll = function(path) while not exists(path) do mio.poll(nil, nil, 0.05) end end,
  }

  local routes = {}

  function routes.busy(request)
    local params = request.get_params
    request:send_status("200 OK")
    request:send_header("Content-Type", "text/plain")
    if params.text then
      for piece in params.text:gmatch(".") do request:send_data(piece) end
    end
    if params.size then request:send_data(("x"):rep(tonumber(params.size) - 4), "last") end
    if params.finish then request:finish() end
    if request.socket.tls then assert(request.socket.tls.version == params.version) end
    ways[params.way](params.path)
    if not params.finish then request:send_data("ended") end
    return true
  end

  local answers = {
    empty = function(request) request:send("204 No Content") end,
    conditional = function(request) request:send("200 OK", "text/plain", "text", { ETag = '"v1"' }) end,
    redirect = function(request) request:redirect("/") end,
    head = function(request)
      request:send_status("200 OK")
      request:send_data()
    end,
    hints = function(request)
      request:send_status("103 Early Hints")
      request:send_header("Link", "</a>")
      request:send_status("200 OK")
    end,
    held = function(request)
      request:send_status("200 OK")
      request:send_data("begun")
      request:hold { topics = "topic" }
    end,
  }

  function routes.answer(request)
    local params = request.get_params
    answers[params.kind](request)
    if params.flush then
      request:flush()
      os.execute("kill -9 $PPID")
    end
    ways.lua(params.path)
    return true
  end

  function routes.pieces(request)
    request:send_status("200 OK")
    local count, size = tonumber(request.get_params.count), tonumber(request.get_params.size)
    for _ = 1, count do request:send_data(("x"):rep(size)) end
    return true
  end

  function routes.leave(request)
    request:send_status("200 OK")
    request:send_header("Content-Type", "text/plain")
    request:send_data("begun")
    ways[request.get_params.way](request.get_params.path)
    request:send_data("more")
    if request.get_params.exit == "error" then error("oh") end
    os.exit(0, request.get_params.exit == "close")
  end

  local options = { response_buffering = 10000000, compress = true, idle_timeout = 1 }
  moonbridge.listen {
    { proto = "tcp", host = "127.0.0.1", port = PORT },
    { proto = "local", path = SOCKET },
    { proto = "tls", host = "127.0.0.1", port = TLS_PORT, certificate = CERTIFICATE, key = KEY },
    min_fork = 2, pre_fork = 2, max_fork = 2,
    connect = http.generate_handler(options, function(request)
      return routes[request.path](request)
    end),
  }
  moonbridge.run()
]]

local authority, socket, tls_port

local function options()
  local made
  made, authority = certificates.signed()
  socket, tls_port = process.scratch "socket", server.free_port()
  return {
    script = SCRIPT,
    globals = { CERTIFICATE = made.certificate, KEY = made.key, SOCKET = socket, TLS_PORT = tls_port },
  }
end

describe("a response over TLS whose body is given by some calls of send_data", function()
  teardown(server.cleanup)

  it("leaves with one system call", function()
    local s = faults.server(options())
    local connection = assert(moonbridge_io.tlsconnect("localhost", tls_port, { ca = authority.certificate }))
    local function ask(count, size)
      local target = ("/pieces?count=%d&size=%d"):format(count, size)
      connection:write(("GET %s HTTP/1.1\r\nHost: a\r\n\r\n"):format(target))
      connection:flush()
      local received = 0
      repeat local line = connection:read(nil, "\n") until line == "\r\n"
      repeat
        local length = tonumber(connection:read(nil, "\n"), 16)
        received = received + length
        connection:read(length + 2)
      until length == 0
      assert.equal(count * size, received)
    end
    local function sends()
      local sum = 0
      for _, call in ipairs { "send", "sendto", "sendmsg", "write", "writev" } do
        sum = sum + s.faults:calls(call, "workers")
      end
      return sum
    end
    -- Behind the first response on a connection the worker tells the supervisor of it.
    ask(1, 1)
    for _, case in ipairs { { 1, 5 }, { 3, 1 }, { 3, 1024 }, { 20, 3276 }, { 64, 1024 } } do
      local calls
      -- A slow client lets the connection become cold, of which the supervisor is told as well.
      assert.truthy(process.wait_until(function()
        ask(1, 1)
        local before = sends()
        ask(case[1], case[2])
        calls = sends() - before
        return calls == 1
      end, 5), ("%d pieces of %d bytes: %d calls"):format(case[1], case[2], calls or 0))
    end
  end)
end)

describe("what a handler has sent and not flushed", function()
  local s
  setup(function() s = server.start(options()) end)
  teardown(server.cleanup)

  -- How curl reaches the server.
  local connections = {
    ["TCP"] = function() return "http://localhost:" .. s.port end,
    ["a local socket"] = function() return "http://localhost", "--unix-socket", socket end,
    ["TLS 1.3"] = function()
      return "https://localhost:" .. tls_port, "--cacert", authority.certificate, "--tlsv1.3"
    end,
    ["TLS 1.2"] = function()
      return "https://localhost:" .. tls_port, "--cacert", authority.certificate, "--tls-max", "1.2"
    end,
  }

  local function go(path) process.write(path, "") end

  local clients = {}
  -- A handler that still waits would keep its worker from the next client.
  after_each(function()
    for curl, path in pairs(clients) do
      curl:destroy()
      go(path)
    end
    clients = {}
  end)

  -- A client that shows what it gets, and the file that its handler waits for.
  local function ask(kind, target, ...)
    local path = process.scratch "go"
    local function argv(url, ...)
      return { "curl", "-sSN", "--max-time", "30", ("%s/%s&path=%s&version=%s"):format(url, target, path,
        kind:match("TLS (.*)") or ""), ... }
    end
    local command = argv(connections[kind]())
    for _, option in ipairs { ... } do command[#command + 1] = option end
    local curl = process.start(command)
    clients[curl] = path
    return curl, path
  end

  local function awaits(curl, text)
    local got = process.wait_until(function() return curl:output():sub(-#text) == text end)
    assert(got, ("got %d bytes: %s; %s"):format(#curl:output(), curl:output():sub(-100), curl:log()))
  end

  for kind in pairs(connections) do
    for _, way in ipairs { "lua", "foreign", "poll" } do
      it(("reaches its client over %s: %s, a few bytes"):format(kind, way), function()
        local curl, path = ask(kind, "busy?text=begun&way=" .. way)
        awaits(curl, "begun")
        go(path)
        assert.equal(0, curl:wait(), curl:log())
        assert.equal("begunended", curl:output())
      end)
    end

    for _, way in ipairs { "lua", "foreign" } do
      it(("reaches its client over %s: %s, more than the system takes at once"):format(kind, way), function()
        local curl, path = ask(kind, "busy?text=begun&size=6000000&way=" .. way)
        awaits(curl, "xlast")
        assert.equal(6000005, #curl:output())
        go(path)
        assert.equal(0, curl:wait(), curl:log())
        awaits(curl, "xlastended")
      end)
    end

    it(("reaches clients over %s that are slow and quick, also behind the end"):format(kind), function()
      local target = "busy?size=6000000&finish=1&way=foreign"
      local slow, slow_path = ask(kind, target, "--limit-rate", "3M")
      -- The worker that has the slow one is busy, and does not accept the other.
      assert(process.wait_until(function() return #slow:output() > 0 end))
      local quick, quick_path = ask(kind, target)
      for curl, path in pairs { [quick] = quick_path, [slow] = slow_path } do
        awaits(curl, "xlast")
        go(path)
        assert.equal(0, curl:wait(), curl:log())
        assert.equal(6000000, #curl:output())
      end
    end)

    it(("reaches its client over %s compressed"):format(kind), function()
      local curl, path = ask(kind, "busy?text=begun&way=foreign", "--compressed")
      awaits(curl, "begun")
      go(path)
      assert.equal(0, curl:wait(), curl:log())
      assert.equal("begunended", curl:output())
    end)

    for exit, what in pairs { close = "exits and closes its state", leave = "exits" } do
      it(("reaches its client over %s if the handler %s"):format(kind, what), function()
        for _, option in ipairs { "--no-compressed", "--compressed" } do
          local curl, path = ask(kind, "leave?way=lua&exit=" .. exit, option)
          go(path)
          assert.not_equal(0, curl:wait())
          assert.equal("begunmore", curl:output())
        end
      end)
    end

    it(("is cut off over %s by an error behind what has left"):format(kind), function()
      local curl, path = ask(kind, "leave?way=lua&exit=error")
      awaits(curl, "begun")
      go(path)
      assert.not_equal(0, curl:wait())
      assert.equal("begun", curl:output())
    end)
  end
end)

describe("while its handler goes on, a client gets", function()
  local s
  setup(function() s = server.start(options()) end)
  teardown(server.cleanup)

  for what, case in pairs {
    ["a response without a body"] = { "empty", "^HTTP/1.1 204 .*\r\n\r\n$" },
    ["that its version is still the current one"] = { "conditional", "^HTTP/1.1 304 .*\r\n\r\n$", '"v1"' },
    ["that the current version is another one"] = { "conditional", "^HTTP/1.1 412 .*\r\n\r\n$", nil, '"v2"' },
    ["a redirect"] = { "redirect", "^HTTP/1.1 303 .*\r\nLocation: /\r\n.*\r\n\r\n$" },
    ["headers that send_data without arguments has ended"] = { "head", "^HTTP/1.1 200 .*\r\n\r\n$" },
    ["an informational response that a status has ended"] =
      { "hints", "^HTTP/1.1 103 [^\r]*\r\nLink: </a>\r\n\r\n$" },
    ["the beginning of a held response"] = { "held", "^HTTP/1.1 200 .*\r\n\r\n5\r\nbegun\r\n$" },
  } do
    local kind, expected, none_match, match = case[1], case[2], case[3], case[4]

    local function ask(more)
      local connection, path = s:connect(), process.scratch "go"
      local target = ("/answer?kind=%s&path=%s%s"):format(kind, path, more)
      connection:send(client.format {
        target = target, headers = { ["If-None-Match"] = none_match, ["If-Match"] = match },
      })
      assert.matches(expected, assert(connection:read_until(kind == "held" and "begun\r\n" or "\r\n\r\n")))
      return connection, path
    end

    it(what, function()
      local connection, path = ask ""
      process.write(path, "")
      if kind == "hints" then assert.equal(200, connection:response().status) end
    end)

    it(what .. ", at once after a flush", function()
      -- The worker does nothing more: it is killed.
      ask "&flush=1"
    end)
  end
end)
