-- How a connection goes on or ends behind a response. A worker does both by itself; where nobody
-- supervises, the waiting is done here.

local native = ...
local codes = native.codes
local OUTPUT, INPUT, END = codes.OUTPUT, codes.INPUT, codes.END
local now = native.now
local max, min = math.max, math.min

-- For how many seconds a client may go on sending (src/server/supervisor/lobby/lingering.rs).
local SENDING = 30

-- `wait_for(reads, writes, seconds)` waits for the connection that the steps serve now.
return function(steps, times, wait_for)
  local send_out = steps.send_out
  local stall, drain = times.stall_timeout or nil, times.drain_timeout or nil
  local ending = {}

  -- Sends what is queued, with input thrown away meanwhile; false if that fails.
  local function flush_out()
    local reads = true
    while true do
      local code = send_out(0)
      if code == nil then return true end
      if code ~= OUTPUT then return false end
      if reads and steps.drain() ~= INPUT then reads = false end
      if not wait_for(reads, true, stall) then return false end
    end
  end

  -- Throws input away until the client has ended its side, or has sent nothing for so long, or was
  -- listened to for long enough.
  local function linger()
    local deadline = drain and now() + max(drain, SENDING)
    while true do
      local code = steps.drain()
      if code ~= INPUT then return code == END end
      local left = deadline and min(drain, deadline - now())
      if left and left <= 0 or not wait_for(true, false, left) then return false end
    end
  end

  -- Closes the connection: flush, FIN, drain, close; else RST. A worker does it also if the handler's
  -- error is raised behind this.
  function ending.shut(socket)
    if not steps.is_open() then return end
    local hand_over = socket.linger
    if hand_over then
      local code = send_out(0)
      if code and code ~= OUTPUT then return socket:reset() end
      local handed = hand_over(socket, times.drain_timeout, times.stall_timeout)
      if handed then return end
      if handed == nil then return socket:reset() end
    end
    if not flush_out() or steps.shut_down() then return socket:reset() end
    if linger() then socket:close() else socket:reset() end
  end

  -- Keeps the connection for its next request: parked behind its output, if a worker does that. Else
  -- the output is sent here and now; false if that fails.
  function ending.keep(socket)
    local park = socket.park
    return park and park(socket, times.idle_timeout, times.stall_timeout) or flush_out()
  end

  return ending
end
