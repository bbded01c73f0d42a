-- Reference, "Socket object": *_call and *_yield, which wait by a function of the user's.

local moonbridge_io = require "moonbridge_io"
local pair = require "spec.support.pair"
local process = require "spec.support.process"

local HUGE = ("0123456789abcdef"):rep(256 * 1024)

-- Resumes coroutines whenever what they wait for may be there, until all have ended.
local function schedule(...)
  local threads = {}
  for index, body in ipairs { ... } do threads[index] = { coroutine = coroutine.create(body) } end
  local deadline = moonbridge_io.timeref() + process.TIMEOUT
  while #threads > 0 do
    local sets = { r = {}, w = {} }
    for index = #threads, 1, -1 do
      local thread = threads[index]
      local ok, handle, mode = coroutine.resume(thread.coroutine)
      assert(ok, handle)
      if coroutine.status(thread.coroutine) == "dead" then
        table.remove(threads, index)
      else
        sets[mode][handle] = true
      end
    end
    if #threads > 0 then
      assert(moonbridge_io.poll(sets.r, sets.w, deadline - moonbridge_io.timeref()))
    end
  end
end

for kind, connect in pairs(pair.kinds) do
  describe("waiting by a function, on a " .. kind, function()
    local near, far

    before_each(function() near, far = connect() end)

    it("read_call: 'calls waitfunc(socket, \"r\", moonbridge_io)'", function()
      local calls = 0
      local function waitfunc(...)
        calls = calls + 1
        assert.same({ n = 3, far, "r", moonbridge_io }, table.pack(...))
        near:flush(calls < 3 and "part " or "end\nmore")
        moonbridge_io.poll({ [far] = true })
      end
      assert.same({ n = 2, "part part end\n", "term" }, pair.results(far:read_call(waitfunc, nil, "\n")))
      assert.equal(3, calls)
      assert.same({ n = 2, "mo", "maxlen" }, pair.results(far:read_call(waitfunc, 2)))
      assert.equal(3, calls)
    end)

    it("looks at the waitfunc only when it is needed", function()
      near:flush("abc\ndef\n")
      pair.await(far)
      assert.same({ n = 2, "abc\n", "term" }, pair.results(far:read_call(nil, nil, "\n")))
      assert.same({ n = 2, 4, "term" }, pair.results(far:drain_call(nil, nil, "\n")))
      assert.equal(far, far:write_call(nil, "x"))
      assert.equal(far, far:flush_call(nil, "x"))
      for _, name in ipairs { "read_call", "drain_call" } do
        local ok, message = pcall(function() far[name](far, nil, 1) end)
        assert.is_false(ok)
        assert.matches("^spec/io/call_spec.lua:%d+: bad argument #1 to '" .. name .. "'", message)
      end
    end)

    it("counts the waitfunc as first argument", function()
      for _, name in ipairs { "read_call", "drain_call" } do
        local ok, message = pcall(function() far[name](far, error, {}) end)
        assert.is_false(ok)
        assert.matches("bad argument #2 to '" .. name .. "' %(number expected, got table%)$", message)
      end
      for _, name in ipairs { "write_call", "flush_call" } do
        local ok, message = pcall(function() far[name](far, error, "a", {}) end)
        assert.is_false(ok)
        assert.matches("bad argument #3 to '" .. name .. "' %(string expected, got table%)$", message)
      end
    end)

    it("read_call: a poll in the waitfunc waits for more than what is already there", function()
      near:flush("incomplete")
      pair.await(far)
      local rounds = 0
      local function waitfunc(socket)
        rounds = rounds + 1
        assert.same({ false, "Timeout" }, { moonbridge_io.poll({ [socket] = true }, nil, 0.01) })
        near:flush("\n")
      end
      assert.equal("incomplete\n", (far:read_call(waitfunc, nil, "\n")))
      assert.equal(1, rounds)
    end)

    it("read_call: keeps what was read if the waitfunc throws", function()
      near:flush("kept")
      pair.await(far)
      local object = setmetatable({}, {})
      local ok, thrown = pcall(far.read_call, far, function() error(object) end, nil, "\n")
      assert.is_false(ok)
      assert.equal(object, thrown)
      assert.is_true(moonbridge_io.poll({ [far] = true }, nil, 0))
      assert.same({ n = 2, "kept", "block" }, pair.results(far:read_nb()))
    end)

    it("read_call: keeps what was read if the coroutine is never resumed", function()
      near:flush("kept")
      pair.await(far)
      local thread = coroutine.wrap(function() far:read_yield(nil, "\n") end)
      assert.equal(far, (thread()))
      near:flush(" too\n")
      assert.equal("kept too\n", (far:read(nil, "\n")))
    end)

    it("read_yield: keeps what was read, ready for poll, if it cannot yield", function()
      near:flush("kept")
      pair.await(far)
      local ok, message = pcall(string.gsub, "x", "x", function() far:read_yield(nil, "\n") end)
      assert.is_false(ok)
      assert.matches("attempt to yield", message)
      assert.is_true(moonbridge_io.poll({ [far] = true }, nil, 0))
      assert.same({ n = 2, "kept", "block" }, pair.results(far:read_nb()))
    end)

    it("drain_call: counts all it discards", function()
      local calls = 0
      local function waitfunc(socket, mode, module)
        assert.same({ far, "r", moonbridge_io }, { socket, mode, module })
        calls = calls + 1
        near:flush(calls == 1 and "12345" or "678\nrest")
        pair.await(far)
      end
      assert.same({ n = 2, 9, "term" }, pair.results(far:drain_call(waitfunc, nil, "\n")))
      assert.same({ n = 2, 4, "maxlen" }, pair.results(far:drain_call(waitfunc, 4)))
      assert.equal(2, calls)
      calls = 0
      assert.same({ n = 2, 7, "maxlen" }, pair.results(far:drain_call(waitfunc, 7)))
      assert.equal("8\nrest", (far:read(6)))
      near:close()
      assert.same({ n = 2, 0, "eof" }, pair.results(far:drain_call(waitfunc)))
    end)

    it("flush_call: 'calls waitfunc(socket, \"w\", moonbridge_io)'", function()
      local pieces = {}
      local function waitfunc(...)
        assert.same({ n = 3, near, "w", moonbridge_io }, table.pack(...))
        pieces[#pieces + 1] = far:read_nb()
      end
      assert.same({ n = 1, near }, pair.results(near:flush_call(waitfunc, HUGE, "tail")))
      near:close()
      pieces[#pieces + 1] = far:read()
      assert.is_true(table.concat(pieces) == HUGE .. "tail")
    end)

    it("write_call: the same, but for a small buffered portion", function()
      near:write_call(error, "small")
      assert.equal("", (far:read_nb()))
      local pieces = {}
      near:write_call(function() pieces[#pieces + 1] = far:read_nb() end, HUGE)
      near:close()
      pieces[#pieces + 1] = far:read()
      assert.is_true(table.concat(pieces) == "small" .. HUGE)
    end)

    it("*_yield: 'Alias for socket:*_call(coroutine.yield, ...)', also through pcall", function()
      local got = {}
      local function writer()
        for i = 1, 50 do
          local ok, result = pcall(near.flush_yield, near, ("x"):rep(i * 997), "\n")
          assert(ok and result == near)
        end
        near:write_yield(HUGE)
        near:flush_yield()
        near:close()
      end
      local function reader()
        for i = 1, 50 do
          local data, status = select(2, pcall(far.read_yield, far, nil, "\n"))
          assert(status == nil or status == "term")
          got[i] = #data
        end
        got[51], got[52] = far:drain_yield(1000)
        got[53] = select(2, coroutine.wrap(function() return pcall(far.read_nb, far, 1) end)())
        got[54], got[55] = far:drain_yield()
      end
      schedule(writer, reader)
      for i = 1, 50 do assert.equal(i * 997 + 1, got[i]) end
      assert.same({ 1000, "maxlen" }, { got[51], got[52] })
      assert.same({ #HUGE - 1001, "eof" }, { got[54] + #got[53] - 1, got[55] })
    end)

    it("throws at the caller's position also when it has waited", function()
      for _, name in ipairs { "read_yield", "drain_yield", "flush_yield" } do
        local one, other = connect()
        local waiting = coroutine.create(function()
          return one[name](one, name == "flush_yield" and ("x"):rep(10000000) or 5)
        end)
        local mode = name == "flush_yield" and "w" or "r"
        assert.same({ true, one, mode, moonbridge_io }, { coroutine.resume(waiting) })
        one:reset()
        local ok, message = coroutine.resume(waiting)
        assert.is_false(ok)
        assert.matches("^spec/io/call_spec.lua:%d+: Attempt to %a+ %a+ a closed I/O handle$", message)
        other:reset()
      end
    end)

    it("errors of the system are returned, misuse is thrown at the caller's position", function()
      local function misuse(name, ...)
        local arguments = table.pack(...)
        local ok, message = pcall(function()
          far[name](far, print, table.unpack(arguments, 1, arguments.n))
        end)
        assert.is_false(ok)
        assert.matches("^spec/io/call_spec.lua:%d+: bad argument", message)
      end
      misuse("read_call", {})
      misuse("read_call", 1, "ab")
      misuse("drain_call", "x")
      misuse("write_call", print)
      misuse("flush_call", "ok", false)
      for _, name in ipairs { "read_yield", "drain_yield", "write_yield", "flush_yield" } do misuse(name) end
      near:reset()
      assert(process.wait_until(function()
        local results = pair.results(far:flush_call(print, "x"))
        return results[1] == nil and results.n == 3
      end))
    end)
  end)
end
