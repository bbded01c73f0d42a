--- Callbacks and files that note what is done with them.

local process = require "spec.support.process"

local callbacks = {}

--- Lua text: sends a request's body back as it comes.
callbacks.ECHO = [[
  local begun
  request:receive_body(function(chunk)
    if not begun then
      request:send_status("200 OK")
      begun = true
    end
    request:send_data(chunk)
    return 1
  end)
]]

--- A receive callback that notes its calls {chunk, err}, and the notes.
-- @param results list of what it returns for its first calls: {ret, err_or_f}; it returns true otherwise
function callbacks.recorder(results)
  local calls = {}
  return function(chunk, err)
    calls[#calls + 1] = { chunk, err }
    if results and results[#calls] then return table.unpack(results[#calls], 1, 2) end
    return true
  end, calls
end

--- A send callback for the chunks given, then "".
function callbacks.chunks(...)
  local list, index = { ... }, 0
  return function()
    index = index + 1
    return list[index] or ""
  end
end

--- All that a send callback gives.
function callbacks.drain(send_cb)
  local parts = {}
  for _ = 1, 1e5 do
    local chunk, err_or_f = send_cb()
    if chunk == nil then return nil, err_or_f end
    if chunk == "" then return table.concat(parts) end
    parts[#parts + 1] = chunk
    send_cb = err_or_f or send_cb
  end
  error("the callback does not end")
end

--- A file object that tells what was done with it: `written` (list), `closed` (how often).
-- @param options table or nil: a list of chunks to be read; `full`: so many chunks can be written; `broken`:
--   reading fails; `close_fails`
function callbacks.fake_file(options)
  options = options or {}
  local file = { written = {}, closed = 0 }
  function file:write(chunk)
    if options.full and #self.written >= options.full then return nil, "No space left on device", 28 end
    table.insert(self.written, chunk)
    return self
  end
  function file.read()
    if options.broken then return nil, "Input/output error", 5 end
    return table.remove(options, 1)
  end
  function file:close()
    self.closed = self.closed + 1
    if options.close_fails then return nil, "Disk quota exceeded", 122 end
    return true
  end
  return file
end

--- The path of a file with this text.
function callbacks.scratch(text)
  local path = process.scratch("callback")
  process.write(path, text or "")
  return path
end

return callbacks
