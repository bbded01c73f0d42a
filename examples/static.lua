-- A web server for a folder, with listings. Without FOLDER it serves the folder of the examples.
--
--   lua5.4 examples/static.lua FOLDER        then open http://127.0.0.1:8080/

local moonbridge = require "moonbridge"
local http = require "moonbridge_http"

local folder = arg[1] or arg[0]:match("^(.*)/") or "."

-- Browsers ask again for each use, and get 304 as long as a file stays the same.
local is_folder, static = pcall(http.static, folder, { listing = true, cache_control = "no-cache" })
if not is_folder then
  io.stderr:write("static.lua: ", static, "\n")
  os.exit(2)
end

moonbridge.listen{
  { proto = "tcp", host = "127.0.0.1", port = tonumber(os.getenv("PORT")) or 8080 },
  connect = http.generate_handler(static),
}
moonbridge.run()
