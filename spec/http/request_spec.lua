-- What the handler sees of a request: the sentences of the reference, "HTTP module", from
-- "request.cookies" to "request.query".

local server = require "spec.support.server"
local app = require "spec.http.app"

local ROUTES = [[
  local function show(value)
    if type(value) == "table" then
      local keys = {}
      for key in pairs(value) do keys[#keys + 1] = key end
      table.sort(keys, function(a, b) return tostring(a) < tostring(b) end)
      local parts = {}
      for _, key in ipairs(keys) do parts[#parts + 1] = tostring(key) .. "=" .. show(value[key]) end
      return "{" .. table.concat(parts, ",") .. "}"
    end
    return tostring(value)
  end
  function routes.default(request)
    -- The expression to be shown stands in the header X-Show.
    local expression = assert(load("local request, show = ... return " .. request.headers_value["X-Show"]))
    local results = table.pack(expression(request, show))
    for i = 1, results.n do results[i] = show(results[i]) end
    return reply(request, table.concat(results, " "))
  end
]]

describe("request", function()
  local s
  setup(function() s = app.start(ROUTES) end)
  teardown(server.cleanup)

  local function show(expression, options)
    options = options or {}
    options.headers = options.headers or {}
    table.insert(options.headers, { "X-Show", (expression:gsub("%s+", " ")) })
    local response = s:request(options)
    assert.equal(200, response.status)
    return response.body
  end

  describe(".method", function()
    it("is the HTTP request method", function()
      assert.equal("GET", show("request.method"))
      assert.equal("POST", show("request.method", { body = "" }))
      assert.equal("BREW", show("request.method", { method = "BREW" }))
    end)
  end)

  describe(".path", function()
    it("has no leading slash and no query part", function()
      assert.equal("index.html", show("request.path", { target = "/index.html?a=b&c=d" }))
      assert.equal("", show("request.path"))
      assert.equal("/a", show("request.path", { target = "//a" }))
    end)

    it("is never decoded", function()
      assert.equal("a%2Fb%20c", show("request.path", { target = "/a%2Fb%20c" }))
    end)

    it("is nil if and only if the target is * (OPTIONS)", function()
      assert.equal("nil nil", show("request.path, request.query", { method = "OPTIONS", target = "*" }))
      assert.equal("x ", show("request.path, request.query", { method = "OPTIONS", target = "/x" }))
    end)
  end)

  describe(".query", function()
    it("has its leading question mark, and is empty if there is none", function()
      assert.equal("?a=b&c=d", show("request.query", { target = "/index.html?a=b&c=d" }))
      assert.equal("?", show("request.query", { target = "/?" }))
      assert.equal("", show("request.query"))
    end)
  end)

  describe(".host", function()
    it("is the Host header, or the host of an absolute target", function()
      assert.equal("a.b:80", show("request.host", { host = "a.b:80" }))
      assert.equal("c:1 x", show("request.host, request.path", { host = "a.b", target = "http://c:1/x" }))
    end)
  end)

  describe(".target, .version and .scheme", function()
    it("are what gateway interfaces want", function()
      local expression = "request.target, request.version, request.scheme"
      for _, target in ipairs { "/", "/a%2fb/../c?d=+&e", "//x", "/?", "http://a.b/c?d", "HTTPS://a" } do
        assert.equal(target .. " HTTP/1.1 http", show(expression, { target = target }))
      end
      assert.equal("* HTTP/1.1 http", show(expression, { method = "OPTIONS", target = "*" }))
      local long = "/" .. ("x"):rep(10000)
      assert.equal(long, show("request.target", { target = long }))
    end)

    it("tell HTTP/1.0 from HTTP/1.1", function()
      for sent, version in pairs { ["1.0"] = "HTTP/1.0", ["1.1"] = "HTTP/1.1", ["1.9"] = "HTTP/1.1" } do
        local answer = s:raw("GET / HTTP/" .. sent .. "\r\nHost: a\r\nConnection: close\r\n"
          .. "X-Show: request.version\r\n\r\n")
        assert.match("\n" .. version, answer:match("\r\n\r\n.*"))
      end
    end)

    it("can be replaced by what a proxy tells", function()
      assert.equal("https", show("(function() request.scheme = 'https' return request.scheme end)()"))
    end)
  end)

  describe(".get_params and .get_params_list", function()
    it("map names to first values and to all values", function()
      local target = "/?a=1&b=2&a=3&c"
      assert.equal("{a=1,b=2,c=}", show("request.get_params", { target = target }))
      assert.equal("{a={1=1,2=3},b={1=2},c={1=}}", show("request.get_params_list", { target = target }))
      assert.equal("1 nil", show("request.get_params.a, request.get_params.z", { target = target }))
    end)

    it("decode + and %XX, and leave invalid escapes", function()
      assert.equal("{a b=c=d &%zz%}", show("request.get_params", { target = "/?a+b=c=d%20%26%zz%" }))
    end)

    it("are empty without a query", function()
      assert.equal("{} {}", show("request.get_params, request.get_params_list"))
    end)

    it("have an empty table for a missing name, which pairs skips", function()
      local expression = "#request.get_params_list.z, request.get_params_list"
      assert.equal("0 {a={1=1}}", show(expression, { target = "/?a=1" }))
    end)

    it("can be assigned to", function()
      local expression = [[(function()
        request.get_params.a = "x"
        request.get_params.b = nil
        request.get_params_list.c = { "y", "z" }
        return show(request.get_params) .. show(request.get_params_list)
      end)()]]
      assert.equal("{a=x,c=y}{a={1=x},c={1=y,2=z}}", show(expression, { target = "/?a=1&b=2" }))
    end)

    -- Few names are searched in the query; many are made into a table.
    for _, more in ipairs { "", ("&m=n"):rep(20), "&m=" .. ("n"):rep(5000) } do
      describe("with " .. #more .. " bytes more", function()
        local function evaluate(text)
          local expression = ("(function(a, b) %s end)(request.get_params, request.get_params_list)")
          return show(expression:format(text), { target = "/?a=1&b=2&a=3&%63%5B%5d=4%26+5&d" .. more })
        end

        it("have first values and all values, decoded", function()
          assert.equal("1 2 4& 5  nil nil n",
            evaluate "return a.a, a.b, a['c[]'], a.d, a.e, a[1], a.m and a.m:sub(1, 1) or 'n'")
          assert.equal("{1=1,2=3} {1=4& 5} 0", evaluate "return b.a, b['c[]'], #b.z")
        end)

        it("can be assigned to: each sees what was assigned to the other", function()
          assert.equal("x {1=x} nil {} y {1=y,2=z}", evaluate [[
            a.a, a.b, b.d = "x", nil, { "y", "z" } return a.a, b.a, a.b, b.b, a.d, b.d]])
          local function later(text)
            local expression = ("(function(r) %s end)(request)"):format(text)
            return show(expression, { target = "/?a=1&b=2" .. more })
          end
          assert.equal("{1=x} 2", later [[r.get_params.a = "x" return r.get_params_list.a, r.get_params.b]])
          assert.equal("y 2", later [[r.get_params_list.a = { "y" } return r.get_params.a, r.get_params.b]])
          assert.equal("true true", later [[local a, b = r.get_params, r.get_params_list a.c = "d"
            return a == r.get_params, b == r.get_params_list]])
        end)

        it("can be iterated", function()
          local text = [[local names = {} for name, value in pairs(%s) do names[#names + 1] = name end
            table.sort(names) return table.concat(names, ","):gsub(",m", "")]]
          assert.equal("a,b,c[],d", evaluate("return ((function() " .. text:format "a" .. " end)())"))
          assert.equal("a,b,c[],d", evaluate("return ((function() " .. text:format "b" .. " end)())"))
        end)
      end)
    end

    it("take many names in time linear to their size", function()
      local function query(count)
        local parts = {}
        for i = 1, count do parts[i] = ("x"):rep(90) .. i .. "=" .. i end
        return "/?" .. table.concat(parts, "&")
      end
      assert.equal("4096", show("request.get_params[('x'):rep(90) .. 4096]", { target = query(4096) }))
    end)
  end)

  describe(".cookies", function()
    it("has all cookies sent by the client: names as they are, decoded values", function()
      local headers = { { "Cookie", "a=1; b=2=3; c%20d=e%3Bf; a=4" }, { "Cookie", "g=+" } }
      assert.equal("{a=1,b=2=3,c%20d=e;f,g=+}", show("request.cookies", { headers = headers }))
      assert.equal("{}", show("request.cookies"))
      assert.equal("nil", show("request.cookies.a"))
    end)

    it("keeps the first of a name, however many there are, and can be assigned to", function()
      for _, more in ipairs { "", ("; m=n"):rep(20), "; m=" .. ("n"):rep(5000) } do
        local function evaluate(text)
          local expression = ("(function(c) %s end)(request.cookies)"):format(text)
          return show(expression, { headers = { { "Cookie", "a=1 ; b = %32 ;c; a=3" .. more } } })
        end
        assert.equal("1 2 nil nil", evaluate "return c.a, c.b, c.c, c[1]")
        assert.equal("1 nil nil x", evaluate "c.d, c.b = 'x' return c.a, c.b, c.c, c.d")
      end
    end)

    it("cannot be given a guarded name by an escape", function()
      local headers = { { "Cookie", "__%48ost-sid=evil; __%53ecure-sid=evil; __Host%2Dsid=evil" } }
      assert.equal("nil nil", show("request.cookies['__Host-sid'], request.cookies['__Secure-sid']",
        { headers = headers }))
    end)
  end)

  describe("header views", function()
    local function headers() return { { "A", "1, 2" }, { "a", " 3 " }, { "B", "x" } } end

    it("headers: a sequence with an entry for each line, empty for missing ones", function()
      assert.equal("{1=1, 2,2=3}", show("request.headers.A", { headers = headers() }))
      assert.equal("{1=1, 2,2=3}", show("request.headers.a", { headers = headers() }))
      assert.equal("{} true", show("request.headers.Z, request.headers.Z == request.headers.z"))
    end)

    it("headers_csv_string: all lines joined by commas", function()
      assert.equal("1, 2, 3", show("request.headers_csv_string.a", { headers = headers() }))
      assert.equal("", show("request.headers_csv_string.z"))
    end)

    it("headers_csv_table: an entry for every comma separated value", function()
      assert.equal("{1=1,2=2,3=3}", show("request.headers_csv_table.A", { headers = headers() }))
      assert.equal("{}", show("request.headers_csv_table.Z"))
    end)

    it("headers_flags: whether a value is among them, in any case", function()
      local list = { { "Accept-Encoding", "GZIP, Deflate" } }
      local expression = "request.headers_flags['accept-encoding'].gzip, "
        .. "request.headers_flags['Accept-Encoding']['DEFLATE'], "
        .. "request.headers_flags['Accept-Encoding'].br, request.headers_flags.missing.x"
      assert.equal("true true false false", show(expression, { headers = list }))
    end)

    it("headers_value: the value, false if there are several lines, nil if there is none", function()
      local expression = "request.headers_value.B, request.headers_value.A, request.headers_value.Z"
      assert.equal("x false nil", show(expression, { headers = headers() }))
    end)

    it("have one entry for a name, however it is written", function()
      for _, view in ipairs { "headers", "headers_csv_table", "headers_flags" } do
        for _, name in ipairs { "A", "B", "Z" } do
          local expression = ("request.%s['%s'] == request.%s['%s']"):format(view, name, view, name:lower())
          assert.equal("true", show(expression, { headers = headers() }), expression)
        end
      end
      assert.equal("{1=x,2=y}", show("(function(h) h.B[2] = 'y' return h.b end)(request.headers)",
        { headers = headers() }))
    end)

    it("can be assigned to, in any case", function()
      local expression = "(function(h) h.B, h.Q = %s, %s return h.b, h.q, h.Q, h.z end)(request.%s)"
      for view, words in pairs { headers_value = "y z z nil", headers_csv_string = "y z z " } do
        assert.equal(words, show(expression:format("'y'", "'z'", view), { headers = headers() }))
      end
      assert.equal("{1=y} {} {} {}",
        show(expression:format("{ 'y' }", "{}", "headers"), { headers = headers() }))
    end)

    it("take lists of any length, from one line or several", function()
      local many, quoted = ("c, "):rep(40) .. '"d,e"', '"d,e"'
      for _, lines in ipairs { { many }, { "c", quoted }, { "c," .. quoted } } do
        local list = {}
        for index, line in ipairs(lines) do list[index] = { "A", line } end
        local expression = [[request.headers_csv_table.A[1], request.headers_flags.A.C,
          request.headers_flags.A.d, #request.headers_csv_table.A, (function()
            for k, v in pairs(request.headers_flags.A) do if k ~= "c" then return k, v end end
          end)()]]
        local count = lines[1] == many and 41 or 2
        assert.equal('c true false ' .. count .. ' "d,e" true', show(expression, { headers = list }))
      end
    end)

    it("can be iterated: names in lower case", function()
      assert.equal("{a={1=1, 2,2=3},b={1=x},host={1=localhost},x-show={1=request.headers}}",
        show("request.headers", { headers = headers() }))
    end)
  end)

  it("has nothing under keys that are no strings, which are no names", function()
    for _, more in ipairs { "", "x" } do
      for _, view in ipairs { "get_params", "get_params_list", "cookies", "headers", "headers_csv_table",
        "headers_csv_string", "headers_value", "headers_flags", "headers_flags.A", "headers_flags.Z" }
      do
        local expression = [[(function(view)
          for _ in ipairs(view) do return "does not end" end
          return view[1], view[1.5], view[true], view[{}] end)(request.]] .. view .. ")"
        local text = "a=1" .. more:rep(5000)
        local headers = { { "Cookie", text }, { "A", "b" .. (", b"):rep(#more * 40) } }
        assert.equal("nil nil nil nil", show(expression, { target = "/?" .. text, headers = headers }), view)
      end
    end
  end)

  describe(".fresh", function()
    it("is true until the request object is used", function()
      assert.equal("true", show("request.fresh"))
      for _, use in ipairs { "request:send_status('200 OK')", "request:consume_input()",
        "request:stream_request_body(print)", "request:stream_post_param('a', print)", "request.body" }
      do
        local text = ("(function() local _ = %s return request.fresh end)()"):format(use)
        server.cleanup()
        s = app.start([[function routes.default(request)
          local before = request.fresh
          local _ = ]] .. use .. [[
          note(before, request.fresh)
          if not pcall(request.send_status, request, "200 OK") then end
          return true
        end]])
        s:request "/"
        assert.equal("true false", s:request("/notes").body, text)
      end
      server.cleanup()
      s = app.start(ROUTES)
    end)
  end)

  it(".faulty is normally false", function()
    assert.equal("false", show("request.faulty"))
  end)

  it(".socket is the underlying socket", function()
    local expression = "request.socket.remote_ip, request.socket.local_tcpport == " .. s.port
    assert.equal("127.0.0.1 true", show(expression))
  end)

  it("takes fields of the user's, and unknown ones are nil", function()
    assert.equal("1 nil", show("(function() request.mine = 1 return request.mine end)(), request.nothing"))
  end)

  it("has methods that tell when they were called with a dot", function()
    local names = { "send_status", "send_header", "send_data", "send", "redirect", "signed_cookie",
      "log_field", "send_body", "receive_body", "stream_request_body", "stream_request_body_now",
      "stream_post_param", "stream_post_params", "send_file" }
    for _, name in ipairs(names) do
      local text = "false calling '%s' on bad self (request expected, got string): call it with a colon"
      assert.equal(text:format(name), show("pcall(request." .. name .. ", 'a')"))
    end
  end)

  it("of the past does not act on a later one, nor show its data", function()
    server.cleanup()
    s = app.start [[
      local kept
      function routes.keep(request)
        kept = request
        views = request.headers
        return reply(request, "")
      end
      function routes.use(request)
        note(pcall(kept.send_status, kept, "200 OK"))
        note(#views["x-secret"], kept.query, (kept:finish()))
        return reply(request, "still here")
      end
    ]]
    local connection = s:connect()
    connection:request "/keep"
    local response = connection:request { target = "/use", headers = { ["X-Secret"] = "1" } }
    assert.equal("still here", response.body)
    assert.equal("false Response has already been finished\n0 nil nil", s:request("/notes").body)
  end)

  it("leaves parameters and cookies to a handler that keeps them; its header tables are emptied", function()
    server.cleanup()
    s = app.start [[
      local kept
      function routes.keep(request)
        kept = { request.get_params, request.cookies, request.headers_value, request.headers,
          request.headers_flags.Accept }
        return reply(request, "")
      end
      function routes.use(request)
        local _ = request.get_params.a, request.cookies.b, request.headers_value["X-Secret"]
        note(kept[1].a, kept[2].b, kept[3]["X-Secret"], #kept[4]["X-Secret"], kept[5].html)
        for name in pairs(kept[1]) do note(name) end
        for name in pairs(kept[4]) do note(name) end
        kept[1].a = "x"
        note(kept[1].a, request.get_params.a)
        return reply(request, "")
      end
    ]]
    local connection = s:connect()
    local headers = { Cookie = "b=2", Accept = "html", ["X-Secret"] = "3" }
    connection:request { target = "/keep?a=1", headers = headers }
    connection:request { target = "/use?a=4", headers = { Cookie = "b=5", ["X-Secret"] = "6" } }
    assert.equal("1 2 nil 0 true\na\nx 4", s:request("/notes").body)
  end)
end)
