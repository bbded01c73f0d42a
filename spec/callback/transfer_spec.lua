-- Transfers between callbacks and handles.

local callback = require "moonbridge_callback"
local callbacks = require "spec.support.callbacks"
local moonbridge_io = require "moonbridge_io"
local pair = require "spec.support.pair"
local process = require "spec.support.process"

local chunks, recorder = callbacks.chunks, callbacks.recorder
local fake_file, scratch = callbacks.fake_file, callbacks.scratch

local handles = {}

local function keep(handle, ...)
  assert(handle, ...)
  handles[#handles + 1] = handle
  return handle
end

-- Two connected handles.
local function connected()
  local here, there = pair.tcp()
  return keep(here), keep(there)
end

after_each(function()
  for _, handle in ipairs(handles) do pcall(handle.reset, handle) end
  handles = {}
  process.forget()
end)

-- Both forms: blocking, and with coroutine.yield as waiting function.
local forms = {
  blocking = {
    receive = callback.receive_from, send = callback.send_to,
    run = function(f, ...) return f(...) end,
  },
  yielding = {
    receive = callback.receive_from_yield, send = callback.send_to_yield,
    run = function(f, ...)
      local thread = coroutine.create(f)
      local results = table.pack(coroutine.resume(thread, ...))
      for _ = 1, 1e5 do
        if coroutine.status(thread) == "dead" then break end
        local _, handle, mode, module = table.unpack(results)
        assert.equal(moonbridge_io, module)
        local set = { [handle] = true }
        assert.truthy(mode == "r" and moonbridge_io.poll(set, nil, 10) or mode == "w" and
          moonbridge_io.poll(nil, set, 10))
        results = table.pack(coroutine.resume(thread))
      end
      if not results[1] then error(results[2], 0) end
      return table.unpack(results, 2, results.n)
    end,
  },
}

for name, form in pairs(forms) do
  describe("receive_from, " .. name, function()
    local function receive(...) return form.run(form.receive, ...) end

    it("receives until EOF and returns the number of bytes", function()
      local here, there = connected()
      there:flush("hello ", "world")
      there:finish()
      local cb, concat = callback.receive.concat()
      assert.equal(11, receive(here, cb))
      assert.equal("hello world", tostring(concat))
    end)

    it("receives exactly the length, and leaves the rest", function()
      local here, there = connected()
      there:flush("hello world\n")
      local cb, concat = callback.receive.concat()
      assert.equal(5, receive(here, cb, 5))
      assert.equal("hello", tostring(concat))
      assert.equal(" world\n", (here:read(nil, "\n")))
    end)

    it("touches nothing for length 0", function()
      local cb, calls = recorder()
      assert.equal(0, receive((connected()), cb, 0))
      assert.same({ { "" } }, calls)
    end)

    it("passes EOF before the length to the callback and returns it", function()
      local here, there = connected()
      there:flush("abc")
      there:finish()
      local cb, calls = recorder()
      local count, message = receive(here, cb, 10)
      assert.is_nil(count)
      assert.equal("connection closed before all data was received", message)
      assert.same({ { "abc" }, { nil, message } }, calls)
    end)

    it("passes an I/O error to the callback and returns it", function()
      local here, there = connected()
      there:reset()
      local cb, calls = recorder()
      local count, message = receive(here, cb)
      assert.is_nil(count)
      assert.equal("Connection reset by peer", message)
      assert.same({ { nil, message } }, calls)
    end)

    it("returns nil and the message of an abort, or its own", function()
      for _, case in ipairs { { { nil, "enough" }, "enough" }, { { nil }, "callback aborted" } } do
        local here, there = connected()
        there:flush("abc")
        local cb, calls = recorder { case[1] }
        assert.same({ nil, case[2] }, { receive(here, cb) })
        assert.equal(1, #calls)
      end
    end)

    it("goes on after any first result but nil", function()
      local here, there = connected()
      there:flush("abc")
      there:finish()
      assert.equal(3, receive(here, function() return false end))
    end)

    it("replaces the callback", function()
      local here, there = connected()
      there:flush("abc")
      there:finish()
      local second, calls = recorder()
      assert.equal(3, receive(here, function() return 1, second end))
      assert.same({ { "" } }, calls)
    end)

    it("ends although a callback replaces itself forever", function()
      local here, there = connected()
      there:flush("abc")
      there:finish()
      local function again() return function() return 1, again() end end
      assert.equal(3, receive(here, again()))
    end)

    it("refuses a second result that is no function", function()
      local here, there = connected()
      there:flush("abc")
      local file = fake_file()
      local store = callback.receive.file(file)
      assert.same({ nil, "receive callback returned a number as second result, expected a function" },
        { receive(here, callback.receive.chain(function(chunk) return chunk end,
          function(chunk, err) store(chunk, err) return 1, 42 end)) })
    end)

    it("lets thrown errors through, and closes files", function()
      local here, there = connected()
      there:flush("abc")
      local thrown = {}
      local ok, what = pcall(receive, here, function() error(thrown) end)
      assert.falsy(ok)
      assert.equal(thrown, what)
      there:flush("abc")
      local file = fake_file()
      file.write = function() error(thrown) end
      ok, what = pcall(receive, here, callback.receive.file(file))
      assert.falsy(ok)
      assert.equal(thrown, what)
      assert.equal(1, file.closed)
    end)

    it("stores into a file", function()
      local here, there = connected()
      local path = scratch()
      there:flush("abc")
      there:finish()
      assert.equal(3, receive(here, callback.receive.file(io.open(path, "wb"))))
      assert.equal("abc", process.slurp(path))
      local count, message = receive(here, callback.receive.file(io.open("/nonexistent/x", "wb")))
      assert.is_nil(count)
      assert.equal("/nonexistent/x: No such file or directory", message)
    end)
  end)

  describe("send_to, " .. name, function()
    local function send(...) return form.run(form.send, ...) end

    it("sends all chunks, flushes, and returns the number of bytes", function()
      local here, there = connected()
      assert.equal(6, send(here, chunks("ab", "cdef")))
      assert.equal("abcdef", (there:read(6)))
    end)

    it("sends nothing for a nil callback", function()
      assert.equal(0, send((connected()), nil))
      assert.equal(0, send((connected()), callback.send.string(nil)))
    end)

    it("keeps the order with what was written before", function()
      local here, there = connected()
      here:write("head\n")
      assert.equal(4, send(here, chunks("body")))
      assert.equal("head\nbody", (there:read(9)))
    end)

    it("returns nil and the message of an abort, or its own", function()
      assert.same({ nil, "enough" }, { send((connected()), function() return nil, "enough" end) })
      assert.same({ nil, "callback aborted" }, { send((connected()), function() return nil end) })
    end)

    it("replaces the callback; an empty chunk is the end in any case", function()
      local here, there = connected()
      assert.equal(2, send(here, function() return "a", chunks("b") end))
      assert.equal("ab", (there:read(2)))
      local function empty() return "", empty end
      assert.equal(0, send(here, empty))
    end)

    it("refuses chunks that are no strings, and replacements that are no functions", function()
      local here = connected()
      for _, bad in ipairs { 42, true, {} } do
        local count, message = send(here, function() return bad end)
        assert.is_nil(count)
        assert.equal(("send callback returned a %s, expected a string"):format(type(bad)), message)
        count, message = send(here, function() return "a", bad end)
        assert.is_nil(count)
        assert.equal(("send callback returned a %s as second result, expected a function"):format(type(bad)),
          message)
      end
    end)

    it("returns an I/O error, and closes files", function()
      local here, there = connected()
      there:reset()
      local text = ("x"):rep(100000)
      local file = fake_file { text, text, text, text }
      local count, message = send(here, callback.send.file(file))
      assert.is_nil(count)
      assert.truthy(message == "Broken pipe" or message == "Connection reset by peer")
      assert.equal(1, file.closed)
    end)

    it("lets thrown errors through", function()
      local thrown = {}
      local ok, what = pcall(send, (connected()), function() error(thrown) end)
      assert.falsy(ok)
      assert.equal(thrown, what)
    end)
  end)
end

describe("transfers that wait", function()
  it("lose and double nothing in either direction, more than the buffers hold", function()
    local here, there = connected()
    local size, sent = 5e6, 0
    local block = {}
    for index = 0, 255 do block[index + 1] = string.char(index) end
    block = table.concat(block):rep(100)
    local sender = coroutine.create(function()
      local count = callback.send_to_yield(here, function()
        if sent >= size then return "" end
        sent = sent + #block
        return block
      end)
      here:finish()
      return count
    end)
    local cb, concat = callback.receive.concat()
    local receiver = coroutine.create(function() return callback.receive_from_yield(there, cb) end)
    local results = {}
    for _ = 1, 1e6 do
      for _, thread in ipairs { sender, receiver } do
        if coroutine.status(thread) == "suspended" then
          local ok, count = coroutine.resume(thread)
          assert.truthy(ok, count)
          if coroutine.status(thread) == "dead" then results[thread] = count end
        end
      end
      if results[sender] and results[receiver] then break end
    end
    assert.equal(sent, results[sender])
    assert.equal(sent, results[receiver])
    assert.equal(block:rep(sent // #block), tostring(concat))
  end)

  it("call the waiting function with socket, mode and module", function()
    local here, there = connected()
    local seen = {}
    local count = callback.receive_from_call(function(...)
      seen[#seen + 1] = { ... }
      there:flush("ab")
    end, here, callback.receive.concat(), 2)
    assert.equal(2, count)
    assert.same({ { here, "r", moonbridge_io } }, seen)
    seen = {}
    local text = ("x"):rep(1e7)
    local received = 0
    count = callback.send_to_call(function(...)
      seen[1] = seen[1] or { ... }
      received = received + #there:read_nb()
    end, here, callback.send.string(text))
    assert.equal(#text, count)
    assert.same({ here, "w", moonbridge_io }, seen[1])
    assert.equal(#text, received + #there:read(#text - received))
  end)

  it("tell the callback of an error thrown while waiting, and pass it on", function()
    local here = connected()
    local thrown = setmetatable({}, { __tostring = function() return "given up" end })
    local cb, calls = recorder()
    local ok, what = pcall(callback.receive_from_call, function() error(thrown) end, here, cb)
    assert.falsy(ok)
    assert.equal(thrown, what)
    assert.same({ { nil, "given up" } }, calls)
    local file = fake_file { ("x"):rep(1e7) }
    ok, what = pcall(callback.send_to_call, function() error(thrown) end, here, callback.send.file(file))
    assert.falsy(ok)
    assert.equal(thrown, what)
    assert.equal(1, file.closed)
  end)

  it("let callbacks yield", function()
    local here, there = connected()
    there:flush("abc")
    there:finish()
    local thread = coroutine.wrap(function()
      return callback.receive_from(here, function(chunk) coroutine.yield(chunk) return 1 end)
    end)
    assert.equal("abc", thread())
    assert.equal("", thread())
    assert.equal(3, thread())
  end)
end)

describe("misuse of transfers", function()
  it("throws a plain string at the caller's position", function()
    local here = connected()
    local cb = function() end
    for _, case in ipairs {
      { callback.receive_from, nil, cb }, { callback.receive_from, here, nil },
      { callback.receive_from, here, cb, -1 }, { callback.receive_from, here, cb, 1.5 },
      { callback.receive_from, here, cb, "5" }, { callback.receive_from, 42, cb },
      { callback.receive_from, here, "cb" }, { callback.receive_from, io.stdout, cb },
      { callback.receive_from_call, nil, here, cb }, { callback.receive_from_yield, here },
      { callback.send_to, nil, cb }, { callback.send_to, here, 42 }, { callback.send_to, here, {} },
      { callback.send_to_call, 1, here, cb }, { callback.send_to_yield, here, "text" },
    } do
      local ok, message = pcall(function() case[1](case[2], case[3], case[4]) end)
      assert.falsy(ok)
      assert.equal("string", type(message))
      assert.truthy(message:find("transfer_spec.lua:%d+: bad argument"), message)
    end
  end)

  it("reads and writes of closed handles throw, as the handle does, and files are closed", function()
    local here = connected()
    here:close()
    local file = fake_file { "a" }
    assert.error_matches(function() callback.send_to(here, callback.send.file(file)) end, "closed I/O handle")
    assert.equal(1, file.closed)
    file = fake_file()
    assert.error_matches(function() callback.receive_from(here, callback.receive.file(file)) end,
      "closed I/O handle")
    assert.equal(1, file.closed)
  end)
end)
