-- http.request: which responses are accepted, and which are refused.

local callbacks = require "spec.support.callbacks"
local http = require "moonbridge_http"
local scripted = require "spec.support.scripted"
local server = require "spec.support.server"

local recorder = callbacks.recorder
local always, literal, ok = scripted.always, scripted.literal, scripted.ok
local once, play = scripted.once, scripted.play

after_each(scripted.cleanup)

describe("a response", function()
  local function body_of(response)
    local s = once(response)
    return http.request { url = s.url, timeout = server.TIMEOUT }
  end

  it("may be chunked, with extensions and trailers", function()
    assert.equal("hello world", (body_of("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" ..
      "5;a=b\r\nhello\r\n6\r\n world\r\n0\r\nX-T: 1\r\n\r\n")))
  end)

  it("may end with the connection", function()
    assert.equal("hello", (body_of("HTTP/1.1 200 OK\r\n\r\nhello")))
    assert.equal("hello", (body_of("HTTP/1.0 200 OK\r\n\r\nhello")))
  end)

  it("has no body after HEAD, with 204 and with 304", function()
    local s = always("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n")
    local body, status, headers = http.request { url = s.url, method = "HEAD" }
    assert.same({ "", 200, "5" }, { body, status, headers["content-length"] })
    for _, status_line in ipairs { "204 No Content", "304 Not Modified" } do
      body, status = body_of("HTTP/1.1 " .. status_line .. "\r\n\r\n")
      assert.same({ "", tonumber(status_line:sub(1, 3)) }, { body, status })
    end
  end)

  it("may come after interim responses", function()
    local interim = "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n"
    local body, status = body_of(interim .. ok("x"))
    assert.same({ "x", 200 }, { body, status })
    local told = {}
    body, status = http.request {
      url = once(interim .. ok("x")).url,
      timeout = server.TIMEOUT,
      interim = function(code, headers, line) told[#told + 1] = { code, headers.LINK or "", line } end,
    }
    assert.same({ "x", 200 }, { body, status })
    assert.same({ { 100, "", "HTTP/1.1 100 Continue" }, { 103, "x", "HTTP/1.1 103 Early Hints" } }, told)
  end)

  it("may have blanks after the sizes of its chunks, as some senders pad them", function()
    local chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    assert.equal("hello world", (body_of(chunked .. "6  \r\nhello \r\n5\t\r\nworld\r\n0 \r\n\r\n")))
  end)

  it("may come in any pieces", function()
    local response = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nX-A: b\r\n\r\n5\r\nhello\r\n0\r\n\r\n"
    local s = play(([[
      read(c)
      for byte in (%s):gmatch(".") do c:send(byte) socket.sleep(0.001) end
    ]]):format(literal(response)))
    local body, _, headers = http.request(s.url)
    assert.equal("hello", body)
    assert.equal("b", headers["x-a"])
  end)

  it("joins the values of a repeated field, and unfolds lines", function()
    local fields = "A: 1\r\na: 2\r\nB: x\r\n y\r\nA: 3\r\n"
    local _, _, headers = body_of(ok("", fields))
    assert.equal("1, 2, 3", headers.a)
    assert.equal("x y", headers.b)
    assert.is_nil(headers.c)
    _, _, headers = body_of(ok("", "Set-Cookie: a=b; Expires=Wed, 21 Oct\r\nSet-Cookie: c=d\r\n"))
    assert.equal("a=b; Expires=Wed, 21 Oct\nc=d", headers["set-cookie"])
  end)

  it("is binary", function()
    local bytes = {}
    for index = 0, 255 do bytes[#bytes + 1] = string.char(index) end
    bytes = table.concat(bytes)
    local s = play [[
      read(c)
      local bytes = {}
      for index = 0, 255 do bytes[#bytes + 1] = string.char(index) end
      c:send("HTTP/1.1 200 OK\r\nContent-Length: 256\r\n\r\n" .. table.concat(bytes))
    ]]
    assert.equal(bytes, (http.request(s.url)))
  end)
end)

describe("servers that misbehave", function()
  -- None of the responses is accepted, and none is asked for twice. Each is {bytes, part of the message}.
  local function refused(cases)
    local list = {}
    for index, case in ipairs(cases) do list[index] = literal(case[1]) end
    local s = play("local list = { " .. table.concat(list, ", ") .. " } read(c) c:send(list[number])")
    for _, case in ipairs(cases) do
      local cb, calls = recorder()
      local body, message = http.request { url = s.url, timeout = server.TIMEOUT, receive = cb }
      assert.is_nil(body)
      assert.truthy(message:find(case[2], 1, true), message)
      assert.same({ nil, message }, calls[#calls])
    end
    assert.equal(#cases, #s:requests())
  end

  it("close before they answer, or in the middle", function()
    local message = "connection closed before the response was complete"
    refused {
      { "", message },
      { "HTTP/1.1 200 OK\r\nContent-Le", message },
      { "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nabc", message },
      { "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n", message },
      { "HTTP/1.1 100 Continue\r\n\r\n", message },
    }
  end)

  it("send garbage", function()
    refused {
      { "220 mail.example ESMTP\r\n", "does not speak HTTP/1" },
      { "<html>\r\n\r\n", "does not speak HTTP/1" },
      { "HTTP/2 200\r\n\r\n", "does not speak HTTP/1" },
      { "HTTP/1.1 two hundred\r\n\r\n", "invalid status line" },
      { "HTTP/1.1 200 OK\r\nno colon\r\n\r\n", "invalid header line" },
      { "HTTP/1.1 200 OK\r\nA : b\r\n\r\n", "invalid header line" },
      { "HTTP/1.1 200 OK\r\nA: b\rc\r\n\r\n", "invalid header line" },
      { "HTTP/1.1 200 OK\r\nA: b\0\r\n\r\n", "invalid header line" },
      { "HTTP/1.1 101 Switching Protocols\r\n\r\n", "switches protocols" },
    }
  end)

  it("frame their body in two ways or in none that is known (RFC 9112 6.3)", function()
    local function with(version, fields, body)
      return ("HTTP/%s 200 OK\r\n%s\r\n\r\n%s"):format(version, table.concat(fields, "\r\n"), body)
    end
    local chunked = "Transfer-Encoding: chunked"
    local cases = {
      { with("1.1", { "Content-Length: 3", chunked }, "0\r\n\r\n"), "both" },
      { with("1.1", { "Content-Length: 3", "Content-Length: 4" }, "abcd"), "Content-Length" },
      { with("1.1", { "Content-Length: +3" }, "abc"), "Content-Length" },
      { with("1.1", { "Content-Length: 3, 4" }, "abc"), "Content-Length" },
      { with("1.1", { "Transfer-Encoding: gzip, chunked" }, "0\r\n\r\n"), "Transfer-Encoding" },
      { with("1.0", { chunked }, "0\r\n\r\n"), "Transfer-Encoding" },
    }
    for _, bytes in ipairs { "x\r\n", "5\nhello\r\n", "5\r\nhelloX", "-1\r\n", "0x5\r\nhello\r\n",
        "fffffffffffffffff\r\n", "\r\n", " 5\r\nhello\r\n", "5 0\r\nhello\r\n",
        "0\r\nContent-Length: 5\r\n\r\n" } do
      cases[#cases + 1] = { with("1.1", { chunked }, bytes), "chunked coding" }
    end
    refused(cases)
  end)

  it("send endless heads", function()
    local s = play [[
      read(c)
      c:send("HTTP/1.1 200 OK\r\n")
      for _ = 1, 1e6 do if not c:send("X-Endless: " .. ("x"):rep(80) .. "\r\n") then break end end
    ]]
    local function result() return { http.request { url = s.url, timeout = server.TIMEOUT } } end
    assert.same({ nil, "response header section too big" }, result())
    s = play [[read(c) for _ = 1, 1e6 do if not c:send("HTTP/1.1 100 Continue\r\n\r\n") then break end end]]
    assert.same({ nil, "too many interim responses" }, result())
  end)

  it("send more than they announced: that is not part of the response, nor of the next one", function()
    local s = play [[
      while read(c) do
        local evil = "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil"
        c:send("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello" .. evil)
      end
    ]]
    for _ = 1, 3 do assert.equal("hello", (http.request(s.url))) end
    s = play [[
      while read(c) do
        c:send("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello")
        socket.sleep(0.05)
        c:send("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil")
        io.stderr:write("sent more\n")
      end
    ]]
    for number = 1, 2 do
      assert.equal("hello", (http.request(s.url)))
      assert.truthy(s.server:wait_log("sent more", nil, number))
    end
  end)

  it("send bodies that do not end: the callback decides, a string has a limit", function()
    local s = play [[
      read(c)
      c:send("HTTP/1.1 200 OK\r\n\r\n")
      for _ = 1, 1e6 do if not c:send(("x"):rep(65536)) then break end end
    ]]
    local size = 0
    assert.same({ nil, "too much" }, { http.request { url = s.url, receive = function(chunk)
      size = size + #chunk
      if size > 1e6 then return nil, "too much" end
      return 1
    end } })
    assert.same({ nil, "response body too big" }, { http.request { url = s.url, body_limit = 1000000 } })
  end)

  it("reset the connection", function()
    local s = play [[
      read(c)
      c:send("HTTP/1.1 200 OK\r\n\r\nabc")
      socket.sleep(0.05)
      c:setoption("linger", { on = true, timeout = 0 })
    ]]
    local cb, calls = recorder()
    assert.same({ nil, "Connection reset by peer", 104 }, { http.request { url = s.url, receive = cb } })
    assert.same({ { "abc" }, { nil, "Connection reset by peer" } }, calls)
  end)
end)

describe("a server that closes while it is sent to", function()
  it("is an error, as far as it has not answered", function()
    local s = play [[c:receive("*l") c:setoption("linger", { on = true, timeout = 0 })]]
    local function endless() return ("x"):rep(65536) end
    local body, message = http.request { url = s.url, body = endless, timeout = server.TIMEOUT }
    assert.is_nil(body)
    assert.truthy(message == "Connection reset by peer" or message == "Broken pipe", message)
  end)
end)
