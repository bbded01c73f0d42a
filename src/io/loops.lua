-- The methods that wait by a function of the user's. They are Lua, so that this function may yield,
-- throw or use the same handle; each round is one non-blocking step in Rust.

local handle_pt, child_pt, step, moonbridge_io, MISUSE = ...

local error, pairs, pcall, yield = error, pairs, pcall, coroutine.yield

-- What the user's function throws must not leave the input marked as waited for.
local function wait_input(handle, waitfunc)
  local ok, thrown = pcall(waitfunc, handle, "r", moonbridge_io)
  if not ok then
    step.release(handle)
    error(thrown, 0)
  end
end

-- Below, misuse is not thrown but returned: the quick form of the method, which comes first and takes
-- over what needs no waiting, throws it at the position of its caller.
local function no_function(name)
  return MISUSE, "bad argument #1 to '" .. name .. "' (function expected, got nil)"
end

local function read_call(self, waitfunc, maxlen, terminator)
  local data, status, errno = step.read_call(self, maxlen, terminator)
  while data == false do
    -- `status` is how far the input was searched: that part is not searched again.
    local searched = status
    if waitfunc == nil then
      step.release(self)
      return no_function "read_call"
    end
    wait_input(self, waitfunc)
    data, status, errno = step.read_call(self, maxlen, terminator, searched)
  end
  if data == nil then return nil, status, errno end
  return data, status
end

local function drain_call(self, waitfunc, maxlen, terminator)
  local total = 0
  local count, status, errno = step.drain_call(self, maxlen, terminator, total)
  while status == "block" do
    total = total + count
    if waitfunc == nil then return no_function "drain_call" end
    waitfunc(self, "r", moonbridge_io)
    count, status, errno = step.drain_call(self, maxlen, terminator, total)
  end
  if count == nil then return nil, status, errno end
  if count == MISUSE then return count, status end
  return total + count, status
end

-- What is sent already when this is called (after a quick start) is not among the arguments any more.
local function sending(name)
  local send = step[name]
  return function(self, waitfunc, ...)
    local left, message, errno = send(self, ...)
    while left ~= 0 do
      if left == MISUSE then return left, message end
      if left == nil then return nil, message, errno end
      if waitfunc == nil then return no_function(name) end
      waitfunc(self, "w", moonbridge_io)
      left, message, errno = send(self)
    end
    return self
  end
end

for name, call in pairs {
  read = read_call, drain = drain_call, write = sending "write_call", flush = sending "flush_call",
} do
  handle_pt[name .. "_call"] = step.quick(name .. "_call", call)
  handle_pt[name .. "_yield"] = step.quick(name .. "_yield", function(self, ...)
    return call(self, yield, ...)
  end)
end

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

-- The tail call keeps error positions those of the caller.
function child_pt.wait_yield(self) return child_pt.wait_call(self, yield) end

-- `local socket <close> = ...` (Lua 5.4): an error resets the connection, everything else closes it.
function handle_pt.__close(self, thrown)
  pcall(thrown == nil and handle_pt.close or handle_pt.reset, self)
end
