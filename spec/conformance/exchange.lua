-- One vector, one connection: what the server makes of the bytes, whole or in pieces.

local socket = require "socket"

local exchange = {}

-- The statuses and bodies of the responses in what came back.
local function digest(bytes)
  local list, position = {}, 1
  while true do
    local status, head_end = bytes:match("^HTTP/1%.1 (%d%d%d) [^\n]*\n.-\r\n\r\n()", position)
    if not status then break end
    local head = bytes:sub(position, head_end - 1):lower()
    local length = tonumber(head:match("\r\ncontent%-length: (%d+)"))
    local stop
    if length then
      stop = head_end + length
    elseif head:find("\r\ntransfer%-encoding: chunked") then
      stop = select(2, bytes:find("0\r\n\r\n", head_end, true)) or #bytes
      stop = stop + 1
    else
      stop = #bytes + 1
    end
    -- Interim responses depend on when the body comes.
    if status ~= "100" then list[#list + 1] = status .. " " .. bytes:sub(head_end, stop - 1) end
    position = stop
  end
  return list
end

--- Sends the pieces, ends the sending unless the client `stays`, and reads to the end or for a moment.
-- @return a list of responses, each its status and body
function exchange.send(port, pieces, stays)
  local connection = assert(socket.connect("127.0.0.1", port))
  connection:setoption("tcp-nodelay", true)
  connection:settimeout(10)
  for index, piece in ipairs(pieces) do
    if index > 1 then socket.sleep(0.0002) end
    if not connection:send(piece) then break end
  end
  if stays then connection:settimeout(0.2) else connection:shutdown("send") end
  local parts = {}
  repeat
    local bytes, message, partial = connection:receive(65536)
    parts[#parts + 1] = bytes or partial
  until message
  connection:close()
  return digest(table.concat(parts))
end

--- Adds the Host that RFC 9112 3.2 wants, to vectors that are made for parsers.
function exchange.with_host(bytes)
  if bytes:lower():find("\nhost[: \t]") then return bytes end
  return (bytes:gsub("( HTTP/1%.1)(\r?\n)", "%1%2Host: example.com%2"))
end

--- The ways to split bytes that have to lead to the same result.
function exchange.splits(bytes)
  local each = {}
  -- Byte by byte; of long ones, so that it takes its time, the begin.
  for index = 1, math.min(#bytes, 600) do each[index] = bytes:sub(index, index) end
  if #bytes > 600 then each[601] = bytes:sub(601) end
  local ways = { each }
  for _ = 1, #bytes > 1 and 3 or 0 do
    local at = math.random(#bytes - 1)
    ways[#ways + 1] = { bytes:sub(1, at), bytes:sub(at + 1) }
  end
  return ways
end

--- Whether the responses are as the vector expects.
function exchange.as_expected(responses, expect)
  local refused, accepted = #responses == 0, #responses > 0
  for _, response in ipairs(responses) do
    if response:sub(1, 1) ~= "2" then accepted, refused = false, true end
  end
  if expect == "accept" then return accepted end
  if expect == "refuse" then return refused end
  if expect == "incomplete" then return not accepted end
  local status = tonumber((responses[1] or "-1"):match("^%-?%d+"))
  for _, range in ipairs(expect) do
    if status >= range[1] and status <= range[2] then return true end
  end
  return false
end

return exchange
