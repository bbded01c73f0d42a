-- http.request: redirects.

local callbacks = require "spec.support.callbacks"
local http = require "moonbridge_http"
local scripted = require "spec.support.scripted"
local server = require "spec.support.server"

local chunks, recorder = callbacks.chunks, callbacks.recorder
local always, literal = scripted.always, scripted.literal
local ok, play = scripted.ok, scripted.play

after_each(scripted.cleanup)

describe("redirects", function()
  -- A server that redirects /N to /N-1, down to /0.
  local function countdown(status, location)
    return play(([[
      while true do
        local head, body = read(c)
        if not head then break end
        local n = tonumber(head:match("/(%%d+)"))
        if n == 0 then
          local text = head:match("^%%S+") .. " " .. body
          c:send(("HTTP/1.1 200 OK\r\nContent-Length: %%d\r\n\r\n%%s"):format(#text, text))
        else
          local location = (%q):gsub("N", n - 1):gsub("PORT", PORT)
          c:send("HTTP/1.1 %s\r\nContent-Length: 4\r\nLocation: " .. location .. "\r\n\r\nmove")
        end
      end
    ]]):format(location or "/N", status))
  end

  it("are followed, with all kinds of references, over the same connection", function()
    for _, location in ipairs { "/N", "N", "./x/../N", "//127.0.0.1:PORT/N", "http://127.0.0.1:PORT/N#f" } do
      local s = countdown("302 Found", location)
      assert.equal("GET ", (http.request(s.url .. "2")))
      assert.equal(3, #s:requests())
      assert.equal(1, s:requests()[3].connection)
    end
  end)

  it("may hold blanks, which are sent as %20, and may be sent twice", function()
    for _, lines in ipairs { "Location: /my file.txt?a b\\r\\n", "Location: my file.txt?a b \\r\\n",
      "Location: /my file.txt?a b\\r\\nLocation: /my file.txt?a b\\r\\n" } do
      local s = play(([[
        while true do
          local head = read(c)
          if not head then break end
          local line = head:match("^%%S+ (%%S+)")
          if line == "/" then
            c:send("HTTP/1.1 302 Found\r\n%sContent-Length: 0\r\n\r\n")
          else
            c:send(("HTTP/1.1 200 OK\r\nContent-Length: %%d\r\n\r\n%%s"):format(#line, line))
          end
        end
      ]]):format(lines))
      assert.equal("/my%20file.txt?a%20b", (http.request(s.url)), lines)
    end
  end)

  it("that lead nowhere are the response", function()
    local s = always("HTTP/1.1 302 Found\r\nLocation: \r\nContent-Length: 2\r\n\r\nno")
    local body, status, headers = http.request(s.url)
    assert.same({ "no", 302, "" }, { body, status, headers.location })
    assert.equal(1, #s:requests())
  end)

  -- A server that redirects each request to the URL.
  local function redirecting(status, url)
    return always(("HTTP/1.1 %s\r\nLocation: %s\r\nContent-Length: 0\r\n\r\n"):format(status, url))
  end

  -- Whether a head holds any credentials that specs here send, or a Host of the caller's.
  local function assert_bare(head, peer)
    local lowered = head:lower()
    for _, name in ipairs { "authorization", "proxy-authorization", "cookie" } do
      assert.falsy(lowered:find("\n" .. name .. ":", 1, true), head)
    end
    assert.same({ 1, peer.port }, { select(2, lowered:gsub("\nhost:", "")),
      tonumber(lowered:match("\nhost: 127%.0%.0%.1:(%d+)\r")) })
  end

  it("to another server keep no Host and no credentials, however they were given, and the rest", function()
    local headers_of = {
      by_name = { Host = "inner", Authorization = "a", Cookie = "b=c", ["Proxy-Authorization"] = "d" },
      in_other_case = { HOST = "inner", authorization = "a", COOKIE = "b=c", ["proxy-authorization"] = "d" },
      in_order = { { "Host", "inner" }, { "authorization", "a" }, { "Cookie", "b=c" },
        { "Proxy-Authorization", "d" } },
      in_the_url = {},
    }
    for how, headers in pairs(headers_of) do
      for _, status in ipairs { "301 Moved", "302 Found", "303 See Other", "307 Again", "308 Again" } do
        local other = always(ok("other"))
        local s = redirecting(status, other.url .. "x")
        headers["X-A"] = "b"
        local url = how == "in_the_url" and s.url:gsub("//", "//me:pw@") or s.url
        assert.equal("other", (http.request { url = url, headers = headers }))
        local first, second = s:requests()[1].head, other:requests()[1].head
        assert.truthy(first:lower():find("\nauthorization: ", 1, true), how)
        assert_bare(second, other)
        assert.truthy(second:find("^GET /x ") and second:find("\r\nX%-A: b"), how)
        server.cleanup()
      end
    end
  end)

  it("to another server that lead back do not bring the credentials back", function()
    local url = ("http://127.0.0.1:%d/"):format(server.free_port())
    local other = redirecting("302 Found", url .. "back")
    local s = play(([[
      while true do
        local head = read(c)
        if not head then break end
        c:send(head:find("/back", 1, true) and %s or %s)
      end
    ]]):format(literal(ok "back"),
      literal("HTTP/1.1 302 Found\r\nLocation: " .. other.url .. "\r\nContent-Length: 0\r\n\r\n")),
      { port = tonumber(url:match(":(%d+)/")) })
    assert.equal("back", (http.request { url = url:gsub("//", "//me:pw@"), headers = { Cookie = "b=c" } }))
    assert.truthy(s:requests()[1].head:find("\r\nAuthorization: Basic"))
    assert_bare(s:requests()[2].head, s)
  end)

  it("to another server take the credentials of the Location's URL", function()
    local other = always(ok("other"))
    local s = redirecting("302 Found", (other.url:gsub("//", "//you:pw@")))
    http.request { url = s.url:gsub("//", "//me:pw@"), headers = { Cookie = "a=b" } }
    local head = other:requests()[1].head
    assert.truthy(head:find("\r\nAuthorization: Basic eW91OnB3\r\n", 1, true), head)
    assert.falsy(head:find("Cookie", 1, true))
  end)

  it("keep credentials on the same server", function()
    local s = countdown("302 Found")
    http.request(s.url:gsub("//", "//me:pw@") .. "1")
    assert.truthy(s:requests()[2].head:find("\r\nAuthorization: Basic"))
  end)

  it("turn POST into GET after 301, 302 and 303, and repeat it after 307 and 308", function()
    for status, expected in pairs {
      ["301 Moved"] = "GET ", ["302 Found"] = "GET ", ["303 See Other"] = "GET ",
      ["307 Temporary Redirect"] = "POST abc", ["308 Permanent Redirect"] = "POST abc",
    } do
      local s = countdown(status)
      local headers = { ["Content-Type"] = "x/y" }
      assert.equal(expected, (http.request { url = s.url .. "1", body = "abc", headers = headers }))
      assert.equal(expected ~= "GET ", s:requests()[2].head:find("Content%-Type") ~= nil)
    end
  end)

  it("turn any method but HEAD into GET after 303, and no other than POST after 301 and 302", function()
    for status, expected in pairs {
      ["301 Moved"] = { HEAD = "HEAD", PUT = "PUT", DELETE = "DELETE", POST = "GET" },
      ["302 Found"] = { HEAD = "HEAD", PUT = "PUT", DELETE = "DELETE", POST = "GET" },
      ["303 See Other"] = { HEAD = "HEAD", PUT = "GET", DELETE = "GET", POST = "GET" },
      ["307 Again"] = { HEAD = "HEAD", PUT = "PUT", DELETE = "DELETE", POST = "POST" },
    } do
      local s = play(([[
        while true do
          local head = read(c)
          if not head then break end
          c:send("HTTP/1.1 " .. (head:find("^%%S+ /there ") and "200 OK" or %s) .. "\r\n"
            .. "Location: /there\r\nContent-Length: 0\r\n\r\n")
        end
      ]]):format(literal(status)))
      for method, second in pairs(expected) do
        local body = method ~= "HEAD" and method ~= "DELETE" and "abc" or nil
        local before = #s:requests()
        assert.equal(200, (select(2, http.request { url = s.url, method = method, body = body })))
        local request = s:requests()[before + 2]
        assert.equal(second, request.head:match("^%S+"), status .. " " .. method)
        assert.equal(second == method and body or "", request.body, status .. " " .. method)
      end
    end
  end)

  it("cannot repeat a send callback: the response is returned", function()
    local s = countdown("307 Temporary Redirect")
    local body, status = http.request { url = s.url .. "1", body = chunks("abc") }
    assert.same({ "move", 307 }, { body, status })
    s = countdown("303 See Other")
    assert.equal("GET ", (http.request { url = s.url .. "1", body = chunks("abc") }))
  end)

  it("have a limit, and can be switched off", function()
    local s = countdown("302 Found")
    assert.equal("GET ", (http.request(s.url .. "5")))
    local cb, calls = recorder()
    assert.same({ nil, "too many redirects" }, { http.request { url = s.url .. "6", receive = cb } })
    assert.same({ { nil, "too many redirects" } }, calls)
    assert.equal("GET ", (http.request { url = s.url .. "8", redirect = 8 }))
    for _, off in ipairs { false, 0 } do
      local body, status, headers = http.request { url = s.url .. "1", redirect = off }
      assert.same({ "move", 302, "/0" }, { body, status, headers.location })
    end
  end)

  it("do not pass their own bodies to the receive callback", function()
    local s = countdown("302 Found")
    local cb, calls = recorder()
    http.request { url = s.url .. "2", receive = cb }
    assert.same({ { "GET " }, { "" } }, calls)
  end)

  it("do not wait for bodies that nobody wants", function()
    for _, head in ipairs { "", "Content-Length: 9\r\n", "Content-Length: 99999999\r\n" } do
      -- What the first connection was ended by is what the second one answers.
      local s = play(([[
        if number == 1 then
          read(c)
          c:send("HTTP/1.1 302 Found\r\nLocation: /there\r\n" .. %s .. "\r\nmove")
          WHY = select(2, c:receive(1))
        else
          read(c)
          c:send(("HTTP/1.1 200 OK\r\nContent-Length: %%d\r\n\r\n%%s"):format(#WHY, WHY))
        end
      ]]):format(literal(head)))
      assert.equal("closed", (http.request(s.url)))
    end
  end)

  it("to local sockets and to nonsense are errors", function()
    for location, part in pairs {
      ["unix:/tmp/x.sock:/"] = "unsupported URL scheme", ["ftp://example.org/"] = "unsupported URL scheme",
      ["http:// x"] = "invalid URL",
    } do
      local s = always("HTTP/1.1 302 Found\r\nLocation: " .. location .. "\r\nContent-Length: 0\r\n\r\n")
      local body, message = http.request(s.url)
      assert.is_nil(body)
      assert.truthy(message:find("^redirected: ") and message:find(part, 1, true), message)
    end
  end)

  it("without a location are responses", function()
    local s = always("HTTP/1.1 300 Multiple Choices\r\nContent-Length: 1\r\n\r\nx")
    assert.same({ "x", 300 }, { (http.request(s.url)), (select(2, http.request(s.url))) })
  end)
end)
