-- Reference, "Socket object": close, finish, reset; what sends FIN and what sends RST.

local moonbridge_io = require "moonbridge_io"
local pair = require "spec.support.pair"
local process = require "spec.support.process"

local RESET = "Connection reset by peer"

local function thrown(f, ...)
  local ok, message = pcall(f, ...)
  assert.is_false(ok)
  assert.equal("string", type(message))
  return message
end

for kind, connect in pairs(pair.kinds) do
  describe("ending a " .. kind, function()
    local near, far

    before_each(function() near, far = connect() end)

    it("close: 'flushing all data', and 'Returns true on success'", function()
      near:write("buffered")
      assert.same({ n = 1, true }, pair.results(near:close()))
      assert.same({ n = 2, "buffered", "eof" }, pair.results(far:read()))
    end)

    it("close and reset: on closed handles 'will throw an error'", function()
      near:close()
      for _, name in ipairs { "close", "reset" } do
        local message = thrown(function() near[name](near) end)
        assert.matches("^spec/io/close_spec.lua:%d+: Attempt to close a closed I/O handle$", message)
      end
      far:reset()
      assert.matches("Attempt to close a closed I/O handle$", thrown(far.close, far))
    end)

    it("everything else throws on closed handles as well", function()
      near:close()
      local reading = { "read", "read_nb", "read_call", "drain", "drain_nb", "drain_call" }
      for _, name in ipairs(reading) do
        local message = thrown(function() near[name](near, name:match("call") and print or 1) end)
        assert.matches("^spec/io/close_spec.lua:%d+: Attempt to read from a closed I/O handle$", message)
      end
      for _, name in ipairs { "write", "write_nb", "flush", "flush_nb" } do
        local message = thrown(function() near[name](near, "x") end)
        assert.matches("^spec/io/close_spec.lua:%d+: Attempt to write to a closed I/O handle$", message)
      end
      for _, name in ipairs { "write_call", "flush_call" } do
        local message = thrown(function() near[name](near, print, "x") end)
        assert.matches("^spec/io/close_spec.lua:%d+: Attempt to write to a closed I/O handle$", message)
      end
      assert.matches("Attempt to finish a closed I/O handle$", thrown(near.finish, near))
    end)

    it("finish: 'indicate EOF on write stream', and it returns true", function()
      near:write("last words")
      assert.same({ n = 1, true }, pair.results(near:finish()))
      assert.same({ n = 2, "last words", "eof" }, pair.results(far:read()))
      assert.same({ n = 1, true }, pair.results(near:close()))
    end)

    it("a finished handle refuses to be written to and to be finished again", function()
      near:finish()
      for _, name in ipairs { "write", "write_nb", "flush", "flush_nb" } do
        assert.matches("Attempt to write to a finished I/O handle$", thrown(near[name], near, "x"))
        assert.matches("Attempt to write to a finished I/O handle$", thrown(near[name], near))
      end
      assert.matches("Attempt to finish a finished I/O handle$", thrown(near.finish, near))
    end)

    it("reset: 'Returns true on success'", function()
      assert.same({ n = 1, true }, pair.results(near:reset()))
    end)

    it("after a failed write 'Previous write error', and close returns nil and closes", function()
      far:reset()
      local results
      repeat results = pair.results(near:flush("x")) until results[1] == nil
      assert.equal(3, results.n)
      assert.is_string(results[2])
      assert.equal("integer", math.type(results[3]))
      assert.same({ nil, "Previous write error" }, { near:flush("x") })
      assert.same({ nil, "Previous write error" }, { near:write("x") })
      assert.same({ nil, "Previous write error" }, { near:write_nb("x") })
      assert.same({ nil, "Previous write error" }, { near:flush_call(print, "x") })
      assert.same({ nil, "Previous write error" }, { near:close() })
      assert.matches("closed I/O handle$", thrown(near.read, near))
    end)
  end)
end

describe("a TCP connection", function()
  local near, far

  before_each(function() near, far = pair.tcp() end)

  it("finish: 'Subsequent reads are still possible'", function()
    near:finish()
    assert.same({ n = 2, "", "eof" }, pair.results(far:read()))
    far:flush("answer")
    far:close()
    assert.same({ n = 2, "answer", "eof" }, pair.results(near:read()))
    assert.is_true(near:close())
  end)

  it("reset: 'Closes the socket connection by sending a TCP RST packet'", function()
    near:flush("lost or not")
    near:reset()
    repeat local data, message = far:read_nb(); pair.await(far) until data == nil or message == RESET
    assert.same({ nil, "Previous read error" }, { far:read() })
    assert.same({ nil, "Previous read error" }, { far:drain_nb() })
    assert.same({ nil, "Previous read error" }, { far:read(0) })
  end)

  it("a reset that a write has met is not taken for EOF by a read", function()
    near:flush("a part of what was to come")
    pair.await(far)
    near:reset()
    local message
    assert(process.wait_until(function()
      message = select(2, far:flush("x"))
      return message ~= nil
    end))
    assert.equal(RESET, message)
    assert.same({ nil, RESET, 104 }, { far:read() })
    assert.same({ nil, "Previous read error" }, { far:read() })
  end)

  it("RST: 'the default operation when a socket handle gets garbage collected'", function()
    near:write("unflushed data is dropped")
    near = nil -- luacheck: ignore 311
    collectgarbage()
    collectgarbage()
    assert.same({ nil, RESET, 104 }, { far:read() })
  end)

  it("finish without close ends in RST when the handle is collected", function()
    near:finish()
    assert.equal("eof", select(2, far:read()))
    near = nil -- luacheck: ignore 311
    collectgarbage()
    collectgarbage()
    assert(process.wait_until(function() return far:flush("x") == nil end))
  end)

  it("RST: 'or the process is terminated abnormally'", function()
    local listener = assert(moonbridge_io.tcplisten("127.0.0.1", 0))
    local program = [[
      local io = require "moonbridge_io"
      local socket = assert(io.tcpconnect("127.0.0.1", arg[1]))
      socket:flush("hello")
      socket:write("unflushed")
      io.stdin:read(1)
    ]]
    local lua = process.interpreter and process.interpreter() or arg[-1]
    local path = process.scratch("dies.lua")
    local file = assert(io.open(path, "w"))
    file:write(program)
    file:close()
    for _, ending in ipairs { "kill", "exit" } do
      local child = assert(moonbridge_io.exec(lua, path, listener.local_tcpport))
      local socket = assert(listener:accept())
      assert.equal("hello", (socket:read(5)))
      if ending == "kill" then child:kill() else child.stdin:close() end
      child:wait()
      assert.same({ nil, RESET, 104 }, { socket:read() })
    end
  end)

  it("close drains unread input, so that the peer gets FIN and all that was sent", function()
    near:flush(("unread"):rep(5000))
    pair.await(far)
    far:write("response")
    assert.is_true(far:close())
    assert.same({ n = 2, "response", "eof" }, pair.results(near:read()))
  end)

  it("errors of the two directions are independent", function()
    far:reset()
    pair.await(near)
    assert.same({ nil, RESET, 104 }, { near:read() })
    assert.equal("Broken pipe", select(2, near:flush("x")))
    assert.same({ nil, "Previous read error" }, { near:read_nb(1) })
    assert.same({ nil, "Previous write error" }, { near:flush_nb("x") })
  end)
end)

describe("a local socket", function()
  it("finish: 'simply closes the underlying socket and emulates EOF on subsequent reads'", function()
    local near, far = pair.unix()
    far:flush("unread")
    near:finish()
    assert.same({ n = 2, "", "eof" }, pair.results(near:read()))
    assert.same({ n = 2, "", "eof" }, pair.results(near:read_nb(1, "\n")))
    assert.same({ n = 2, 0, "eof" }, pair.results(near:drain()))
    assert.is_true(moonbridge_io.poll({ [near] = true }, nil, 0))
    assert.same({ n = 2, "", "eof" }, pair.results(far:read()))
    assert.is_nil((far:flush("x")))
    assert.is_true(near:close())
  end)
end)
