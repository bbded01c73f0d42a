--- Servers that say exactly what a spec tells them, for specs of the client.

local process = require "spec.support.process"
local server = require "spec.support.server"

local scripted = {}

-- A server of one process: for each connection `serve` gets the LuaSocket object. What it receives with
-- `read` is written to a file, a request a line.
local SERVER = [[
  local socket = require "socket"
  local listener
  if UNIX then
    listener = assert(require "socket.unix"())
    assert(listener:bind(UNIX))
    assert(listener:listen())
  else
    listener = assert(socket.bind("127.0.0.1", PORT))
  end
  local log = io.open(LOG, "a")
  log:setvbuf("no")
  local connections = 0
  -- Reads a request; returns its head and body.
  local function read(c)
    local lines = {}
    repeat
      local line = c:receive("*l")
      if not line then return nil end
      lines[#lines + 1] = line
    until line == ""
    local head = table.concat(lines, "\r\n")
    local length = head:match("\r\n[Cc]ontent%-[Ll]ength: (%d+)")
    local body = ""
    if length then
      -- LuaSocket's receive(0) waits for input.
      body = length == "0" and "" or c:receive(tonumber(length)) or "?"
    elseif head:find("\r\nTransfer%-Encoding: chunked") then
      local parts = {}
      while true do
        local line = c:receive("*l")
        if not line then return head, table.concat(parts), "cut off" end
        local size = tonumber(line, 16)
        if size > 0 then parts[#parts + 1] = c:receive(size) end
        c:receive("*l")
        if size == 0 then break end
      end
      body = table.concat(parts)
    end
    log:write(connections, " ", (("%q"):format(head .. "\0" .. body):gsub("\\\n", "\\n")), "\n")
    return head, body
  end
  local function serve(c, number)
    SCRIPT
  end
  io.stderr:write("listening\n")
  while true do
    local c = listener:accept()
    connections = connections + 1
    c:settimeout(60)
    if not UNIX then c:setoption("tcp-nodelay", true) end
    serve(c, connections)
    c:close()
  end
]]

local Peer = {}
Peer.__index = Peer

--- Starts a server.
-- @param script the body of `function serve(c, number)`; `read(c)` takes a request, `socket` is LuaSocket
-- @param options table or nil: `path` of a local socket to listen on, or `port`
-- @return Peer {url, port, server}
function scripted.play(script, options)
  options = options or {}
  local log = process.scratch("requests")
  io.open(log, "w"):close()
  local text = SERVER:gsub("SCRIPT", function() return script end)
  local s = server.start {
    script = text, globals = { LOG = log, UNIX = options.path }, port = options.port,
    ready = options.path and { log = "listening" } or "listening",
  }
  return setmetatable({ url = s.url .. "/", log = log, port = s.port, server = s }, Peer)
end

--- The requests received so far: list of {connection, head, body}; connections are numbered from 1 on.
function Peer:requests()
  local list = {}
  for line in io.lines(self.log) do
    local number, text = line:match("^(%d+) (.*)$")
    local head, body = load("return " .. text)():match("^([^\0]*)\0(.*)$")
    list[#list + 1] = { connection = tonumber(number), head = head, body = body }
  end
  return list
end

--- The text as it stands in a script, on one line.
function scripted.literal(text)
  return (("%q"):format(text):gsub("\\\n", "\\n"))
end

--- A server that answers each request of a connection with the same bytes.
function scripted.always(response, options)
  return scripted.play("while read(c) do c:send(" .. scripted.literal(response) .. ") end", options)
end

--- A server that answers the first request of a connection with the given bytes and closes.
function scripted.once(response)
  return scripted.play("read(c) c:send(" .. scripted.literal(response) .. ")")
end

--- A response with status 200 and this body; `extra`: further header lines, each with its end.
function scripted.ok(body, extra)
  return ("HTTP/1.1 200 OK\r\nContent-Length: %d\r\n%s\r\n%s"):format(#body, extra or "", body)
end

--- A server that sends each chunk of a request's body back as soon as it has it.
-- @param pause seconds (0) before it reads the body, of which the system takes little meanwhile, and before
--   it ends its own: the client has to wait for room, and for input
function scripted.echo(pause)
  return scripted.play(([[
    local pause = %s
    if pause > 0 then assert(c:setoption("recv-buffer-size", 65536)) end
    repeat local line = c:receive("*l") until line == ""
    c:send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    socket.sleep(pause)
    while true do
      local n = tonumber((c:receive("*l")), 16)
      local data = n > 0 and c:receive(n)
      c:receive("*l")
      if n == 0 then break end
      c:send(("%%x\r\n"):format(n) .. data .. "\r\n")
    end
    socket.sleep(pause)
    c:send("0\r\n\r\n")
  ]]):format(pause or 0))
end

--- Ends all servers, and the client's connections to them.
function scripted.cleanup()
  require("moonbridge_http").close_idle_connections()
  server.cleanup()
end

return scripted
