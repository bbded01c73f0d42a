-- An error of a handler is answered with 500 as long as not a byte of the response has left.

local app = require "spec.http.app"
local server = require "spec.support.server"

local BEGUN = "request:send_status('200 OK') request:send_header('X-Mine', 'y') "

-- name → what a handler does that has sent a status; what the log says
local mistakes = {
  ["an error"] = { "error('oh dear')", "oh dear" },
  ["an error with data queued"] = { "request:send_data('some data') error('oh dear')", "oh dear" },
  ["an error with 60 KB of data queued"] = {
    "for _ = 1, 20 do request:send_data(('x'):rep(3000)) end error('oh dear')", "oh dear" },
  ["an error with a long piece queued"] = {
    "request:send_data(('x'):rep(60000)) error('oh dear')", "oh dear" },
  ["too little data of many pieces"] = { "request:send_header('Content-Length', 50000) "
    .. "for _ = 1, 10 do request:send_data(('x'):rep(3000)) end return true",
    "Content length not used: Content-Length is 50000, but only 30000 bytes were sent" },
  ["an error with the end of the headers queued"] = { "request:send_data('') error('oh dear')", "oh dear" },
  ["CR and LF in a header"] = { "request:send_header('X-Name', 'a\\r\\nb')",
    "Invalid character in HTTP header value: X-Name. Remove or encode line ends" },
  ["CR and LF in a header's name"] = { "request:send_header('X\\r\\nY', 'a')",
    "Invalid HTTP header name \"X\\r\\nY\": remove blanks, colons and control characters" },
  ["nil as a header's value"] = { "request:send_header('X-Name', nil)",
    "HTTP header value is expected to be a string, got nil: give X-Name a value, or leave it out" },
  ["a second status"] = { "request:send_status('200 OK')",
    "HTTP status has already been sent: call send_status once for each response" },
  ["too little data"] = { "request:send_header('Content-Length', 50) request:send_data('12345') return true",
    "Content length not used: Content-Length is 50, but only 5 bytes were sent" },
  ["no data"] = { "request:send_header('Content-Length', 50) return true",
    "Content length not used: Content-Length is 50, but only 0 bytes were sent" },
  ["too much data"] = { "request:send_header('Content-Length', 3) request:send_data('12345')",
    "Content length exceeded: Content-Length is 3, but 5 bytes were to be sent" },
  ["a bad length"] = { "request:send_header('Content-Length', 2.5)",
    "Content-Length is expected to be a number" },
  ["an error after close_after_finish"] = { "request:close_after_finish() error('oh dear')", "oh dear" },
  ["an error after a status without body"] = { "error('oh dear')", "oh dear", "204 No Content" },
  ["an error after an informational status"] = { "error('oh dear')", "oh dear", "103 Early Hints" },
  ["an error that is no string"] = { "error({})", "error object is a table value" },
  ["running out of memory"] = { "local t = {} for i = 1, 1e9 do t[i] = ('x'):rep(1e6) .. i end",
    "not enough memory" },
}

local function start(name)
  local code, words, status = table.unpack(mistakes[name])
  local begun = BEGUN:gsub("200 OK", status or "200 OK")
  local s = app.start(("function routes.fail(request) %s %s end"):format(begun, code))
  return s, words
end

local function check(response, connection)
  assert.equal("500 Internal Server Error\n", response.body)
  assert.equal(500, response.status)
  assert.equal("close", response.headers.connection)
  assert.is_nil(response.headers["x-mine"])
  assert.same({ "", "closed" }, { connection:read_all() })
end

describe("before a byte of the response has left,", function()
  after_each(server.cleanup)

  for name, mistake in pairs(mistakes) do
    it(name .. " is answered with 500", function()
      local s, words
      if name == "running out of memory" then
        s = server.start { launcher = true, script = ([[
          local http = require "moonbridge_http"
          listen{ { proto = "tcp", host = "127.0.0.1", port = PORT }, memory_limit = 20e6,
            connect = http.generate_handler(function(request) %s %s end) }
        ]]):format(BEGUN, mistake[1]) }
        words = mistake[2]
      else
        s, words = start(name)
      end
      local connection = s:connect()
      local response = connection:request "/fail"
      check(response, connection)
      assert.truthy(s:wait_log(('Error in "connect" function: GET /fail %%[%%x+%%]: [^\n]*%s'):format(
        words:gsub("%p", "%%%0"))), s:log())
    end)
  end

  for _, name in ipairs { "an error with data queued", "an error with 60 KB of data queued" } do
    it(name .. " is so for HEAD, HTTP/1.0, a body that was not read, and after another response", function()
      local s = start(name)
      for _, version in ipairs { "1.1", "1.0" } do
        local connection = s:connect()
        local response = connection:request { method = "HEAD", target = "/fail", version = version }
        assert.equal(500, response.status)
        assert.same({ "", "closed" }, { connection:read_all() })
        connection = s:connect()
        check(connection:request { target = "/fail", version = version }, connection)
        connection = s:connect()
        check(connection:request { target = "/fail", version = version, body = "unread" }, connection)
      end
      local connection = s:connect()
      connection:send("GET / HTTP/1.1\r\nHost: a\r\n\r\nGET /fail HTTP/1.1\r\nHost: a\r\n\r\n")
      assert.equal("default", connection:response().body)
      check(connection:response(), connection)
    end)
  end

  it("but not after it: the connection is reset", function()
    local s = app.start [[
      function routes.flushed(request)
        request:send_status("200 OK") request:flush() request:send_data("x") request:flush() error("late")
      end
      function routes.headers(request)
        request:send_status("200 OK") request:finish_headers() error("late")
      end
      function routes.large(request)
        request:send_status("200 OK") request:send_data(("x"):rep(90000)) error("late")
      end
      function routes.waited(request)
        request:send_status("200 OK") request:send_data("x") moonbridge_io.poll(nil, nil, 0.01) error("late")
      end
    ]]
    for _, route in ipairs { "flushed", "headers", "large", "waited" } do
      local _, ending = s:raw(("GET /%s HTTP/1.1\r\nHost: a\r\n\r\n"):format(route))
      assert.equal("reset", ending, route)
    end
  end)
end)

describe("a number with an integer value", function()
  after_each(server.cleanup)

  it("is an integer in headers and status", function()
    local s = app.start([[
      function routes.length(request)
        request:send_status(200.0)
        request:send_header("Content-Length", 10 / 2)
        request:send_header("X-Age", 2^53)
        request:send_header("X-Half", 0.5)
        request:send_data("12345")
        return true
      end
    ]], "{ static_headers = { ['X-Static'] = 6 / 2, ['X-Third'] = 1.5 }, chunk_size = 2048 / 2,"
      .. " request_body_size_limit = 1e6, idle_timeout = 4 / 2 }")
    local connection = s:connect()
    for _ = 1, 2 do
      local response = connection:request "/length"
      assert.equal("12345", response.body)
      local headers = response.headers
      assert.same({ "5", "9007199254740992", "0.5", "3", "1.5" }, { headers["content-length"],
        headers["x-age"], headers["x-half"], headers["x-static"], headers["x-third"] })
    end
  end)

  it("is an integer in the options of listen and of http.request", function()
    local s = server.start { launcher = true, script = [[
      local http = require "moonbridge_http"
      listen{ { proto = "tcp", host = "127.0.0.1", port = PORT + 0.0 },
        pre_fork = 4 / 2, min_fork = 4 / 2, max_fork = 6 / 2, memory_limit = 2^30,
        connect = http.generate_handler(function(request)
          request:send_status("200 OK")
          request:send_data(request.headers_value["x-number"] or "none")
          return true
        end) }
    ]] }
    local http = require "moonbridge_http"
    local body = http.request { url = s.url .. "/", headers = { ["X-Number"] = 10 / 2 },
      redirect = 4 / 2, body_limit = 2^20, timeout = 10 / 2, keepalive = false }
    assert.equal("5", body)
  end)
end)

describe("generate_handler", function()
  after_each(server.cleanup)

  it("takes what require returns, which is two values from Lua 5.4 on", function()
    local s = server.start { launcher = true, script = [[
      package.preload.app = function()
        return function(request)
          request:send_status("200 OK")
          request:send_data("hello")
          return true
        end
      end
      local http = require "moonbridge_http"
      assert(not pcall(http.generate_handler, "text"))
      assert(not pcall(http.generate_handler, {}, "text"))
      assert(not pcall(http.generate_handler, print, 1))
      http.generate_handler(print, "/usr/share/lua/app.lua")
      listen{ { proto = "tcp", host = "127.0.0.1", port = PORT },
        connect = http.generate_handler(require "app") }
    ]] }
    assert.equal("hello", s:request("/").body)
  end)
end)
