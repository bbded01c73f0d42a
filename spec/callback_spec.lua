-- "Streaming with Callbacks": the protocol, the predefined callbacks, chains, conversions for ltn12, and
-- transfers over handles.

local callback = require "moonbridge_callback"
local ltn12 = require "ltn12"
local mime = require "mime"
local moonbridge_io = require "moonbridge_io"
local process = require "spec.support.process"
local server = require "spec.support.server"

-- A receive callback that notes its calls, and the notes.
local function recorder(results)
  local calls = {}
  return function(chunk, err)
    calls[#calls + 1] = { chunk, err }
    if results and results[#calls] then return table.unpack(results[#calls], 1, 2) end
    return true
  end, calls
end

-- A send callback for the chunks given, then "".
local function chunks(...)
  local list, index = { ... }, 0
  return function()
    index = index + 1
    return list[index] or ""
  end
end

-- All that a send callback gives.
local function drain(send_cb)
  local parts = {}
  for _ = 1, 1e5 do
    local chunk, err_or_f = send_cb()
    if chunk == nil then return nil, err_or_f end
    if chunk == "" then return table.concat(parts) end
    parts[#parts + 1] = chunk
    send_cb = err_or_f or send_cb
  end
  error("the callback does not end")
end

-- A file object that tells what was done with it.
local function fake_file(options)
  options = options or {}
  local file = { written = {}, closed = 0 }
  function file:write(chunk)
    if options.full and #self.written >= options.full then return nil, "No space left on device", 28 end
    table.insert(self.written, chunk)
    return self
  end
  function file.read()
    if options.broken then return nil, "Input/output error", 5 end
    return table.remove(options, 1)
  end
  function file:close()
    self.closed = self.closed + 1
    if options.close_fails then return nil, "Disk quota exceeded", 122 end
    return true
  end
  return file
end

local function scratch(text)
  local path = process.scratch("callback")
  local file = assert(io.open(path, "wb"))
  file:write(text or "")
  file:close()
  return path
end

local handles = {}

local function keep(handle, ...)
  assert(handle, ...)
  handles[#handles + 1] = handle
  return handle
end

-- Two connected handles.
local function pair()
  local port = server.free_port()
  local listener = assert(moonbridge_io.tcplisten("127.0.0.1", port))
  local here = keep(moonbridge_io.tcpconnect("127.0.0.1", port))
  local there = keep(listener:accept())
  listener:close()
  return here, there
end

after_each(function()
  for _, handle in ipairs(handles) do pcall(handle.reset, handle) end
  handles = {}
  process.forget()
end)

describe("the module", function()
  it("has the same table under both names", function()
    assert.equal(require "moonbridge.callback", callback)
  end)
end)

describe("receive.concat", function()
  it("follows the document's own example", function()
    local cb, concat = callback.receive.concat()
    assert.equal(1, cb("ab"))
    assert.equal(1, cb("c"))
    assert.equal(0, select("#", cb("")))
    assert.equal("abc", concat:getresult())
    assert.equal("abc", tostring(concat))
    assert.equal("abc", concat:getresult())
  end)

  it("is empty before the first chunk", function()
    local _, concat = callback.receive.concat()
    assert.equal("", concat:getresult())
    assert.equal("", tostring(concat))
  end)

  it("takes any object with addstring", function()
    local object = { text = "" }
    function object:addstring(chunk) self.text = self.text .. chunk .. ";" end
    local cb, same = callback.receive.concat(object)
    assert.equal(object, same)
    cb("a") cb("b") cb("")
    assert.equal("a;b;", object.text)
  end)

  it("ignores an error", function()
    local cb, concat = callback.receive.concat()
    cb("a")
    cb(nil, "no more")
    assert.equal("a", concat:getresult())
  end)
end)

describe("receive.file", function()
  it("takes the results of io.open, writes and closes the file at the end", function()
    local path = scratch()
    local cb = callback.receive.file(io.open(path, "wb"))
    assert.truthy(cb("ab"))
    assert.truthy(cb("\0c"))
    assert.truthy(cb(""))
    assert.equal("ab\0c", process.slurp(path))
  end)

  it("aborts with the message of io.open", function()
    local cb = callback.receive.file(io.open("/nonexistent/file", "wb"))
    assert.same({ nil, "/nonexistent/file: No such file or directory" }, { cb("a") })
    assert.same({ nil, "unable to open file" }, { callback.receive.file(nil)("a") })
  end)

  it("closes the file when a write fails", function()
    local file = fake_file { full = 1 }
    local cb = callback.receive.file(file)
    assert.truthy(cb("a"))
    assert.same({ nil, "No space left on device" }, { cb("b") })
    assert.equal(1, file.closed)
  end)

  it("closes the file after an error, once", function()
    local file = fake_file()
    local cb = callback.receive.file(file)
    cb(nil, "reset")
    cb(nil, "reset")
    assert.equal(1, file.closed)
  end)

  it("reports that closing failed", function()
    local cb = callback.receive.file(fake_file { close_fails = true })
    cb("a")
    local ret, message = cb("")
    assert.is_nil(ret)
    assert.equal("Disk quota exceeded", message)
  end)
end)

describe("send.file", function()
  it("sends the contents, chunk by chunk, and closes the file when done", function()
    local text = ("0123456789abcdef"):rep(10000)
    local file = io.open(scratch(text), "rb")
    assert.equal(text, drain(callback.send.file(file)))
    assert.equal("closed file", io.type(file))
  end)

  it("stays at the end", function()
    local cb = callback.send.file(io.open(scratch("x")))
    assert.equal("x", cb())
    assert.equal("", cb())
    assert.equal("", cb())
  end)

  it("aborts with the message of io.open", function()
    local cb = callback.send.file(io.open("/nonexistent/file"))
    assert.same({ nil, "/nonexistent/file: No such file or directory" }, { cb() })
    assert.same({ nil, "unable to open file" }, { callback.send.file(nil)() })
  end)

  it("does not take a read error for the end, and closes the file", function()
    local file = fake_file { broken = true }
    assert.same({ nil, "Input/output error" }, { callback.send.file(file)() })
    assert.equal(1, file.closed)
    assert.same({ nil, "Is a directory" }, { drain(callback.send.file(io.open("/"))) })
  end)
end)

describe("send.string", function()
  it("sends the string", function()
    assert.equal("abc", drain(callback.send.string("abc")))
    assert.equal("", drain(callback.send.string("")))
  end)

  it("is nil for nil", function()
    assert.is_nil(callback.send.string(nil))
    assert.is_nil(callback.send.chain(callback.send.string(nil), mime.encode("base64")))
  end)

  it("throws for other types, at the caller's position", function()
    local ok, message = pcall(function() callback.send.string({}) end)
    assert.falsy(ok)
    assert.truthy(message:find("^[^ ]*callback_spec.lua:%d+: bad argument #1 to 'string'"))
  end)
end)

describe("chains with LuaSocket's filters", function()
  local text = ("Ein Sätzchen = mit \"allem\",\nZeilen\r\nund\tBlanks \n"):rep(40) .. "\0\1\2"

  -- name → function that makes the filter; each is stateful, so it is made anew
  local filters = {
    ["base64"] = function() return mime.encode("base64") end,
    ["quoted-printable"] = function() return mime.encode("quoted-printable") end,
    ["end of line"] = function() return mime.normalize("\r\n") end,
    ["wrap"] = function() return mime.wrap("text", 20) end,
    ["stuff"] = function() return mime.stuff() end,
    ["base64, wrapped"] = function()
      return ltn12.filter.chain(mime.encode("base64"), mime.wrap("base64"))
    end,
    ["eol, base64, back"] = function()
      return ltn12.filter.chain(mime.normalize(), mime.encode("base64"), mime.decode("base64"))
    end,
    ["upper case"] = function() return function(chunk) return chunk and chunk:upper() end end,
  }

  -- What LuaSocket itself makes of it.
  local function expected(filter, pieces)
    local sink, out = ltn12.sink.table()
    ltn12.pump.all(ltn12.source.table(pieces), ltn12.sink.chain(filter, sink))
    return table.concat(out)
  end

  local function cut(size)
    local pieces = {}
    for index = 1, #text, size do pieces[#pieces + 1] = text:sub(index, index + size - 1) end
    return pieces
  end

  for name, make in pairs(filters) do
    for _, size in ipairs { 1, 2, 3, 7, 64, 100000 } do
      it(("%s in pieces of %d"):format(name, size), function()
        local pieces = cut(size)
        local wanted = expected(make(), pieces)
        assert.equal(wanted, drain(callback.send.chain(chunks(table.unpack(pieces)), make())))
        local inner, concat = callback.receive.concat()
        local cb = callback.receive.chain(make(), inner)
        for _, piece in ipairs(pieces) do assert.truthy(cb(piece)) end
        cb("")
        assert.equal(wanted, concat:getresult())
      end)
    end
  end

  it("flushes what is left at the end, also after no data", function()
    assert.equal(mime.b64("a"), drain(callback.send.chain(callback.send.string("a"), mime.encode("base64"))))
    assert.equal("", drain(callback.send.chain(callback.send.string(""), mime.encode("base64"))))
    local function trailer(chunk) return chunk or "END" end
    assert.equal("abEND", drain(callback.send.chain(chunks("a", "b"), trailer)))
    local inner, calls = recorder()
    local cb = callback.receive.chain(trailer, inner)
    cb("a") cb("")
    assert.same({ { "a" }, { "END" }, { "" } }, calls)
  end)

  it("calls a filter once for each chunk and once with nil", function()
    local seen = {}
    local function filter(chunk)
      seen[#seen + 1] = chunk or "nil"
      return chunk and "<" .. chunk .. ">" or "."
    end
    assert.equal("<a><b>.", drain(callback.send.chain(chunks("a", "b"), filter)))
    assert.same({ "a", "b", "nil" }, seen)
  end)

  it("never passes on an empty chunk before the end", function()
    local inner, calls = recorder()
    local cb = callback.receive.chain(mime.encode("base64"), inner)
    cb("a") cb("b") cb("c") cb("")
    assert.same({ { "YWJj" }, { "" } }, calls)
  end)

  it("can be nested", function()
    local send_cb = callback.send.chain(callback.send.chain(chunks("a", "bc"), mime.encode("base64")),
      mime.decode("base64"))
    assert.equal("abc", drain(send_cb))
  end)

  it("follows replaced callbacks", function()
    local function second() return "", nil end
    assert.equal("AB", drain(callback.send.chain(function()
      return "a", chunks("b", "")
    end, function(chunk) return chunk and chunk:upper() end)))
    assert.equal("A", drain(callback.send.chain(function() return "a", second end, string.upper and
      function(chunk) return chunk and chunk:upper() end)))
    local other, calls = recorder()
    local cb = callback.receive.chain(function(chunk) return chunk end, function() return 1, other end)
    cb("a") cb("b") cb("")
    assert.same({ { "b" }, { "" } }, calls)
  end)

  it("passes aborts on", function()
    local function enough() return nil, "enough" end
    assert.same({ nil, "enough" }, { callback.send.chain(enough, mime.stuff())() })
    local cb = callback.receive.chain(function(chunk) return chunk end, function() return nil, "full" end)
    assert.same({ nil, "full" }, { cb("a") })
  end)

  it("passes errors to the callback behind the filter, without flushing", function()
    local inner, calls = recorder()
    local cb = callback.receive.chain(mime.encode("base64"), inner)
    cb("a")
    cb(nil, "reset by peer")
    assert.same({ { nil, "reset by peer" } }, calls)
  end)
end)

describe("filters that fail", function()
  local function refuses(chunk) return chunk and not chunk:find("!") and chunk or nil, "odd data" end

  it("abort with their message, or say what was wrong", function()
    for _, case in ipairs {
      { refuses, "odd data" },
      { function() return nil end, "filter returned nil before the end" },
      { function() return 42 end, "filter returned a number, expected a string" },
      { function() return {} end, "filter returned a table, expected a string" },
    } do
      assert.same({ nil, case[2] }, { drain(callback.send.chain(chunks("a", "!"), case[1])) })
      local inner, calls = recorder()
      local cb = callback.receive.chain(case[1], inner)
      assert.same({ nil, case[2] }, { cb("!") })
      assert.same({ nil, case[2] }, calls[#calls])
    end
  end)

  it("close the files at both ends", function()
    local source, target = fake_file { "a", "!" }, fake_file()
    assert.is_nil((drain(callback.send.chain(callback.send.file(source), refuses))))
    assert.equal(1, source.closed)
    local cb = callback.receive.chain(refuses, callback.receive.file(target))
    cb("a") cb("!")
    assert.equal(1, target.closed)
  end)

  it("may throw anything, which passes through; files are closed", function()
    local thrown = { code = 7 }
    local function throws(chunk) if chunk == "!" then error(thrown) end return chunk end
    local source, target = fake_file { "a", "!" }, fake_file()
    local ok, what = pcall(drain, callback.send.chain(callback.send.file(source), throws))
    assert.same({ false, thrown }, { ok, what })
    assert.equal(thrown, what)
    assert.equal(1, source.closed)
    local cb = callback.receive.chain(throws, callback.receive.file(target))
    cb("a")
    ok, what = pcall(cb, "!")
    assert.falsy(ok)
    assert.equal(thrown, what)
    assert.equal(1, target.closed)
  end)

  it("are asked for at once where they are missing", function()
    assert.has_error(function() callback.send.chain(chunks("a")) end)
    assert.has_error(function() callback.receive.chain(nil, function() end) end)
    assert.has_error(function() callback.receive.chain(function() end) end)
  end)
end)

describe("conversions for ltn12", function()
  it("from_source: a source becomes a send callback", function()
    assert.equal("abc", drain(callback.from_source(ltn12.source.string("abc"))))
    assert.equal("", drain(callback.from_source(ltn12.source.empty())))
    assert.same({ nil, "bad" }, { drain(callback.from_source(ltn12.source.error("bad"))) })
    assert.equal("ab", drain(callback.from_source(ltn12.source.table { "a", "", "b" })))
    assert.is_nil(callback.from_source(nil))
  end)

  it("from_source: a fancy source replaces itself; a source may be a callable table", function()
    local function fancy() return "a", ltn12.source.string("b") end
    assert.equal("ab", drain(callback.from_source(fancy)))
    local object = setmetatable({ "x", "y" }, { __call = function(self) return table.remove(self, 1) end })
    assert.equal("xy", drain(callback.from_source(object)))
  end)

  it("to_source: a send callback becomes a source", function()
    local function pumped(send_cb)
      local sink, out = ltn12.sink.table()
      local ok, message = ltn12.pump.all(callback.to_source(send_cb), sink)
      return ok and table.concat(out), message
    end
    assert.equal("abc", (pumped(chunks("ab", "c"))))
    assert.equal("", (pumped(nil)))
    assert.equal("ab", (pumped(function() return "a", chunks("b") end)))
    assert.same({ nil, "bad" }, { pumped(function() return nil, "bad" end) })
    assert.same({ nil, "callback aborted" }, { pumped(function() return nil end) })
  end)

  it("from_sink: a sink becomes a receive callback", function()
    local sink, out = ltn12.sink.table()
    local cb = callback.from_sink(sink)
    cb("a") cb("b")
    assert.equal(1, cb(""))
    assert.same({ "a", "b" }, out)
    local path = scratch()
    cb = callback.from_sink(ltn12.sink.file(io.open(path, "wb")))
    cb("text") cb("")
    assert.equal("text", process.slurp(path))
    assert.same({ nil, "bad" }, { callback.from_sink(ltn12.sink.error("bad"))("a") })
    local seen
    callback.from_sink(function(_, err) seen = err return 1 end)(nil, "reset")
    assert.equal("reset", seen)
  end)

  it("from_sink: a fancy sink replaces itself", function()
    local sink, out = ltn12.sink.table()
    local cb = callback.from_sink(function() return 1, sink end)
    cb("a") cb("b")
    assert.same({ "b" }, out)
  end)

  it("to_sink: a receive callback becomes a sink", function()
    local cb, calls = recorder()
    assert.equal(1, (ltn12.pump.all(ltn12.source.table { "a", "", "b" }, callback.to_sink(cb))))
    assert.same({ { "a" }, { "b" }, { "" } }, calls)
    cb, calls = recorder()
    ltn12.pump.all(ltn12.source.error("bad"), callback.to_sink(cb))
    assert.same({ { nil, "bad" } }, calls)
    local aborting = callback.to_sink(function() return nil end)
    assert.same({ nil, "callback aborted" }, { ltn12.pump.all(ltn12.source.string("a"), aborting) })
    local concat_cb, concat = callback.receive.concat()
    assert.equal(1, (ltn12.pump.all(ltn12.source.string("abc"), callback.to_sink(concat_cb))))
    assert.equal("abc", concat:getresult())
  end)

  it("round trip", function()
    assert.equal("abc", drain(callback.from_source(callback.to_source(chunks("a", "bc")))))
    local cb, calls = recorder()
    local same = callback.from_sink(callback.to_sink(cb))
    same("a") same("")
    assert.same({ { "a" }, { "" } }, calls)
  end)
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
      local here, there = pair()
      there:flush("hello ", "world")
      there:finish()
      local cb, concat = callback.receive.concat()
      assert.equal(11, receive(here, cb))
      assert.equal("hello world", tostring(concat))
    end)

    it("receives exactly the length, and leaves the rest", function()
      local here, there = pair()
      there:flush("hello world\n")
      local cb, concat = callback.receive.concat()
      assert.equal(5, receive(here, cb, 5))
      assert.equal("hello", tostring(concat))
      assert.equal(" world\n", (here:read(nil, "\n")))
    end)

    it("touches nothing for length 0", function()
      local cb, calls = recorder()
      assert.equal(0, receive((pair()), cb, 0))
      assert.same({ { "" } }, calls)
    end)

    it("passes EOF before the length to the callback and returns it", function()
      local here, there = pair()
      there:flush("abc")
      there:finish()
      local cb, calls = recorder()
      local count, message = receive(here, cb, 10)
      assert.is_nil(count)
      assert.equal("connection closed before all data was received", message)
      assert.same({ { "abc" }, { nil, message } }, calls)
    end)

    it("passes an I/O error to the callback and returns it", function()
      local here, there = pair()
      there:reset()
      local cb, calls = recorder()
      local count, message = receive(here, cb)
      assert.is_nil(count)
      assert.equal("Connection reset by peer", message)
      assert.same({ { nil, message } }, calls)
    end)

    it("returns nil and the message of an abort, or its own", function()
      for _, case in ipairs { { { nil, "enough" }, "enough" }, { { nil }, "callback aborted" } } do
        local here, there = pair()
        there:flush("abc")
        local cb, calls = recorder { case[1] }
        assert.same({ nil, case[2] }, { receive(here, cb) })
        assert.equal(1, #calls)
      end
    end)

    it("goes on after any first result but nil", function()
      local here, there = pair()
      there:flush("abc")
      there:finish()
      assert.equal(3, receive(here, function() return false end))
    end)

    it("replaces the callback", function()
      local here, there = pair()
      there:flush("abc")
      there:finish()
      local second, calls = recorder()
      assert.equal(3, receive(here, function() return 1, second end))
      assert.same({ { "" } }, calls)
    end)

    it("ends although a callback replaces itself for ever", function()
      local here, there = pair()
      there:flush("abc")
      there:finish()
      local function again() return function() return 1, again() end end
      assert.equal(3, receive(here, again()))
    end)

    it("refuses a second result that is no function", function()
      local here, there = pair()
      there:flush("abc")
      local file = fake_file()
      local store = callback.receive.file(file)
      assert.same({ nil, "receive callback returned a number as second result, expected a function" },
        { receive(here, callback.receive.chain(function(chunk) return chunk end,
          function(chunk, err) store(chunk, err) return 1, 42 end)) })
    end)

    it("lets thrown errors through, and closes files", function()
      local here, there = pair()
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
      local here, there = pair()
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
      local here, there = pair()
      assert.equal(6, send(here, chunks("ab", "cdef")))
      assert.equal("abcdef", (there:read(6)))
    end)

    it("sends nothing for a nil callback", function()
      assert.equal(0, send((pair()), nil))
      assert.equal(0, send((pair()), callback.send.string(nil)))
    end)

    it("keeps the order with what was written before", function()
      local here, there = pair()
      here:write("head\n")
      assert.equal(4, send(here, chunks("body")))
      assert.equal("head\nbody", (there:read(9)))
    end)

    it("returns nil and the message of an abort, or its own", function()
      assert.same({ nil, "enough" }, { send((pair()), function() return nil, "enough" end) })
      assert.same({ nil, "callback aborted" }, { send((pair()), function() return nil end) })
    end)

    it("replaces the callback; an empty chunk is the end in any case", function()
      local here, there = pair()
      assert.equal(2, send(here, function() return "a", chunks("b") end))
      assert.equal("ab", (there:read(2)))
      local function empty() return "", empty end
      assert.equal(0, send(here, empty))
    end)

    it("refuses chunks that are no strings, and replacements that are no functions", function()
      local here = pair()
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
      local here, there = pair()
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
      local ok, what = pcall(send, (pair()), function() error(thrown) end)
      assert.falsy(ok)
      assert.equal(thrown, what)
    end)
  end)
end

describe("transfers that wait", function()
  it("lose and double nothing in either direction, more than the buffers hold", function()
    local here, there = pair()
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
    local here, there = pair()
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
    local here = pair()
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
    local here, there = pair()
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
    local here = pair()
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
      assert.truthy(message:find("callback_spec.lua:%d+: bad argument"), message)
    end
  end)

  it("reads and writes of closed handles throw, as the handle does, and files are closed", function()
    local here = pair()
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
