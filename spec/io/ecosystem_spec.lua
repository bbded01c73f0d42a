-- Handles, listeners and children in the event loops and pumps of other libraries.

local ltn12 = require "ltn12"
local moonbridge_io = require "moonbridge_io"
local pair = require "spec.support.pair"
local process = require "spec.support.process"
local socket = require "socket"

local has_cqueues, cqueues = pcall(require, "cqueues")

-- There is none for Lua 5.5.
local with_cqueues = _VERSION == "Lua 5.5" and pending or describe
with_cqueues("cqueues", function()
  local function run(...)
    local loop = cqueues.new()
    for _, body in ipairs { ... } do loop:wrap(body) end
    assert(loop:loop(process.TIMEOUT))
    assert.is_true(loop:empty())
  end

  setup(function() assert.is_true(has_cqueues, "lua-cqueues is not installed for this Lua") end)

  it("polls handles with read_call and flush_call, both directions at once", function()
    local near, far = pair.tcp()
    local payload = ("0123456789"):rep(300000)
    local received, answered
    run(
      function()
        near:flush_call(cqueues.poll, payload, "\n")
        answered = near:read_call(cqueues.poll, nil, "\n")
      end,
      function()
        received = far:read_call(cqueues.poll, nil, "\n")
        far:flush_call(cqueues.poll, "got ", #received, "\n")
      end
    )
    assert.is_true(received == payload .. "\n")
    assert.equal("got 3000001\n", answered)
  end)

  it("polls listeners and many connections, whose numbers are used again", function()
    local listener = assert(moonbridge_io.tcplisten("127.0.0.1", 0))
    local port, served, answers = listener.local_tcpport, 0, {}
    local function wait(handle) cqueues.poll(handle) end
    local function serve(connection)
      local line = connection:read_call(wait, nil, "\n")
      connection:flush_call(wait, "echo ", line)
      cqueues.cancel(connection)
      connection:close()
      served = served + 1
    end
    local loop = cqueues.new()
    loop:wrap(function()
      for _ = 1, 60 do
        local connection
        repeat
          connection = listener:accept_nb()
          if not connection then cqueues.poll(listener) end
        until connection
        loop:wrap(function() serve(connection) end)
      end
    end)
    for client = 1, 3 do
      loop:wrap(function()
        for round = 1, 20 do
          local connection = assert(moonbridge_io.tcpconnect_nb("127.0.0.1", port))
          connection:flush_call(wait, client, " ", round, "\n")
          local answer = connection:read_call(wait, nil, "\n")
          answers[#answers + 1] = answer
          cqueues.cancel(connection)
          connection:close()
        end
      end)
    end
    assert(loop:loop(process.TIMEOUT))
    assert.equal(60, served)
    table.sort(answers)
    assert.equal("echo 1 1\n", answers[1])
    assert.equal(60, #answers)
  end)

  it("polls children", function()
    local child = assert(moonbridge_io.exec("sh", "-c", "sleep 0.05; exit 3"))
    local status
    run(function()
      status = child:wait_call(function() cqueues.poll(child) end)
    end)
    assert.equal(3, status)
  end)

  it("does not wait while input is buffered", function()
    local near, far = pair.tcp()
    near:flush("two\nlines\n")
    pair.await(far)
    far:read(nil, "\n")
    local ready
    run(function() ready = cqueues.poll(far, 5) end)
    assert.equal(far, ready)
  end)

  it("hears what the last blocked operation waits for", function()
    local near, far = pair.tcp()
    assert.equal("r", near:events())
    assert.equal(near:getfd(), near:pollfd())
    assert.is_nil(near:timeout())
    repeat until near:flush_nb(("x"):rep(1000000)) > 0
    assert.equal("w", near:events())
    near:read_nb(1)
    assert.equal("r", near:events())
    far:drain_nb()
    far:reset()
    near:reset()
    assert.has_error(function() near:pollfd() end)
    assert.has_error(function() near:events() end)
  end)
end)

describe("LuaSocket's select", function()
  it("takes handles and listeners by their getfd", function()
    local near, far = pair.tcp()
    local listener = assert(moonbridge_io.tcplisten("127.0.0.1", 0))
    local readable, writable, message = socket.select({ far, listener }, { near }, 0)
    assert.same({}, { table.unpack(readable) })
    assert.equal(near, writable[1])
    assert.is_nil(message)
    near:flush("two\nlines\n")
    local client = assert(moonbridge_io.tcpconnect("127.0.0.1", listener.local_tcpport))
    readable = socket.select({ far, listener }, nil, process.TIMEOUT)
    assert.equal(2, #readable)
    assert.is_truthy(readable[far] and readable[listener])
    client:close()
  end)

  it("sees buffered input", function()
    local near, far = pair.tcp()
    near:flush("two\nlines\n")
    far:read(nil, "\n")
    local readable = socket.select({ far }, nil, 0)
    assert.equal(far, readable[1])
  end)

  it("leaves out closed handles", function()
    local near = pair.tcp()
    near:close()
    assert.equal(-1, near:getfd())
    assert.equal("timeout", select(3, socket.select({ near }, nil, 0)))
  end)
end)

describe("ltn12", function()
  it("pumps a file through a connection", function()
    local near, far = pair.tcp()
    local path = process.scratch("file")
    local content = {}
    for i = 1, 20000 do content[i] = string.char(i % 256, i // 256) end
    content = table.concat(content)
    local file = assert(io.open(path, "wb"))
    file:write(content)
    file:close()
    assert.equal(1, ltn12.pump.all(ltn12.source.file(io.open(path, "rb")), near:sink()))
    near:finish()
    local pieces = {}
    assert.equal(1, ltn12.pump.all(far:source(1000), (ltn12.sink.table(pieces))))
    assert.is_true(table.concat(pieces) == content)
    for _, piece in ipairs(pieces) do assert.is_true(#piece <= 1000) end
  end)

  it("gets what is there, and nil at the end", function()
    local near, far = pair.tcp()
    local source = far:source()
    near:flush("first")
    assert.same({ n = 1, "first" }, pair.results(source()))
    near:flush("second")
    near:close()
    assert.same({ n = 1, "second" }, pair.results(source()))
    assert.same({ n = 1, nil }, pair.results(source()))
  end)

  it("gets errors as nil, a message and an errno", function()
    local near, far = pair.tcp()
    local source, sink = far:source(), far:sink()
    assert.equal(1, sink("x"))
    near:reset()
    pair.await(far)
    assert.same({ nil, "Connection reset by peer", 104 }, { source() })
    assert.same({ nil, "Broken pipe", 32 }, { sink(("x"):rep(5000)) })
    assert.same({ nil, "Previous write error" }, { sink(nil) })
  end)

  it("gets what a program writes", function()
    local child = assert(moonbridge_io.exec("seq", "1", "5000"))
    local pieces = {}
    ltn12.pump.all(child.stdout:source(), (ltn12.sink.table(pieces)))
    assert.equal("5000", table.concat(pieces):match("(%d+)\n$"))
    child:wait()
  end)

  it("refuses a wrong length", function()
    local near = pair.tcp()
    for _, wrong in ipairs { 0, -1, 1.5, "x", {} } do
      local ok, message = pcall(function() near:source(wrong) end)
      assert.is_false(ok)
      assert.matches("^spec/io/ecosystem_spec.lua:%d+: ", message)
    end
  end)
end)
