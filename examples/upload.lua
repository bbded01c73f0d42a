-- Stores PUT requests in a folder, chunk by chunk, and aborts uploads that are too large.
--
--   lua5.4 examples/upload.lua FOLDER 1000000     then: curl -T picture.jpg http://127.0.0.1:8080/

local moonbridge = require "moonbridge"
local http = require "moonbridge_http"
local callback = require "moonbridge_callback"

local folder, limit = arg[1], tonumber(arg[2] or 1000000)
if not folder or not limit then
  io.stderr:write("usage: upload.lua FOLDER [BYTES], where BYTES is how large a file may be\n")
  os.exit(2)
end
local is_folder, problem = io.open(folder .. "/.")
if not is_folder then
  io.stderr:write("upload.lua cannot use the folder ", problem, "\n")
  os.exit(2)
end

-- A receive callback that passes chunks to another one, up to a total number of bytes.
local function limited(receive_cb)
  local size = 0
  return function(chunk, err)
    size = size + #(chunk or "")
    if size > limit then
      receive_cb(nil, "too large") -- closes the file
      return nil, "no more than " .. limit .. " bytes are stored"
    end
    return receive_cb(chunk, err)
  end
end

local function answer(request, status, text)
  request:send_status(status)
  request:send_header("Content-Type", "text/plain")
  request:send_data(text, "\n")
  return true
end

moonbridge.listen {
  { proto = "tcp", host = "127.0.0.1", port = os.getenv("PORT") or 8080 },
  connect = http.generate_handler({ request_body_size_limit = false }, function(request)
    local name = request.method == "PUT" and request.path:match("^[%w_-][%w_.-]*$")
    if not name then
      return answer(request, "400 Bad Request", "PUT a file under a simple name")
    end
    -- A name that no upload can have: an incomplete file must not be mistaken for a complete one.
    local partial = ("%s/.%s.%d"):format(folder, name, moonbridge.io.getpid())
    local file = assert(io.open(partial, "wb"))
    local count, message = request:receive_body(limited(callback.receive.file(file)))
    if not count then
      os.remove(partial)
      return answer(request, "413 Content Too Large", message)
    end
    assert(os.rename(partial, folder .. "/" .. name))
    return answer(request, "201 Created", count .. " bytes")
  end),
}

moonbridge.run()
