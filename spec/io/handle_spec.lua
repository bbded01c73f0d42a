-- Handles as objects: fields, method tables, misuse, and the standard streams.

local moonbridge_io = require "moonbridge_io"
local pair = require "spec.support.pair"
local process = require "spec.support.process"

-- Runs a program in a Lua of its own; its standard streams are handles of the child.
local function run(program)
  return assert(moonbridge_io.exec(arg[-1], "-e", "local io = require 'moonbridge_io' " .. program))
end

describe("the module", function()
  it("is the same table under both names", function()
    assert.equal(moonbridge_io, require "moonbridge.io")
  end)

  it("works without a supervisor in a plain script", function()
    local child = run "assert(io.poll(nil, nil, 0) == false)"
    assert.same({ "", "eof" }, { child.stderr:read() })
    assert.equal(0, child:wait())
  end)
end)

describe("a handle", function()
  for kind, connected in pairs(pair.kinds) do
    it("has user fields, which stay readable after close: " .. kind, function()
      local near, far = connected()
      local key = {}
      near.session, near[key], near[1] = "abc", true, "one"
      assert.equal("abc", near.session)
      assert.is_nil(far.session)
      near:close()
      assert.same({ "abc", true, "one" }, { near.session, near[key], near[1] })
      near.session = nil
      assert.is_nil(near.session)
      assert.has_error(function() near[nil] = 1 end)
    end)

    it("may have a method replaced for itself alone: " .. kind, function()
      local near, far = connected()
      near.read = function() return "mine" end
      assert.equal("mine", near:read())
      near:flush("theirs")
      assert.equal("theirs", (far:read(6)))
      near.read = nil
      far:flush("back")
      assert.equal("back", (near:read(4)))
    end)

    it("ends when it is collected, with and without user fields: " .. kind, function()
      for _, field in ipairs { false, true } do
        local near, far = connected()
        if field then near.field = field end
        near = nil -- luacheck: ignore 311
        collectgarbage()
        collectgarbage()
        assert.matches(kind == "TCP" and "reset" or "eof", (select(2, far:read())))
      end
    end)

    it("has the methods that are added to handle_pt: " .. kind, function()
      local near = connected()
      function moonbridge_io.handle_pt.hello(self) return "hello from " .. tostring(self.local_ip) end
      assert.equal("hello from " .. (kind == "TCP" and "127.0.0.1" or "nil"), near:hello())
      near.local_ip = "here"
      assert.equal("hello from here", near:hello())
      local hello = moonbridge_io.handle_pt.hello
      moonbridge_io.handle_pt.hello = function(self) return hello(self) .. "!" end
      assert.equal("hello from here!", near:hello())
      moonbridge_io.handle_pt.hello = nil
      assert.is_nil(near.hello)
    end)
  end

  it("is one of three classes, each with a table of methods", function()
    assert.equal("function", type(moonbridge_io.handle_pt.read))
    assert.equal("function", type(moonbridge_io.listener_pt.accept))
    assert.equal("function", type(moonbridge_io.child_pt.wait))
  end)

  it("has no interval unless the server set one", function()
    for _, connected in pairs(pair.kinds) do
      local near = connected()
      assert.same({}, { near.interval, near.wakeup, near[1], near[near], near[0 / 0] })
    end
  end)

  it("names its type", function()
    for _, connected in pairs(pair.kinds) do
      assert.matches("^moonbridge.io.handle: ", tostring(connected()))
      assert.is_false(getmetatable(connected()))
    end
  end)

  it("is refused as self if it is something else", function()
    local near = pair.tcp()
    local listener = moonbridge_io.tcplisten("127.0.0.1", 0)
    for name, method in pairs(moonbridge_io.handle_pt) do
      if name ~= "__close" then
        for _, wrong in ipairs { 5, "x", {}, io.stdout, listener } do
          local ok, message = pcall(function()
            if name == "source" or name == "sink" then method(wrong)() else method(wrong, print) end
          end)
          assert.is_false(ok, name)
          assert.equal("string", type(message))
          assert.matches("^spec/io/handle_spec.lua:%d+: calling '.*' on bad self", message)
        end
      end
    end
    assert.has_error(function() moonbridge_io.child_pt.wait(near) end)
    assert.has_error(function() moonbridge_io.listener_pt.accept(near) end)
  end)

  it("refuses wrong lengths and terminators at the caller's position", function()
    local near, far = pair.tcp()
    near:flush("data")
    pair.await(far)
    for _, name in ipairs { "read", "read_nb", "drain", "drain_nb" } do
      for _, wrong in ipairs {
        { {} }, { "x" }, { 1.5 }, { true }, { 1, "ab" }, { 1, {} }, { nil, true }, { nil, 10 },
      } do
        local ok, message = pcall(function() far[name](far, wrong[1], wrong[2]) end)
        assert.is_false(ok)
        assert.matches("^spec/io/handle_spec.lua:%d+: bad argument #%d to '" .. name .. "'", message)
      end
    end
    assert.equal("data", (far:read(4)))
  end)

  it("costs less than 1 KiB until data flows", function()
    local program = [[
      local function resident()
        for line in require("_G").io.lines("/proc/self/status") do
          local size = line:match("VmRSS:%s+(%d+)")
          if size then return tonumber(size) end
        end
      end
      local path = os.tmpname()
      os.remove(path)
      local listener = io.locallisten(path)
      local handles = { io.localconnect(path), listener:accept() }
      for i = 3, 1200, 2 do handles[i], handles[i + 1] = io.localconnect(path), listener:accept() end
      collectgarbage()
      local before = resident()
      for i = 1201, 9000, 2 do handles[i], handles[i + 1] = io.localconnect(path), listener:accept() end
      collectgarbage()
      os.remove(path)
      print((resident() - before) * 1024 // 7800)
    ]]
    local limit = tonumber((select(2, process.run("ulimit -n"))))
    if not limit or limit < 10000 then pending("only " .. tostring(limit) .. " descriptors allowed") end
    local child = run(program)
    local cost = tonumber((child.stdout:read()))
    assert.is_true(cost < 1024, "each handle costs " .. tostring(cost) .. " bytes")
    child:wait()
  end)
end)

describe("the standard streams", function()
  it("'moonbridge_io.stdin, .stdout, .stderr' are handles on descriptors 0, 1, 2", function()
    assert.same({ 0, 1, 2 }, {
      moonbridge_io.stdin:getfd(), moonbridge_io.stdout:getfd(), moonbridge_io.stderr:getfd(),
    })
    local child = run "io.stdout:flush('out:', (io.stdin:read())) io.stderr:flush('err')"
    child.stdin:write("input")
    child.stdin:finish()
    assert.equal("out:input", (child.stdout:read()))
    assert.equal("err", (child.stderr:read()))
    assert.equal(0, child:wait())
  end)

  it("work with pipes and files, without changing their flags for other processes", function()
    local lua = process.quote(arg[-1])
    local program = process.quote [[
      local io = require "moonbridge_io"
      local all = io.stdin:read()
      io.stdout:write(all, all)
      io.stdout:flush(#all, "\n")
      io.stdout:close()
    ]]
    local code, output = process.run(
      "head -c 200000 /dev/zero | tr '\\0' x | " .. lua .. " -e " .. program .. " | tail -c 7")
    assert.equal(0, code)
    assert.equal("200000\n", output)
    local path = process.scratch("stdin")
    local file = assert(io.open(path, "w"))
    file:write("from a file")
    file:close()
    code, output = process.run(lua .. " -e " .. program .. " < " .. process.quote(path))
    assert.equal(0, code)
    assert.equal("from a filefrom a file11\n", output)
  end)

  it("writing to a broken pipe is an error and no signal", function()
    local program = process.quote [[
      local io = require "moonbridge_io"
      local results
      repeat results = table.pack(io.stdout:flush(("x"):rep(5000))) until results[1] == nil
      io.stderr:flush(results[2], "\n")
    ]]
    local command = process.quote(arg[-1]) .. " -e " .. program
    local _, output = process.run("{ { " .. command .. "; echo code $? >&2; } | true; } 2>&1")
    assert.equal("Broken pipe\ncode 0\n", output)
  end)
end)

if _VERSION ~= "Lua 5.3" then
  describe("a variable <close>", function()
    it("closes the connection, or resets it when an error passes", function()
      local near, far = pair.tcp()
      assert(load("local socket <close> = ... socket:write('done')"))(near)
      assert.same({ "done", "eof" }, { far:read() })
      near, far = pair.tcp()
      pcall(assert(load("local socket <close> = ... error('no')")), near)
      assert.is_nil((far:read()))
    end)
  end)
end
