-- A chat over a local socket: each line goes to all other clients. Workers share no data, so a single
-- worker serves all clients in its own event loop. It is a "main" listener: the server ends with it, and
-- SIGTERM, for which poll can wait, tells it that the server shuts down.
--
--   lua5.4 examples/chat.lua        then, in several terminals: nc -U chat.socket
--   (Debian: netcat-openbsd). An argument is the path of another socket.

local moonbridge = require "moonbridge"
local moonbridge_io = require "moonbridge_io"

local path = arg and arg[1] or "chat.socket"

-- The maximum length of a line, and how much output to queue for a client, in bytes.
local LONGEST, BEHIND = 1000, 100000

local clients = {} -- handle → its number
local waiting = {} -- handles with output that did not go out yet
local arrivals = 0

local function leave(client)
  clients[client], waiting[client] = nil, nil
  client:close()
end

local function tell(client, text)
  local left = client:flush_nb(text)
  if not left or left > BEHIND then return leave(client) end
  waiting[client] = left > 0 or nil
end

local function tell_others(speaker, text)
  local others = {}
  for client in pairs(clients) do
    if client ~= speaker then others[#others + 1] = client end
  end
  for _, client in ipairs(others) do tell(client, text) end
end

local function welcome(client)
  arrivals = arrivals + 1
  clients[client] = arrivals
  client.line = ""
  tell(client, ("You are number %d.\n"):format(arrivals))
  tell_others(client, ("* %d has come\n"):format(arrivals))
end

local function hear(client)
  local number = clients[client]
  local text, status = client:read_nb(LONGEST, "\n")
  while status == "term" or status == "maxlen" do
    tell_others(client, ("%d: %s\n"):format(number, (client.line .. text):gsub("\n$", "")))
    client.line = ""
    text, status = client:read_nb(LONGEST, "\n")
  end
  if status == "block" then
    client.line = client.line .. text
  else
    leave(client)
    tell_others(client, ("* %d has gone\n"):format(number))
  end
end

local function serve()
  local listener = assert(moonbridge_io.locallisten(path))
  while true do
    local input = { [listener] = true }
    for client in pairs(clients) do input[client] = true end
    local _, _, terminated = moonbridge_io.poll(input, waiting, nil, true)
    if terminated then break end
    local newcomer = listener:accept_nb()
    if newcomer then welcome(newcomer) end
    local behind = {}
    for client in pairs(waiting) do behind[#behind + 1] = client end
    for _, client in ipairs(behind) do tell(client, "") end
    local speakers = {}
    for client in pairs(clients) do speakers[#speakers + 1] = client end
    for _, client in ipairs(speakers) do
      if clients[client] then hear(client) end
    end
  end
  tell_others(nil, "* the server shuts down\n")
  listener:close()
  os.remove(path)
  return true
end

moonbridge.listen { { proto = "main", name = "chat" }, connect = serve }
moonbridge.run()
