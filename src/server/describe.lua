-- A message handler for xpcall: what the log shows of an error, its message, even if it is no
-- string, and the traceback.
--
-- An error that was caught and raised again comes with the traceback of where it began: `take`
-- gives the HTTP module's, `failed` holds what `timeout` let pass last.

local take, failed = ...
local tostring, type, pcall, rawequal = tostring, type, pcall, rawequal
local traceback = debug.traceback

-- What `tostring` gives for values without words or a name (`__name`) of their own, after their type.
local ADDRESS = "^: 0?x?%x+$"

local function shown(err)
  local ok, text = pcall(tostring, err)
  if not ok or type(text) ~= "string" then return "(error object cannot be shown)" end
  local kind = type(err)
  local bare = text:sub(1, #kind) == kind and text:find(ADDRESS, #kind + 1)
  local readable = kind == "string" or kind == "number" or kind ~= "nil" and not bare
  return readable and text or "(error object is a " .. kind .. " value)"
end

return function(err)
  local origin = take()
  if not origin and err ~= nil and rawequal(failed.error, err) then origin = failed.traceback end
  failed.error, failed.traceback = nil, nil
  return shown(err) .. (origin or traceback("", 2))
end
