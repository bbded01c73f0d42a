-- The program `moonbridge`: parses options, runs a script, which calls `listen{...}`, and serves.
--
-- `launch(...)` takes the command-line arguments and returns the exit code: 0 shut down, 1 wrong command
-- line, 2 already running, 3 error at start-up, 4 error at run time.

local moonbridge, open, develop, show, log, exit_code, run, describe, EWOULDBLOCK, nearest = ...
local stdout, stderr = io.stdout, io.stderr

local USAGE = [[
Usage: moonbridge [options] [--] script.lua [arguments]

      --access-log FILE    a line for each request: to this file, "stdout" or "stderr"
      --access-log-format FORMAT
                           "json" (default), "combined", or a text such as "{client_ip} {request} {status}"
  -b, --background         detach from the terminal; log to syslog unless -l is given
      --check              only run the script and show what it would serve, or what is wrong
      --dev                for development: reload when a file changes, show errors, log requests
  -d, --debug              log every control message, and what -s logs
  -f, --logfacility NAME   log to syslog as well; DAEMON (default), USER, or 0 to 7 for LOCAL0 to LOCAL7
      --drain-delay SECONDS
                           serve on for so long after SIGTERM, while /ready says no (default: 0)
      --group NAME         run as this group (default: the groups of --user)
  -h, --help               show this help
      --hangup ACTION      what SIGHUP does: "reload" runs the script anew, "end" ends at once (default: end)
  -i, --logident NAME      log to syslog as well, under this name (default: moonbridge)
  -l, --logfile FILE       append the log to this file instead of writing it to standard error
  -p, --pidfile FILE       write the process id to this file, which is locked
      --reload-timeout SECONDS
                           give a reload up that takes longer (default: 60; 0: never)
      --shutdown-timeout SECONDS
                           kill what still runs so long after a shutdown has begun (default: 60; 0: never)
      --slow-request SECONDS
                           log requests that take longer, with a traceback (default: none)
  -s, --stats              log routine ends of workers, their resource usage and worker counts
      --user NAME          run as this user, once ports, pid file and log are open
  -v, --version            show the version
      --hold-limit COUNT   how many connections may be held (default: as descriptors allow)
      --waiting-input-limit BYTES
                           how much input all waiting connections hold together (default: 67108864)
      --watch FOLDER       with --dev: reload also when a file in this folder changes; can be repeated

The script registers its servers with the global function listen{...}; they are served when it ends.
]]

-- A line of the access log with --dev.
local DEVELOPMENT_FORMAT = "{time} {method} {target} {status} {handler_milliseconds} ms"

-- Long and short names, and the option of `run` that each sets if its name differs. `value`: the option takes
-- a value; `many`: perhaps several ones, which become a list.
local OPTIONS = {
  { long = "access-log", sets = "access_log", value = true },
  { long = "access-log-format", sets = "access_log_format", value = true },
  { long = "background", short = "b" },
  { long = "check" },
  { long = "debug", short = "d" },
  { long = "dev" },
  { long = "logfacility", short = "f", value = true },
  { long = "drain-delay", sets = "drain_delay", value = true },
  { long = "group", value = true },
  { long = "help", short = "h" },
  { long = "hangup", value = true },
  { long = "hold-limit", sets = "hold_limit", value = true },
  { long = "logident", short = "i", value = true },
  { long = "logfile", short = "l", value = true },
  { long = "pidfile", short = "p", value = true },
  { long = "reload-timeout", sets = "reload_timeout", value = true },
  { long = "shutdown-timeout", sets = "shutdown_timeout", value = true },
  { long = "slow-request", sets = "slow_request", value = true },
  { long = "stats", short = "s" },
  { long = "user", value = true },
  { long = "version", short = "v" },
  { long = "waiting-input-limit", sets = "waiting_input_limit", value = true },
  { long = "watch", value = true, many = true },
}

-- The option with that name or, as in getopt_long(3), a unique prefix.
local function long_option(name)
  local found
  for _, option in ipairs(OPTIONS) do
    if option.long == name then return option end
    if option.long:sub(1, #name) == name then
      if found then return nil, "option --" .. name .. " is ambiguous" end
      found = option
    end
  end
  if found then return found end
  local names = {}
  for index, option in ipairs(OPTIONS) do names[index] = option.long end
  local similar = nearest(name, names)
  return nil, "unknown option --" .. name .. (similar and "; did you mean --" .. similar .. "?" or "")
end

local function short_option(letter)
  for _, option in ipairs(OPTIONS) do
    if option.short == letter then return option end
  end
  return nil, "unknown option -" .. letter
end

-- Parses the options in `words` up to the script. Returns the options and the index of the script, or nil and
-- an error message.
local function parse(words)
  local set, index = {}, 1
  local function take(option, attached)
    if not option.value then
      if attached then return nil, "option --" .. option.long .. " takes no value" end
      set[option.long] = true
      return true
    end
    if not attached then
      index = index + 1
      attached = words[index]
      if not attached then return nil, "option --" .. option.long .. " needs a value" end
    end
    if option.many then
      set[option.long] = set[option.long] or {}
      table.insert(set[option.long], attached)
    else
      set[option.sets or option.long] = attached
    end
    return true
  end
  local function cluster(letters)
    while letters ~= "" do
      local option, message = short_option(letters:sub(1, 1))
      if not option then return nil, message end
      letters = letters:sub(2)
      local attached = option.value and letters ~= "" and letters or nil
      if attached then letters = "" end
      local ok, wrong = take(option, attached)
      if not ok then return nil, wrong end
    end
    return true
  end
  while words[index] and words[index]:find("^%-.") do
    local word = words[index]
    if word == "--" then return set, index + 1 end
    local ok, message
    if word:find("^%-%-") then
      local name, value = word:match("^%-%-([^=]*)=?(.*)$")
      local option
      option, message = long_option(name)
      if option then ok, message = take(option, word:find("=", 1, true) and value or nil) end
    else
      ok, message = cluster(word:sub(2))
    end
    if not ok then return nil, message end
    index = index + 1
  end
  return set, index
end

-- Defines the additional globals for the script.
local function preset(words, script)
  local arguments = { [0] = words[script] }
  for index = script + 1, #words do arguments[index - script] = words[index] end
  _G.arg = arguments
  _G.listen, _G.timeout = moonbridge.listen, moonbridge.timeout
  _G.moonbridge_io = moonbridge.io
  _G._MOONBRIDGE_VERSION = moonbridge._VERSION
end

-- Logs the end of the program, or prints it if the script is only checked; returns the exit code.
local function ended(code, message, check)
  if check then
    stderr:write("moonbridge: ", message, "\n")
    return code
  end
  if message then log(message) end
  log("Terminating with exit code " .. code)
  return code
end

local function wrong_usage(message)
  stderr:write("moonbridge: ", message, "\n", USAGE)
  return 1
end

-- With --dev: watches the script, what it loads, and these folders.
local function watch(folders)
  local begun, message = develop(table.unpack(folders))
  if not begun then log("Changed files are not noticed: " .. message) end
end

-- The script has failed. With --dev, a page shows that until a file changes.
local function failed(script, message, check)
  local port_is_chosen, trouble
  if not check then port_is_chosen, trouble = show(message, script) end
  if port_is_chosen == nil then
    if trouble then log("Could not serve a page with the error: " .. trouble) end
    return ended(3, message, check)
  end
  log(message)
  log("A page with this error is served until a file changes"
    .. (port_is_chosen and ". No port of the application is known: see http://127.0.0.1:8080/" or ""))
  local ok, code, why = xpcall(run, describe)
  if ok and code then return code end
  return ended(ok and 3 or 4, why or code)
end

local function serve(words, script, check)
  local name = words[script]
  local main, message = loadfile(name)
  if not main then return failed(name, ('Error while loading "%s": %s'):format(name, message), check) end
  preset(words, script)
  local ok, report = xpcall(main, describe, table.unpack(words, script + 1))
  if not ok then return failed(name, ('Error while executing "%s": %s'):format(name, report), check) end
  _G.listen = nil
  -- A script that uses `require "moonbridge"` may already have served.
  local code = exit_code()
  if code then return code end
  ok, code, message = xpcall(run, describe)
  if not ok then return ended(4, ("Error while serving: %s"):format(code), check) end
  if not code then return failed(name, message, check) end
  if code == "checked" then
    stdout:write(message)
    return 0
  end
  return code
end

return function(...)
  local words = { ... }
  local options, script = parse(words)
  if not options then return wrong_usage(script) end
  if options.help then
    stdout:write(USAGE)
    return 0
  end
  if options.version then
    stdout:write("moonbridge ", moonbridge._VERSION, " (", _VERSION, ")\n")
    return 0
  end
  if not words[script] then return wrong_usage("no script was given") end
  local check, dev, folders = options.check, options.dev, options.watch
  options.check, options.dev, options.watch = nil, nil, nil
  if folders and not dev then return wrong_usage("option --watch needs --dev") end
  if dev and not options.access_log then
    options.access_log, options.access_log_format = "stderr", options.access_log_format or DEVELOPMENT_FORMAT
  end
  local faulty, opened, message, errno = pcall(open, options, check)
  if not faulty then return wrong_usage((opened:gsub('^[^"]-: ', ""))) end
  if not opened then
    stderr:write("moonbridge: ", message, "\n")
    return errno == EWOULDBLOCK and 2 or 3
  end
  if dev and not check then watch(folders or {}) end
  return serve(words, script, check)
end
