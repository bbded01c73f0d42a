-- Our side of the comparison: hello world, a 1 MiB download and a 1 MiB upload, in two workers.
local moonbridge = require "moonbridge"
local http = require "moonbridge_http"

local download = ("x"):rep(1048576)

local function reply(request, body)
  request:send_status("200 OK")
  request:send_header("Content-Type", "text/plain")
  request:send_header("Content-Length", #body)
  request:send_data(body)
end

moonbridge.listen {
  { proto = "tcp", host = "127.0.0.1", port = os.getenv("PORT") },
  pre_fork = 2, min_fork = 2, max_fork = 2,
  connect = http.generate_handler(function(request)
    if request.path == "download" then
      reply(request, download)
    elseif request.path == "upload" then
      reply(request, #request.body .. "\n")
    else
      reply(request, "Hello, " .. (request.get_params.name or "World") .. "!\n")
    end
    return true
  end),
}

moonbridge.run()
