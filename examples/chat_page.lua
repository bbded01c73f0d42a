-- A chat page over WebSockets: what one visitor says, all see. No process is held while nobody speaks:
-- who a visitor is stays with the connection (ws.state), and so does what it hears (ws:subscribe).
--
--   lua5.4 examples/chat_page.lua              then open http://127.0.0.1:8080/ in two windows

local moonbridge = require "moonbridge"
local http = require "moonbridge_http"

local PAGE = [[
<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="UTF-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Chat</title>
<link rel="icon" href="data:,">
<style>
  :root { color-scheme: light dark; }
  body { font-family: sans-serif; max-width: 40em; margin: 2em auto; padding: 0 1em; }
  h1 { font-size: 1.4em; }
  #lines { border: 1px solid #888; border-radius: 6px; min-height: 15em; max-height: 60vh; overflow: auto;
           margin: 0 0 1em; padding: .5em 1em; list-style: none; }
  #lines li { padding: .15em 0; overflow-wrap: anywhere; }
  #lines .note { font-style: italic; }
  form { display: flex; gap: .5em; }
  input { font: inherit; padding: .4em; flex: 1; min-width: 0; }
  #name { flex: 0 1 6em; }
  ::placeholder { color: inherit; opacity: .8; }
  button { font: inherit; padding: .4em 1em; }
</style>
</head>
<body>
<h1>Chat</h1>
<ul id="lines" aria-live="polite"></ul>
<form id="form">
  <input id="name" aria-label="Your name" placeholder="Your name" maxlength="30" required>
  <input id="text" aria-label="Message" placeholder="Message" maxlength="1000" autocomplete="off" required>
  <button>Send</button>
</form>
<script>
"use strict"
const lines = document.getElementById("lines"), form = document.getElementById("form")
const nameField = document.getElementById("name"), textField = document.getElementById("text")
let socket, wait = 500

function show(text, kind) {
  const line = document.createElement("li")
  line.textContent = text
  if (kind) line.className = kind
  lines.append(line)
  while (lines.children.length > 200) lines.firstChild.remove()
  lines.scrollTop = lines.scrollHeight
}

function connect() {
  socket = new WebSocket(location.href.replace(/^http/, "ws").replace(/[?#].*$/, "") + "chat", "chat")
  socket.onopen = () => { wait = 500; show("You are connected.", "note") }
  socket.onmessage = event => show(event.data)
  socket.onclose = () => {
    show("The connection is lost. Another attempt follows.", "note")
    setTimeout(connect, wait)
    wait = Math.min(wait * 2, 10000)
  }
}

form.onsubmit = event => {
  event.preventDefault()
  if (socket.readyState !== WebSocket.OPEN) return
  socket.send(nameField.value + "\n" + textField.value)
  textField.value = ""
  textField.focus()
}

connect()
</script>
</body>
</html>
]]

local TOPIC = "chat"

local function say(...) moonbridge.publish(TOPIC, table.concat { ... }) end

local chat = http.websocket {
  name = "chat", protocols = { "chat" }, message_limit = 16384,
  open = function(ws) ws:subscribe(TOPIC) end,
  -- A message of the page is a name and a line.
  message = function(ws, text)
    local name, line = text:match("^([^\n]+)\n([^\n]+)$")
    if not name then return ws:close(1008, "a name and a line are expected") end
    if not ws.state then say("* ", name, " has come") end
    ws.state = name
    say(name, ": ", line)
  end,
  close = function(ws)
    if ws.state then say("* ", ws.state, " has left") end
  end,
}

moonbridge.listen {
  { proto = "tcp", host = "127.0.0.1", port = tonumber(os.getenv "PORT") or 8080 },
  connect = http.generate_handler(function(request)
    if request.path == "chat" then return chat(request) end
    if request.path ~= "" then
      request:send_status("404 Not Found")
      return true
    end
    request:send_status("200 OK")
    request:send_header("Content-Type", "text/html; charset=UTF-8")
    request:send_header("Content-Security-Policy", "default-src 'none'; img-src data:; connect-src 'self'; "
      .. "script-src 'unsafe-inline'; style-src 'unsafe-inline'")
    request:send_data(PAGE)
    return true
  end),
}

moonbridge.run { hangup = "reload" }
