-- How a handle waits for the end of a child process by a function, and how it leaves a scope.

local handle_pt, child_pt = ...

local error, pcall, yield = error, pcall, coroutine.yield

function child_pt.wait_call(self, waitfunc)
  while true do
    local status, message, errno = child_pt.wait_nb(self)
    if status then return status end
    if status == nil then return nil, message, errno end
    if waitfunc == nil then
      error("bad argument #1 to 'wait_call' (function expected, got nil)", 2)
    end
    waitfunc()
  end
end

-- The tail call keeps error positions those of the caller.
function child_pt.wait_yield(self) return child_pt.wait_call(self, yield) end

-- `local socket <close> = ...` (Lua 5.4): an error resets the connection, everything else closes it.
function handle_pt.__close(self, thrown)
  pcall(thrown == nil and handle_pt.close or handle_pt.reset, self)
end
