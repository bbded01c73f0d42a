-- New notes as server-sent events. A stream occupies no worker: its handler holds the response, which hears
-- the topic "notes" from then on.

local moonbridge = require "moonbridge"

local events = {}

local TOPIC = "notes"

-- How many notes a browser whose connection broke may have missed.
local REMEMBERED = 100

-- Seconds between two signs of life.
local SIGN_OF_LIFE = 15

--- Declares the topic, before there are other processes.
function events.create()
  moonbridge.topic(TOPIC, { history = REMEMBERED })
end

--- Tells all streams of a note.
-- @param id its number
-- @param text the note as JSON
function events.announce(id, text)
  local event = ("id: %d\nevent: note\ndata: %s\n\n"):format(id, text)
  local ok, message = moonbridge.publish(TOPIC, event, { id = tostring(id) })
  if not ok then io.stderr:write("note ", id, " was not announced: ", message, "\n") end
end

--- GET /events?after=ID: first the notes after the one with this number; or, if the topic does not remember
-- all of them, an event `gap`, for which a client asks the API. Then all that are new.
function events.stream(request)
  request:send_status("200 OK")
  request:send_header("Content-Type", "text/event-stream")
  request:send_header("Cache-Control", "no-store")
  request:send_data("retry: 1000\n\n")
  return request:hold {
    topics = TOPIC, heartbeat = { SIGN_OF_LIFE, ": still here\n\n" },
    last_id = request.headers_value["Last-Event-ID"] or request.get_params.after,
    on_gap = "event: gap\ndata:\n\n",
  }
end

return events
