-- The server of the smoke set; its argument is the port.

local moonbridge = require "moonbridge"
local http = require "moonbridge_http"

local pages = {}

function pages.error() error("as intended") end

function pages.memory()
  local parts = {}
  for i = 1, 1000 do parts[i] = ("x"):rep(1000000 + i) end
  return #parts
end

function pages.metrics(request) request:send_data(moonbridge.metrics()) end

function pages.stream(request)
  for _ = 1, 10000 do request:send_data("0123456789") end
end

moonbridge.listen {
  { proto = "tcp", host = "127.0.0.1", port = tonumber(arg[1]) },
  memory_limit = 50 * 1024 * 1024,
  connect = http.generate_handler(function(request)
    request:send_status("200 OK")
    request:send_header("Content-Type", "text/plain")
    local page = pages[request.path]
    if page then
      page(request)
    else
      request:send_data(request.method, " ", request.post_params.name or request.get_params.name or "")
    end
    return true
  end),
}
moonbridge.run()
