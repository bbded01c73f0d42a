-- http.request: time limits, and waiting by a function of the caller's.

local callbacks = require "spec.support.callbacks"
local http = require "moonbridge_http"
local moonbridge_io = require "moonbridge_io"
local scripted = require "spec.support.scripted"
local server = require "spec.support.server"

local recorder = callbacks.recorder
local play = scripted.play

after_each(scripted.cleanup)

describe("time limits", function()
  local function elapsed(f)
    local start = moonbridge_io.timeref()
    local results = table.pack(f())
    return moonbridge_io.timeref(start), table.unpack(results, 1, results.n)
  end

  it("end a wait for the response, its rest, and for sending", function()
    for _, script in ipairs {
      "read(c) socket.sleep(20)",
      "read(c) c:send('HTTP/1.1 200 OK\\r\\nContent-Le') socket.sleep(20)",
      "read(c) c:send('HTTP/1.1 200 OK\\r\\nContent-Length: 5\\r\\n\\r\\nab') socket.sleep(20)",
      "socket.sleep(20)",
    } do
      local s = play(script)
      local time, body, message = elapsed(function()
        return http.request { url = s.url, body = ("x"):rep(2e7), timeout = 0.3 }
      end)
      assert.same({ nil, "timeout" }, { body, message })
      assert.truthy(time > 0.25 and time < 20, time)
    end
  end)

  it("end a connect that nobody answers", function()
    -- A listener with a full backlog drops what else comes.
    local listener = assert(require "socket".tcp4())
    assert(listener:bind("127.0.0.1", 0))
    assert(listener:listen(0))
    local _, port = listener:getsockname()
    local fillers = {}
    for index = 1, 4 do
      fillers[index] = moonbridge_io.tcpconnect_nb("127.0.0.1", tonumber(port))
    end
    local time, body, message = elapsed(function()
      local url = "http://127.0.0.1:" .. port .. "/"
      return http.request { url = url, timeout = { connect = 0.3, stall = 20 } }
    end)
    listener:close()
    for _, filler in ipairs(fillers) do filler:reset() end
    assert.same({ nil, "timeout" }, { body, message })
    assert.truthy(time > 0.25 and time < 20, time)
  end)

  it("do not count what makes progress, unless there is a limit for all of it", function()
    local s = play [[
      read(c)
      c:send("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n")
      for _ = 1, 10 do socket.sleep(0.25) c:send("x") end
    ]]
    assert.equal(("x"):rep(10), (http.request { url = s.url, timeout = 2 }))
    local time, body, message = elapsed(function()
      return http.request { url = s.url, timeout = { stall = server.TIMEOUT, total = 0.5 } }
    end)
    assert.same({ nil, "timeout" }, { body, message })
    assert.truthy(time > 0.4 and time < server.TIMEOUT, time)
  end)
end)

describe("the forms that wait by a function", function()
  it("yield socket, mode and module, so that one thread serves many requests", function()
    local s = play [[
      for number = 1, 3 do
        local head = read(c)
        if not head then break end
        socket.sleep(0.02)
        c:send("HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n" .. ("x"):rep(100000))
      end
    ]]
    local t = play [[read(c) socket.sleep(0.1) c:send("HTTP/1.1 200 OK\r\n\r\nslow")]]
    local results, waits = {}, 0
    local function task(name, url)
      return coroutine.wrap(function()
        results[name] = http.request_yield(url)
        return nil
      end)
    end
    local tasks = { task("a", s.url), task("b", t.url) }
    local waiting = {}
    for _, run in ipairs(tasks) do waiting[run] = table.pack(run()) end
    while next(waiting) do
      local input, output = {}, {}
      for _, wait in pairs(waiting) do
        assert.equal(moonbridge_io, wait[3])
        if wait[2] == "r" then input[wait[1]] = true else output[wait[1]] = true end
      end
      assert(moonbridge_io.poll(input, output, server.TIMEOUT))
      waits = waits + 1
      for run in pairs(waiting) do
        local wait = table.pack(run())
        waiting[run] = wait[1] and wait or nil
      end
    end
    assert.equal(100000, #results.a)
    assert.equal("slow", results.b)
    assert.truthy(waits > 1)
  end)

  it("stream both ways, more than is buffered", function()
    local s = scripted.echo(0.5)
    local block, count, received, modes = ("0123456789abcdef"):rep(4096), 0, 0, {}
    local one, message = http.request_call(function(handle, mode, module)
      modes[mode] = true
      local set = { [handle] = true }
      assert(module.poll(mode == "r" and set or nil, mode == "w" and set or nil, server.TIMEOUT))
    end, {
      url = s.url,
      body = function()
        count = count + 1
        return count <= 200 and block or ""
      end,
      receive = function(chunk) received = received + #chunk return 1 end,
    })
    assert.equal(1, one, message)
    assert.equal(200 * #block, received)
    assert.truthy(modes.w and modes.r)
  end)

  it("request_call passes on what the function throws, and closes the connection", function()
    local s = play "read(c) socket.sleep(0.2)"
    local thrown = {}
    local cb, calls = recorder()
    local done, what = pcall(http.request_call, function() error(thrown) end, { url = s.url, receive = cb })
    assert.falsy(done)
    assert.equal(thrown, what)
    assert.equal(1, #calls)
    assert.is_nil(calls[1][1])
  end)

  it("keep to the time limit as soon as they are resumed", function()
    local s = play "read(c) socket.sleep(20)"
    local body, message = http.request_call(function() require "socket".sleep(0.1) end,
      { url = s.url, timeout = 0.3 })
    assert.same({ nil, "timeout" }, { body, message })
  end)
end)
