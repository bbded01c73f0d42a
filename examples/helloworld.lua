-- The smallest web application: greets the world, or the name in ?name=.
--
--   lua5.4 examples/helloworld.lua        then open http://127.0.0.1:8080/?name=Moon
--   PORT=8081 lua5.4 examples/helloworld.lua   serves another port

local moonbridge = require "moonbridge"
local http = require "moonbridge_http"

moonbridge.listen {
  { proto = "tcp", host = "127.0.0.1", port = tonumber(os.getenv "PORT") or 8080 },
  connect = http.generate_handler(function(request)
    request:send_status("200 OK")
    request:send_header("Content-Type", "text/plain")
    request:send_data("Hello, ", request.get_params.name or "World", "!\n")
    return true
  end),
}

moonbridge.run()
