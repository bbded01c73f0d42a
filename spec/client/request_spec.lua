-- http.request: the arguments, and what is sent.

local callback = require "moonbridge_callback"
local callbacks = require "spec.support.callbacks"
local http = require "moonbridge_http"
local ltn12 = require "ltn12"
local mime = require "mime"
local process = require "spec.support.process"
local scripted = require "spec.support.scripted"
local server = require "spec.support.server"

local chunks, recorder = callbacks.chunks, callbacks.recorder
local always, ok, play = scripted.always, scripted.ok, scripted.play

after_each(scripted.cleanup)

describe("the short form", function()
  it("returns body, status, headers and status line", function()
    local s = always(ok("hello", "X-A: b\r\n"))
    local body, status, headers, line = http.request(s.url)
    assert.equal("hello", body)
    assert.equal(200, status)
    assert.equal("b", headers["x-a"])
    assert.equal("b", headers["X-A"])
    assert.equal("HTTP/1.1 200 OK", line)
  end)

  it("posts a body as a form, as LuaSocket does", function()
    local s = always(ok("x"))
    assert.equal("x", (http.request(s.url, "a=b")))
    local request = s:requests()[1]
    assert.truthy(request.head:find("^POST / HTTP/1.1\r\n"))
    assert.truthy(request.head:find("\r\nContent%-Type: application/x%-www%-form%-urlencoded\r\n"))
    assert.equal("a=b", request.body)
  end)

  it("returns nil, a message and an errno if nobody listens", function()
    local port = server.free_port()
    assert.same({ nil, "Connection refused", 111 }, { http.request("http://127.0.0.1:" .. port) })
  end)

  it("returns errors of the server as any response", function()
    local s = always("HTTP/1.1 404 Not Found\r\nContent-Length: 2\r\n\r\nno")
    local body, status = http.request(s.url)
    assert.same({ "no", 404 }, { body, status })
  end)
end)

describe("a request", function()
  it("has a Host field, the target, and a User-Agent", function()
    local s = always(ok(""))
    http.request("http://127.0.0.1:" .. s.port .. "/a/b?c=d#e")
    local head = s:requests()[1].head
    assert.truthy(head:find("^GET /a/b%?c=d HTTP/1.1\r\nHost: 127.0.0.1:" .. s.port .. "\r\n"))
    assert.truthy(head:find("\r\nUser%-Agent: moonbridge/"))
    assert.falsy(head:find("Content%-Length"))
  end)

  it("carries the caller's headers: values, lists of values, pairs", function()
    local s = always(ok(""))
    http.request { url = s.url, headers = { ["X-A"] = "b", ["X-N"] = 5, ["X-L"] = { "1", "2" },
      { "X-P", "q" }, Host = "other.example", ["user-agent"] = "me" } }
    local head = s:requests()[1].head .. "\r\n"
    for _, line in ipairs { "X-A: b", "X-N: 5", "X-L: 1\r\nX-L: 2", "X-P: q", "Host: other.example",
        "user-agent: me" } do
      assert.truthy(head:find("\r\n" .. line .. "\r\n", 1, true), line)
    end
    assert.equal(1, select(2, head:gsub("[Hh]ost:", "")))
    assert.equal(1, select(2, head:lower():gsub("user%-agent:", "")))
  end)

  it("authenticates with user and password of the URL", function()
    local s = always(ok(""))
    http.request("http://me:se%3Acret@127.0.0.1:" .. s.port .. "/")
    local head = s:requests()[1].head
    assert.truthy(head:find("\r\nAuthorization: Basic " .. mime.b64("me:se:cret"), 1, true))
    assert.truthy(head:find("\r\nHost: 127.0.0.1:" .. s.port, 1, true))
  end)

  it("sends a string with its length, also an empty one", function()
    local s = always(ok(""))
    http.request { url = s.url, body = "abc", method = "PUT" }
    http.request { url = s.url, body = "" }
    http.request { url = s.url, method = "POST" }
    local list = s:requests()
    assert.truthy(list[1].head:find("^PUT "))
    assert.truthy(list[1].head:find("\r\nContent%-Length: 3"))
    assert.equal("abc", list[1].body)
    assert.truthy(list[2].head:find("^POST ") and list[2].head:find("\r\nContent%-Length: 0"))
    assert.truthy(list[3].head:find("\r\nContent%-Length: 0"))
  end)

  it("sends what a callback gives, chunked", function()
    local s = always(ok(""))
    http.request { url = s.url, body = chunks("ab", "c", ("x"):rep(100000)) }
    local request = s:requests()[1]
    assert.truthy(request.head:find("^POST .*\r\nTransfer%-Encoding: chunked"))
    assert.equal("abc" .. ("x"):rep(100000), request.body)
  end)

  it("sends what a callback gives with the length the caller announces", function()
    local s = always(ok(""))
    local headers = { ["content-length"] = 3 }
    assert.equal("", (http.request { url = s.url, body = chunks("ab", "c"), headers = headers }))
    local request = s:requests()[1]
    assert.truthy(request.head:find("\r\nContent%-Length: 3"))
    assert.equal("abc", request.body)
  end)

  it("sends numbers as integers where they are", function()
    local s = always(ok(""))
    local headers = { ["Content-Length"] = 3.0, ["X-A"] = 2 ^ 53, ["X-B"] = 1.5 }
    http.request { url = s.url, body = "abc", headers = headers }
    local head = s:requests()[1].head .. "\r\n"
    for _, line in ipairs { "Content-Length: 3", "X-A: 9007199254740992", "X-B: 1.5" } do
      assert.truthy(head:find("\r\n" .. line .. "\r\n", 1, true), line)
    end
  end)

  it("does not go out complete if the callback gives more or less than announced", function()
    local s = play("read(c)")
    for _, case in ipairs { { "ab", "less" }, { "abcd", "more" } } do
      local body, message = http.request { url = s.url, body = chunks(case[1]), timeout = server.TIMEOUT,
        headers = { ["content-length"] = 3 } }
      assert.is_nil(body)
      assert.equal("send callback sent " .. case[2] .. " than the announced length", message)
    end
  end)

  it("takes the results of send.file, and filters", function()
    local s = always(ok(""))
    http.request { url = s.url, body = callback.send.chain(callback.send.file(io.open("LICENSE")),
      mime.encode("base64")) }
    assert.equal(process.slurp("LICENSE"), (mime.unb64(s:requests()[1].body)))
  end)

  it("has no body for a nil callback", function()
    local s = always(ok(""))
    http.request { url = s.url, body = callback.send.string(nil) }
    assert.truthy(s:requests()[1].head:find("^GET "))
  end)

  it("takes ltn12 sources and sinks too", function()
    local s = always(ok("answer"))
    local sink, out = ltn12.sink.table()
    local one, status = http.request { url = s.url, source = ltn12.source.string("question"), sink = sink }
    assert.same({ 1, 200 }, { one, status })
    assert.equal("answer", table.concat(out))
    assert.equal("question", s:requests()[1].body)
  end)

  it("waits for 100 Continue when told to expect it", function()
    local s = play [[
      local lines = {}
      repeat local line = c:receive("*l") lines[#lines + 1] = line until line == ""
      c:settimeout(0.1)
      local early = c:receive(1)
      c:settimeout(60)
      c:send("HTTP/1.1 100 Continue\r\n\r\n")
      local body = (early or "") .. c:receive(early and 2 or 3)
      local text = (early and "early " or "late ") .. body
      c:send(("HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s"):format(#text, text))
    ]]
    local headers = { Expect = "100-continue" }
    assert.equal("late abc", (http.request { url = s.url, body = "abc", headers = headers }))
  end)
end)

describe("what must not be sent", function()
  it("is refused with nil and a message", function()
    for _, case in ipairs {
      { { headers = { ["X-A"] = "a\r\nX-B: c" } }, "invalid header value of X-A" },
      { { headers = { ["X-A"] = "a\0" } }, "invalid header value of X-A" },
      { { headers = { ["X A"] = "a" } }, "invalid header name" },
      { { headers = { ["X-A:"] = "a" } }, "invalid header name" },
      { { headers = { [""] = "a" } }, "invalid header name" },
      { { headers = { ["X-A"] = true } }, "invalid header value" },
      { { headers = { ["Content-Length"] = "5" }, body = "abc" }, "differs" },
      { { headers = { ["Content-Length"] = "+3" }, body = "abc" }, "invalid header value" },
      { { headers = { ["Transfer-Encoding"] = "gzip" }, body = chunks("a") }, "Transfer-Encoding" },
      { { headers = { ["Transfer-Encoding"] = "chunked" }, body = "abc" }, "Transfer-Encoding" },
      { { headers = { ["Transfer-Encoding"] = "chunked", ["Content-Length"] = 1 }, body = chunks("a") },
        "exclude each other" },
      { { headers = { Connection = "upgrade" } }, "Connection" },
      { { headers = { Host = { "a", "b" } } }, "twice" },
      { { method = "GET / HTTP/1.1\r\nX:" }, "invalid method" },
      { { method = "CONNECT" }, "invalid method" },
      { { method = "" }, "invalid method" },
    } do
      local options = { url = "http://127.0.0.1:1/" }
      for key, value in pairs(case[1]) do options[key] = value end
      local body, message = http.request(options)
      assert.is_nil(body)
      assert.truthy(message:find(case[2], 1, true), message)
    end
  end)

  it("covers URLs", function()
    for url, part in pairs {
      ["ftp://example.org/"] = "unsupported URL scheme",
      ["example.org"] = "invalid URL: no scheme",
      ["http://"] = "invalid URL: no host",
      ["http://a b/"] = "invalid URL: blank or control character",
      ["http://a/\r\nX: y"] = "invalid URL: blank or control character",
      ["http://a:99999/"] = "invalid URL: host or port",
      [""] = "invalid URL",
    } do
      local cb, calls = recorder()
      local body, message = http.request { url = url, receive = cb }
      assert.is_nil(body)
      assert.truthy(message:find(part, 1, true), message)
      assert.same({ { nil, message } }, calls)
    end
  end)

  it("throws for wrong types, at the caller's position, and names the option", function()
    for _, case in ipairs {
      { {}, "option 'url' is missing" },
      { { url = 5 }, "option 'url' is expected to be a string, got number" },
      { { url = "http://a/", method = 5 }, "option 'method'" },
      { { url = "http://a/", headers = "X: y" }, "option 'headers'" },
      { { url = "http://a/", body = 5 }, "option 'body'" },
      { { url = "http://a/", receive = "x" }, "option 'receive'" },
      { { url = "http://a/", timeout = 0 }, "option 'timeout'" },
      { { url = "http://a/", timeout = "5" }, "option 'timeout'" },
      { { url = "http://a/", timeout = { read = 5 } }, "option 'timeout'" },
      { { url = "http://a/", redirect = "no" }, "option 'redirect'" },
      { { url = "http://a/", keepalive = -1 }, "option 'keepalive'" },
      { { url = "http://a/", recieve = print }, "unknown option 'recieve'; did you mean 'receive'?" },
    } do
      local done, message = pcall(function() local _ = http.request(case[1]) end)
      assert.falsy(done)
      assert.equal("string", type(message))
      assert.truthy(message:find("request_spec.lua:%d+: bad argument"), message)
      assert.truthy(message:find(case[2], 1, true), message)
    end
    assert.has_error(function() http.request() end)
    assert.has_error(function() http.request_call("wait", "http://a/") end)
  end)
end)

describe("local sockets", function()
  it("are addressed by unix:/path:/target", function()
    local path = process.scratch("socket"):match("^(.*)/") .. "/s.sock"
    local s = always(ok("x"), { path = path })
    for _ = 1, 2 do assert.equal("x", (http.request("unix:" .. path .. ":/a?b=c"))) end
    local request = s:requests()[2]
    assert.truthy(request.head:find("^GET /a%?b=c HTTP/1.1\r\nHost: localhost"))
    assert.equal(1, request.connection)
  end)

  it("that are not there are errors", function()
    assert.same({ nil, "No such file or directory", 2 }, { http.request("unix:/nonexistent/x.sock:/") })
    local body = http.request("unix:/" .. ("x"):rep(200) .. ":/")
    assert.is_nil(body)
  end)
end)
