-- What `moonbridge --check` tells of certificates.
-- Any version: nothing of it depends on Lua's.

local certificates = require "spec.support.certificates"
local process = require "spec.support.process"
local server = require "spec.support.server"
local tls_listener = require "spec.support.tls_listener"

local authority, localhost

after_each(server.cleanup)

before_each(function()
  localhost, authority = certificates.signed()
end)

describe("moonbridge --check", function()
  local function check(made, more)
    local path = process.scratch("app.lua")
    process.write(path, ("listen { { %s }, connect = function() end }"):format(
      tls_listener.fields(made, more):gsub("PORT", "0")))
    return process.run(("%s %s/bin/moonbridge --check %s 2>&1"):format(server.interpreter, server.root, path))
  end

  it("tells when a certificate ends, and which name it is shown for", function()
    local nameless = certificates.make { issuer = authority, name = false, names = { "*.b.example" } }
    local long = certificates.make { issuer = authority, days = 90 }
    local name = "names = { ['%s'] = { certificate = %q, key = %q } }"
    local code, output = check(localhost, name:format("a.b.example", nameless.certificate, nameless.key))
    assert.equal(0, code, output)
    assert.matches('\n  TLS listener on interface "', output, 1, true)
    assert.matches("certificate of CN=localhost,O=Specs until %u%l%l, [^\n]+ %(in %d days?%)", output)
    assert.matches('name "a.b.example": certificate of *.b.example, 127.0.0.1 until', output, 1, true)
    assert.is_nil(output:find("warning", 1, true))
    code, output = check(long, name:format("c.example", nameless.certificate, nameless.key))
    assert.equal(0, code, output)
    assert.matches("%(in %d%d days%)", output)
    assert.matches('warning: that certificate is not for the name "c.example"', output, 1, true)
  end)

  it("fails if a certificate has expired, or is not valid yet, and warns before it ends", function()
    for _, case in ipairs {
      { { expired = true }, "the certificate of CN=localhost has expired on Sat, 01 Feb 2020" },
      { { early = true }, "the certificate of CN=localhost is not valid before Sun, 01 Jan 2090" },
    } do
      local code, output = check(certificates.make(case[1]))
      assert.equal(3, code)
      assert.matches(case[2], output, 1, true)
    end
    local expired = certificates.make { expired = true, name = "Authority" }
    local chain = process.scratch("chain.pem")
    process.write(chain, process.slurp(localhost.certificate) .. process.slurp(expired.certificate))
    local code, output = check { certificate = chain, key = localhost.key }
    assert.equal(3, code)
    assert.matches("the certificate of CN=Authority has expired on Sat, 01 Feb 2020", output, 1, true)
    code, output = check(certificates.make { old = true, days = 3 })
    assert.equal(0, code, output)
    assert.matches("%(in %d days: renew it%)", output)
  end)
end)
