-- The application: queries over PostgreSQL, answered in JSON. Workers: WORKERS.
local DBI = require "DBI"
local cjson = require "cjson"
local http = require "moonbridge_http"
local moonbridge = require "moonbridge"

local COLUMNS = "id, name, cents, stock, description"

-- A prepared statement does not keep its connection.
local database
local by_id, after, insert

local function prepare()
  database = assert(DBI.Connect(
    "PostgreSQL", os.getenv "PGDATABASE", os.getenv "PGUSER", nil, os.getenv "PGHOST"))
  database:autocommit(true)
  by_id = assert(database:prepare("SELECT " .. COLUMNS .. " FROM product WHERE id = ?"))
  after = assert(database:prepare(
    "SELECT " .. COLUMNS .. " FROM product WHERE id > ? ORDER BY id LIMIT 20"))
  insert = assert(database:prepare(
    "INSERT INTO comment (product, author, body) VALUES (?, ?, ?) RETURNING product, author"))
end

-- The rows of a statement as a list of tables.
local function rows(statement, ...)
  assert(statement:execute(...))
  local list = {}
  for row in statement:rows(true) do list[#list + 1] = row end
  return list
end

local function reply(request, status, value)
  local body = cjson.encode(value)
  request:send_status(status)
  request:send_header("Content-Type", "application/json")
  request:send_header("Content-Length", #body)
  request:send_data(body)
end

local function number(text)
  return math.tointeger(tonumber(text))
end

local handlers = {}

function handlers.product(request)
  local found = rows(by_id, number(request.get_params.id))
  if not found[1] then return reply(request, "404 Not Found", { error = "there is no such product" }) end
  reply(request, "200 OK", found[1])
end

function handlers.products(request)
  reply(request, "200 OK", { products = rows(after, number(request.get_params.after)) })
end

function handlers.comment(request)
  local form = request.post_params
  reply(request, "201 Created", rows(insert, number(form.product), form.author, form.body)[1])
end

local workers = tonumber(os.getenv("WORKERS"))

moonbridge.listen {
  { proto = "tcp", host = "127.0.0.1", port = os.getenv("PORT") },
  pre_fork = workers, min_fork = workers, max_fork = workers,
  prepare = prepare,
  connect = http.generate_handler(function(request)
    local handler = handlers[request.path]
    if handler then
      handler(request)
    else
      reply(request, "404 Not Found", { error = "there is no such page" })
    end
    return true
  end),
}

moonbridge.run()
