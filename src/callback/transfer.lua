-- Transfers between callbacks and handles. They wait with the caller's wait function, in which a coroutine
-- may yield: this is Lua over the handles' non-blocking methods.

local protocol, callback, moonbridge_io = ...

local error, tointeger, type, yield = error, math.tointeger, type, coroutine.yield
local poll = moonbridge_io.poll

local EARLY_EOF = "connection closed before all data was received"

-- Waits like the blocking forms.
local function block(socket, mode)
  local set = { [socket] = true }
  if mode == "r" then poll(set) else poll(nil, set) end
end

local function receive(waitfunc, socket, receive_cb, length)
  local total = 0
  while total ~= length do
    local want = callback.BLOCKSIZE
    if length and length - total < want then want = length - total end
    local data, status, errno = protocol.guarded(receive_cb, socket.read_nb, socket, want)
    if data == nil then
      protocol.fail(receive_cb, status)
      return nil, status, errno
    end
    if data ~= "" then
      total = total + #data
      local next_cb, message = protocol.give(receive_cb, data)
      if not next_cb then return nil, message end
      receive_cb = next_cb
    elseif status == "eof" then
      if length then
        protocol.fail(receive_cb, EARLY_EOF)
        return nil, EARLY_EOF
      end
      break
    else
      protocol.attempt(receive_cb, waitfunc, socket, "r", moonbridge_io)
    end
  end
  local done, message = protocol.finish(receive_cb)
  if not done then return nil, message end
  return total
end

local function send(waitfunc, socket, send_cb)
  local total = 0
  while send_cb do
    local chunk, next_cb = protocol.take(send_cb)
    if chunk == nil then return nil, next_cb end
    send_cb = next_cb
    if chunk == "" then break end
    total = total + #chunk
    local left, message, errno = protocol.guarded(send_cb, socket.flush_nb, socket, chunk)
    while left and left > 0 do
      protocol.guarded(send_cb, waitfunc, socket, "w", moonbridge_io)
      left, message, errno = protocol.guarded(send_cb, socket.flush_nb, socket)
    end
    if not left then
      protocol.release(send_cb)
      return nil, message, errno
    end
  end
  protocol.release(send_cb)
  return total
end

local function check_socket(socket, position, name)
  local kind = type(socket)
  if (kind == "userdata" or kind == "table") and socket.read_nb and socket.flush_nb then return end
  error(("bad argument #%d to '%s' (handle expected, got %s)"):format(position, name, kind), 3)
end

-- The length to receive as an integer; nil: until EOF.
local function check_length(length, position, name)
  if length == nil then return nil end
  local integer = type(length) == "number" and tointeger(length)
  if integer and integer >= 0 then return integer end
  error(("bad argument #%d to '%s' (non-negative integer or nil expected)"):format(position, name), 3)
end

--- Receives `length` bytes, or everything until EOF, from a handle into a receive callback.
-- @return the number of bytes; or nil, a message, and an errno if the system failed
function callback.receive_from(socket, receive_cb, length)
  check_socket(socket, 1, "receive_from")
  protocol.check(receive_cb, 2, "receive_from", "receive callback")
  return receive(block, socket, receive_cb, check_length(length, 3, "receive_from"))
end

--- The same, calling waitfunc(socket, "r", moonbridge_io) while nothing is there.
function callback.receive_from_call(waitfunc, socket, receive_cb, length)
  protocol.check(waitfunc, 1, "receive_from_call", "function")
  check_socket(socket, 2, "receive_from_call")
  protocol.check(receive_cb, 3, "receive_from_call", "receive callback")
  return receive(waitfunc, socket, receive_cb, check_length(length, 4, "receive_from_call"))
end

--- The same with coroutine.yield as waiting function.
function callback.receive_from_yield(socket, receive_cb, length)
  check_socket(socket, 1, "receive_from_yield")
  protocol.check(receive_cb, 2, "receive_from_yield", "receive callback")
  return receive(yield, socket, receive_cb, check_length(length, 3, "receive_from_yield"))
end

--- Sends all chunks of a send callback to a handle, and flushes it. A nil callback sends nothing.
-- @return the number of bytes; or nil, a message, and an errno if the system failed
function callback.send_to(socket, send_cb)
  check_socket(socket, 1, "send_to")
  if send_cb ~= nil then protocol.check(send_cb, 2, "send_to", "send callback") end
  return send(block, socket, send_cb)
end

--- The same, calling waitfunc(socket, "w", moonbridge_io) while no more can be sent.
function callback.send_to_call(waitfunc, socket, send_cb)
  protocol.check(waitfunc, 1, "send_to_call", "function")
  check_socket(socket, 2, "send_to_call")
  if send_cb ~= nil then protocol.check(send_cb, 3, "send_to_call", "send callback") end
  return send(waitfunc, socket, send_cb)
end

--- The same with coroutine.yield as waiting function.
function callback.send_to_yield(socket, send_cb)
  check_socket(socket, 1, "send_to_yield")
  if send_cb ~= nil then protocol.check(send_cb, 2, "send_to_yield", "send callback") end
  return send(yield, socket, send_cb)
end
