-- The methods that wait by a function of the user's. They are Lua, so that this function may yield,
-- throw or use the same handle; each round is one non-blocking step in Rust.

local handle_pt, child_pt, step, moonbridge_io, MISUSE = ...

local error, pcall, yield = error, pcall, coroutine.yield

-- What the user's function throws must not leave the input marked as waited for.
local function wait_input(handle, waitfunc)
  local ok, thrown = pcall(waitfunc, handle, "r", moonbridge_io)
  if not ok then
    step.release(handle)
    error(thrown, 0)
  end
end

function handle_pt.read_call(self, waitfunc, maxlen, terminator)
  local data, status, errno = step.read_call(self, maxlen, terminator)
  while data == false do
    -- `status` is how far the input was searched: that part is not searched again.
    local searched = status
    if waitfunc == nil then
      step.release(self)
      error("bad argument #1 to 'read_call' (function expected, got nil)", 2)
    end
    wait_input(self, waitfunc)
    data, status, errno = step.read_call(self, maxlen, terminator, searched)
  end
  if data == MISUSE then error(status, 2) end
  if data == nil then return nil, status, errno end
  return data, status
end

function handle_pt.drain_call(self, waitfunc, maxlen, terminator)
  local total = 0
  local count, status, errno = step.drain_call(self, maxlen, terminator, total)
  while status == "block" do
    total = total + count
    if waitfunc == nil then
      error("bad argument #1 to 'drain_call' (function expected, got nil)", 2)
    end
    waitfunc(self, "r", moonbridge_io)
    count, status, errno = step.drain_call(self, maxlen, terminator, total)
  end
  if count == MISUSE then error(status, 2) end
  if count == nil then return nil, status, errno end
  return total + count, status
end

local function sending(name)
  local send = step[name]
  return function(self, waitfunc, ...)
    local left, message, errno = send(self, ...)
    while left ~= 0 do
      if left == MISUSE then error(message, 2) end
      if left == nil then return nil, message, errno end
      if waitfunc == nil then
        error("bad argument #1 to '" .. name .. "' (function expected, got nil)", 2)
      end
      waitfunc(self, "w", moonbridge_io)
      left, message, errno = send(self)
    end
    return self
  end
end

handle_pt.write_call = sending("write_call")
handle_pt.flush_call = sending("flush_call")

function child_pt.wait_call(self, waitfunc)
  local status, message, errno = step.wait_call(self)
  while status == false do
    if waitfunc == nil then
      error("bad argument #1 to 'wait_call' (function expected, got nil)", 2)
    end
    waitfunc()
    status, message, errno = step.wait_call(self)
  end
  if status == MISUSE then error(message, 2) end
  if status == nil then return nil, message, errno end
  return status
end

-- The tail calls keep error positions those of the caller.
function handle_pt.read_yield(self, ...) return handle_pt.read_call(self, yield, ...) end
function handle_pt.drain_yield(self, ...) return handle_pt.drain_call(self, yield, ...) end
function handle_pt.write_yield(self, ...) return handle_pt.write_call(self, yield, ...) end
function handle_pt.flush_yield(self, ...) return handle_pt.flush_call(self, yield, ...) end
function child_pt.wait_yield(self) return child_pt.wait_call(self, yield) end

-- `local socket <close> = ...` (Lua 5.4): an error resets the connection, everything else closes it.
function handle_pt.__close(self, thrown)
  pcall(thrown == nil and handle_pt.close or handle_pt.reset, self)
end
