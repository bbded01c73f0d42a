--- Servers for the specs of HTTP: a handler given as text, and its options.

local server = require "spec.support.server"

local app = {}

local SCRIPT = [[
  local moonbridge = require "moonbridge"
  http = require "moonbridge_http"
  moonbridge_io = require "moonbridge_io"
  routes = {}
  -- What a handler has noted, for later requests to /notes.
  notes = {}
  function note(...)
    local words = table.pack(...)
    for i = 1, words.n do words[i] = tostring(words[i]) end
    notes[#notes + 1] = table.concat(words, " ")
  end
  function reply(request, ...)
    request:send_status("200 OK")
    request:send_data(...)
    return true
  end
  function routes.notes(request)
    return reply(request, table.concat(notes, "\n"))
  end
  function routes.pid(request)
    return reply(request, moonbridge_io.getpid())
  end
  assert(load(ROUTES, "=routes"))()
  local options = assert(load("return " .. OPTIONS, "=options"))()
  local function answer(request)
    local route = routes[request.path] or routes.default
    if route then return route(request) end
    return reply(request, "default")
  end
  moonbridge.listen{
    { proto = "tcp", host = "127.0.0.1", port = PORT },
    pre_fork = 1, min_fork = 1, max_fork = WORKERS,
    connect = http.generate_handler(answer, options),
  }
  moonbridge.run()
]]

--- Starts a server.
-- @param routes Lua text that fills `routes` (path → handler); `routes.default` is for other paths
-- @param options Lua text of the options' table, default "{}"
-- @param workers most processes, default 1
function app.start(routes, options, workers)
  return server.start {
    script = SCRIPT,
    globals = { ROUTES = routes, OPTIONS = options or "{}", WORKERS = workers or 1 },
  }
end

return app
