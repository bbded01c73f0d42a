--- The servers of the comparison: how each is prepared and started. All serve the same hello world, some the
-- cases of benches/support/requests.lua as well.

local answers = require "benches.support.answers"
local load = require "benches.support.load"
local process = require "spec.support.process"
local requests = require "benches.support.requests"
local server = require "spec.support.server"

local peers = {}

local started = {}

local function shell(command, what)
  local code, output = process.run(command)
  if code ~= 0 then error(what .. ": " .. output:match("([^\n]*)\n*$"), 0) end
  return output
end

local function write_file(path, text)
  local file = assert(io.open(path, "w"))
  file:write(text)
  file:close()
end

-- The configuration template with its placeholders replaced, in a folder of its own.
local function configured(template, values)
  local path = process.scratch("conf")
  values.FOLDER, values.HERE = path:match("^(.*)/"), server.root
  local text = assert(process.slurp(template)):gsub("%u+", values)
  write_file(path, text)
  return path
end

local function first_that_exists(...)
  for _, path in ipairs { ... } do
    if io.open(path) then return path end
  end
  error((...) .. " is not installed", 0)
end

--- Starts a server and waits until it listens on the port; peers.stop ends it.
-- @return Process; an error if it ends before it listens
function peers.spawn(argv, port, env)
  local running = process.start(load.raised(argv), { env = env })
  started[#started + 1] = running
  local ready = process.wait_until(function() return server.listening(port) or running:status() end)
  if not ready or running:status() then
    error("it did not start: " .. running:log():sub(-300), 0)
  end
  return running
end

local function ours(port, env)
  local version = os.getenv("MOONBRIDGE_BENCH_LUA") or "5.4"
  env.PORT = port
  env.LUA_PATH = ("%s/lua/?.lua;%s/?.lua;;"):format(server.root, server.root)
  env.LUA_CPATH = server.root .. "/build/lua" .. version .. "/?.so;;"
  return peers.spawn({ "lua" .. version, "benches/peers/ours.lua" }, port, env)
end

--- Two workers of ours, under the Lua version of MOONBRIDGE_BENCH_LUA (default 5.4).
function peers.ours(port) return ours(port, {}) end

--- The same, with an access log in a file, which `rest` empties: the pages of a file that only grows may be
-- new to a virtual machine, and it would be measured how its host finds memory for them.
function peers.logged(port)
  local path = process.scratch "access.log"
  local running = ours(port, { ACCESS_LOG = path })
  function running.rest() write_file(path, "") end
  return running
end

local function nginx(port, listen, template)
  local modules = first_that_exists("/usr/lib/nginx/modules/ngx_http_lua_module.so"):match("^(.*)/")
  local values = { PORT = port, MODULES = modules, OPTIONS = listen }
  local config = configured(template or "benches/peers/nginx.conf", values)
  local program = first_that_exists("/usr/sbin/nginx")
  return peers.spawn({ program, "-p", config:match("^(.*)/"), "-c", config }, port)
end

--- Debian's nginx and libnginx-mod-http-lua, two workers.
-- @param template its configuration; default: that of `make bench`
-- @param options what OPTIONS in the configuration stands for, default nothing
function peers.nginx(port, template, options)
  -- peers.start passes something else.
  return nginx(port, options or "", type(template) == "string" and template)
end

--- The same, with connections that are accepted when their request is there, as ours are.
function peers.nginx_deferred(port) return nginx(port, "deferred") end

-- Adds the arguments that let the epoll loop answer as the peer on this port does.
local function add_recorded(arguments, port)
  for _, case in ipairs(requests) do
    local file = process.scratch(case.key)
    write_file(file, answers.bytes(port, case))
    arguments[#arguments + 1] = "/" .. case.key
    arguments[#arguments + 1] = file
  end
end

--- A bare epoll loop in C, two processes, which answers the cases with the bytes that `first` answers.
-- @param first a peer that has been started, or nil
function peers.epoll(port, first)
  shell("mkdir -p build/benches && cc -O2 -o build/benches/epoll_loop benches/peers/epoll_loop.c",
    "cc failed")
  local argv = { "build/benches/epoll_loop", port }
  if first then add_recorded(argv, first.port) end
  return peers.spawn(argv, port)
end

--- Node.js, two processes.
function peers.node(port)
  return peers.spawn({ "node", "benches/peers/node.js", port }, port)
end

--- A virtual environment under build/ with the packages of a file, from PyPI.
-- @return its folder
function peers.virtual_environment(requirements)
  local venv = "build/benches/" .. requirements:gsub("[/.]", "-")
  shell(([[cmp -s %s %s/installed || {
    python3 -m venv %s && %s/bin/pip install --quiet -r %s && cp %s %s/installed
  }]]):format(requirements, venv, venv, venv, requirements, requirements, venv), "pip failed")
  return venv
end

-- PyPI's gunicorn.
local function gunicorn(port, arguments)
  local venv = peers.virtual_environment "benches/peers/requirements.txt"
  local argv = {
    venv .. "/bin/gunicorn", "--workers", "2", "--bind", "127.0.0.1:" .. port,
    "--log-level", "error", "--pythonpath", "benches/peers",
  }
  table.move(arguments, 1, #arguments, #argv + 1, argv)
  argv[#argv + 1] = "gunicorn_app:application"
  return peers.spawn(argv, port, { PYTHONDONTWRITEBYTECODE = "1" })
end

--- gunicorn with threads, as its documentation advises where connections are kept alive.
function peers.gunicorn(port)
  return gunicorn(port, { "--worker-class", "gthread", "--threads", "8", "--keep-alive", "60" })
end

--- gunicorn's own kind of prefork server: a process per connection, which it closes after the answer.
function peers.gunicorn_sync(port)
  return gunicorn(port, { "--worker-class", "sync" })
end

--- Apache's prefork MPM with mod_lua: the process-per-connection server that also runs Lua.
function peers.apache(port)
  local modules = first_that_exists("/usr/lib/apache2/modules/mod_lua.so"):match("^(.*)/")
  local config = configured("benches/peers/apache.conf", { PORT = port, MODULES = modules })
  return peers.spawn({ first_that_exists("/usr/sbin/apache2"), "-DFOREGROUND", "-f", config }, port)
end

local titles = {
  ours = "moonbridge, 2 workers",
  nginx = "nginx + ngx_http_lua, 2 workers",
  logged = "moonbridge with an access log, 2 workers",
  nginx_deferred = "nginx + ngx_http_lua, deferred",
  epoll = "bare epoll loop in C, 2 processes",
  gunicorn = "gunicorn gthread, 2 x 8 threads",
  node = "Node.js, 2 processes",
  gunicorn_sync = "gunicorn sync (closes), 2 workers",
  apache = "apache prefork + mod_lua",
}

--- Starts the peers of the given keys and makes sure that they say hello.
-- @return list of {key, name, port, url, process}; a line on stdout for each that could not start
function peers.start(keys)
  local list = {}
  for _, key in ipairs(keys) do
    local port = server.free_port()
    local ok, running = pcall(peers[key], port, list[1])
    local url = ("http://127.0.0.1:%d/"):format(port)
    local body
    if ok then
      body = process.wait_until(function()
        local code, output = process.run("curl -sS --max-time 5 '" .. url .. "'")
        return code == 0 and output
      end)
      ok = body == "Hello, World!\n"
      running = ok and running or "it does not say hello, but: " .. tostring(body)
    end
    if ok then
      list[#list + 1] = {
        key = key, name = titles[key], port = port, url = url, process = running,
      }
    else
      print(("left out: %s: %s"):format(titles[key], running))
    end
  end
  return list
end

--- Ends all peers.
function peers.stop_servers()
  for _, running in ipairs(started) do
    running:signal("TERM")
    running:wait(5)
    running:destroy()
  end
  started = {}
end

--- Ends all peers and removes their files.
function peers.stop()
  peers.stop_servers()
  process.forget()
end

return peers
