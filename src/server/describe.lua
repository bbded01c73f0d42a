-- A message handler for xpcall: what the log shows of an error, its message, even if it is no
-- string, and the traceback.

local tostring, type, pcall, getmetatable = tostring, type, pcall, getmetatable
local traceback = debug.traceback

return function(err)
  local kind = type(err)
  if kind ~= "string" and kind ~= "number" then
    local mt = getmetatable(err)
    local readable = type(mt) == "table" and mt.__tostring ~= nil
    if not readable then err = "(error object is a " .. kind .. " value)" end
  end
  local ok, text = pcall(tostring, err)
  return traceback(ok and text or "(error object cannot be shown)", 2)
end
