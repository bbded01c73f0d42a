-- The option `decompress` of generate_handler: request bodies with a Content-Encoding are read without it.

local json = require "dkjson"
local client = require "spec.support.client"
local process = require "spec.support.process"
local server = require "spec.support.server"

local SERVER = [[
  local moonbridge, http = require "moonbridge", require "moonbridge_http"
  moonbridge.listen{
    { proto = "tcp", host = "127.0.0.1", port = PORT }, min_fork = 1,
    connect = http.generate_handler(function(request)
      local path, result = request.path, {}
      if path == "body" then
        result[1] = request.body
      elseif path == "stream" then
        request:stream_request_body(function(chunk) result[#result + 1] = chunk end)
        request:consume_input()
      elseif path == "receive" then
        assert(request:receive_body(function(chunk) result[#result + 1] = chunk return true end))
      elseif path == "sizes" then
        local longest, total = 0, 0
        request:stream_request_body(function(chunk)
          longest, total = math.max(longest, #(chunk or "")), total + #(chunk or "")
        end)
        request:consume_input()
        result[1] = longest .. " " .. total
      elseif path == "form" then
        local fields = request.post_params
        result[1] = tostring(fields.a) .. "," .. tostring(fields.b)
      elseif path == "file" then
        request:stream_post_param("f", function(chunk) result[#result + 1] = chunk end)
        request:consume_input()
        result[#result + 1] = request.post_params.a
      elseif path == "ignored" then
        result[1] = "ignored"
      end
      request:send("200 OK", "text/plain", table.concat(result))
      return true
    end, { OPTIONS }),
  }
  moonbridge.run{ access_log = LOG }
]]

local function start(options)
  local script = SERVER:gsub("OPTIONS", options or "decompress = true")
  local log = process.scratch("access.log")
  return server.start { script = script, globals = { LOG = log } }, log
end

local path

-- The compressed text, which is also in a file.
local function packed(text, command)
  local plain = process.scratch("plain")
  path = process.scratch("packed")
  process.write(plain, text)
  local code, output = process.run(("%s < %s > %s"):format(command or "gzip -c", plain, path))
  assert.equal(0, code, output)
  return process.slurp(path)
end

local ZLIB = "python3 -c 'import sys, zlib; i, o = sys.stdin.buffer, sys.stdout.buffer; "
  .. "o.write(zlib.compress(i.read()))'"

local function post(s, target, body, headers)
  local all = { ["Content-Encoding"] = "gzip" }
  for name, value in pairs(headers or {}) do all[name] = value or nil end
  return s:request { method = "POST", target = target, body = body, headers = all }
end

describe("a compressed request body", function()
  after_each(server.cleanup)

  it("is read decompressed in each way", function()
    local s = start()
    local text = ("All work and no play makes Jack a dull boy.\n"):rep(5000)
    local body = packed(text)
    for _, target in ipairs { "body", "stream", "receive" } do
      assert.equal(text, post(s, "/" .. target, body).body)
      local send = "-H 'Content-Encoding: gzip' --data-binary @" .. path .. " URL/" .. target
      local _, output = s:curl(send)
      assert.equal(text, output)
      _, output = s:curl("-H 'Transfer-Encoding: chunked' -H 'Expect: 100-continue' " .. send)
      assert.equal(text, output)
    end
    assert.equal("16384 220000", post(s, "/sizes", body).body)
    local deflate = { ["Content-Encoding"] = "deflate" }
    assert.equal(text, post(s, "/body", packed(text, ZLIB), deflate).body)
    assert.equal("plain", post(s, "/body", "plain", { ["Content-Encoding"] = "identity" }).body)
    assert.equal("", post(s, "/body", "").body)
    assert.equal("ignored", post(s, "/ignored", body).body)
  end)

  it("may be a form", function()
    local s = start()
    local urlencoded = { ["Content-Type"] = "application/x-www-form-urlencoded" }
    local long = ("x"):rep(100000)
    assert.equal("1,two", post(s, "/form", packed "a=1&b=two", urlencoded).body)
    assert.equal("1," .. long, post(s, "/form", packed("a=1&b=" .. long), urlencoded).body)
    local form = ("--x\r\nContent-Disposition: form-data; name=f; filename=f\r\n\r\n%s\r\n--x\r\n"
      .. "Content-Disposition: form-data; name=a\r\n\r\nend\r\n--x--\r\n"):format(long)
    local multipart = { ["Content-Type"] = "multipart/form-data; boundary=x" }
    assert.equal(long .. "end", post(s, "/file", packed(form), multipart).body)
  end)

  it("may come in pieces, and another request after it", function()
    local s = start()
    local body = packed(("0123456789"):rep(300))
    local c = s:connect()
    local head = "POST /stream HTTP/1.1\r\nHost: x\r\nContent-Encoding: gzip\r\n"
      .. "Content-Length: " .. #body .. "\r\n\r\n"
    c:dribble(head .. body, 7, 0.002)
    assert.equal(("0123456789"):rep(300), c:response().body)
    c:send(head .. body .. head .. body)
    for _ = 1, 2 do assert.equal(("0123456789"):rep(300), c:response().body) end
    -- What nobody reads is skipped.
    c:send((head:gsub("stream", "ignored")) .. body .. head .. body)
    assert.equal("ignored", c:response().body)
    assert.equal(("0123456789"):rep(300), c:response().body)
  end)

  it("has members that follow one another", function()
    local s = start()
    assert.equal("one two", post(s, "/body", packed "one " .. packed "" .. packed "two").body)
  end)

  it("that is broken, truncated or followed by something else is refused with 400", function()
    local s = start()
    local body = packed(("0123456789"):rep(10000))
    local truncated, wrong = "The compressed request body is truncated", "not what its Content-Encoding says"
    for _, case in ipairs {
      { body:sub(1, -2), truncated }, { body:sub(1, 15), truncated }, { body .. "\0", truncated },
      { body .. "garbage", wrong }, { "no gzip", wrong },
      { body:sub(1, -9) .. "\0\0\0\0" .. body:sub(-4), wrong },
    } do
      for _, target in ipairs { "/body", "/stream", "/receive" } do
        local r = post(s, target, case[1])
        assert.equal(400, r.status)
        assert.truthy(r.body:find(case[2], 1, true), r.body)
      end
    end
    local urlencoded = { ["Content-Type"] = "application/x-www-form-urlencoded" }
    assert.equal(400, post(s, "/form", packed("a=1&b=2"):sub(1, -2), urlencoded).status)
    assert.equal("200 OK\n", post(s, "/body", packed "200 OK\n").body)
  end)

  it("that grows beyond the limit is refused with 413, in little memory", function()
    local s = start "decompress = { limit = 1000000 }"
    local bomb = packed("", "sh -c 'head -c 300000000 /dev/zero | gzip -9 -c'")
    for _, target in ipairs { "/body", "/stream", "/receive" } do
      assert.equal(413, post(s, target, bomb).status)
    end
    assert.equal(1000000, #post(s, "/body", packed(("x"):rep(1000000))).body)
    assert.equal(413, post(s, "/body", packed(("x"):rep(1000001))).status)
    assert.equal(413, post(s, "/form", packed("a=" .. ("x"):rep(2000000)),
      { ["Content-Type"] = "application/x-www-form-urlencoded" }).status)
    local peak = 0
    for _, pid in ipairs(s:workers()) do
      local status = process.slurp("/proc/" .. pid .. "/status")
      peak = math.max(peak, tonumber(status:match("VmHWM:%s*(%d+)")))
    end
    assert.truthy(peak < 100000, peak .. " kB")
  end)

  it("has the limit of other bodies if there is none of its own", function()
    local s = start "decompress = true, request_body_size_limit = 5000"
    assert.equal(5000, #post(s, "/body", packed(("x"):rep(5000))).body)
    assert.equal(413, post(s, "/body", packed(("x"):rep(5001))).status)
    assert.equal(413, post(s, "/body", ("x"):rep(5001), { ["Content-Encoding"] = false }).status)
  end)

  it("with another coding is refused with 415, which says what is known", function()
    local s = start()
    for _, coding in ipairs { "br", "zstd", "gzip, gzip", "deflate, gzip" } do
      local r = post(s, "/body", "x", { ["Content-Encoding"] = coding })
      assert.same({ 415, "gzip, deflate" }, { r.status, r.headers["accept-encoding"] })
    end
    -- It is refused before it is sent.
    local c = s:connect()
    c:send("POST /body HTTP/1.1\r\nHost: x\r\nContent-Encoding: br\r\nContent-Length: 1000\r\n"
      .. "Expect: 100-continue\r\n\r\n")
    assert.equal(415, c:response().status)
  end)

  it("is the handler's business without the option", function()
    local s = start "decompress = false"
    local body = packed "hello"
    assert.equal(body, post(s, "/body", body).body)
    assert.equal("x", post(s, "/body", "x", { ["Content-Encoding"] = "br" }).body)
  end)

  it("counts in the access log as it came", function()
    local s, log = start()
    local body = packed(("x"):rep(100000))
    local request = client.format {
      method = "POST", target = "/body", body = body, headers = { ["Content-Encoding"] = "gzip" },
    }
    local c = s:connect()
    c:send(request)
    assert.equal(100000, #c:response().body)
    local line
    process.wait_until(function()
      line = process.slurp(log)
      return line and line:find "\n"
    end)
    assert.equal(#request, json.decode(line).bytes_in)
  end)

  it("is decompressed as a boolean or a table says", function()
    local http = require "moonbridge_http"
    for message, value in pairs {
      ['Option "decompress" is expected to be a boolean or a table'] = 1,
      ['Option "limit" is expected to be a non-negative number or false'] = { limit = "x" },
      ['Unknown option "limt" of decompress; did you mean "limit"?'] = { limt = 1 },
    } do
      local ok, text = pcall(http.generate_handler, function() end, { decompress = value })
      assert.is_false(ok)
      assert.truthy(text:find(message, 1, true), text)
    end
  end)
end)
