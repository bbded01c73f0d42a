-- Receives the page's form: stores files of any size on disk, chunk by chunk.

local api = require "api"
local moonbridge_io = require "moonbridge_io"
local page = require "page"
local store = require "store"

local upload = {}

-- The maximum length of a file name, in bytes.
local LONGEST_NAME = 255

-- The file name without folders, which some clients send, and without invalid text.
local function plain(name)
  name = name:match("[^/\\]*$"):sub(-LONGEST_NAME)
  return utf8.len(name) and not name:find("%c") and name or name:gsub("[^%w._ -]", "_")
end

-- A file begins. If the user has chosen no file, the form contains one without a name.
local function begin(files, metadata)
  local name = plain(metadata.file_name or "")
  if name == "" then return nil end
  if #files == store.MOST_FILES then
    files.problem = ("Choose no more than %d files."):format(store.MOST_FILES)
  end
  if files.problem then return nil end
  local path = store.partial_path(("%d-%d"):format(moonbridge_io.getpid(), #files + 1))
  local content_type = metadata.content_type or ""
  local file = {
    name = name, size = 0, path = path, handle = assert(io.open(path, "wb")),
    type = content_type:match("^[%w!#$&^_.+-]+/[%w!#$&^_.+-]+$") or "application/octet-stream",
  }
  files[#files + 1] = file
  return file
end

-- Receive the rest of a file that is too large without storing it: browsers show no response until they
-- have sent everything.
local function add(files, file, chunk)
  file.size = file.size + #chunk
  if file.size <= store.LARGEST_FILE then
    assert(file.handle:write(chunk))
  else
    files.problem = files.problem
      or ("“%s” is too large: a file may have up to %s."):format(file.name, page.size(store.LARGEST_FILE))
  end
end

local function close(file)
  local handle = file.handle
  file.handle = nil
  assert(handle:close())
end

-- Reads the body; `files` becomes a list of { name, type, size, path }, and files.problem an error message.
local function receive(request, files)
  local current
  request:stream_post_param("files", function(chunk, metadata)
    if metadata then current = begin(files, metadata) end
    if not current then return end
    if chunk then add(files, current, chunk) else close(current) end
  end)
  request:consume_input()
end

local function discard(files)
  for _, file in ipairs(files) do
    if file.handle then file.handle:close() end
    os.remove(file.path)
  end
end

-- Whether the body is a form.
local function is_form(request)
  local content_type = (request.headers_value["Content-Type"] or ""):lower():match("^[^; ]*")
  return content_type == "multipart/form-data" or content_type == "application/x-www-form-urlencoded"
end

--- POST /
function upload.handle(request)
  if not is_form(request) then
    return page.refuse(request, "415 Unsupported Media Type", "What was sent is no form.", "")
  end
  local files = {}
  local received, message = pcall(receive, request, files)
  if not received then
    discard(files)
    error(message, 0)
  end
  local comment = (request.post_params.comment or ""):gsub("\r\n?", "\n")
  local problem = files.problem or store.objection(comment, #files)
  if problem then
    discard(files)
    local status = files.problem and "413 Content Too Large" or "422 Unprocessable Content"
    return page.refuse(request, status, problem, comment)
  end
  local id = store.add(comment, files)
  api.announce(store.note(id))
  request:send_status("303 See Other")
  request:send_header("Location", "/#note-" .. id)
  return true
end

return upload
