-- http.request: responses that come before the request was sent (RFC 9110 7.5 and 10.1.1).

local callbacks = require "spec.support.callbacks"
local http = require "moonbridge_http"
local moonbridge_io = require "moonbridge_io"
local process = require "spec.support.process"
local scripted = require "spec.support.scripted"
local server = require "spec.support.server"

local play = scripted.play

after_each(scripted.cleanup)

-- Reads the head, answers at once, then reads the rest slowly and notes how much of the body came.
local function early(status, extra)
  return play(([[
    repeat
      local line = c:receive("*l")
    until line == ""
    c:send("HTTP/1.1 %s\r\n%sContent-Length: 2\r\n\r\nok")
    socket.sleep(0.2)
    local size = 0
    repeat
      local piece, problem, part = c:receive(65536)
      size = size + #(piece or part)
      if piece and size >= 8 * 2^20 then break end
    until problem
    io.stderr:write("received ", math.tointeger(size), "\n")
  ]]):format(status, extra or ""))
end

local SIZE = 8 * 2^20

-- A send callback of pieces of 64 KiB.
local function pieces()
  local list = {}
  for i = 1, SIZE // 65536 do list[i] = ("x"):rep(65536) end
  return callbacks.chunks(table.unpack(list))
end

describe("a 2xx response before the request is sent", function()
  for name, body in pairs {
    ["a string"] = function() return ("x"):rep(SIZE) end,
    ["a send callback with a length"] = pieces,
  } do
    it(("does not end the sending of %s"):format(name), function()
      local s = early("200 OK")
      local result, status = http.request {
          url = s.url, body = body(), headers = { ["Content-Length"] = SIZE }, timeout = server.TIMEOUT,
      }
      assert.same({ "ok", 200 }, { result, status })
      assert.truthy(s.server:wait_log("received " .. math.tointeger(SIZE) .. "\n"), s.server:log())
    end)
  end

  it("with Connection: close ends it with an error that says how much was sent", function()
    for _, body in ipairs { ("x"):rep(SIZE), pieces() } do
      local s = early("200 OK", "Connection: close\\r\\n")
      local result, message = http.request {
        url = s.url, body = body, headers = { ["Content-Length"] = SIZE }, timeout = server.TIMEOUT,
      }
      assert.is_nil(result)
      local pattern = "before the request was sent, (%d+) of 8388608 bytes of its body: the server closes"
      local sent = tonumber(message:match(pattern))
      assert.truthy(sent and sent > 0 and sent < SIZE, message)
    end
  end)

  it("is complete if all of the announced length was sent when the server closes", function()
    local s = play [[
      repeat local line = c:receive("*l") until line == ""
      c:send("HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nok ")
      c:send(c:receive(5))
    ]]
    local asked = 0
    local result, status = http.request {
      url = s.url, headers = { ["Content-Length"] = 5 }, timeout = server.TIMEOUT,
      body = function()
        asked = asked + 1
        if asked > 1 then return "" end
        moonbridge_io.poll(nil, nil, 0.2) -- the head of the response comes meanwhile
        return "hello"
      end,
      head = function() moonbridge_io.poll(nil, nil, 0.2) end, -- and now the rest
    }
    assert.same({ "ok hello", 200, 2 }, { result, status, asked })
  end)

  it("is an error if the server breaks the connection", function()
    local s = play [[
      repeat local line = c:receive("*l") until line == ""
      c:send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
      socket.sleep(0.2)
      c:setoption("linger", { on = true, timeout = 0 })
    ]]
    local result, message = http.request { url = s.url, body = ("x"):rep(SIZE), timeout = server.TIMEOUT }
    assert.is_nil(result)
    assert.is_string(message)
  end)

  it("from 300 on ends the sending, and is the response", function()
    local s = early("413 Too Big")
    local result, status = http.request { url = s.url, body = ("x"):rep(SIZE), timeout = server.TIMEOUT }
    assert.same({ "ok", 413 }, { result, status })
  end)
end)

describe("417", function()
  it("is followed by the same request without Expect", function()
    for _, body in ipairs { "text", callbacks.chunks("te", "xt") } do
      local s = play [[
        local line, expects
        repeat
          line = c:receive("*l")
          expects = expects or line and line:find("^Expect") ~= nil
        until not line or line == ""
        if expects then
          c:send("HTTP/1.1 417 Expectation Failed\r\nConnection: close\r\nContent-Length: 4\r\n\r\nnope")
        else
          local text = c:receive(4)
          c:send(("HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s"):format(#text, text))
        end
      ]]
      local result, status = http.request { url = s.url, body = body,
        headers = { Expect = "100-continue", ["Content-Length"] = 4 } }
      assert.same({ "text", 200 }, { result, status })
    end
  end)

  it("is the response where nothing was expected, or for the second time", function()
    local s = play [[
      while read(c) do c:send("HTTP/1.1 417 No\r\nContent-Length: 2\r\n\r\nno") end
    ]]
    assert.equal(417, select(2, http.request { url = s.url, body = "text" }))
    local s2 = play [[
      local line
      repeat line = c:receive("*l") until not line or line == ""
      c:send("HTTP/1.1 417 No\r\nConnection: close\r\nContent-Length: 2\r\n\r\nno")
    ]]
    assert.equal(417, select(2, http.request { url = s2.url, body = "text",
      headers = { Expect = "100-continue" } }))
  end)
end)

describe("an idle connection", function()
  it("ends with FIN when the process exits", function()
    local s = play [[
      while read(c) do c:send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok") end
      local _, problem = c:receive(1)
      -- LuaSocket calls FIN and RST "closed"; after a RST there is no peer any more.
      io.stderr:write("ended with ", c:getpeername() and "FIN" or "RST", "\n")
    ]]
    local code, output = server.run_script(([[
      local http = require "moonbridge_http"
      print((http.request("%s")))
      os.exit(0)
    ]]):format(s.url))
    assert.same({ 0, "ok\n" }, { code, output })
    assert.truthy(process.wait_until(function() return s.server:log():find("ended with") end))
    assert.truthy(s.server:log():find("ended with FIN", 1, true))
  end)
end)
