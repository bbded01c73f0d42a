-- Option `trusted` of generate_handler: what proxies tell of a request's client, scheme, host, id and trace,
-- and whom the server believes.

local client = require "spec.support.client"
local proxies = require "spec.support.proxies"
local process = require "spec.support.process"
local server = require "spec.support.server"

local APP = [[
  local moonbridge = require "moonbridge"
  local http = require "moonbridge_http"
  local KEYS = { "client_ip", "scheme", "host", "id", "traceparent", "tracestate" }
  local app = http.generate_handler({ OPTIONS }, function(request)
    if request.path == "fail" then error("oh dear") end
    if request.path == "tell" then http.error_log(request, request.get_params.text) end
    if request.path == "redirect" then
      request:redirect(request.get_params.to)
      return true
    end
    request:send_status("200 OK")
    if request.path == "log" then return true end
    if request.path == "closed" then
      request:send_data("x")
      request:finish()
      request.socket:close()
      http.error_log(request, ("closed %s %s %s"):format(request.client_ip, request.scheme, request.host))
      return true
    end
    if request.path == "old" then
      local old = OLD
      OLD = request.id and request.traceparent and request
      local _, message = pcall(http.request, { url = "http://127.0.0.1:1/", trace = old })
      request:send_data(old and tostring(message) or "none yet")
      return true
    end
    if request.path == "redirected" then
      local target = "http://localhost:" .. PORT .. "/"
      request:send_data(assert(http.request{
        url = "http://127.0.0.1:" .. PORT .. "/redirect?to=" .. target, trace = request,
      }))
      return true
    end
    if request.path == "upstream" then
      local headers = { ["X-Own"] = "1", [request.get_params.name] = request.get_params.value }
      local body = assert(http.request{
        url = "http://127.0.0.1:" .. PORT .. "/", trace = request, headers = headers,
      })
      request:send_data("own_id=", request.id, "\nown_traceparent=", request.traceparent, "\n", body)
      return true
    end
    request:send_data("remote_ip=", request.socket.remote_ip, "\n")
    for _, key in ipairs(KEYS) do request:send_data(key, "=", request[key], "\n") end
    for _, name in ipairs { "x-request-id", "traceparent", "tracestate" } do
      request:send_data("sent_", name, "=", request.headers_value[name], "\n")
    end
    return true
  end)
  moonbridge.listen {
    { proto = "tcp", host = "127.0.0.1", port = PORT },
    { proto = "local", path = LOCAL },
    { proto = "tcp", host = "127.0.0.1", port = PROXIED, proxy_protocol = true },
    min_fork = 2,
    connect = app,
  }
  moonbridge.run{ access_log = LOG }
]]

local TRUSTED = 'trusted = { "127.0.0.9", "10.0.0.0/8", "unix" }'
local PARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"

local function start(options, log)
  local globals = { LOCAL = process.scratch("socket"), PROXIED = server.free_port(), LOG = log or false }
  local script = APP:gsub("OPTIONS", options or TRUSTED)
  if not log then script = script:gsub("access_log = LOG", "") end
  local s = server.start { script = script, globals = globals }
  s.path, s.proxied = globals.LOCAL, globals.PROXIED
  return s
end

-- What the handler says of a request.
local function read(response)
  local fields = {}
  for name, value in response.body:gmatch("([^\n=]+)=([^\n]*)") do fields[name] = value end
  return fields
end

local function ask(connection, headers, target)
  local lines = { "GET " .. (target or "/") .. " HTTP/1.1", "Host: own", table.unpack(headers or {}) }
  connection:send(table.concat(lines, "\r\n") .. "\r\n\r\n")
  local response = connection:response()
  return read(response), response
end

-- Over the local socket, which is trusted.
local function trusted(s, headers, target)
  return ask(client.connect(nil, nil, { path = s.path }), headers, target)
end

local FORGED = {
  "X-Forwarded-For: 10.6.6.6, 10.6.6.7", "X-Forwarded-Proto: https", "X-Forwarded-Host: forged",
  "X-Request-Id: forged", "traceparent: " .. PARENT, "tracestate: a=forged",
}

describe("generate_handler behind proxies", function()
  after_each(function()
    proxies.stop()
    client.cleanup()
    server.cleanup()
  end)

  it("takes client, scheme and host from X-Forwarded fields of trusted peers", function()
    local s = start()
    local told = trusted(s, {
      "X-Forwarded-For: 10.6.6.6, 203.0.113.5", "X-Forwarded-For: 10.0.0.1, 10.0.0.2:80",
      "X-Forwarded-Proto: https", "X-Forwarded-Host: example.org:8443",
    })
    assert.equal("203.0.113.5", told.client_ip)
    assert.equal("https", told.scheme)
    assert.equal("example.org:8443", told.host)
    assert.equal("nil", told.remote_ip)
    told = trusted(s, { "X-Forwarded-For: ::ffff:203.0.113.5, unix:" })
    assert.equal("203.0.113.5", told.client_ip)
    assert.equal("http", told.scheme)
    assert.equal("own", told.host)
  end)

  it("takes them from Forwarded", function()
    local s = start()
    local told = trusted(s, { 'Forwarded: for=6.6.6.6;host=forged, For="[2001:db8::1]:4711";proto=https;'
      .. 'host=a, for=10.0.0.1;proto=http' })
    assert.equal("2001:db8::1", told.client_ip)
    assert.equal("https", told.scheme)
    assert.equal("a", told.host)
  end)

  it("believes nobody else", function()
    local s = start()
    for _, fields in ipairs { FORGED, { "Forwarded: for=10.6.6.6;proto=https;host=forged" } } do
      local told = ask(s:connect(), fields)
      assert.equal("127.0.0.1", told.client_ip)
      assert.equal("http", told.scheme)
      assert.equal("own", told.host)
      assert.truthy(told.id:match("^%x+$") and #told.id == 32)
      assert.equal("00-" .. told.id, told.traceparent:match("^(00%-%x+)%-%x+%-00$"))
      assert.equal("nil", told.tracestate)
    end
    -- Without the option, not even the word of a local socket counts.
    s = start ""
    local told = trusted(s, FORGED)
    assert.same({ "nil", "http", "own", "nil" }, { told.client_ip, told.scheme, told.host, told.tracestate })
    assert.not_equal("forged", told.id)
  end)

  it("knows who has sent a request by its PROXY header", function()
    local s = start()
    local function through(line)
      local connection = client.connect(s.proxied)
      connection:send(line .. "\r\n")
      return ask(connection, FORGED)
    end
    local told = through("PROXY TCP4 203.0.113.5 127.0.0.1 1 2")
    assert.same({ "203.0.113.5", "own", "127.0.0.1" }, { told.client_ip, told.host, told.remote_ip })
    told = through("PROXY TCP4 10.0.0.1 127.0.0.1 1 2")
    assert.same({ "10.6.6.6", "forged", "forged" }, { told.client_ip, told.host, told.id })
    told = through("PROXY UNKNOWN")
    assert.same({ "127.0.0.1", "own" }, { told.client_ip, told.host })
    -- Without the option, the header of the connection counts all the same.
    s = start ""
    assert.equal("10.0.0.1", through("PROXY TCP4 10.0.0.1 127.0.0.1 1 2").client_ip)
  end)

  it("refuses requests whose fields contradict each other, unless an option names the right ones", function()
    local fields = { "X-Forwarded-For: 203.0.113.5", "Forwarded: for=198.51.100.1" }
    local s = start()
    local _, response = trusted(s, fields)
    assert.equal(400, response.status)
    assert.truthy(response.body:find("Forwarded and X-Forwarded headers contradict each other", 1, true))
    _, response = trusted(s, { 'Forwarded: for="203.0.113.5' })
    assert.equal(400, response.status)
    assert.truthy(response.body:find("\n\nMalformed Forwarded header\n", 1, true))
    _, response = ask(s:connect(), fields)
    assert.equal(200, response.status)
    for name, ip in pairs { Forwarded = "198.51.100.1", ["X-Forwarded"] = "203.0.113.5" } do
      s = start(('%s, forwarded_fields = %q'):format(TRUSTED, name))
      assert.equal(ip, trusted(s, fields).client_ip)
    end
  end)

  it("takes over ids and traces that are sane", function()
    local s = start()
    local told = trusted(s, { "X-Request-Id: f058ebd6-02f7", "Traceparent: " .. PARENT, "tracestate: a=1",
      "tracestate: b=2" })
    assert.same({ "f058ebd6-02f7", PARENT, "a=1,b=2" }, { told.id, told.traceparent, told.tracestate })
    told = trusted(s, { 'X-Request-Id: a"b', "Traceparent: " .. PARENT:upper() })
    assert.truthy(told.id:match("^%x+$") and #told.id == 32)
    assert.not_equal(PARENT, told.traceparent)
    assert.not_equal(told.id, trusted(s).id)
  end)

  it("believes them also when the handler has closed the connection", function()
    local s = start()
    local connection = client.connect(nil, nil, { path = s.path })
    connection:send("GET /closed HTTP/1.1\r\nHost: own\r\nX-Request-Id: abc\r\n"
      .. "X-Forwarded-For: 203.0.113.5\r\nX-Forwarded-Proto: https\r\nX-Forwarded-Host: h\r\n\r\n")
    connection:read_all()
    assert.truthy(s:wait_log("GET /closed %[abc%]: closed 203%.0%.113%.5 https h\n"), s:log())
  end)

  it("sees no contradiction where one kind of field says less than the other", function()
    local s = start()
    for _, fields in ipairs {
      { 'Forwarded: for="203.0.113.5:1234"', "X-Forwarded-For: 203.0.113.5" },
      { "Forwarded: for=203.0.113.5;host=A", "X-Forwarded-For: 203.0.113.5", "X-Forwarded-Host: a" },
      { "Forwarded: for=203.0.113.5", "X-Forwarded-For: 203.0.113.5", "X-Forwarded-Proto: https" },
    } do
      assert.equal("203.0.113.5", trusted(s, fields).client_ip)
    end
  end)

  it("sends ids and traces to the server that was named, of a request that is being handled", function()
    local s = start 'trusted = { "127.0.0.1" }'
    local told = ask(s:connect(), { "X-Request-Id: abc", "traceparent: " .. PARENT }, "/redirected")
    assert.same({ "nil", "nil" }, { told["sent_x-request-id"], told.sent_traceparent })
    -- A request that is over, whose names were asked for in time.
    local connection = s:connect()
    local function old() return select(2, ask(connection, {}, "/old")).body end
    local answer = process.wait_until(function()
      local body = old()
      return body ~= "none yet" and body
    end)
    assert.truthy(answer:find("'trace' is expected to be a request that is being handled", 1, true), answer)
  end)

  it("makes an id for each request of a connection, which stays the same", function()
    local s = start()
    local connection, seen = s:connect(), {}
    for _ = 1, 10 do
      local told = ask(connection)
      assert.is_nil(seen[told.id])
      seen[told.id] = true
    end
  end)

  it("passes them on with http.request", function()
    local s = start 'trusted = { "127.0.0.1" }'
    local headers = { "X-Request-Id: abc", "traceparent: " .. PARENT, "tracestate: a=1" }
    local told = ask(s:connect(), headers, "/upstream?name=X-Other&value=2")
    assert.same({ "abc", "abc", PARENT }, { told.id, told.own_id, told.own_traceparent })
    assert.equal("a=1", told.tracestate)
    assert.equal(PARENT:sub(1, 35), told.traceparent:sub(1, 35))
    assert.not_equal(PARENT, told.traceparent)
    assert.equal(PARENT:sub(-3), told.traceparent:sub(-3))
    -- What the caller says himself is sent once.
    told = ask(s:connect(), headers, "/upstream?name=x-request-id&value=mine")
    assert.equal("mine", told["sent_x-request-id"])
    told = ask(s:connect(), headers, "/upstream?name=Traceparent&value=" .. PARENT)
    assert.same({ PARENT, "nil" }, { told.sent_traceparent, told.sent_tracestate })
    local told_made = ask(s:connect(), {}, "/upstream?name=X-Other&value=2")
    assert.equal(told_made.own_id, told_made.id)
    assert.equal(told_made.own_traceparent:sub(1, 35), told_made.traceparent:sub(1, 35))
  end)

  it("names requests in the log: errors of handlers, and http.error_log", function()
    local s = start()
    trusted(s, { "X-Request-Id: abc" }, "/tell?text=one%0Atwo")
    assert.truthy(s:wait_log("GET /tell%?text=one%%0Atwo %[abc%]: one\\x0Atwo\n"))
    trusted(s, { "X-Request-Id: abc" }, "/fail")
    assert.truthy(s:wait_log('Error in "connect" function: GET /fail %[abc%]: [^\n]*oh dear'))
  end)

  it("names a request that kills its worker, or keeps it, if its handler has asked for the id", function()
    local s = server.start([[
      local moonbridge = require "moonbridge"
      local http = require "moonbridge_http"
      moonbridge.listen{
        { proto = "tcp", host = "127.0.0.1", port = PORT }, max_fork = 1,
        connect = http.generate_handler(function(request)
          io.stderr:write("id ", request.id, "\n")
          if request.path == "exit" then os.exit(3) end
          require "moonbridge_io".poll({}, {}, 5)
        end)
      }
      moonbridge.run{}
    ]])
    s:raw("GET /exit HTTP/1.0\r\n\r\n")
    assert(s:wait_log("id %x+\n"))
    local id = s:log():match("id (%x+)\n")
    assert.equal(32, #id)
    assert.truthy(s:wait_log("while it handled GET /exit from [^\n]+ s %[" .. id .. "%]\n"), s:log())
    local kept, waits = s:connect(), s:connect()
    kept:send("GET /kept HTTP/1.0\r\n\r\n")
    assert(s:wait_log("id %x+\n.*id %x+\n"))
    waits:send("GET /waits HTTP/1.0\r\n\r\n")
    assert.truthy(s:wait_log("serves GET /kept for at least %d+ s %[%x+%]\n"), s:log())
  end)

  it("names them in the access log, with the client that a trusted peer tells", function()
    local path = process.scratch("access.log")
    local s = start(TRUSTED, path)
    trusted(s, { "X-Request-Id: abc", "traceparent: " .. PARENT, "X-Forwarded-For: 203.0.113.5" }, "/log")
    ask(s:connect(), FORGED, "/log")
    local told = ask(s:connect())
    local function lines()
      local all = {}
      for line in (process.slurp(path) or ""):gmatch("[^\n]+") do all[#all + 1] = line end
      return #all == 3 and all
    end
    local all = assert(process.wait_until(lines))
    table.sort(all, function(a, b) return a:match('"time":"[^"]*') < b:match('"time":"[^"]*') end)
    local text = table.concat(all, "\n")
    local function has(part) assert.truthy(text:find(part, 1, true), part .. " in " .. text) end
    has '"client_ip":"203.0.113.5","client_port":null,"method":"GET"'
    has(('"request_id":"abc","traceparent":"%s"'):format(PARENT))
    has(('"request_id":"%s","traceparent":"%s"'):format(told.id, told.traceparent))
    assert.is_nil(text:find("forged", 1, true))
    assert.is_nil(text:find("10.6.6.6", 1, true))
  end)

  it("names the wrong entry of a list, and other misuse", function()
    for options, message in pairs {
      ['trusted = { "10.0.0.0/33" }'] = 'Option "trusted": "10.0.0.0/33" is not a network',
      ['trusted = { "10.0.0.7/8" }'] = '"10.0.0.7/8" has more than 8 bits',
      ['trusted = "::1"'] = 'Option "trusted" must be a list of networks',
      ['forwarded_fields = "Forwarded"'] = 'Option "forwarded_fields" is of use with "trusted" only',
      ['trusted = { "unix" }, forwarded_fields = "X"'] =
        'Option "forwarded_fields" is expected to be "Forwarded" or "X-Forwarded"',
    } do
      local code, _, log = server.run_script {
        script = ([[require "moonbridge_http".generate_handler({ %s }, print)]]):format(options),
      }
      assert.not_equal(0, code)
      assert.truthy(log:find(message, 1, true), log)
    end
    local code, _, log = server.run_script { script = [[
      local http = require "moonbridge_http"
      local function message(...) return select(2, pcall(...)) end
      local function has(text, part) assert(text:find(part, 1, true), text) end
      has(message(http.error_log, {}, "x"), "bad argument #1 to 'error_log' (request expected, got table)")
      has(message(http.error_log, nil, "x"), "(request expected, got nil)")
      local options = { url = "http://127.0.0.1:1/", trace = {} }
      has(message(http.request, options), "option 'trace' is expected to be a request")
    ]] }
    assert.equal(0, code, log)
  end)

  -- The proxies connect from an address of their own, which is trusted; their users do not.
  local NGINX = "proxy_bind 127.0.0.9;"

  local function is_right(told)
    assert.same({ "127.0.0.1", "http", "own", "127.0.0.9" },
      { told.client_ip, told.scheme, told.host, told.remote_ip })
  end

  it("gets the address of nginx's client, whatever that sends", function()
    local s = start()
    local port = proxies.start("nginx", { s.port }, { location = NGINX .. [[
      proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
      proxy_set_header X-Forwarded-Proto $scheme;
      proxy_set_header X-Forwarded-Host $http_host;
      proxy_set_header X-Request-Id $request_id;
    ]] })
    local told = ask(client.connect(port), FORGED)
    is_right(told)
    assert.equal(told["sent_x-request-id"], told.id)
    assert.truthy(told.id:match("^%x+$"))
    -- A field that this nginx does not set.
    local _, response = ask(client.connect(port), { "Forwarded: for=10.6.6.6" })
    assert.equal(400, response.status)
  end)

  it("gets it of nginx as Forwarded", function()
    local s = start(TRUSTED .. ', forwarded_fields = "Forwarded"')
    local port = proxies.start("nginx", { s.port }, { location = NGINX .. [[
      proxy_set_header Forwarded
        "$http_forwarded, for=\"$remote_addr:$remote_port\";proto=$scheme;host=$http_host";
    ]] })
    local forged = { "Forwarded: for=10.6.6.6;proto=https;host=forged", table.unpack(FORGED) }
    local told = ask(client.connect(port), forged)
    is_right(told)
    local _, response = ask(client.connect(port), { 'Forwarded: for="' })
    assert.equal(400, response.status, "an open string would hide what nginx says")
  end)

  for kind, option in pairs { ["X-Forwarded"] = "option forwardfor",
    Forwarded = 'http-request add-header Forwarded "for=%[src];proto=http;host=%[req.hdr(host)]"' } do
    it("gets it of HAProxy: " .. option, function()
      local s = start(('%s, forwarded_fields = %q'):format(TRUSTED, kind))
      local port = proxies.start("HAProxy", { s.port },
        { backend = "http-reuse always\n    " .. option, server = "source 127.0.0.9" })
      local told = ask(client.connect(port), { FORGED[1], "Forwarded: for=10.6.6.6;host=forged" })
      is_right(told)
    end)
  end

  it("goes on through nginx behind HAProxy up to the client", function()
    local s = start 'trusted = { "127.0.0.9", "127.0.0.8" }'
    local nginx = proxies.start("nginx", { s.port },
      { location = NGINX .. "proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;" })
    local port = proxies.start("HAProxy", { nginx },
      { backend = "option forwardfor", server = "source 127.0.0.8" })
    local told = ask(client.connect(port), { FORGED[1] })
    assert.same({ "127.0.0.1", "127.0.0.9" }, { told.client_ip, told.remote_ip })
  end)
end)
