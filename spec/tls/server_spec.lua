-- Listeners with TLS: certificates, handshakes, what handlers see, with clients of other makers.

local certificates = require "spec.support.certificates"
local http = require "moonbridge_http"
local json = require "dkjson"
local moonbridge_io = require "moonbridge_io"
local process = require "spec.support.process"
local server = require "spec.support.server"
local status_listener = require "spec.support.status_listener"
local tables = require "spec.support.tables"
local tls_listener = require "spec.support.tls_listener"

local authority, localhost
before_each(function()
  localhost, authority = certificates.signed()
end)

after_each(function()
  http.close_idle_connections()
  server.cleanup()
end)

local function replace(path, text)
  local handle = assert(io.open(path, "wb"))
  handle:write(text)
  handle:close()
end

local fields, start = tls_listener.fields, tls_listener.start

local function tls(more)
  return tables.with({ ca = authority.certificate }, more)
end

local function request(s, more)
  local options = { url = ("https://localhost:%d/"):format(s.port), tls = tls(), keepalive = false }
  return http.request(tables.with(options, more))
end

local function words(text)
  local list = {}
  for word in assert(text):gmatch("%S+") do list[#list + 1] = word end
  return list
end

local function connect(s, more)
  return assert(moonbridge_io.tlsconnect("localhost", s.port, tls(more)))
end

-- What a client begins with, without the header of its record.
local function client_hello()
  local listener = assert(moonbridge_io.tcplisten("127.0.0.1", 0))
  local client = assert(moonbridge_io.tlsconnect_nb("localhost", listener.local_tcpport, tls()))
  assert(client:flush_nb())
  local accepted = assert(listener:accept())
  local length = string.unpack(">I2", (accepted:read(5)), 4)
  local hello = accepted:read(length)
  for _, handle in ipairs { client, accepted, listener } do handle:close() end
  return hello
end

describe("a listener with TLS", function()
  it("serves requests, whose scheme is https", function()
    local s = start(localhost, "alpn = { 'http/1.1' }")
    local known = words(request(s))
    assert.same({ "https", "1.3", "http/1.1", "localhost", "full" }, { table.unpack(known, 1, 5) })
  end)

  it("serves curl, Python, OpenSSL and GnuTLS, in both versions", function()
    local s = start(localhost)
    for _, version in ipairs { "1.2", "1.3" } do
      local curl = "curl -sS --cacert %s --tlsv%s --tls-max %s https://localhost:%d/ 2>&1"
      local code, output = process.run(curl:format(authority.certificate, version, version, s.port))
      assert.equal(0, code, output)
      assert.equal(version, words(output)[2])
    end
    local python = ([[
import ssl, urllib.request
context = ssl.create_default_context(cafile=%q)
for _ in range(3):
    print(urllib.request.urlopen("https://localhost:%d/", context=context).read().decode())
]]):format(authority.certificate, s.port)
    local code, output = process.run("python3 -c " .. process.quote(python) .. " 2>&1")
    assert.equal(0, code, output)
    local asks = "printf 'GET / HTTP/1.0\r\n\r\n' | "
    code, output = process.run((asks .. "gnutls-cli --logfile=/dev/null --x509cafile=%s -p %d localhost 2>&1")
      :format(authority.certificate, s.port))
    assert.equal(0, code, output)
    assert.matches("https 1.3", output)
    code, output = process.run((asks .. "openssl s_client -quiet -verify_return_error -CAfile %s "
      .. "-connect localhost:%d 2>&1"):format(authority.certificate, s.port))
    assert.equal(0, code, output)
    assert.matches("https 1.3", output)
  end)

  it("keeps connections, which cost no worker while they are idle", function()
    local s = start(localhost)
    local handles = {}
    for index = 1, 20 do
      handles[index] = connect(s)
      handles[index]:write("GET / HTTP/1.1\r\nHost: a\r\n\r\n"):flush()
      assert.equal("HTTP/1.1 200 OK\r\n", (handles[index]:read(nil, "\n")))
    end
    assert.matches("^https", (request(s)))
    for index = 1, 20 do
      local handle = handles[index]
      handle:drain_nb(4000)
      handle:write("GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"):flush()
      assert.matches("https 1.3", (handle:read()))
      handle:close()
    end
  end)

  it("resumes sessions in whichever worker", function()
    local s = start(localhost, "", "pre_fork = 3,")
    for _, version in ipairs { "1_2", "1_3" } do
      local session = process.scratch("session")
      for attempt = 1, 12 do
        local code, output = process.run(("(printf 'GET / HTTP/1.0\r\n\r\n'; sleep 0.1) | "
          .. "openssl s_client -quiet -tls%s -CAfile %s -connect localhost:%d -servername localhost %s %s "
          .. "2>/dev/null"):format(version, authority.certificate, s.port,
          attempt > 1 and "-sess_in " .. session or "", attempt == 1 and "-sess_out " .. session or ""))
        assert.equal(0, code)
        local known = words(output:match("\r\n\r\n(.*)$"))
        assert.equal(attempt > 1 and "resumed" or "full", known[5])
      end
    end
  end)

  it("sends large responses to slow readers from the event loop, and receives large bodies", function()
    local s = server.start(([[
      local moonbridge, http = require "moonbridge", require "moonbridge_http"
      moonbridge.listen {
        { %s },
        max_fork = 1,
        connect = http.generate_handler({ response_buffering = 1 << 25, request_body_size_limit = 1 << 25 },
          function(request)
            request:send_status("200 OK")
            if request.method == "POST" then
              request:send_data(tostring(#request.body))
            elseif request.path == "large" then
              request:send_data(("x"):rep(8000000))
            else
              request:send_data("small")
            end
            return true
          end),
      }
      moonbridge.run()
    ]]):format(fields(localhost)))
    local slow = connect(s)
    slow:write("GET /large HTTP/1.0\r\n\r\n"):flush()
    assert.equal("HTTP/1.1 200 OK\r\n", (slow:read(nil, "\n")))
    assert.equal("small", (request(s)))
    local rest, status = slow:read()
    assert.equal("eof", status)
    assert.equal(8000000, #rest:match("\r\n\r\n(.*)$"))
    slow:close()
    assert.equal("3000000", (request(s, { body = ("y"):rep(3000000) })))
  end)

  it("chooses certificates by the name that a client asks for, and by what it knows", function()
    local other = certificates.make { issuer = authority, names = { "b.example" } }
    local wild = certificates.make { issuer = authority, names = { "*.c.example" }, key = "rsa:2048" }
    local rsa = certificates.make { issuer = authority, key = "rsa:2048" }
    local s = start(localhost, ("names = { ['b.example'] = { certificate = %q, key = %q }, "
      .. "['*.C.example'] = { certificate = %q, key = %q }, "
      .. "['two.example'] = { certificate = { %q, %q }, key = { %q, %q } } }"):format(other.certificate,
      other.key, wild.certificate, wild.key, localhost.certificate, rsa.certificate, localhost.key, rsa.key))
    local function shown(name, arguments)
      local _, output = process.run(("echo | openssl s_client -connect localhost:%d -servername %s %s "
        .. "2>/dev/null | openssl x509 -noout -fingerprint -sha256"):format(s.port, name, arguments or ""))
      return output:match("=([%x:]+)")
    end
    local fingerprint = certificates.fingerprint
    assert.equal(fingerprint(localhost), shown("unknown.example"))
    assert.equal(fingerprint(other), shown("b.example"))
    assert.equal(fingerprint(wild), shown("x.c.example"))
    assert.equal(fingerprint(localhost), shown("x.y.c.example"))
    assert.equal(fingerprint(localhost), shown("two.example"))
    assert.equal(fingerprint(rsa), shown("two.example", "-tls1_2 -sigalgs RSA-PSS+SHA256:RSA+SHA256"))
  end)

  it("asks for client certificates", function()
    local own = certificates.make { issuer = authority, name = "client" }
    local s = start(localhost, ("client_ca = %q"):format(authority.certificate))
    local known = words(request(s, { tls = tls { certificate = own.certificate, key = own.key } }))
    assert.equal("CN=client,O=Specs", known[6])
    local body, message = request(s)
    assert.is_nil(body)
    assert.equal("string", type(message))
    assert(s.process:wait_log("TLS handshakes failed: 1. The last one, with 127.0.0.1: "
      .. "the client has shown no certificate"))
  end)

  it("tells the log what it has not in common with a client", function()
    for _, case in ipairs {
      { "alpn = 'x'", "-alpn y", "the client and this side have no protocol in common" },
      { "min_version = '1.3'", "-tls1_2", "the client does not support TLS 1.3, which option min_version" },
      { "", "-tls1_1 -cipher DEFAULT:@SECLEVEL=0", "too little in common for TLS" },
    } do
      local s = start(localhost, case[1])
      assert.not_equal(0, (process.run(("openssl s_client -connect localhost:%d %s </dev/null 2>&1"):format(
        s.port, case[2]))))
      assert(s.process:wait_log(case[3]))
    end
  end)

  it("tells the log why a client refuses it, but not of one that goes after its handshake", function()
    local s = start(localhost)
    local gone = connect(s)
    gone:reset()
    local handle, _, code = moonbridge_io.tlsconnect("localhost", s.port, { alpn = "a" })
    assert.same({ nil, "unknown_authority" }, { handle, code })
    assert(s.process:wait_log("TLS handshakes failed: 1. The last one, with 127.0.0.1: the client has ended "
      .. "TLS with the alert \"unknown ca\": it does not trust the authority"))
    assert.is_nil(s.process:log():find("Broken pipe", 1, true))
  end)

  it("tells the log at the end how many further handshakes have failed", function()
    local s = start(localhost)
    for _ = 1, 4 do assert.is_nil((moonbridge_io.tlsconnect("localhost", s.port, { alpn = "a" }))) end
    assert(s.process:wait_log("TLS handshakes failed: 1. The last one, "))
    s.process:signal("TERM")
    assert.equal(0, s.process:wait())
    assert.truthy(s.process:log():find("[Pool #1] TLS handshakes failed: 3 more\n", 1, true), s.process:log())
  end)

  it("waits for no handshake that begins with an end, or with an alert", function()
    local s = start(localhost)
    -- close_notify, a warning, a failure, one that is cancelled; then only an end.
    for _, bytes in ipairs { "\21\3\1\0\2\1\0", "\21\3\1\0\2\1\112", "\21\3\1\0\2\2\40",
        "\21\3\1\0\2\1\90\21\3\1\0\2\1\0", "" } do
      local handle = assert(moonbridge_io.tcpconnect("127.0.0.1", s.port))
      handle:flush(bytes)
      if bytes == "" then handle:finish() end
      handle:read()
      handle:close()
    end
    assert.is_nil(s.process:log():find("within 10 s", 1, true))
  end)

  it("reads files again that have changed, without an end of connections", function()
    local made = { certificate = process.scratch("certificate.pem"), key = process.scratch("key.pem") }
    local function put(from)
      os.execute(("cp %s %s && cp %s %s"):format(from.key, made.key, from.certificate, made.certificate))
    end
    put(localhost)
    local s = start(made)
    local kept = connect(s)
    kept:write("GET / HTTP/1.1\r\nHost: a\r\n\r\n"):flush()
    assert.equal("HTTP/1.1 200 OK\r\n", (kept:read(nil, "\n")))
    local renewed = certificates.make { issuer = authority }
    put(renewed)
    assert(process.wait_until(function()
      local handle = connect(s)
      local found = handle.tls.peer_certificate.fingerprint
      handle:close()
      return found == certificates.fingerprint(renewed)
    end))
    os.execute("echo nonsense > " .. made.certificate)
    assert(process.wait_until(function()
      connect(s):close()
      return s.process:log():find("cannot be used", 1, true)
    end))
    assert.equal(certificates.fingerprint(renewed), connect(s).tls.peer_certificate.fingerprint)
    kept:drain_nb(4000)
    kept:write("GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"):flush()
    assert.matches("https 1.3", (kept:read()))
  end)

  it("ends idle connections in order when the server does", function()
    local s = start(localhost)
    local handle = connect(s)
    handle:write("GET / HTTP/1.1\r\nHost: a\r\n\r\n"):flush()
    assert.equal("HTTP/1.1 200 OK\r\n", (handle:read(nil, "\n")))
    s:signal("TERM")
    assert.equal("eof", (select(2, handle:read())))
    assert.equal(0, s:wait())
  end)

  it("serves at a shutdown who has just come, and ends idle connections in order", function()
    local s = start(localhost)
    local idle = connect(s)
    idle:write("GET / HTTP/1.1\r\nHost: a\r\n\r\n"):flush()
    assert.equal("HTTP/1.1 200 OK\r\n", (idle:read(nil, "\n")))
    local waiting = assert(moonbridge_io.tlsconnect_nb("localhost", s.port, tls()))
    s:signal("TERM")
    waiting:write("GET / HTTP/1.0\r\n\r\n")
    local flushed = waiting:flush()
    -- It is served, unless the port was closed before its connection was there.
    if flushed then
      local text, status = waiting:read()
      assert.is_true(text == nil or text == "" or status == "eof" and text:find("https 1.3", 1, true) ~= nil)
    end
    assert.equal("eof", (select(2, idle:read())))
    assert.equal(0, s:wait())
  end)

  it("asks for a full handshake once client_ca has changed", function()
    local own = certificates.make { issuer = authority, name = "client" }
    local file, session = process.scratch("client_ca.pem"), process.scratch("session")
    replace(file, process.slurp(authority.certificate))
    local s = start(localhost, ("client_ca = %q"):format(file))
    for _, version in ipairs { "1_2", "1_3" } do
      local function ask(more)
        local _, output = process.run(("(printf 'GET / HTTP/1.0\r\n\r\n'; sleep 0.1) | "
          .. "openssl s_client -quiet -tls%s -CAfile %s -connect localhost:%d -cert %s -key %s %s "
          .. "2>/dev/null"):format(version, authority.certificate, s.port, own.certificate, own.key, more))
        return words(output)
      end
      local kept = "-sess_in " .. session .. " -sess_out " .. session
      local function kind(more)
        local list = ask(more)
        for index, word in ipairs(list) do
          if word == "https" then return list[index + 4] end
        end
        return "refused"
      end
      replace(file, process.slurp(authority.certificate))
      -- Workers read the file again one by one.
      assert(process.wait_until(function() return kind("-sess_out " .. session) == "full" end))
      assert(process.wait_until(function() return kind(kept) == "resumed" end))
      replace(file, process.slurp(certificates.authority("Other").certificate))
      assert(process.wait_until(function() return kind(kept) == "refused" end))
    end
  end)

  it("reads PROXY headers before the handshake", function()
    local s = start(localhost, "proxy_protocol = true")
    local handle = assert(moonbridge_io.tcpconnect("127.0.0.1", s.port))
    handle:write("PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n"):flush()
    assert(handle:starttls(tls { host = "localhost" }))
    handle:write("GET / HTTP/1.0\r\n\r\n"):flush()
    assert.matches("https 1.3", (handle:read()))
    handle:close()
  end)

  it("serves Node", function()
    local s = start(localhost)
    local script = ([[
      const https = require("https"), fs = require("fs")
      const agent = new https.Agent({ keepAlive: true, maxSockets: 1, ca: fs.readFileSync(%q) })
      let left = 3
      const ask = () => https.get("https://localhost:%d/", { agent }, response => {
        let text = ""
        response.on("data", part => text += part)
        response.on("end", () => { console.log(text); if (--left) ask(); else agent.destroy() })
      })
      ask()
    ]]):format(authority.certificate, s.port)
    local code, output = process.run("node -e " .. process.quote(script) .. " 2>&1")
    assert.equal(0, code, output)
    assert.equal(3, select(2, output:gsub("https 1.3", "")))
  end)

  it("answers HTTP without TLS with a plain 400 that says so", function()
    local s = start(localhost)
    local body, status = http.request(("http://127.0.0.1:%d/"):format(s.port))
    assert.equal(400, status)
    assert.matches("for https", body)
  end)

  it("answers so also if the request comes in pieces", function()
    local s = start(localhost)
    local client = s:connect()
    for _, piece in ipairs { "G", "ET / HTTP/1.1\r\n", "Host: a.example\r\n", "\r\n" } do
      client:send(piece)
      moonbridge_io.poll(nil, nil, 0.1)
    end
    assert.matches("^HTTP/1.1 400 .*for https", client:read_all())
  end)

  it("has a line in the access log for an incomplete request whose client has gone", function()
    local path = process.scratch("access.log")
    local s = start(localhost, nil, nil, ("access_log = %q"):format(path))
    local text = "GET /half HTTP/1.1\r\nHos"
    local client = assert(moonbridge_io.tlsconnect("localhost", s.port, tls()))
    assert(client:write("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n", text))
    assert(client:flush())
    assert.equal("HTTP/1.1 200 OK\r\n", (client:read(nil, "\n")))
    client:reset()
    local half
    assert.truthy(process.wait_until(function()
      half = (process.slurp(path) or ""):match '[^\n]*"/half"[^\n]*\n'
      return half
    end))
    half = json.decode(half)
    assert.same({ "GET", 400, "aborted", #text }, { half.method, half.status, half["end"], half.bytes_in })
  end)

  it("has a line in the access log for HTTP without TLS, and counts it", function()
    local path = process.scratch("access.log")
    local status = server.free_port()
    local listener = ('{ proto = "status", host = "127.0.0.1", port = %d },'):format(status)
    local s = start(localhost, nil, listener, ("access_log = %q"):format(path))
    s.status_port = status
    for _, text in ipairs { "GET /a?b HTTP/1.0\r\nHost: x\r\n\r\n", "GET /half" } do
      local client = s:connect()
      client:send(text)
      assert.matches("^HTTP/1.1 400 ", client:read_all())
    end
    local lines = {}
    assert.truthy(process.wait_until(function()
      lines = {}
      for line in (process.slurp(path) or ""):gmatch "([^\n]*)\n" do lines[#lines + 1] = json.decode(line) end
      return #lines == 2
    end))
    table.sort(lines, function(one, other) return one.bytes_in > other.bytes_in end)
    local whole, half = lines[1], lines[2]
    assert.same({ "GET", "/a?b", "HTTP/1.0", 400, 30, "complete" },
      { whole.method, whole.target, whole.protocol, whole.status, whole.bytes_in, whole["end"] })
    assert.same({ "127.0.0.1", 400, 9 }, { half.client_ip, half.status, half.bytes_in })
    assert.is_nil(half.target)
    assert.matches("^%x+$", whole.request_id)
    assert.equal(whole.request_id, whole.traceparent:match("^00%-(%x+)%-%x+%-00$"))
    assert.equal(whole.bytes_out, half.bytes_out)
    assert.truthy(whole.bytes_out > 65)
    status_listener.wait_sample(s, 'moonbridge_requests_refused_total{pool="1",status="400"}', 2)
  end)

  it("refuses what is no handshake, and goes on", function()
    local s = start(localhost)
    for _, bytes in ipairs { "\0", ("\0"):rep(100), "SSH-2.0-x\r\n", "\22\3\1\0\5hello", "\22\3\1\255\255",
        "\21\3\3\0\2\2\40", "\22\3\1\0\200\1\0\0\252\3\3", ("\22\3\1\0\1\1"):rep(1000) } do
      local handle = assert(moonbridge_io.tcpconnect("127.0.0.1", s.port))
      handle:write(bytes):flush()
      handle:finish()
      handle:read()
      handle:close()
    end
    assert.matches("^https", (request(s)))
  end)

  it("bears handshakes in records of any size, whenever they come", function()
    local s = start(localhost, "", "min_fork = 1, max_fork = 1,")
    local worker = s:workers()[1]
    local hello = client_hello()
    local length = #hello
    local function pause(handle)
      handle:flush()
      moonbridge_io.poll(nil, nil, 0.001)
    end
    for _, size in ipairs { 1, 3, 4, 5, 64, length - 1, length } do
      local handle = assert(moonbridge_io.tcpconnect("127.0.0.1", s.port))
      for from = 1, length, size do
        local part = hello:sub(from, from + size - 1)
        handle:write("\22\3\1", string.pack(">I2", #part))
        -- The first ones in two pieces, each of which comes by itself.
        if from < 20 * size then pause(handle) end
        handle:write(part)
        if from < 20 * size then pause(handle) end
      end
      handle:flush()
      assert.equal("\22\3\3", (handle:read(3)), size)
      handle:reset()
    end
    assert.matches("^https", (request(s)))
    assert.same({ worker }, s:workers())
  end)

  it("does not renegotiate", function()
    local s = start(localhost)
    local code, output = process.run(("(echo R; sleep 0.5) | timeout 10 openssl s_client -tls1_2 -CAfile %s "
      .. "-connect localhost:%d 2>&1"):format(authority.certificate, s.port))
    assert.is_true(code ~= 0 or output:find("no renegotiation", 1, true) ~= nil, output)
    assert.matches("^https", (request(s)))
  end)

  it("serves others while 200 clients are silent or slow in their handshakes", function()
    local s = start(localhost, "", "max_fork = 2,")
    local hello = "\22\3\1\0\200\1\0\0\196\3\3"
    local slow = {}
    for index = 1, 200 do
      slow[index] = assert(moonbridge_io.tcpconnect("127.0.0.1", s.port))
      slow[index]:write(hello:sub(1, index % 12)):flush()
    end
    for _ = 1, 10 do assert.matches("^https", (request(s))) end
    for index = 1, 200 do
      slow[index]:write("\0"):flush()
      slow[index]:reset()
    end
    assert.matches("^https", (request(s)))
  end)

  it("reloads and ends while 300 clients are silent in their handshakes", function()
    local s = start(localhost, "", "min_fork = 2, max_fork = 2,", 'hangup = "reload"')
    local hello = client_hello()
    local record = "\22\3\1" .. string.pack(">s2", hello)
    local silent = {}
    local function add()
      for index = 1, 150 do
        local handle = assert(moonbridge_io.tcpconnect("127.0.0.1", s.port))
        -- Nothing, a half, or all that comes before the server has its turn.
        handle:write(record:sub(1, index % 3 * #record // 2)):flush()
        silent[#silent + 1] = handle
      end
      for _ = 1, 3 do assert.matches("^https", (request(s))) end
    end
    add()
    s:signal("HUP")
    assert(s.process:wait_log("Reload complete"))
    add()
    s:signal("TERM")
    assert.equal(0, s:wait())
    for _, handle in ipairs(silent) do handle:reset() end
  end)
end)

describe("listen refuses", function()
  local function refused(text, pattern)
    local script = "require 'moonbridge'.listen { { %s }, connect = function() end }"
    local code, _, log = server.run_script(script:format(text))
    assert.is_true(code ~= 0)
    assert.matches(pattern, log, 1, true)
  end

  it("files that are of no use, and options that are none", function()
    local start_of = ('proto = "tls", port = PORT, certificate = %q, '):format(localhost.certificate)
    refused(start_of .. ('key = %q'):format(authority.key), "does not belong to the certificate")
    refused(start_of, "Option 'key' of listener #1")
    refused(start_of .. 'key = "/nonexistent"', "cannot read file \"/nonexistent\"")
    refused('proto = "tls", port = PORT', "Option 'certificate' of listener #1")
    refused(start_of .. 'key = 1', "Option 'key' of listener #1")
    local key = ("key = %q, "):format(localhost.key)
    refused(start_of .. key .. 'names = { a = { certificate = "b" } }', "name \"a\"")
    for _, name in ipairs { "*", "a.*.b", "127.0.0.1", "b\u{fc}cher.example" } do
      refused(("%s%snames = { ['%s'] = { certificate = %q, key = %q } }"):format(
        start_of, key, name, localhost.certificate, localhost.key), "not \"" .. name .. "\"")
    end
  end)
end)
