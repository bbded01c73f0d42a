-- Streams a file of any size as a response, through a filter; without FILE it streams itself.
--
--   lua5.4 examples/stream_file.lua FILE        then: curl http://127.0.0.1:8080/ | base64 -d
--
-- The filters are from LuaSocket's mime module (Debian: lua-socket); you can use any function that maps
-- chunks to chunks, for example a compressor.

local moonbridge = require "moonbridge"
local http = require "moonbridge_http"
local callback = require "moonbridge_callback"
local has_ltn12, ltn12 = pcall(require, "ltn12")
local has_mime, mime = pcall(require, "mime")
if not has_ltn12 or not has_mime then
  io.stderr:write("stream_file.lua needs LuaSocket's modules ltn12 and mime (Debian: lua-socket)\n")
  os.exit(2)
end

local path = arg[1] or arg[0]
local is_file, problem = io.open(path, "rb")
if not is_file then
  io.stderr:write("stream_file.lua cannot read ", problem, "\n")
  os.exit(2)
end
is_file:close()

moonbridge.listen {
  { proto = "tcp", host = "127.0.0.1", port = os.getenv("PORT") or 8080 },
  connect = http.generate_handler(function(request)
    local file, message = io.open(path, "rb")
    if not file then
      request:send_status("404 Not Found")
      request:send_data(message, "\n")
      return true
    end
    request:send_status("200 OK")
    request:send_header("Content-Type", "text/plain")
    local lines = ltn12.filter.chain(mime.encode("base64"), mime.wrap("base64"), mime.normalize("\n"))
    request:send_body(callback.send.chain(callback.send.file(file), lines))
    return true
  end),
}

moonbridge.run()
