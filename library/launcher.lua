---@meta _

-- Annotations (LuaCATS) for editors: the globals of scripts run by the program `moonbridge`.
-- `listen` and `timeout` are also defined in other programs, unless their names are taken.

---@type string
_MOONBRIDGE_VERSION = ""

moonbridge_io = require "moonbridge_io"

---Registers a pool of workers and opens its ports (moonbridge.listen).
---@param pool moonbridge.pool
function listen(pool) end

---The timer that kills this process (moonbridge.timeout).
---@overload fun(): number
---@overload fun(seconds: number|string|false): number
---@overload fun(seconds: number|string|false, f: function, ...: any): ...
---@param seconds number|string|false
---@param f function
---@param ... any
---@return any ...
function timeout(seconds, f, ...) end
