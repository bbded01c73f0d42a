-- New notes as server-sent events. Processes share nothing but the database: each stream looks there.

local json = require "dkjson"
local moonbridge_io = require "moonbridge_io"
local api = require "api"
local store = require "store"

local events = {}

-- Seconds between two looks, until a sign of life, and until the stream ends. Browsers reconnect then,
-- and say what the last event was that they saw.
local PAUSE, SIGN_OF_LIFE, LONGEST = 0.25, 15, 600

-- Most events at once; the rest comes with the next look.
local MOST = 100

-- Waits for the next look. Returns false if the client has gone or the server shuts down.
local function wait(socket)
  local input, _, terminated = moonbridge_io.poll({ [socket] = true }, nil, PAUSE, true)
  if terminated then return false end
  if not input then return true end
  local size, status = socket:drain_nb()
  return size ~= nil and status ~= "eof"
end

--- GET /events?after=ID
function events.stream(request)
  local last = math.tointeger(tonumber(request.headers_value["Last-Event-ID"] or ""))
    or math.tointeger(tonumber(request.get_params.after or "")) or store.last()
  request:close_after_finish()
  request:send_status("200 OK")
  request:send_header("Content-Type", "text/event-stream")
  request:send_header("Cache-Control", "no-store")
  request:send_data("retry: 1000\n\n")
  request:flush()
  if request.method == "HEAD" then return true end
  local begun = moonbridge_io.timeref()
  local sent = begun
  repeat
    local notes = store.after(last, MOST)
    for _, note in ipairs(notes) do
      last = note.id
      request:send_data("id: ", last, "\nevent: note\ndata: ", json.encode(api.encode(note)), "\n\n")
    end
    local silent = moonbridge_io.timeref(sent) >= SIGN_OF_LIFE
    if silent then request:send_data(": still here\n\n") end
    if silent or #notes > 0 then
      request:flush()
      sent = moonbridge_io.timeref()
    end
  until moonbridge_io.timeref(begun) >= LONGEST or not wait(request.socket)
  return true
end

return events
