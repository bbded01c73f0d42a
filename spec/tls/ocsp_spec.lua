-- What authorities say of certificates (OCSP) goes to clients along with these.
-- Any version: nothing of it depends on Lua's.

local certificates = require "spec.support.certificates"
local moonbridge = require "moonbridge"
local process = require "spec.support.process"
local server = require "spec.support.server"
local tls_listener = require "spec.support.tls_listener"

local start = tls_listener.start
local authority, localhost

after_each(server.cleanup)

before_each(function()
  localhost, authority = certificates.signed()
end)

describe("ocsp", function()
  it("sends the response of an authority about its certificate", function()
    local file = certificates.ocsp(localhost, authority)
    local s = start(localhost, ("ocsp = %q"):format(file))
    local command = "echo | openssl s_client -status -connect localhost:%d 2>&1"
    local function asked() return select(2, process.run(command:format(s.port))) end
    assert.matches("Cert Status: good", asked(), 1, true)
    -- Nor does a response that is of no use stop the rest.
    for _, wrong in ipairs { "", "nonsense", process.slurp(localhost.certificate) } do
      process.write(file, wrong)
      local before = #s.process:log()
      assert(process.wait_until(function()
        asked()
        return s.process:log():find("option ocsp", before, true)
      end))
      assert.matches("Cert Status: good", asked(), 1, true)
    end
  end)

  it("does not begin with a response that is of no use", function()
    local other = certificates.make { issuer = authority }
    local file = process.scratch("ocsp.der")
    for _, case in ipairs {
      { "", "no response of an authority" },
      { "-----BEGIN OCSP RESPONSE-----", "in DER" },
      { "\48\3\10\1\6", "declines to answer" },
      { ("x"):rep(70000), "too long" },
      { process.slurp(certificates.ocsp(other, authority)), "about another certificate" },
    } do
      process.write(file, case[1])
      local ok, message = pcall(moonbridge.listen, {
        { proto = "tls", host = "127.0.0.1", port = 0, certificate = localhost.certificate,
          key = localhost.key, ocsp = file },
        connect = print,
      })
      assert.is_false(ok)
      assert.matches(case[2], message, 1, true)
    end
  end)

  it("may leave one out of several certificates", function()
    local rsa = certificates.make { issuer = authority, key = "rsa:2048" }
    local file = certificates.ocsp(rsa, authority)
    local s = start(localhost, ("names = { ['two.example'] = { certificate = { %q, %q }, key = { %q, %q }, "
      .. "ocsp = { false, %q } } }"):format(localhost.certificate, rsa.certificate, localhost.key, rsa.key,
      file))
    local function response(arguments)
      local _, output = process.run(("echo | openssl s_client -status -connect localhost:%d -servername "
        .. "two.example %s 2>&1"):format(s.port, arguments))
      return output:find("OCSP response: no response sent", 1, true) == nil
    end
    assert.is_false(response(""))
    assert.is_true(response("-tls1_2 -sigalgs RSA-PSS+SHA256:RSA+SHA256"))
  end)
end)
