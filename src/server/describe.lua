-- A message handler for xpcall: what the log shows of an error, its message, even if it is no
-- string, and the traceback.
--
-- An error that was caught and raised again comes with the traceback of where it began: `take`
-- gives the HTTP module's, `failed` holds what `timeout` let pass last.

local take, failed = ...
local tostring, type, pcall, getmetatable, rawequal = tostring, type, pcall, getmetatable, rawequal
local traceback = debug.traceback

local function shown(err)
  local kind = type(err)
  if kind ~= "string" and kind ~= "number" then
    local mt = getmetatable(err)
    local readable = type(mt) == "table" and mt.__tostring ~= nil
    if not readable then return "(error object is a " .. kind .. " value)" end
  end
  local ok, text = pcall(tostring, err)
  return ok and type(text) == "string" and text or "(error object cannot be shown)"
end

return function(err)
  local origin = take()
  if not origin and err ~= nil and rawequal(failed.error, err) then origin = failed.traceback end
  failed.error, failed.traceback = nil, nil
  return shown(err) .. (origin or traceback("", 2))
end
