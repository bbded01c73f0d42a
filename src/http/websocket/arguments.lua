-- What both sides of a WebSocket check of what the application gives them. Errors have the position of the
-- call of the function that checks.

local native = ...

local error, next, type = error, next, type
local format, math_type = string.format, math.type
local sort, tointeger, tostring = table.sort, math.tointeger, tostring

local MAX_MESSAGE_LIMIT = 1073741824
local MAX_PROTOCOL_NAME = 200

local function misuse(level, ...) error(format(...), level + 1) end

-- Whether a value is a list of strings that pass the test.
local function is_list(it, test)
  if type(it) ~= "table" then return false end
  for key, text in next, it do
    if not math_type(key) or type(text) ~= "string" or not test(text) then return false end
  end
  return true
end

local function is_protocol(name) return #name <= MAX_PROTOCOL_NAME and native.is_token(name) end

-- Options of both sides: what each is expected to be, and a function that tells whether a value is that.
local rules = {
  protocols = { "a list of subprotocols", function(it) return is_list(it, is_protocol) end },
  message_limit = { "a number of bytes, at least 1", function(it)
    local size = math_type(it) and tointeger(it)
    return size and size >= 1 and size <= MAX_MESSAGE_LIMIT
  end },
  compress = { "a boolean", function(it) return type(it) == "boolean" end },
}

-- Checks the options by the rules of one side. `texts` has the formats of what is said of them.
local function check_options(options, side, texts)
  for name, it in next, options do
    local rule = side[name]
    if not rule then
      local names = {}
      for known in next, side do names[#names + 1] = known end
      sort(names)
      local similar = native.nearest(tostring(name), names)
      misuse(3, texts.unknown .. (similar and texts.similar or ""), tostring(name), similar)
    end
    if not rule[2](it) then misuse(3, texts.wrong, name, rule[1], type(it)) end
  end
end

-- The text of a message, and whether it is binary.
local function check_message(text, kind, name)
  if math_type(text) then text = tostring(text) end
  if type(text) ~= "string" then
    misuse(3, "bad argument #1 to '%s' (string expected, got %s)", name, type(text))
  end
  if kind ~= nil and kind ~= "text" and kind ~= "binary" then
    misuse(3, "bad argument #2 to '%s' (\"text\" or \"binary\" expected)", name)
  end
  if kind ~= "binary" and not native.is_text(text) then
    misuse(3, "bad argument #1 to '%s' (a text must be UTF-8; send other data as \"binary\")", name)
  end
  return text, kind == "binary"
end

-- A code for a close frame, and the reason.
local function check_close(code, reason, name)
  if code == nil then code = 1000 end
  local number = math_type(code) and tointeger(code)
  if not number or number < 0 or number > 65535 or not native.is_code(number) then
    misuse(3, "bad argument #1 to '%s' (close code expected)", name)
  end
  if reason ~= nil and type(reason) ~= "string" then
    misuse(3, "bad argument #2 to '%s' (string expected, got %s)", name, type(reason))
  end
  return number, reason or ""
end

return {
  misuse = misuse, is_list = is_list, rules = rules, check_options = check_options,
  check_message = check_message, check_close = check_close,
}
