-- Which certificates a client of TLS believes, and what it says about the others.
-- Any version: nothing of it depends on Lua's.

local certificates = require "spec.support.certificates"
local moonbridge_io = require "moonbridge_io"
local process = require "spec.support.process"
local server = require "spec.support.server"
local tls_peer = require "spec.support.tls_peer"

local authority
setup(function() authority = certificates.authority() end)
after_each(tls_peer.cleanup)

local function try(made, options, host)
  local peer = tls_peer.python("echo", made)
  return moonbridge_io.tlsconnect(host or "localhost", peer.port, options)
end

local function refused(made, options, host)
  local handle, message, code = try(made, options, host)
  assert.is_nil(handle)
  return code, message
end

local function accepted(...)
  assert(try(...)):close()
end

describe("a client believes", function()
  it("what the authority in option ca has signed, for names and addresses", function()
    local made = certificates.make { issuer = authority, names = { "localhost", "*.a.example" } }
    accepted(made, { ca = authority.certificate })
    accepted(made, { ca = process.slurp(authority.certificate) })
    accepted(made, { ca = authority.certificate }, "127.0.0.1")
    accepted(made, { ca = authority.certificate, server_name = "b.a.example" })
  end)

  it("a certificate that is itself in option ca, whether it may sign others or not", function()
    local own = certificates.make()
    accepted(own, { ca = own.certificate })
    local folder = own.folder
    assert.equal(0, (process.run(("openssl req -x509 -newkey rsa:2048 -nodes -keyout %s/k.pem -out %s/c.pem "
      .. "-days 1 -subj /CN=localhost -addext subjectAltName=DNS:localhost 2>/dev/null")
      :format(folder, folder))))
    local usual = { certificate = folder .. "/c.pem", key = folder .. "/k.pem" }
    accepted(usual, { ca = usual.certificate })
    assert.equal("wrong_name", (refused(usual, { ca = usual.certificate, server_name = "a.example" })))
    local code, message = refused(usual, { ca = own.certificate })
    assert.equal("unknown_authority", code)
    assert.matches("pass it in option ca", message, 1, true)
  end)

  it("what the system trusts, of which SSL_CERT_FILE may name another list", function()
    local made = certificates.make { issuer = authority }
    local peer = tls_peer.python("echo", made)
    local script = ([[
      local io = require "moonbridge_io"
      local handle, message, code = io.tlsconnect("localhost", %d)
      print(handle and "connected" or code)
    ]]):format(peer.port)
    local function run(variables)
      local _, output = process.run(("env %s %s -e %s"):format(variables, server.interpreter,
        process.quote(script)))
      return output
    end
    assert.equal("connected\n", run("SSL_CERT_FILE=" .. authority.certificate))
    assert.equal("unknown_authority\n", run(""))
    assert.equal("configuration\n", run("SSL_CERT_FILE=/dev/null SSL_CERT_DIR=/nonexistent"))
  end)

  it("everybody if it is insecure, which it says once", function()
    local peer = tls_peer.python("echo", certificates.make { expired = true, names = { "a.example" } })
    local script = ([[
      local io = require "moonbridge_io"
      for _ = 1, 2 do assert(io.tlsconnect("localhost", %d, { insecure = true })):close() end
    ]]):format(peer.port)
    local code, output = process.run(server.interpreter .. " -e " .. process.quote(script) .. " 2>&1")
    assert.equal(0, code)
    assert.equal(1, select(2, output:gsub("is not checked", "")))
  end)

  it("those whose fingerprint it knows, which is no replacement for the other checks", function()
    local made = certificates.make()
    local fingerprint = certificates.fingerprint(made)
    accepted(made, { fingerprints = { ("00"):rep(32), fingerprint }, ca = made.certificate })
    accepted(made, { fingerprints = fingerprint:gsub(":", ""):lower(), insecure = true })
    assert.equal("unknown_authority", (refused(made, { fingerprints = fingerprint })))
    local code, message = refused(made, { fingerprints = ("00"):rep(32), insecure = true })
    assert.equal("wrong_fingerprint", code)
    assert.matches(fingerprint, message, 1, true)
  end)
end)

describe("an empty list of fingerprints", function()
  it("is a mistake, and no way to believe everybody", function()
    for _, name in ipairs { "fingerprints", "alpn" } do
      for _, list in ipairs { {}, { nil, "x" }, { sha256 = "x" } } do
        assert.error_matches(function()
          moonbridge_io.tlsconnect("localhost", 1, { [name] = list, insecure = true })
        end, "Option '" .. name .. "'")
      end
    end
  end)
end)

describe("a client refuses, and says why,", function()
  local function ca() return { ca = authority.certificate } end

  it("a wrong name", function()
    local code, message = refused(certificates.make { issuer = authority,
      names = { "a.example", "b.example" }, addresses = {} }, ca())
    assert.equal("wrong_name", code)
    assert.matches("only for a.example, b.example", message, 1, true)
    assert.equal("wrong_name", (refused(certificates.make { issuer = authority, addresses = { "127.0.0.2" } },
      ca(), "127.0.0.1")))
  end)

  it("an expired certificate", function()
    local code, message = refused(certificates.make { issuer = authority, expired = true }, ca())
    assert.equal("expired", code)
    assert.matches("has expired on %u%l%l, %d%d %u%l%l %d%d%d%d", message)
    local own = certificates.make { expired = true }
    assert.equal("expired", (refused(own, { ca = own.certificate })))
  end)

  it("one that is not valid yet", function()
    local code, message = refused(certificates.make { issuer = authority, early = true }, ca())
    assert.equal("not_yet_valid", code)
    assert.matches("not valid before %u%l%l, 01 Jan 2090", message)
  end)

  it("an unknown authority, also one of the same name", function()
    for _, issuer in ipairs { certificates.authority "Other", certificates.authority() } do
      local code, message = refused(certificates.make { issuer = issuer }, ca())
      assert.is_true(code == "unknown_authority" or code == "bad_signature", code)
      assert.matches("certificate of the server localhost", message)
    end
  end)

  it("a certificate that is signed by itself", function()
    local code, message = refused(certificates.make(), ca())
    assert.equal("unknown_authority", code)
    assert.matches("option ca", message)
  end)

  it("a key that is too weak", function()
    -- OpenSSL itself refuses to serve with less.
    local made = certificates.make { issuer = authority, key = "rsa:1024" }
    local peer = tls_peer.openssl(made, "-cipher", "DEFAULT:@SECLEVEL=0")
    local handle, message, code = moonbridge_io.tlsconnect("localhost", peer.port, ca())
    assert.is_nil(handle)
    assert.equal("string", type(code), message)
  end)

  it("a certificate that is not for servers", function()
    local code, message = refused(certificates.make { issuer = authority, usage = "clientAuth" }, ca())
    assert.equal("wrong_purpose", code)
    assert.matches("serverAuth", message, 1, true)
  end)

  it("files that are of no use", function()
    local made = certificates.make { issuer = authority }
    local odd = process.scratch("p521.pem")
    assert.equal(0, (process.run(("openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-521 -nodes "
      .. "-keyout %s -out %s.cert -subj /CN=a -days 1 2>&1"):format(odd, odd))))
    for _, wrong in ipairs {
      { { certificate = odd .. ".cert", key = odd },
        "file \"" .. odd .. "\" has a key of a kind that is not supported" },
      { { ca = "/nonexistent" }, "option ca: cannot read file \"/nonexistent\": No such file" },
      { { ca = made.key }, "has no certificate" },
      { { certificate = made.key, key = made.key }, "option certificate" },
      { { certificate = made.certificate, key = made.certificate }, "has no private key" },
      { { certificate = made.certificate, key = authority.key }, "does not belong to the certificate" },
    } do
      local code, message = refused(made, wrong[1])
      assert.equal("configuration", code)
      assert.matches(wrong[2], message, 1, true)
    end
  end)

  it("a file that has changed is read again", function()
    local copy = process.scratch("ca.pem")
    local function put(from) assert(os.execute(("cp %s %s"):format(from.certificate, copy))) end
    local other = certificates.authority "Other"
    local peer = tls_peer.python("echo", certificates.make { issuer = authority })
    put(other)
    local function connect() return moonbridge_io.tlsconnect("localhost", peer.port, { ca = copy }) end
    assert.equal("unknown_authority", (select(3, connect())))
    put(authority)
    assert(connect()):close()
  end)
end)

describe("client certificates", function()
  it("are shown to a server that asks", function()
    local own = certificates.make { issuer = authority, name = "client" }
    for _, version in ipairs { "1.2", "1.3" } do
      local peer = tls_peer.python("echo", certificates.make { issuer = authority },
        { client_ca = authority.certificate, version = version })
      local handle = assert(moonbridge_io.tlsconnect("localhost", peer.port,
        { ca = authority.certificate, certificate = own.certificate, key = own.key }))
      handle:write("a\n"):flush()
      assert.equal("a\n", (handle:read(nil, "\n")))
      handle:close()
    end
  end)

  it("that lack are told", function()
    local peer = tls_peer.python("echo", certificates.make { issuer = authority },
      { client_ca = authority.certificate })
    local handle = assert(moonbridge_io.tlsconnect("localhost", peer.port, { ca = authority.certificate }))
    local data, message, code = handle:read()
    assert.is_nil(data)
    assert.equal("alert", code)
    assert.matches("options certificate and key", message)
  end)
end)
