-- Bodies of several requests on one connection do not know of each other.

local server = require "spec.support.server"

describe("request.body", function()
  after_each(server.cleanup)

  it("is there for every request of a kept connection", function()
    local s = server.start [[
      local http = require "moonbridge.http"
      require "moonbridge".listen {
        { proto = "tcp", host = "127.0.0.1", port = PORT },
        connect = http.generate_handler(function(request)
          request:send_status("200 OK")
          request:send_data(#request.body)
          return true
        end),
      }
      require "moonbridge".run()
    ]]
    local connection = s:connect()
    for size = 1, 3 do
      local response = connection:request { body = ("x"):rep(size) }
      assert.same({ 200, tostring(size) }, { response.status, response.body })
    end
  end)
end)
