-- The notes as JSON.
--
--   GET    /api/notes?after=ID     { "notes": [ note, ... ] }, the oldest first, up to 100
--   POST   /api/notes              takes { "comment": text }; 201 and the note
--   GET    /api/notes/ID           the note
--   DELETE /api/notes/ID           204
--
-- A note is { "id", "comment", "created", "files": [ { "id", "name", "type", "size", "url" } ] }.
-- Errors are { "error": text }.

local events = require "events"
local json = require "dkjson"
local store = require "store"

local api = {}

-- The maximum size of a request body, in bytes, and the maximum number of notes in a response.
local LONGEST, MOST = 16384, 100

-- Tells dkjson which empty tables are lists.
local function list(items)
  return setmetatable(items, { __jsontype = "array" })
end

-- The public form of a note.
local function encode(note)
  local files = list {}
  for index, file in ipairs(note.files) do
    files[index] = {
      id = file.id, name = file.name, type = file.type, size = file.size, url = "/files/" .. file.id,
    }
  end
  return { id = note.id, comment = note.comment, created = note.created, files = files }
end

--- Tells all who listen of a new note.
function api.announce(note)
  events.announce(note.id, json.encode(encode(note)))
end

local function send(request, status, value, fields)
  request:send_status(status)
  request:send_header("Content-Type", "application/json")
  request:send_header("Cache-Control", "no-store")
  for name, text in pairs(fields or {}) do request:send_header(name, text) end
  request:send_data(json.encode(value), "\n")
  return true
end

--- Answers with an error.
function api.fail(request, status, text, fields)
  return send(request, status, { error = text }, fields)
end

-- Reads a body of limited length. Returns nil if it is longer.
local function read(request)
  local parts, size = {}, 0
  local count = request:receive_body(function(chunk)
    size = size + #(chunk or "")
    if size > LONGEST then return nil, "too long" end
    parts[#parts + 1] = chunk
    return 1
  end)
  return count and table.concat(parts)
end

-- The id in a path or a query as an integer, or nil.
local function number(text)
  return math.tointeger(tonumber(text and text:match("^%d+$")))
end

--- GET /api/notes
function api.list(request)
  local after = number(request.get_params.after or "0")
  if not after then return api.fail(request, "400 Bad Request", "after has to be a number") end
  local notes = list {}
  for index, note in ipairs(store.after(after, MOST)) do notes[index] = encode(note) end
  return send(request, "200 OK", { notes = notes })
end

--- POST /api/notes
function api.create(request)
  local content_type = request.headers_value["Content-Type"] or ""
  if content_type:lower():match("^[^; ]*") ~= "application/json" then
    return api.fail(request, "415 Unsupported Media Type", "the body has to be application/json")
  end
  local body = read(request)
  if not body then return api.fail(request, "413 Content Too Large", "the body is too long") end
  local value, _, message = json.decode(body)
  if message then return api.fail(request, "400 Bad Request", message) end
  local comment = type(value) == "table" and value.comment
  if type(comment) ~= "string" then
    return api.fail(request, "422 Unprocessable Content", "comment has to be a string")
  end
  local objection = store.objection(comment, 0)
  if objection then return api.fail(request, "422 Unprocessable Content", objection) end
  local note = store.note(store.add(comment, {}))
  api.announce(note)
  return send(request, "201 Created", encode(note), { Location = "/api/notes/" .. note.id })
end

--- GET /api/notes/ID
function api.show(request, id)
  local note = number(id) and store.note(number(id))
  if not note then return api.fail(request, "404 Not Found", "there is no such note") end
  return send(request, "200 OK", encode(note))
end

--- DELETE /api/notes/ID
function api.delete(request, id)
  if not (number(id) and store.delete(number(id))) then
    return api.fail(request, "404 Not Found", "there is no such note")
  end
  request:send_status("204 No Content")
  return true
end

return api
