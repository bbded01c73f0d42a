-- Sends uploaded files. They are untrusted, so browsers are told to save them instead of showing them.

local page = require "page"
local store = require "store"

local files = {}

--- GET /files/ID
function files.send(request, id)
  id = math.tointeger(tonumber(id))
  local file = id and store.file(id)
  if not file then return page.fail(request, "404 Not Found", "There is no such file.") end
  request:send_file(store.file_path(id), { content_type = file.type, attachment = file.name })
  return true
end

return files
