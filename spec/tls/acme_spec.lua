-- http.acme_challenge.

local http = require "moonbridge_http"
local process = require "spec.support.process"
local server = require "spec.support.server"

describe("http.acme_challenge", function()
  after_each(server.cleanup)

  it("answers challenges from a folder, and nothing else", function()
    local root = process.scratch("x"):match("^(.*)/")
    os.execute(("cd %s && mkdir -p .well-known/acme-challenge && echo secret > secret "
      .. "&& echo answer > .well-known/acme-challenge/To_k-en1"):format(root))
    local s = server.start(([[
      local moonbridge, http = require "moonbridge", require "moonbridge_http"
      local challenge = http.acme_challenge %q
      moonbridge.listen {
        { proto = "tcp", host = "127.0.0.1", port = PORT },
        connect = http.generate_handler(function(request)
          if challenge(request) then return true end
          request:send_status("200 OK")
          request:send_data("other")
          return true
        end),
      }
      moonbridge.run()
    ]]):format(root))
    local answer = s:request("/.well-known/acme-challenge/To_k-en1")
    assert.same({ 200, "answer\n" }, { answer.status, answer.body })
    for _, token in ipairs { "none", "", "../../secret", "..%2f..%2fsecret", "a/b", "To_k-en1%00" } do
      local response = s:request("/.well-known/acme-challenge/" .. token)
      assert.is_true(response.status == 404 or response.status == 400 or response.body == "other", token)
      assert.is_nil(response.body:find("secret", 1, true))
    end
    assert.equal("other", s:request("/").body)
  end)

  it("throws on misuse", function()
    local ok, message = pcall(function() http.acme_challenge(nil) end)
    assert.is_false(ok)
    assert.matches("^spec/tls/acme_spec.lua:%d+: bad argument #1", message)
  end)
end)
