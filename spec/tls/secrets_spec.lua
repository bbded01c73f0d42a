-- Keys do not appear in core files: neither those of certificates nor those of connections.
-- Takes long: all of the processes' memory is searched.
-- Any version: nothing of it depends on Lua's.

local certificates = require "spec.support.certificates"
local memory = require "spec.support.memory"
local moonbridge_io = require "moonbridge_io"
local process = require "spec.support.process"
local server = require "spec.support.server"
local tls_peer = require "spec.support.tls_peer"

local authority
before_each(function() authority = certificates.authority() end)

after_each(function()
  tls_peer.cleanup()
  server.cleanup()
end)

local function bytes(hexadecimal)
  local function byte(digits) return string.char(tonumber(digits, 16)) end
  return (hexadecimal:gsub("%X", ""):gsub("%x%x", byte))
end

-- A factor of an RSA key, as it is in memory, and a line of its file.
local function parts(key, texts)
  local _, text = process.run("openssl pkey -noout -text -in " .. key)
  local factor = bytes(text:match("prime1:([%x:%s]+)\nprime2")):gsub("^%z", "")
  texts["factor"] = factor:reverse()
  texts["line of the file"] = process.slurp(key):match("\n([^\n]+)\n")
  return texts
end

-- The secrets of connections in a log of keys, by the version of TLS.
local function logged(path, texts)
  for label, random, secret in (process.slurp(path) or ""):gmatch("([%u_%d]+) (%x+) (%x+)\n") do
    local version = label == "CLIENT_RANDOM" and "1.2" or label:find("TRAFFIC_SECRET_0") and "1.3"
    if version then texts[("%s %s %s"):format(version, label, random)] = bytes(secret) end
  end
  return texts
end

-- No core file of the process would show any of them; how many the process has, by their kind.
local function kept(pid, texts)
  local counts = {}
  for name, where in pairs(memory.find(pid, texts)) do
    assert.equal("kept", where, name)
    local kind = name:match("^1%.%d") or name
    counts[kind] = (counts[kind] or 0) + 1
  end
  return counts
end

describe("a core file", function()
  it("of a server has no keys", function()
    local made = certificates.make { issuer = authority, key = "rsa:2048" }
    local s = server.start(([[
      local moonbridge, http = require "moonbridge", require "moonbridge_http"
      moonbridge.listen {
        { proto = "tls", host = "127.0.0.1", port = PORT, certificate = %q, key = %q },
        min_fork = 1, max_fork = 1,
        connect = http.generate_handler({ idle_timeout = 60 }, function(request)
          request:send_status("200 OK")
          request:send_header("Content-Length", 4)
          request:send_data("page")
          return true
        end),
      }
      moonbridge.run()
    ]]):format(made.certificate, made.key))
    local texts = parts(made.key, {})
    for _, version in ipairs { "1.2", "1.3" } do
      local keys = process.scratch("keys")
      local clients = process.start({ "python3", "-u", server.root .. "/spec/support/tls_clients.py",
        tostring(s.port), authority.certificate, version, "3" }, { env = { SSLKEYLOGFILE = keys } })
      finally(function() clients:destroy() end)
      local function answered(times)
        local pattern = ("answered 3.*"):rep(times)
        return process.wait_until(function() return clients:output():find(pattern) end)
      end
      assert(answered(1))
      logged(keys, texts)
      -- Those with TLS 1.3 leave the worker meanwhile, and come back.
      moonbridge_io.poll(nil, nil, 1.5)
      clients:signal("USR1")
      assert(answered(2))
    end
    local found = kept(s:workers()[1], texts)
    assert.equal(1, found.factor)
    assert.equal(3, found["1.2"])
    assert.same({ factor = 1 }, kept(s.pid, texts))
  end)

  for _, version in ipairs { "1.2", "1.3" } do
    it("of a client has no keys, in version " .. version, function()
      local made = certificates.make { issuer = authority }
      local own = certificates.make { issuer = authority, key = "rsa:2048" }
      local keys = process.scratch("keys")
      local peer = tls_peer.openssl(made, "-tls" .. version:gsub("%.", "_"), "-keylogfile", keys,
        "-Verify", "1", "-CAfile", authority.certificate)
      local client = server.start { ready = { log = "connected" }, script = ([[
        local moonbridge_io = require "moonbridge_io"
        local options = { ca = %q, certificate = %q, key = %q }
        local handle = assert(moonbridge_io.tlsconnect("localhost", %d, options))
        handle:write("GET / "):flush()
        io.stderr:write("connected\n")
        moonbridge_io.poll(nil, nil, 60)
      ]]):format(authority.certificate, own.certificate, own.key, peer.port) }
      local texts = logged(keys, parts(own.key, {}))
      local found = kept(client.pid, texts)
      assert.equal(1, found.factor)
      assert.is_true((found[version] or 0) > 0)
      client:stop "KILL"
    end)
  end
end)
