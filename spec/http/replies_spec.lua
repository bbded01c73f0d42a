-- Common responses: request:send, redirect, set_cookie and signed_cookie; http.random, hmac_sha256 and equal.

local app = require "spec.http.app"
local client = require "spec.support.client"
local server = require "spec.support.server"

local ROUTES = [[
  local SECRETS = { ("new"):rep(10), ("old"):rep(10) }
  local function try(f, ...) return tostring(select(2, pcall(f, ...))) end

  function routes.send(request)
    local headers = { ETag = '"v1"', ["Last-Modified"] = 784111777, ["X-A"] = "b" }
    request:send("200 OK", "text/plain", "hello", headers)
  end
  function routes.plain(request)
    request:send("404 Not Found", "text/plain", "none\n")
    return true
  end
  function routes.typed(request) request:send("200 OK", nil, "<p>", { ["content-type"] = "text/html" }) end
  function routes.late(request)
    request:set_cookie{ name = "a", value = "b" }
    error("after a cookie")
  end
  function routes.empty(request) request:send("204 No Content") end
  function routes.number(request) request:send("200 OK", nil, 12) end
  function routes.redirect(request) request:redirect("/next?a=%C3%A4") end
  function routes.moved(request) request:redirect("https://example.org/", 308) end
  function routes.cookies(request)
    request:set_cookie{ name = "a", value = "x y;%\n\u{e4}", max_age = 60.0, path = "/p", secure = true,
      http_only = true, same_site = "Lax", domain = "example.org" }
    request:set_cookie{ name = "b", value = 1 }
    request:send_status("103 Early Hints")
    request:send_status("303 See Other")
    request:set_cookie{ name = "c", value = "" }
  end
  -- Each of them is a whole response.
  function routes.whole(request)
    local how = request.query
    if how == "?redirect" then request:redirect("/")
    elseif how == "?empty" then request:send("204 No Content")
    else request:send("200 OK", nil, "", { ETag = '"v1"' }) end
    note(try(request.set_cookie, request, { name = "a", value = "b" }))
    return true
  end
  function routes.sign(request)
    local secret = request.query == "?old" and SECRETS[2] or SECRETS
    request:set_cookie{ name = "user", value = "jane; doe", secret = secret }
    request:send("200 OK")
    return true
  end
  function routes.verify(request)
    request:send("200 OK", "text/plain", tostring(request:signed_cookie("user", SECRETS)))
  end
  function routes.misuse(request)
    local lines = {
      try(request.redirect, request, "/a\r\nSet-Cookie: x=1"), try(request.redirect, request, "/\u{e4}"),
      try(request.redirect, request, "/", 200), try(request.send, request, "200 OK", "text/plain", {}),
      try(request.send, request, "200 OK", "text/plain", "", { ETag = "v1" }),
      try(request.send, request, "200 OK", "text/plain", "", { ["last-modified"] = "soon" }),
      try(request.signed_cookie, request, "user", "short"),
      try(request.send, request, "100 Continue", "text/plain", ""),
      try(request.send, request, "200 OK", {}, ""),
      try(request.send, request, "200 OK", nil, "", { ["X-A"] = { "b" } }),
      try(request.send, request, "200 OK", nil, "", { "X-A: b" }),
      try(request.send, request, "200 OK", nil, "", { ["content-length"] = 5 }),
      try(request.send, request, "200 OK", "text/plain", "", { ["content-type"] = "text/html" }),
      try(request.send, request, "200 OK", nil, "", { ["X-A"] = "b\r\nX-C: d" }),
      try(request.send, request, "200 OK", nil, "", { ["X A"] = "b" }),
      try(request.send, request, "200 OK", "text/plain\r\nX-C: d", ""),
    }
    for _, cookie in ipairs {
      { name = "a b", value = "" }, { value = "" }, { name = "a" }, { name = "a", value = {} },
      { name = "a", value = "", path = "/;x" }, { name = "a", value = "", same_site = "None" },
      { name = "__Host-a", value = "", secure = true }, { name = "a", value = "", httponly = true },
      { name = "a", value = "", domain = "x\r\ny" },
      { name = "a", value = ("%"):rep(1400) }, { name = "a", value = "", path = "/\u{e4}" },
      { name = "a", value = "", secret = { "short" } }, { name = "a", value = "", max_age = 0/0 },
    } do lines[#lines + 1] = try(request.set_cookie, request, cookie) end
    request:send("200 OK", "text/plain", table.concat(lines, "\n"))
  end
]]

local function cookies_of(response)
  local list = {}
  for value in response.head:gmatch("[Ss]et%-[Cc]ookie: ([^\r\n]*)") do list[#list + 1] = value end
  return list
end

describe("common responses:", function()
  local s
  setup(function() s = app.start(ROUTES) end)
  teardown(function()
    client.cleanup()
    server.cleanup()
  end)

  local function ask(method, path, ...)
    local connection = s:connect()
    local lines = { method .. " " .. path .. " HTTP/1.1", "Host: a", "Connection: close", ... }
    connection:send(table.concat(lines, "\r\n") .. "\r\n\r\n")
    local text = connection:read_all()
    local head, body = text:match("^(.-\r\n)\r\n(.*)$")
    return { status = tonumber(head:match("^HTTP/1.1 (%d+)")), head = head, body = body }
  end

  it("send has type and length, for HEAD as well", function()
    for method, body in pairs { GET = "hello", HEAD = "", POST = "hello" } do
      local response = ask(method, "/send", method == "POST" and "Content-Length: 0" or nil)
      assert.equal(200, response.status)
      assert.equal(body, response.body)
      for _, line in ipairs { "Content-Type: text/plain", "Content-Length: 5", 'ETag: "v1"', "X-A: b",
        "Last-Modified: Sun, 06 Nov 1994 08:49:37 GMT" } do
        assert.truthy(response.head:find("\r\n" .. line .. "\r\n", 1, true), response.head)
      end
    end
    assert.same({ 404, "none\n" }, { ask("GET", "/plain").status, ask("GET", "/plain").body })
    local empty = ask("GET", "/empty")
    assert.equal(204, empty.status)
    assert.is_nil(empty.head:lower():find("content-", 1, true))
    assert.equal("12", ask("GET", "/number").body)
    assert.truthy(ask("GET", "/typed").head:find("content-type: text/html\r\n", 1, true))
  end)

  it("send answers conditional requests", function()
    for status, fields in pairs {
      [304] = { 'If-None-Match: "x", W/"v1"', "If-None-Match: *",
        "If-Modified-Since: Sun, 06 Nov 1994 08:49:37 GMT" },
      [412] = { 'If-Match: "v2"', 'If-Match: W/"v1"', "If-Unmodified-Since: Sat, 05 Nov 1994 08:49:37 GMT" },
      [200] = { 'If-None-Match: "v2"', 'If-Match: "v1"', "If-Modified-Since: Sat, 05 Nov 1994 08:49:37 GMT",
        "If-Modified-Since: yesterday", "If-None-Match: v1" },
    } do
      for _, field in ipairs(fields) do
        for _, method in ipairs { "GET", "HEAD" } do
          local response = ask(method, "/send", field)
          assert.equal(status, response.status, method .. " " .. field)
          local has_tag = response.head:find('ETag: "v1"', 1, true) ~= nil
          assert.equal(status ~= 412, has_tag, field)
          if status ~= 200 then assert.equal("", response.body) end
        end
      end
    end
    assert.equal(200, ask("POST", "/send", "Content-Length: 0", "If-None-Match: *").status)
    assert.equal(404, ask("GET", "/plain", "If-None-Match: *").status)
  end)

  it("redirect has a location and no body", function()
    local response = ask("GET", "/redirect")
    assert.equal(303, response.status)
    assert.truthy(response.head:find("Location: /next?a=%C3%A4\r\n", 1, true))
    assert.equal("", response.body)
    assert.equal(308, ask("GET", "/moved").status)
  end)

  it("cookies may be set before and after the status, and are encoded as they are decoded", function()
    local response = ask("GET", "/cookies")
    local _, final = response.body:match("^(.-)(HTTP/1.1 303.*)$")
    assert.equal(103, response.status)
    assert.same({
      "a=x%20y%3B%25%0A%C3%A4; Max-Age=60; Domain=example.org; Path=/p; Secure; HttpOnly; SameSite=Lax",
      "b=1", "c=",
    }, cookies_of { head = final })
    -- What a handler has set that fails is not sent.
    local late = ask("GET", "/late")
    assert.equal(500, late.status)
    assert.is_nil(late.head:lower():find("set-cookie", 1, true))
    -- What one request has set is not sent with the next one.
    local connection = s:connect()
    assert.truthy(connection:request("/sign").headers["set-cookie"])
    assert.is_nil(connection:request("/plain").headers["set-cookie"])
  end)

  it("signed cookies are read if nobody has changed them, with any of the secrets", function()
    for _, query in ipairs { "", "?old" } do
      local cookie = cookies_of(ask("GET", "/sign" .. query))[1]
      assert.truthy(cookie:find("^user=jane%%3B%%20doe%.%x+$"), cookie)
      local function verified(text) return ask("GET", "/verify", "Cookie: " .. text).body end
      assert.equal("jane; doe", verified(cookie))
      local forged = cookie:gsub("jane", "john")
      assert.equal("nil", verified(forged))
      assert.equal("nil", verified(cookie:sub(1, -2)))
      assert.equal("nil", verified((cookie:gsub(".$", function(c) return c == "0" and "1" or "0" end))))
      assert.equal("nil", verified((cookie:gsub("^user", "other"))))
      assert.equal("nil", verified("user=" .. cookie:match("%x+$")))
    end
    assert.equal("nil", ask("GET", "/verify").body)
  end)

  it("send and redirect send whole responses: nothing can be added", function()
    for status, query in pairs { [303] = "?redirect", [204] = "?empty", [304] = "" } do
      local response = ask("GET", "/whole" .. query, status == 304 and 'If-None-Match: "v1"' or nil)
      assert.equal(status, response.status)
      assert.same({}, cookies_of(response))
    end
    local text = "All HTTP headers have already been sent"
    assert.equal(("\n"):rep(3), (s:request("/notes").body:gsub("[^\n]*" .. text, "") .. "\n"))
  end)

  it("misuse is an error that says what is wrong, before anything is sent", function()
    local response = ask("GET", "/misuse")
    assert.equal(200, response.status)
    local lines = {}
    for line in response.body:gmatch("[^\n]+") do lines[#lines + 1] = line end
    for index, part in ipairs {
      "redirect expects a URI", "redirect expects a URI", "redirect expects one of the statuses",
      "send expects a string as body, got a table", "ETag must be in double quotes",
      "Last-Modified must be a date", "signed_cookie expects a secret: a string of at least 16",
      "send expects a final status, not 100 Continue", "send expects a string as type, got a table",
      "send expects headers as strings, got X-A = table", "send expects headers as strings, got 1 = string",
      "send has its own content-length", "send has its own content-type",
      "Invalid character in HTTP header value: X-A", "Invalid HTTP header name: X A",
      "send expects a media type as type",
      'Field "name" of a cookie must be a token',
      'Field "name" of a cookie is missing', 'Field "value" of a cookie is missing',
      'Field "value" of a cookie must be a string or a number', 'Field "path"', "must have secure = true",
      'must have secure = true, path = "/" and no domain', 'Unknown field "httponly" of a cookie',
      'Field "domain"', "too long: name and encoded value have 4201 bytes, browsers keep 4096",
      'Field "path"', 'Field "secret" of a cookie must be a string of at least 16 bytes', 'Field "max_age"',
    } do
      local line = lines[index] or ""
      assert.truthy(line:find(part, 1, true), part .. ": " .. line)
      assert.is_nil(line:find("moonbridge.http", 1, true), line)
    end
    assert.is_nil(response.head:lower():find("set-cookie", 1, true))
  end)
end)

describe("secrets", function()
  it("are random, signed and compared", function()
    local code, _, log = server.run_script { script = [[
      local http = require "moonbridge_http"
      local function hex(s) return (s:gsub(".", function(c) return ("%02x"):format(c:byte()) end)) end
      -- RFC 4231, test case 2.
      assert(hex(http.hmac_sha256("Jefe", "what do ya want for nothing?"))
        == "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843")
      -- Test case 6: a key longer than a block.
      local text = "Test Using Larger Than Block-Size Key - Hash Key First"
      assert(hex(http.hmac_sha256(("\xaa"):rep(131), text))
        == "60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54")
      assert(#http.random(16) == 16 and #http.random(100000) == 100000 and http.random(16) ~= http.random(16))
      assert(http.equal("", "") and http.equal("abc", "abc"))
      assert(not http.equal("abc", "abd") and not http.equal("abc", "abcd"))
      local function message(...) return select(2, pcall(...)) end
      for _, count in ipairs { 0, -1, 1.5, "x", 1e9, 0/0, math.huge } do
        assert(message(http.random, count):find("integer from 1 to 1048576 expected", 1, true))
      end
      local missing = "bad argument #2 to 'equal' (string expected, got no value)"
      assert(message(http.equal, "a"):find(missing, 1, true))
      assert(message(http.hmac_sha256, 1, "a"):find("#1 to 'hmac_sha256'", 1, true))
    ]] }
    assert.equal(0, code, log)
  end)
end)
