-- The server of make bench-files: FOLDER, and a page that is compressed.

local moonbridge = require "moonbridge"
local http = require "moonbridge_http"

local folder = assert(os.getenv "FOLDER")
local static = http.static(folder)
local page = assert(io.open(folder .. "/page.html")):read "a"

moonbridge.listen {
  { proto = "tcp", host = "127.0.0.1", port = tonumber(os.getenv "PORT") },
  pre_fork = 2, min_fork = 2, max_fork = 2,
  connect = http.generate_handler(function(request)
    if request.path == "compressed" then
      request:send("200 OK", "text/html", page)
      return true
    end
    return static(request)
  end, { compress = { level = 5 } }),
}
moonbridge.run()
