-- The application for lua-http: one process, whose queries keep all its connections waiting. PORT is shared.
local DBI = require "DBI"
local cjson = require "cjson"
local http_headers = require "http.headers"
local http_server = require "http.server"
local http_util = require "http.util"

local COLUMNS = "id, name, cents, stock, description"

local database = assert(DBI.Connect(
  "PostgreSQL", os.getenv "PGDATABASE", os.getenv "PGUSER", nil, os.getenv "PGHOST"))
database:autocommit(true)
local by_id = assert(database:prepare("SELECT " .. COLUMNS .. " FROM product WHERE id = ?"))
local after = assert(database:prepare(
  "SELECT " .. COLUMNS .. " FROM product WHERE id > ? ORDER BY id LIMIT 20"))
local insert = assert(database:prepare(
  "INSERT INTO comment (product, author, body) VALUES (?, ?, ?) RETURNING product, author"))

local function rows(statement, ...)
  assert(statement:execute(...))
  local list = {}
  for row in statement:rows(true) do list[#list + 1] = row end
  return list
end

local function number(text)
  return math.tointeger(tonumber(text))
end

local function parse(query)
  local fields = {}
  for name, value in http_util.query_args((query:gsub("%+", "%%20"))) do fields[name] = value end
  return fields
end

local handlers = {}

handlers["/product"] = function(query)
  local found = rows(by_id, number(parse(query).id))
  if not found[1] then return "404", { error = "there is no such product" } end
  return "200", found[1]
end

handlers["/products"] = function(query)
  return "200", { products = rows(after, number(parse(query).after)) }
end

handlers["/comment"] = function(_, stream)
  local form = parse(assert(stream:get_body_as_string()))
  return "201", rows(insert, number(form.product), form.author, form.body)[1]
end

local function answer(_, stream)
  local path, query = assert(stream:get_headers()):get(":path"):match("^([^?]*)%??(.*)$")
  local status, value = "404", { error = "there is no such page" }
  if handlers[path] then status, value = handlers[path](query, stream) end
  local body = cjson.encode(value)
  local headers = http_headers.new()
  headers:append(":status", status)
  headers:append("content-type", "application/json")
  headers:append("content-length", tostring(#body))
  assert(stream:write_headers(headers, false))
  assert(stream:write_chunk(body, true))
end

local server = assert(http_server.listen {
  host = "127.0.0.1", port = math.tointeger(tonumber(os.getenv "PORT")), reuseport = true, tls = false,
  max_concurrent = 200, onstream = answer,
  onerror = function(_, _, operation, message) io.stderr:write(operation, ": ", tostring(message), "\n") end,
})
assert(server:listen())
assert(server:loop())
