-- `lapis server` with `server = "moonbridge"` in the configuration.

local moonbridge = require "moonbridge"
local connect = require "moonbridge.lapis"

-- Lapis's own value for those who have not chosen one: the pool then has as many workers as it needs.
local ANY_NUMBER = 1

local function number_of_workers(config)
  local wanted = config.num_workers or ANY_NUMBER
  if wanted == "auto" then
    local pipe = io.popen "nproc"
    local count = pipe and pipe:read "*l"
    if pipe then pipe:close() end
    wanted = count or ANY_NUMBER
  end
  local number = tonumber(wanted)
  if not number or number < 1 or number % 1 ~= 0 then
    error('num_workers must be a whole number from 1 on, or "auto", not ' .. tostring(wanted), 0)
  end
  return number
end

-- The options in a table of the configuration.
local function copy(options, into)
  for name, value in pairs(options or {}) do into[name] = value end
  return into
end

local function serve(environment)
  require("lapis.environment").push(environment)
  local config = require("lapis.config").get()
  local own = config.moonbridge or {}
  local http_options = copy(own.http, { code_cache = config.code_cache })
  if http_options.code_cache == nil then http_options.code_cache = "off" end

  local port = assert(config.port, "missing server port")
  local pool = {
    { proto = "tcp", host = config.bind_host or "0.0.0.0", port = port },
    connect = connect(config.default_app_module or "app", http_options),
  }
  local workers = number_of_workers(config)
  if workers ~= ANY_NUMBER then pool.min_fork, pool.max_fork, pool.pre_fork = workers, workers, workers end
  moonbridge.listen(copy(own.pool, pool))
  return moonbridge.run(copy(own.run, { hangup = "reload" }))
end

return {
  server = function(_, arguments)
    local code = serve(arguments.environment)
    if code ~= 0 then os.exit(code) end
  end,
}
