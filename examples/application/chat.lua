-- A chat over WebSockets, which is not stored: what one visitor says, all see. Between two messages a visitor
-- occupies no worker, and the name stays with the connection.

local http = require "moonbridge_http"
local moonbridge = require "moonbridge"
local page = require "page"

local chat = {}

local TOPIC = "chat"

-- The greatest lengths of a name and of a line, in bytes.
local LONGEST_NAME, LONGEST = 120, 4000

local CONTENT = [[
  <ol id="lines" aria-live="polite" aria-label="Lines"></ol>
  <form id="chat">
    <p><label for="name">Name</label> <input id="name" maxlength="30" autocomplete="nickname" required></p>
    <p><label for="line">Line</label> <input id="line" maxlength="1000" autocomplete="off" required></p>
    <p><button>Say</button></p>
  </form>
  <p><a href="/">To the notes</a></p>
  <script type="module" src="/chat.js"></script>
]]

--- GET /chat
function chat.show(request)
  return page.send(request, "200 OK", { title = "Chat", heading = "Chat", content = CONTENT })
end

-- What the page sends and gets is a name, a line feed and a line; without a name it is a remark.
local function say(name, line)
  moonbridge.publish(TOPIC, name .. "\n" .. line)
end

--- GET /chat/socket
chat.connect = http.websocket {
  name = "chat", message_limit = LONGEST_NAME + 1 + LONGEST,
  open = function(ws) ws:subscribe(TOPIC) end,
  message = function(ws, text)
    local name, line = text:match "^([^%c]+)\n([^%c]+)$"
    if not name or #name > LONGEST_NAME then return ws:close(1008, "a name and a line are expected") end
    if not ws.state then say("", name .. " has come") end
    ws.state = name
    say(name, line)
  end,
  close = function(ws)
    if ws.state then say("", ws.state .. " has left") end
  end,
}

return chat
