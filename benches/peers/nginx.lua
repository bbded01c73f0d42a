-- The handlers for ngx_http_lua.
-- luacheck: globals ngx
local cjson = require "cjson"
local requests = dofile(... .. "/benches/support/requests.lua")

local handlers = {}

local download = ("x"):rep(1048576)

local function reply(body, content_type)
  ngx.header["Content-Type"] = content_type
  ngx.header["Content-Length"] = #body
  ngx.print(body)
end

local function refuse()
  ngx.status = 400
  ngx.print("something is missing\n")
end

local function expected()
  local params = ngx.req.get_uri_args()
  return params.page == "2" and params.q == "moon bridge" and ngx.var.cookie_theme == "dark"
    and ngx.var.http_accept_language
end

function handlers.hello()
  reply("Hello, " .. (ngx.var.arg_name or "World") .. "!\n", "text/plain")
end

function handlers.download() reply(download, "text/plain") end

function handlers.upload()
  ngx.req.read_body()
  reply(#ngx.req.get_body_data() .. "\n", "text/plain")
end

function handlers.page()
  if not expected() then return refuse() end
  reply(requests.PAGE, "text/html")
end

function handlers.page_chunked()
  if not expected() then return refuse() end
  ngx.header["Content-Type"] = "text/html"
  ngx.print(requests.PAGE)
end

function handlers.pieces()
  if not expected() then return refuse() end
  ngx.header["Content-Type"] = "text/html"
  for _ = 1, requests.PIECES do ngx.print(requests.PIECE) end
end

local function answer_form(form)
  if not (form.name and form.article and form.comment) then return refuse() end
  reply(form.name .. " on " .. form.article .. "\n", "text/plain")
end

function handlers.form()
  ngx.req.read_body()
  answer_form(ngx.req.get_post_args())
end

-- ngx_http_lua leaves multipart to the application.
local function parse_multipart(body, boundary)
  local delimiter, fields = "\r\n--" .. boundary, {}
  local from = #delimiter + 1
  while true do
    local head_end, data = body:find("\r\n\r\n", from, true)
    if not head_end then return fields end
    local name = body:sub(from, head_end):match('name="([^"]*)"')
    local stop = body:find(delimiter, data + 1, true)
    fields[name] = body:sub(data + 1, stop - 1)
    from = stop + #delimiter
  end
end

function handlers.multipart()
  ngx.req.read_body()
  local boundary = ngx.var.content_type:match("boundary=(.*)")
  answer_form(parse_multipart(ngx.req.get_body_data(), boundary))
end

function handlers.json()
  ngx.req.read_body()
  local order = cjson.decode(ngx.req.get_body_data())
  local items, total = {}, 0
  for index, item in ipairs(order.items) do
    local sum = item.count * item.price
    items[index] = { article = item.article, sum = sum }
    total = total + sum
  end
  reply(cjson.encode { customer = order.customer, items = items, total = total }, "application/json")
end

return handlers
