-- http.request over TLS: kept connections, redirects between schemes, proxies.
-- Any version: nothing of it depends on Lua's.

local certificates = require "spec.support.certificates"
local http = require "moonbridge_http"
local process = require "spec.support.process"
local server = require "spec.support.server"
local tables = require "spec.support.tables"
local tls_peer = require "spec.support.tls_peer"

local authority, localhost
setup(function()
  localhost, authority = certificates.signed { names = { "localhost", "other.example" } }
end)

after_each(function()
  http.close_idle_connections()
  tls_peer.cleanup()
end)

local function tls(more)
  return tables.with({ ca = authority.certificate }, more)
end

local function url(peer, target, scheme)
  return ("%s://localhost:%d%s"):format(scheme or "https", peer.port, target or "/")
end

local function request(options)
  if options.tls == nil then options.tls = tls() end
  local results = table.pack(http.request(options))
  return table.unpack(results, 1, results.n)
end

-- The requests that a peer has noted, as texts.
local function noted(peer, what)
  local requests = {}
  for text in peer:log():gmatch((what or "request") .. " b(['\"].-)\n") do requests[#requests + 1] = text end
  return requests
end

describe("a request by https", function()
  it("keeps its connection for the next one", function()
    local peer = tls_peer.python("http", localhost, { alpn = "http/1.1" })
    for count = 1, 3 do
      local body, status = request { url = url(peer, "/a") }
      assert.same({ "1 " .. count .. " /a", 200 }, { body, status })
    end
    assert.matches("Host: localhost:" .. peer.port, noted(peer)[1], 1, true)
  end)

  it("does not use a connection that was made under other terms", function()
    local peer = tls_peer.python("http", localhost)
    assert.equal("1 1 /", (request { url = url(peer) }))
    assert.equal("2 1 /", (request { url = url(peer), tls = tls { server_name = "other.example" } }))
    assert.equal("1 2 /", (request { url = url(peer) }))
    assert.equal("2 2 /", (request { url = url(peer), tls = tls { server_name = "other.example" } }))
    local body, message, code = request { url = url(peer), tls = {} }
    assert.is_nil(body)
    assert.matches("trusted authority", message)
    assert.equal("unknown_authority", code)
  end)

  it("tells a body that was cut off from one that has ended", function()
    local peer = tls_peer.python("http", localhost)
    assert.equal("1 1 /until-close", (request { url = url(peer, "/until-close") }))
    local body, message = request { url = url(peer, "/truncated") }
    assert.is_nil(body)
    assert.matches("without the end of TLS", message)
  end)

  it("tells why the server has refused it after the handshake, whatever is being sent", function()
    local peer = tls_peer.python("http", localhost, { client_ca = authority.certificate, version = "1.3" })
    local function pieces()
      local left = 200
      return function()
        left = left - 1
        return left > 0 and ("x"):rep(30000) or ""
      end
    end
    for name, body in pairs { none = false, string = ("x"):rep(6000000), callback = pieces() } do
      local result, message, code = request { url = url(peer), body = body or nil }
      assert.is_nil(result)
      assert.matches("pass options certificate and key", message, 1, true)
      assert.equal("alert", code, name)
    end
    local address = ("wss://localhost:%d/"):format(peer.port)
    assert.equal("alert", (select(3, http.websocket_connect(address, { tls = tls() }))))
    local truncating = tls_peer.python("http", localhost)
    for _, receive in ipairs { false, function() return 1 end } do
      local code = select(3, request { url = url(truncating, "/truncated"), receive = receive or nil })
      assert.equal("truncated", code)
    end
  end)

  it("has the errno of what the system says", function()
    local address = ("localhost:%d/"):format(server.free_port())
    local _, message, code = request { url = "https://" .. address }
    assert.same({ "Connection refused", "number" }, { message, type(code) })
    assert.is_nil((select(3, http.websocket_connect("wss://" .. address))))
    assert.is_nil((select(3, request { url = url(tls_peer.python("silent")), timeout = 0.1 })))
  end)

  it("sends and receives large bodies", function()
    local peer = tls_peer.python("http", localhost)
    assert.equal(200, select(2, request { url = url(peer, "/" .. ("x"):rep(60000)) }))
  end)

  it("does not wait for a handshake longer than for a connection", function()
    local peer = tls_peer.python("silent")
    local body, message = request { url = url(peer), timeout = { connect = 0.1 } }
    assert.is_nil(body)
    assert.equal("timeout", message)
  end)

  it("waits by a function of the caller's", function()
    local peer = tls_peer.python("http", localhost)
    local waits = 0
    local body = http.request_call(function(handle, mode, io)
      waits = waits + 1
      local set = { [handle] = true }
      io.poll(mode == "r" and set or nil, mode == "w" and set or nil, process.TIMEOUT)
    end, { url = url(peer), tls = tls() })
    assert.equal("1 1 /", body)
    assert.is_true(waits > 0)
  end)

  it("throws on options that are none", function()
    for _, wrong in ipairs {
      { tls = 1 }, { tls = { caa = "a" } }, { tls = { key = "a" } }, { proxy = 1 },
    } do
      wrong.url = "https://localhost/"
      local ok, message = pcall(function() http.request(wrong) end)
      assert.is_false(ok)
      assert.matches("^spec/tls/https_client_spec.lua:%d+: ", message)
    end
  end)
end)

describe("redirects between schemes", function()
  it("are followed in both directions", function()
    local secure, plain = tls_peer.python("http", localhost), tls_peer.python("plain_http")
    assert.equal("1 1 /x", (request { url = url(secure, "/to?" .. url(plain, "/x", "http")) }))
    assert.equal("1 2 /y", (request { url = url(plain, "/to?" .. url(secure, "/y"), "http") }))
  end)

  it("take no credentials along: neither fields nor a certificate", function()
    local own = certificates.make { issuer = authority, name = "client" }
    local asking = tls_peer.python("http", localhost, { client_ca = authority.certificate })
    local plain = tls_peer.python("plain_http")
    local with_identity = tls { certificate = own.certificate, key = own.key }
    local headers = { Authorization = "secret", Cookie = "secret", ["X-Other"] = "kept" }
    assert.equal("1 1 /x", (request {
      url = url(asking, "/to?" .. url(plain, "/x", "http")):gsub("//", "//user:secret@", 1),
      tls = with_identity, headers = headers,
    }))
    assert.matches("secret", noted(asking)[1])
    assert.is_nil(noted(plain)[1]:find("secret"))
    assert.matches("X-Other: kept", noted(plain)[1], 1, true)
    local target = "/to?" .. url(asking, "/y")
    local body, message = request { url = url(plain, target, "http"), tls = with_identity }
    assert.is_nil(body)
    assert.matches("asks for a certificate", message)
  end)

  it("check the certificates of another server, where fingerprints were all that was checked", function()
    local pinned, other = certificates.make(), certificates.make()
    local from, to = tls_peer.python("http", pinned), tls_peer.python("http", other)
    local options = { fingerprints = certificates.fingerprint(pinned), insecure = true }
    assert.equal("1 1 /x", (request { url = url(from, "/x"), tls = options }))
    local body, _, code = request { url = url(from, "/to?" .. url(to, "/y")), tls = options }
    assert.same({ nil, "unknown_authority" }, { body, code })
    assert.equal(0, #noted(to))
  end)
end)

describe("a proxy", function()
  it("makes a tunnel for https, and gets credentials of its own", function()
    local peer, proxy = tls_peer.python("http", localhost), tls_peer.python("proxy")
    for count = 1, 2 do
      assert.equal("1 " .. count .. " /a", (request {
        url = url(peer, "/a"), proxy = ("http://me:word@localhost:%d"):format(proxy.port),
      }))
    end
    local asked = noted(proxy, "proxied")
    assert.equal(1, #asked)
    assert.matches(("CONNECT localhost:%d HTTP/1.1"):format(peer.port), asked[1], 1, true)
    assert.matches("Proxy-Authorization: Basic bWU6d29yZA==", asked[1], 1, true)
    assert.is_nil(noted(peer)[1]:find("Proxy", 1, true))
    assert.equal("2 1 /", (request { url = url(peer) }))
  end)

  it("gets requests by http in full", function()
    local proxy = tls_peer.python("proxy")
    assert.equal("proxied", (request { url = "http://a.example/b?c", proxy = "localhost:" .. proxy.port }))
    local expected = "GET http://a.example/b?c HTTP/1.1\\r\\nHost: a.example\\r\\n"
    assert.matches(expected, noted(proxy, "proxied")[1], 1, true)
  end)

  it("that refuses is named", function()
    local peer, proxy = tls_peer.python("http", localhost), tls_peer.python("proxy", nil, { refuse = "1" })
    local body, message = request { url = url(peer), proxy = "http://localhost:" .. proxy.port }
    assert.is_nil(body)
    assert.equal("the proxy refuses the connection: HTTP/1.1 407 Proxy Authentication Required", message)
  end)

  it("cannot put words in front of the server's", function()
    local peer, proxy = tls_peer.python("http", localhost), tls_peer.python("proxy", nil, { surplus = "x" })
    local body, message = request { url = url(peer), proxy = "http://localhost:" .. proxy.port }
    assert.is_nil(body)
    assert.equal("the proxy has sent more than its answer", message)
  end)

  it("must be one that is spoken to by http", function()
    for proxy, reason in pairs {
      ["https://a"] = '"https" is not supported, only http is', ["http://"] = "no host",
      ["SOCKS5://a:1"] = '"socks5" is not supported, only http is',
    } do
      local body, message = request { url = "https://localhost/", proxy = proxy }
      assert.is_nil(body)
      assert.matches("^proxy: .*" .. reason, message)
    end
  end)

  it("is that of the environment if asked for, with its exceptions", function()
    local peer, proxy = tls_peer.python("http", localhost), tls_peer.python("proxy")
    local script = ([[
      local http = require "moonbridge_http"
      print((http.request { url = %q, tls = { ca = %q }, proxy = %s }))
    ]])
    local function run(variables, setting)
      local _, output = process.run(("env %s %s -e %s"):format(variables, server.interpreter,
        process.quote(script:format(url(peer), authority.certificate, setting))))
      return output:match("^%d+ (%d+ /)\n") and #noted(proxy, "proxied")
    end
    local variable = "https_proxy=http://localhost:" .. proxy.port
    assert.equal(1, run(variable, "true"))
    assert.equal(1, run(variable, "false"))
    assert.equal(1, run(variable, "nil"))
    assert.equal(1, run(variable .. " no_proxy=a.example,localhost", "true"))
    assert.equal(1, run(variable .. " no_proxy='*'", "true"))
    assert.equal(2, run(variable .. " no_proxy=xlocalhost,.host", "true"))
    assert.equal(3, run("HTTPS_PROXY=localhost:" .. proxy.port, "true"))
    assert.equal(4, run("ALL_PROXY=localhost:" .. proxy.port, "true"))
    assert.equal(4, run("http_proxy=localhost:" .. proxy.port, "true"))
  end)
end)
