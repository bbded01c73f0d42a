-- Four workers: hello world by whom, a handler that blocks its process for a second, a MiB.
local moonbridge = require "moonbridge"
local http = require "moonbridge_http"
local io = require "moonbridge_io"

local MIB = ("x"):rep(1024 * 1024)

moonbridge.listen {
  { proto = "tcp", host = "127.0.0.1", port = os.getenv("PORT") },
  pre_fork = 4, min_fork = 4, max_fork = 4,
  connect = http.generate_handler(function(request)
    if request.path == "slow" then io.poll(nil, nil, 1) end
    request:send_status("200 OK")
    request:send_header("Content-Type", "text/plain")
    if request.path == "big" then
      request:send_header("Content-Length", #MIB)
      request:send_data(MIB)
      return true
    end
    request:send_header("Content-Length", 8)
    request:send_data(("%8d"):format(io.getpid()))
    return true
  end, { response_buffering = 2 * #MIB }),
}

moonbridge.run()
