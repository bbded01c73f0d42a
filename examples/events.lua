-- Events for any number of open pages, without a process for each: a line from one of them appears on all.
-- A page that loses its connection gets what it has missed.
--
--   lua5.4 examples/events.lua                       then open http://127.0.0.1:8080/ in several windows, or
--   curl -N http://127.0.0.1:8080/events             and  curl -d text=hello http://127.0.0.1:8080/say

local moonbridge = require "moonbridge"

local PAGE = [[
<!DOCTYPE html>
<html lang="en">
<meta charset="utf-8"><title>Events</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<link rel="icon" href="data:,">
<style>
  :root { color-scheme: light dark; }
  body { font-family: sans-serif; max-width: 40em; margin: 2em auto; padding: 0 1em; }
  form { display: flex; gap: .5em; }
  input { font: inherit; padding: .4em; flex: 1; min-width: 0; }
  button { font: inherit; padding: .4em 1em; }
  li { padding: .15em 0; overflow-wrap: anywhere; }
</style>
<h1>Events</h1>
<form><input name="text" aria-label="Text" autofocus required><button>Say</button></form>
<ul aria-live="polite"></ul>
<script>
  const list = document.querySelector("ul"), form = document.querySelector("form")
  new EventSource("events").onmessage = event => {
    list.appendChild(document.createElement("li")).textContent = event.data
  }
  form.onsubmit = event => {
    event.preventDefault()
    fetch("say", { method: "POST", body: new URLSearchParams(new FormData(form)) })
    form.reset()
  }
</script>
]]

moonbridge.topic("lines", { history = 100 })

-- An id that is larger than all before, also after a restart.
local function new_id()
  local random = moonbridge.http.random(4):gsub(".", function(byte) return ("%02x"):format(byte:byte()) end)
  return os.time() .. "-" .. random
end

local function say(text)
  local id = new_id()
  local lines = text:gsub("\r\n?", "\n"):gsub("\n", "\ndata: ")
  return moonbridge.publish("lines", ("id: %s\ndata: %s\n\n"):format(id, lines), { id = id })
end

moonbridge.listen {
  { proto = "tcp", host = "127.0.0.1", port = tonumber(os.getenv "PORT") or 8080 },
  connect = moonbridge.http.generate_handler(function(request)
    if request.path == "" then
      request:send("200 OK", "text/html; charset=utf-8", PAGE)
    elseif request.path == "say" and request.method == "POST" then
      local ok = say(request.post_params.text or "")
      request:send(ok and "204 No Content" or "503 Service Unavailable", nil, "")
    elseif request.path == "events" then
      request:send_status("200 OK")
      request:send_header("Content-Type", "text/event-stream")
      request:send_header("X-Accel-Buffering", "no") -- for nginx in front
      return request:hold {
        topics = "lines", heartbeat = { 15, ":\n\n" },
        last_id = request.headers_value["Last-Event-ID"],
      }
    else
      request:send("404 Not Found", "text/plain", "There is nothing here.\n")
    end
    return true
  end),
}
moonbridge.run()
