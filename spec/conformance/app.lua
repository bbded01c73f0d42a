-- What the vectors are sent to: answers with what it understood of a request.

local moonbridge = require "moonbridge"
local http = require "moonbridge_http"

moonbridge.listen {
  { proto = "tcp", host = "127.0.0.1", port = os.getenv "PORT" },
  connect = http.generate_handler(function(request)
    local body = request.body
    request:send_status("200 OK")
    request:send_data(request.method, " ", request.target, " ", #body, " ", body)
    return true
  end),
}

moonbridge.run()
