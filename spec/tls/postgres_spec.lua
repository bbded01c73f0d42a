-- starttls with PostgreSQL: what its own clients call sslmode=verify-full.
-- Any version: nothing of it depends on Lua's.

local certificates = require "spec.support.certificates"
local moonbridge_io = require "moonbridge_io"
local postgres = require "spec.support.postgres"
local process = require "spec.support.process"
local server = require "spec.support.server"

local authority, port, running

setup(function()
  local made
  made, authority = certificates.signed { names = { "db.example" }, addresses = {} }
  local cluster = postgres.cluster()
  local function put(name, path) return cluster:put(name, process.slurp(path)) end
  port = server.free_port()
  running = cluster:start {
    listen_addresses = "127.0.0.1", port = port, ssl = "on",
    ssl_cert_file = put("server.pem", made.certificate), ssl_key_file = put("server.key", made.key),
    ssl_ca_file = put("authority.pem", authority.certificate),
    hba_file = cluster:put("rules", "hostssl all spec 127.0.0.1/32 cert\n"),
  }
  assert(process.wait_until(function() return server.listening(port) end), running:log())
end)

teardown(function() running:destroy() end)

-- A connection that speaks TLS, as far as that comes: nil, message, code otherwise.
local function connect(options)
  local handle = assert(moonbridge_io.tcpconnect("127.0.0.1", port))
  assert(handle:write(string.pack(">I4I4", 8, 80877103)):flush()) -- SSLRequest
  assert.equal("S", (handle:read(1)))
  return handle:starttls(options)
end

local function send(handle, kind, body)
  assert(handle:write(kind, string.pack(">I4", #body + 4), body):flush())
end

-- Reads messages up to one of this kind; its body, and those before it by kind.
local function receive(handle, wanted)
  local seen = {}
  while true do
    local kind, length = string.unpack(">c1I4", (assert(handle:read(5))))
    local body = length > 4 and assert(handle:read(length - 4)) or ""
    assert(kind ~= "E" or kind == wanted, body)
    if kind == wanted then return body, seen end
    seen[kind] = body
  end
end

describe("starttls with PostgreSQL", function()
  it("checks the server's certificate and name, and shows the client's own", function()
    local own = certificates.make { issuer = authority, name = "spec" }
    local handle = assert(connect { host = "db.example", ca = authority.certificate,
      certificate = own.certificate, key = own.key })
    send(handle, "", string.pack(">I4zzzzB", 3 << 16, "user", "spec", "database", "postgres", 0))
    receive(handle, "Z")
    send(handle, "Q", string.pack("z", [[
      SELECT repeat('x', 1000000), version || ' ' || client_dn
        FROM pg_stat_ssl WHERE pid = pg_backend_pid()]]))
    local _, seen = receive(handle, "Z")
    local long, known = string.unpack(">xxs4s4", seen.D)
    assert.equal(1000000, #long)
    assert.equal("TLSv1.3 /O=Specs/CN=spec", known)
    send(handle, "X", "")
    assert.equal("", (handle:read()))
    assert(handle:close())
  end)

  it("refuses another name, and an authority that is not known", function()
    for code, options in pairs {
      wrong_name = { host = "other.example", ca = authority.certificate },
      unknown_authority = { host = "db.example", ca = certificates.authority("Another").certificate },
    } do
      local handle, message, found = connect(options)
      assert.is_nil(handle)
      assert.equal(code, found, message)
    end
  end)

  it("tells what becomes of a client that shows no certificate", function()
    local handle = assert(connect { host = "db.example", ca = authority.certificate })
    send(handle, "", string.pack(">I4zzB", 3 << 16, "user", "spec", 0))
    assert.matches("requires a valid client certificate", receive(handle, "E"), 1, true)
    handle:close()
  end)
end)
