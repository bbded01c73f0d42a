-- Sends uploaded files. They are untrusted, so browsers are told to save them instead of showing them.

local http = require "moonbridge_http"
local page = require "page"
local store = require "store"

local files = {}

local PIECE = 65536

--- GET /files/ID
function files.send(request, id)
  id = math.tointeger(tonumber(id))
  local file = id and store.file(id)
  local handle = file and io.open(store.file_path(id), "rb")
  if not handle then return page.fail(request, "404 Not Found", "There is no such file.") end
  request:send_status("200 OK")
  request:send_header("Content-Type", file.type)
  request:send_header("Content-Length", math.tointeger(file.size))
  -- RFC 8187: a name with any characters.
  request:send_header("Content-Disposition", "attachment; filename*=UTF-8''" .. http.encode_uri(file.name))
  if request.method ~= "HEAD" then
    for piece in function() return handle:read(PIECE) end do request:send_data(piece) end
  end
  handle:close()
  return true
end

return files
