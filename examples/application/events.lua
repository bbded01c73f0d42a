-- New notes as server-sent events. Workers share nothing but the database, so each stream polls it.

local json = require "dkjson"
local moonbridge_io = require "moonbridge_io"
local api = require "api"
local store = require "store"

local events = {}

-- Seconds between two queries, between keep-alive comments, and until the stream ends. Browsers then
-- reconnect and send the id of the last event they have seen.
local PAUSE, SIGN_OF_LIFE, LONGEST = 0.25, 15, 600

-- The maximum number of events per query.
local MOST = 100

-- Waits until the next query. Returns false if the client is gone or the server shuts down.
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
