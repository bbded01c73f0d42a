-- A complete application: notes with files, as a page, a JSON API and a stream of events; a chat over
-- WebSockets; and an echo over an upgraded connection.
--
--   lua5.4 examples/application.lua notes.db        then open http://127.0.0.1:8080/
--
--   curl -F comment=Hello -F files=@picture.jpg http://127.0.0.1:8080/
--   curl -H 'Content-Type: application/json' -d '{"comment":"Hello"}' http://127.0.0.1:8080/api/notes
--   curl -N http://127.0.0.1:8080/events
--
-- Requires LuaSQL for SQLite and dkjson (Debian: lua-sql-sqlite3, lua-dkjson). Without an argument, the
-- notes are lost when the server ends.

local moonbridge = require "moonbridge"
local http = require "moonbridge_http"

for name, package in pairs { ["luasql.sqlite3"] = "lua-sql-sqlite3", dkjson = "lua-dkjson" } do
  if not pcall(require, name) then
    io.stderr:write("application.lua needs the module ", name, " (Debian: ", package, ")\n")
    os.exit(2)
  end
end

local folder = debug.getinfo(1, "S").source:match("^@(.*/)") or "./"
package.path = folder .. "application/?.lua;" .. package.path
local api = require "api"
local chat = require "chat"
local echo = require "echo"
local events = require "events"
local files = require "files"
local page = require "page"
local store = require "store"
local upload = require "upload"

local given = ...
local path = given or os.tmpname()

-- The style sheet and the script of the page. Browsers ask each time whether they have changed.
local static = http.static(folder .. "application", { cache_control = "no-cache" })

-- A pattern for the path, and handlers by method, which get the request and the pattern's captures.
local routes = {
  { "^$", GET = page.show, POST = upload.handle },
  { "^files/(%d+)$", GET = files.send },
  { "^api/notes$", GET = api.list, POST = api.create },
  { "^api/notes/(%d+)$", GET = api.show, DELETE = api.delete },
  { "^events$", GET = events.stream },
  { "^chat$", GET = chat.show },
  { "^chat/socket$", GET = chat.connect },
  { "^echo$", GET = echo.upgrade },
  { "^style%.css$", GET = static },
  { "^live%.js$", GET = static },
  { "^chat%.js$", GET = static },
}

local function allowed(route)
  local methods = {}
  for key in pairs(route) do
    if type(key) == "string" then methods[#methods + 1] = key end
  end
  if route.GET then methods[#methods + 1] = "HEAD" end
  table.sort(methods)
  return table.concat(methods, ", ")
end

-- Whether the browser says that the request comes from a page of another site.
local function from_elsewhere(request)
  local site = request.headers_value["Sec-Fetch-Site"]
  return request.method == "POST" and site ~= nil and site ~= "same-origin" and site ~= "none"
end

local function answer(request)
  local fail = request.path and request.path:find("^api/") and api.fail or page.fail
  for _, route in ipairs(routes) do
    local match = request.path and request.path:match(route[1])
    if match then
      local handle = route[request.method == "HEAD" and "GET" or request.method]
      if not handle then
        return fail(request, "405 Method Not Allowed", "That cannot be done with this address.",
          { Allow = allowed(route) })
      elseif from_elsewhere(request) then
        return fail(request, "403 Forbidden", "Notes are written on this site's own page only.")
      end
      return handle(request, match)
    end
  end
  return fail(request, "404 Not Found", "There is nothing at this address.")
end

local is_created, problem = pcall(store.create, path)
if not is_created then
  io.stderr:write("application.lua cannot use the database ", path, ": ", tostring(problem), "\n")
  os.exit(2)
end
events.create()

moonbridge.listen {
  { proto = "tcp", host = "127.0.0.1", port = os.getenv("PORT") or 8080 },
  -- Each echo occupies a worker while it lasts; event streams and chats do not.
  max_fork = 64,
  -- Processes must not share a database connection: each worker opens its own.
  prepare = function() store.open(path) end,
  finish = store.close,
  connect = http.generate_handler(answer, {
    -- This is also how much a browser may send before it learns that a file is too large.
    request_body_size_limit = 256 * 1024 * 1024,
    static_headers = {
      ["Content-Security-Policy"] = "default-src 'none'; style-src 'self'; script-src 'self'; "
        .. "connect-src 'self'; img-src data:; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
      ["X-Content-Type-Options"] = "nosniff",
      ["Referrer-Policy"] = "no-referrer",
    },
  }),
}

moonbridge.run()
if not given then store.remove(path) end
