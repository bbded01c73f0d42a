-- http.request with callbacks and filters.

local callback = require "moonbridge_callback"
local callbacks = require "spec.support.callbacks"
local http = require "moonbridge_http"
local mime = require "mime"
local process = require "spec.support.process"
local scripted = require "spec.support.scripted"
local server = require "spec.support.server"

local recorder = callbacks.recorder
local always, ok, once, play = scripted.always, scripted.ok, scripted.once, scripted.play

after_each(scripted.cleanup)

describe("a receive callback", function()
  it("gets the body chunk by chunk, then an empty string; the first result is 1", function()
    local s = always(ok("hello"))
    local cb, calls = recorder()
    local one, status, headers = http.request { url = s.url, receive = cb }
    assert.same({ 1, 200, "5" }, { one, status, headers["content-length"] })
    assert.same({ { "hello" }, { "" } }, calls)
  end)

  it("gets only the end of an empty body", function()
    local s = always(ok(""))
    local cb, calls = recorder()
    assert.equal(1, (http.request { url = s.url, receive = cb }))
    assert.same({ { "" } }, calls)
  end)

  it("works with the predefined ones", function()
    local s = always(ok("hello"))
    local cb, concat = callback.receive.concat()
    http.request { url = s.url, receive = callback.receive.chain(mime.encode("base64"), cb) }
    assert.equal(mime.b64("hello"), tostring(concat))
    local path = process.scratch("download")
    http.request { url = s.url, receive = callback.receive.file(io.open(path, "wb")) }
    assert.equal("hello", process.slurp(path))
  end)

  it("may replace itself", function()
    -- More than comes at once.
    local text = ("0123456789abcdef"):rep(2 ^ 19)
    local s = always(ok(text))
    local first
    local second, calls = recorder()
    assert.equal(1, (http.request { url = s.url, receive = function(chunk)
      first = chunk
      return 1, second
    end }))
    assert.same({ "" }, table.remove(calls))
    for index, call in ipairs(calls) do calls[index] = call[1] end
    assert.is_true(#first < #text)
    assert.is_true(first .. table.concat(calls) == text)
  end)

  it("aborts: nil and its message; the connection is not used again", function()
    local s = always(ok("hello"))
    http.request(s.url)
    for _, case in ipairs { { { nil, "enough" }, "enough" }, { { nil }, "callback aborted" } } do
      local cb, calls = recorder { case[1] }
      assert.same({ nil, case[2] }, { http.request { url = s.url, receive = cb } })
      assert.equal(1, #calls)
      assert.equal("hello", (http.request(s.url)))
    end
    assert.equal(3, s:requests()[#s:requests()].connection)
  end)

  it("may fail at the end: a file that cannot be closed", function()
    local s = always(ok("hello"))
    local file = {
      write = function() return true end,
      close = function() return nil, "Disk quota exceeded" end,
    }
    assert.same({ nil, "Disk quota exceeded" },
      { http.request { url = s.url, receive = callback.receive.file(file) } })
  end)

  it("may throw: the error passes, the connection is closed, files too", function()
    local s = always(ok("hello"))
    local thrown = {}
    local done, what = pcall(http.request, { url = s.url, receive = function() error(thrown) end })
    assert.falsy(done)
    assert.equal(thrown, what)
    local closed
    local file = { write = function() error(thrown) end, close = function() closed = true return true end }
    done, what = pcall(http.request, { url = s.url, receive = callback.receive.file(file) })
    assert.falsy(done)
    assert.equal(thrown, what)
    assert.truthy(closed)
    assert.equal("hello", (http.request(s.url)))
    assert.equal(3, s:requests()[3].connection)
  end)

  it("is told of every failure", function()
    local port = server.free_port()
    local cb, calls = recorder()
    local _, message = http.request { url = "http://127.0.0.1:" .. port, receive = cb }
    assert.same({ { nil, message } }, calls)
    local s = once("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc")
    cb, calls = recorder()
    _, message = http.request { url = s.url, receive = cb }
    assert.equal("connection closed before the response was complete", message)
    assert.same({ { "abc" }, { nil, message } }, calls)
  end)
end)

describe("the head function", function()
  it("is called once, before the body, with status, headers and status line", function()
    local s = always(ok("hello", "X-A: b\r\n"))
    local events = {}
    local one, status = http.request {
      url = s.url,
      head = function(...)
        local code, headers, line = ...
        events[#events + 1] = ("%d %s %s"):format(code, headers["x-a"], line)
      end,
      receive = function(chunk) events[#events + 1] = chunk return 1 end,
    }
    assert.same({ 1, 200 }, { one, status })
    assert.same({ "200 b HTTP/1.1 200 OK", "hello", "" }, events)
  end)

  it("may choose the receive callback", function()
    local s = always(ok("hello"))
    local cb, concat = callback.receive.concat()
    assert.equal(1, (http.request { url = s.url, head = function() return cb end }))
    assert.equal("hello", tostring(concat))
  end)

  it("may throw", function()
    local s = always(ok("hello"))
    local thrown = {}
    local cb, calls = recorder()
    local done, what = pcall(http.request, { url = s.url, receive = cb, head = function() error(thrown) end })
    assert.falsy(done)
    assert.equal(thrown, what)
    assert.equal(1, #calls)
  end)
end)

describe("the head function's result", function()
  it("is a receive callback or nothing", function()
    local s = always(ok("hello"))
    local cb, calls = recorder()
    local message = "head function returned a number, expected a receive callback or nothing"
    local function head() return 5 end
    assert.same({ nil, message }, { http.request { url = s.url, receive = cb, head = head } })
    assert.same({ { nil, message } }, calls)
    assert.equal("hello", (http.request { url = s.url, head = function() return false end }))
  end)
end)

describe("a send callback", function()
  it("aborts: nil and its message, the request is not completed", function()
    local s = play "read(c)"
    local cb, calls = recorder()
    assert.same({ nil, "no more" }, { http.request { url = s.url, receive = cb,
      body = function() return "abc", function() return nil, "no more" end end } })
    assert.same({ { nil, "no more" } }, calls)
    assert.equal(0, #s:requests())
  end)

  it("must return strings", function()
    local s = always(ok(""))
    for _, bad in ipairs { 42, {}, false } do
      local body, message = http.request { url = s.url, body = function() return bad end }
      assert.is_nil(body)
      assert.truthy(message:find("^send callback returned a "))
    end
  end)

  it("may throw: the error passes, and what was to be received is closed", function()
    local s = always(ok(""))
    local closed
    local file = { write = function() return true end, close = function() closed = true return true end }
    local thrown = {}
    local done, what = pcall(http.request, { url = s.url, body = function() error(thrown) end,
      receive = callback.receive.file(file) })
    assert.falsy(done)
    assert.equal(thrown, what)
    assert.truthy(closed)
  end)

  it("is stopped by a server that refuses early; its file is closed", function()
    local s = play [[
      c:receive("*l")
      c:send("HTTP/1.1 413 Too Large\r\nContent-Length: 2\r\nConnection: close\r\n\r\nno")
      socket.sleep(0.3)
    ]]
    local closed, reads = false, 0
    local file = {
      read = function() reads = reads + 1 return ("x"):rep(65536) end,
      close = function() closed = true end,
    }
    local body, status = http.request {
      url = s.url, body = callback.send.file(file), timeout = server.TIMEOUT,
    }
    assert.same({ "no", 413 }, { body, status })
    assert.truthy(closed)
  end)

  it("cannot deadlock with a server that answers while it reads", function()
    local s = scripted.echo()
    local block, count, received = ("0123456789abcdef"):rep(4096), 0, 0
    local one, message = http.request {
      url = s.url, timeout = server.TIMEOUT,
      body = function()
        count = count + 1
        return count <= 200 and block or ""
      end,
      receive = function(chunk) received = received + #(chunk or "") return 1 end,
    }
    assert.equal(1, one, message)
    assert.equal(200 * #block, received)
  end)
end)

describe("filters that fail", function()
  it("end the request with an error; files are closed, the connection is not used again", function()
    local s = always(ok("hello"))
    local thrown = {}
    local failures = {
      { function() return nil, "odd data" end, "odd data" },
      { function() return 42 end, "filter returned a number, expected a string" },
      { function() error(thrown) end, thrown },
    }
    for _, failure in ipairs(failures) do
      local filter, expected = failure[1], failure[2]
      local closed = 0
      local file = {
        read = function() return "data" end,
        write = function() return true end,
        close = function() closed = closed + 1 return true end,
      }
      for _, options in ipairs {
        { receive = callback.receive.chain(filter, callback.receive.file(file)) },
        { body = callback.send.chain(callback.send.file(file), filter) },
      } do
        options.url = s.url
        local done, body, message = pcall(http.request, options)
        assert.equal(expected ~= thrown, done)
        assert.equal(expected, done and message or body)
        assert.falsy(done and body)
      end
      assert.equal(2, closed)
    end
    http.request(s.url)
    local list = s:requests()
    assert.truthy(list[#list].connection > list[#list - 1].connection)
  end)
end)
