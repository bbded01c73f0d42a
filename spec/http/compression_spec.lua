-- The option `compress` of generate_handler: bodies are compressed where that suits them and their client.

local process = require "spec.support.process"
local server = require "spec.support.server"

local SERVER = [[
  local moonbridge, http = require "moonbridge", require "moonbridge_http"
  local mio = require "moonbridge_io"
  local TEXT = ("All work and no play makes Jack a dull boy.\n"):rep(1000)
  moonbridge.listen{
    { proto = "tcp", host = "127.0.0.1", port = PORT },
    connect = http.generate_handler(function(request)
      local path = request.path
      if path == "send" then
        request:send("200 OK", "text/plain", TEXT, { ETag = '"v1"' })
      elseif path == "small" then
        request:send("200 OK", "text/plain", "small")
      elseif path == "picture" then
        request:send("200 OK", "image/png", TEXT)
      elseif path == "stream" then
        request:send_status("200 OK")
        request:send_header("Content-Type", "application/json")
        for index = 1, 3 do
          request:send_data("part ", index, "\n")
          request:flush()
          mio.poll(nil, nil, 0.2)
        end
      elseif path == "large" then
        request:send_status("200 OK")
        request:send_header("Content-Type", "text/plain")
        for index = 1, 3000 do
          local line = http.hmac_sha256("key", tostring(index))
          request:send_data((line:gsub(".", function(c) return ("%02x"):format(c:byte()) end)), "\n")
        end
      elseif path == "short" then
        request:send_status("200 OK")
        request:send_header("Content-Type", "text/plain")
        request:send_header("Content-Length", 1000)
        request:send_data("too short")
      elseif path == "swallowed" then
        request:send_status("200 OK")
        request:send_header("Content-Type", "text/plain")
        request:send_header("Content-Length", 1000)
        request:send_data(("a"):rep(500))
        pcall(request.send_data, request, ("b"):rep(600))
      elseif path == "held-after" then
        request:send_status("200 OK")
        request:send_header("Content-Type", "text/plain")
        request:send_data("first")
        return request:hold { topics = "news" }
      elseif path == "file" then
        request:send_file(FILE, { content_type = "text/plain" })
      elseif path == "held-events" or path == "held-untouched" then
        request:send_status("200 OK")
        request:send_header("Content-Type", path == "held-events" and "text/event-stream" or "text/html")
        if path == "held-untouched" then request:send_header("Cache-Control", "no-transform") end
        request:send_data("first")
        return request:hold { topics = "news", timeout = 0.1 }
      elseif path == "hold" then
        request:send_status("200 OK")
        request:send_header("Content-Type", "application/json")
        return request:hold{ topics = { "news" }, timeout = 0.2, farewell = "{}" }
      elseif path == "error" then
        request:send_status("200 OK")
        request:send_header("Content-Type", "text/plain")
        request:send_data(TEXT)
        error("oops")
      end
      return true
    end, { compress = true }),
  }
  moonbridge.run()
]]

local GZIP = { ["Accept-Encoding"] = "gzip" }

local function start(more)
  local file = process.scratch("file.txt")
  process.run("head -c 100000 /dev/zero | tr '\\0' a > " .. file)
  local script = more and SERVER:gsub("compress = true", more) or SERVER
  return server.start { script = script, globals = { FILE = file } }
end

local function get(s, target, headers, method)
  return s:request { target = target, headers = headers, method = method }
end

local function unpacked(body)
  local path = process.scratch("packed.gz")
  local file = assert(io.open(path, "w"))
  file:write(body)
  file:close()
  local code, text = process.run("gzip -dc " .. path)
  assert.equal(0, code, text)
  return text
end

describe("a response", function()
  after_each(server.cleanup)

  it("is compressed for who accepts it, and says so", function()
    local s = start()
    local plain, packed = get(s, "/send"), get(s, "/send", GZIP)
    assert.same({ 44000, "44000", '"v1"', "Accept-Encoding" },
      { #plain.body, plain.headers["content-length"], plain.headers.etag, plain.headers.vary })
    assert.is_nil(plain.headers["content-encoding"])
    assert.same({ "gzip", 'W/"v1"', "Accept-Encoding" },
      { packed.headers["content-encoding"], packed.headers.etag, packed.headers.vary })
    assert.is_nil(packed.headers["content-length"])
    assert.truthy(#packed.body < 1000)
    assert.equal(plain.body, unpacked(packed.body))
    for accepts, expected in pairs {
      ["gzip;q=0"] = false, ["identity"] = false, ["br"] = false, ["*"] = true, ["br, gzip;q=0.1"] = true,
      ["gzip;q=0.5, identity"] = false,
    } do
      local r = get(s, "/send", { ["Accept-Encoding"] = accepts })
      assert.same({ accepts, expected }, { accepts, r.headers["content-encoding"] == "gzip" })
    end
    local _, text = s:curl("--compressed URL/send")
    assert.equal(plain.body, text)
  end)

  it("of HEAD and of a condition says the same", function()
    local s = start()
    local head = get(s, "/send", GZIP, "HEAD")
    assert.same({ "", "gzip", 'W/"v1"' }, { head.body, head.headers["content-encoding"], head.headers.etag })
    local unchanged = get(s, "/send", { ["Accept-Encoding"] = "gzip", ["If-None-Match"] = 'W/"v1"' })
    assert.same({ 304, "", 'W/"v1"', "Accept-Encoding" },
      { unchanged.status, unchanged.body, unchanged.headers.etag, unchanged.headers.vary })
    unchanged = get(s, "/send", { ["If-None-Match"] = '"v1"' })
    assert.same({ 304, '"v1"', "Accept-Encoding" },
      { unchanged.status, unchanged.headers.etag, unchanged.headers.vary })
  end)

  it("stays as it is where compression is of no use, or of a file", function()
    local s = start()
    for _, path in ipairs { "/small", "/picture", "/file" } do
      local r = get(s, path, GZIP)
      assert.is_nil(r.headers["content-encoding"])
      assert.truthy(r.headers["content-length"])
    end
    assert.equal("bytes 0-9/100000",
      get(s, "/file", { ["Accept-Encoding"] = "gzip", Range = "bytes=0-9" }).headers["content-range"])
  end)

  it("streams, readable up to each flush", function()
    local s = start()
    local c = s:connect()
    c:send "GET /stream HTTP/1.1\r\nHost: x\r\nAccept-Encoding: gzip\r\n\r\n"
    assert(c:read_until "\r\n\r\n")
    local first = c:read_until "\r\n" .. c:read_until "\r\n"
    assert.truthy(#first > 10)
    c:close()
    assert.equal("part 1\npart 2\npart 3\n", unpacked(get(s, "/stream", GZIP).body))
    local large = get(s, "/large", GZIP)
    assert.equal(get(s, "/large").body, unpacked(large.body))
    assert.truthy(#large.body > 90000)
  end)

  it("keeps its rules: an announced length, HTTP/1.0, an error after the beginning", function()
    local s = start()
    assert.equal(500, get(s, "/short", GZIP).status)
    assert.truthy(s:wait_log "Content%-Length is 1000, but only 9 bytes were sent")
    local old = s:raw("GET /send HTTP/1.0\r\nAccept-Encoding: gzip\r\n\r\n")
    assert.equal(44000, #unpacked(old:match "\r\n\r\n(.*)$"))
    assert.equal(500, get(s, "/error", GZIP).status)
  end)

  it("stays as it is when it is held, since what is published is the same for all", function()
    local s = start()
    local held = get(s, "/hold", GZIP)
    assert.same({ 200 }, { held.status, held.headers["content-encoding"] })
    for _, target in ipairs { "/held-events", "/held-untouched" } do
      assert.equal("first", get(s, target, GZIP).body)
    end
  end)

  it("cannot be held after data that is compressed for some, whatever this client accepts", function()
    local s = start()
    for index, headers in ipairs { GZIP, {} } do
      assert.equal(500, get(s, "/held-after", headers).status)
      assert.truthy(s:wait_log("hold: this response is compressed for clients that accept it", nil, index))
    end
    assert.equal(500, get(s, "/held-after", {}, "HEAD").status)
  end)

  it("that has become shorter than announced is never complete", function()
    local s = start()
    assert.equal(500, get(s, "/swallowed", GZIP).status)
    assert.truthy(s:wait_log "Content%-Length is 1000, but only 500 bytes were sent")
  end)

  it("is compressed as the options say", function()
    local s = start 'compress = { level = 9, minimum = 0, types = { "image/png" } }'
    assert.is_nil(get(s, "/send", GZIP).headers["content-encoding"])
    assert.equal("gzip", get(s, "/picture", GZIP).headers["content-encoding"])
    local http = require "moonbridge_http"
    for text, value in pairs {
      ['Option "compress" is expected to be a boolean or a table'] = 1,
      ['Option "compress" is expected to have a level from 1 to 9'] = { level = 10 },
      ['Option "compress" is expected to have a list of media types'] = { types = "text/html" },
      ['Unknown option "levl" of compress; did you mean "level"?'] = { levl = 1 },
    } do
      local ok, message = pcall(http.generate_handler, function() end, { compress = value })
      assert.falsy(ok)
      assert.truthy(message:find(text, 1, true), message)
    end
  end)
end)
