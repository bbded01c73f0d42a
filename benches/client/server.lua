-- What the clients ask for: a small page, a download of any size, an upload that is counted; with TLS if
-- there is a CERTIFICATE and its KEY.
local moonbridge = require "moonbridge"
local http = require "moonbridge_http"

local block = ("0123456789abcdef"):rep(4096)

local pages = {}

function pages.hello(request)
  request:send_status("200 OK")
  request:send_header("Content-Length", 14)
  request:send_data("Hello, World!\n")
end

function pages.download(request)
  local left = assert(math.tointeger(tonumber(request.get_params.size)))
  request:send_status("200 OK")
  request:send_header("Content-Length", left)
  request:send_body(function()
    local chunk = left >= #block and block or block:sub(1, left)
    left = left - #chunk
    return chunk
  end)
end

function pages.upload(request)
  local count = request:receive_body(function() return 1 end)
  request:send_status("200 OK")
  request:send_data(count)
end

moonbridge.listen {
  {
    proto = os.getenv("CERTIFICATE") and "tls" or "tcp", host = "127.0.0.1", port = os.getenv("PORT"),
    certificate = os.getenv("CERTIFICATE"), key = os.getenv("KEY"),
  },
  pre_fork = 1, min_fork = 1, max_fork = 1,
  connect = http.generate_handler({ request_body_size_limit = false, maximum_input_chunk_size = 65536 },
    function(request)
      pages[request.path](request)
      return true
    end),
}

moonbridge.run()
