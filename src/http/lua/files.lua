-- Files as responses: request:send_file, http.static.

local native, nearest = ...

local error, format, ipairs, pairs, type = error, string.format, ipairs, pairs, type
local find, lower, match, tostring = string.find, string.lower, string.match, tostring
local io_type = io.type

local function misuse(level, ...) error(format(...), level + 1) end

local function is_text(value) return type(value) == "string" end
local function is_boolean(value) return type(value) == "boolean" end
local function is_line(value) return is_text(value) and not find(value, "[%c]") end

local function is_list_of_names(value)
  if value == false or is_text(value) then return true end
  if type(value) ~= "table" then return false end
  for _, name in ipairs(value) do
    if not is_text(name) or find(name, "/", 1, true) then return false end
  end
  return true
end

local function is_table_of_lines(value)
  if type(value) ~= "table" then return false end
  for name, line in pairs(value) do
    if not is_text(name) or not is_line(line) then return false end
  end
  return true
end

-- Header fields that say what a file is, and which part is sent: twice, they would contradict each other.
local OWN_FIELDS = {
  ["content-type"] = true, ["content-length"] = true, ["content-range"] = true, ["etag"] = true,
  ["last-modified"] = true, ["transfer-encoding"] = true,
}

local function is_table_of_fields(value)
  if type(value) ~= "table" then return false end
  for name, content in pairs(value) do
    if not is_text(name) or OWN_FIELDS[lower(name)] then return false end
    if not is_text(content) and type(content) ~= "number" then return false end
    if native.header_fault(name, tostring(content)) then return false end
  end
  return true
end

local function is_status_with_body(value)
  local is_final = is_text(value) and find(value, "^[2-5]%d%d")
  return is_final and not (find(value, "^20[45]") or find(value, "^304"))
end

local common = {
  cache_control = { "a value of the header field Cache-Control", is_line },
  headers = { "a table of names and valid values of header fields, without those that the file has itself, "
    .. "such as Content-Type", is_table_of_fields },
}

-- What each option may be.
local file_options = {
  content_type = { "a media type", is_line },
  attachment = { "a boolean or a file name",
    function(value) return is_boolean(value) or is_text(value) end },
  status = { 'a status with a body, as in "404 Not Found"', is_status_with_body },
  folder = { "the path of a folder", is_text },
  cache_control = common.cache_control, headers = common.headers,
}

local folder_options = {
  index = { "a file name, a list of file names, or false", is_list_of_names },
  listing = { "a boolean", is_boolean },
  hidden = { "a boolean", is_boolean },
  links = { '"inside", "none" or "anywhere"',
    function(value) return value == "inside" or value == "none" or value == "anywhere" end },
  precompressed = { "a boolean", is_boolean },
  fallback = { "a function", function(value) return type(value) == "function" end },
  content_types = { "a table of media types by extension", is_table_of_lines },
  cache_control = { "a value of the header field Cache-Control, or a function that returns one",
    function(value) return is_line(value) or type(value) == "function" end },
  headers = common.headers,
}

local function check(options, known, what)
  if options == nil then return {} end
  if type(options) ~= "table" then
    misuse(3, "%s expects a table of options, got a %s", what, type(options))
  end
  for name, value in pairs(options) do
    local expected = known[name]
    if not expected then
      local names = {}
      for each in pairs(known) do names[#names + 1] = each end
      local meant = type(name) == "string" and nearest(name, names)
      misuse(3, "Unknown option %q of %s%s", tostring(name), what,
        meant and format("; did you mean %q?", meant) or "")
    end
    if not expected[2](value) then misuse(3, "Option %q of %s must be %s", name, what, expected[1]) end
  end
  return options
end

local PLAIN = {
  [403] = "403 Forbidden", [404] = "404 Not Found", [405] = "405 Method Not Allowed",
  [500] = "500 Internal Server Error", [503] = "503 Service Unavailable",
}

-- The key under which a request has the function that answers with a file of a folder.
local STATIC = {}

-- The folders that send_file was given lately, by their path: each has a descriptor, so there are not many.
local MOST_FOLDERS = 16
local folders, folder_count = {}, 0

local function folder_at(path)
  local folder = folders[path]
  if folder then return folder end
  local text, number
  folder, text, number = native.served_folder(path, {}, false, true, "inside", false, {}, false)
  if not folder then return nil, text, number end
  if folder_count == MOST_FOLDERS then
    for _, other in pairs(folders) do native.close_folder(other) end
    folders, folder_count = {}, 0
  end
  folders[path], folder_count = folder, folder_count + 1
  return folder
end

local files = {}

-- Adds the methods.
function files.add(steps, methods)
  local send_header = methods.send_header

  local function plain(this, code)
    this:send(PLAIN[code], "text/plain; charset=utf-8", PLAIN[code] .. "\n")
  end

  local function send(this, status, options)
    this:send_status(options and options.status or status)
    if options and options.headers then
      for name, value in pairs(options.headers) do send_header(this, name, value) end
    end
    local code, text = steps.send_reply()
    if code then error(steps.blame(code, text), 3) end
    return true
  end

  -- A failure that the client is not told in full.
  local function fail(this, code, text, number, what)
    if code >= 500 then steps.error_log(format("%s: %s", what, text)) end
    plain(this, code)
    return nil, text, number
  end

  function methods.send_file(this, file, options)
    steps.check_self(this, "send_file")
    options = check(options, file_options, "send_file")
    local native_options = options
    local path = file
    if options.attachment == true or options.attachment == false then
      native_options = {}
      for name, value in pairs(options) do native_options[name] = value end
      native_options.attachment = options.attachment
          and (is_text(file) and match(file, "([^/]*)$") or "file") or nil
    end
    local status, code, text, number
    if options.folder then
      if not is_text(file) then misuse(2, "send_file expects a path below a folder, got a %s", type(file)) end
      local folder
      folder, text, number = folder_at(options.folder)
      if not folder then return fail(this, number == 2 and 404 or 500, text, number, options.folder) end
      status, code, text, number = steps.find_file(folder, native.encode_path(file), native_options)
      if status == nil or status and find(status, "^301") then
        status, code, text, number = false, 404, native.describe(2), 2
      end
    elseif is_text(file) then
      status, code, text, number = steps.open_file(file, nil, native_options)
    elseif io_type(file) == "file" then
      local position = file:seek()
      path = "a file"
      status, code, text, number = steps.open_file(native.file_number(file), position, native_options)
    else
      misuse(2, "send_file expects a path or an open file, got a %s", io_type(file) or type(file))
    end
    if not status then return fail(this, code, text, number, path) end
    return send(this, status, options)
  end

  -- As the step serve_file, with further header fields.
  local function serve_with_fields(this, site, path, settings)
    local method = this.method
    if method ~= "GET" and method ~= "HEAD" then return false, 405 end
    local status, code, text = steps.find_file(site.folder, path, settings)
    if not status then return status, code, text end
    return send(this, status, site.options)
  end

  methods[STATIC] = function(this, site, path)
    local settings, wanted = site.settings, path or "\0" -- which stands for nothing
    if site.cache_control and path then
      local value = site.cache_control(path)
      if value ~= nil and not is_line(value) then
        misuse(2, 'Option "cache_control" of static must return %s, or nil', common.cache_control[1])
      end
      settings = { cache_control = value }
    end
    local served, code, text
    if site.options.headers then
      served, code, text = serve_with_fields(this, site, wanted, settings)
    else
      served, code, text = steps.serve_file(site.folder, wanted, settings)
    end
    if served then
      if served ~= true then error(steps.blame(served, code), 3) end
    elseif served == nil and site.options.fallback then
      return site.options.fallback(this, path)
    elseif served == nil then
      plain(this, 404)
    elseif code == 405 then
      this:send(PLAIN[405], "text/plain; charset=utf-8", PLAIN[405] .. "\n", { Allow = "GET, HEAD" })
    else
      fail(this, code, text, nil, site.name)
    end
    return true
  end
end

--- http.static(folder [, options])
function files.static(folder, options)
  if not is_text(folder) then misuse(2, "static expects the path of a folder, got a %s", type(folder)) end
  options = check(options, folder_options, "static")
  local index = options.index
  if index == nil then index = { "index.html" } end
  if is_text(index) then index = { index } end
  local served, text = native.served_folder(folder, index or {}, options.listing or false,
    options.hidden or false, options.links or "inside", options.precompressed ~= false,
    options.content_types or {}, true)
  if not served then misuse(2, "Folder %q cannot be served: %s", folder, text) end
  local site = { folder = served, name = folder, options = options }
  local cache_control = options.cache_control
  if type(cache_control) == "function" then site.cache_control = cache_control
  elseif cache_control then site.settings = { cache_control = cache_control } end
  return function(request, path)
    local answer = type(request) == "table" and request[STATIC]
    if not answer then misuse(2, "static: expected a request, got a %s", type(request)) end
    if path == nil then path = request.path end
    return answer(request, site, path)
  end
end

return files
