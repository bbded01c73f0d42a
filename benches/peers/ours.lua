-- Our side of the comparison, in two workers, or as many as WORKERS says; with an access log in the file
-- that ACCESS_LOG names, and with TLS if there is a CERTIFICATE and its KEY.
local cjson = require "cjson"
local http = require "moonbridge_http"
local moonbridge = require "moonbridge"
local requests = require "benches.support.requests"

local download = ("x"):rep(1048576)

local function reply(request, body, content_type)
  request:send_status("200 OK")
  request:send_header("Content-Type", content_type or "text/plain")
  request:send_header("Content-Length", #body)
  request:send_data(body)
end

local function refuse(request)
  request:send_status("400 Bad Request")
  request:send_data("something is missing\n")
end

local function expected(request)
  local params = request.get_params
  return params.page == "2" and params.q == "moon bridge" and request.cookies.theme == "dark"
    and request.headers_value["Accept-Language"]
end

local handlers = {}

handlers[""] = function(request)
  reply(request, "Hello, " .. (request.get_params.name or "World") .. "!\n")
end

function handlers.download(request) reply(request, download) end
function handlers.upload(request) reply(request, #request.body .. "\n") end

function handlers.page(request)
  if not expected(request) then return refuse(request) end
  reply(request, requests.PAGE, "text/html")
end

function handlers.page_chunked(request)
  if not expected(request) then return refuse(request) end
  request:send_status("200 OK")
  request:send_header("Content-Type", "text/html")
  request:send_data(requests.PAGE)
end

function handlers.pieces(request)
  if not expected(request) then return refuse(request) end
  request:send_status("200 OK")
  request:send_header("Content-Type", "text/html")
  for _ = 1, requests.PIECES do request:send_data(requests.PIECE) end
end

function handlers.form(request)
  local form = request.post_params
  if not (form.name and form.article and form.comment) then return refuse(request) end
  reply(request, form.name .. " on " .. form.article .. "\n")
end
handlers.multipart = handlers.form

function handlers.json(request)
  local order = cjson.decode(request.body)
  local items, total = {}, 0
  for index, item in ipairs(order.items) do
    local sum = item.count * item.price
    items[index] = { article = item.article, sum = sum }
    total = total + sum
  end
  local answer = { customer = order.customer, items = items, total = total }
  reply(request, cjson.encode(answer), "application/json")
end

local workers = tonumber(os.getenv("WORKERS")) or 2

moonbridge.listen {
  {
    proto = os.getenv("CERTIFICATE") and "tls" or "tcp", host = "127.0.0.1", port = os.getenv("PORT"),
    certificate = os.getenv("CERTIFICATE"), key = os.getenv("KEY"),
  },
  pre_fork = workers, min_fork = workers, max_fork = workers,
  connect = http.generate_handler(function(request)
    local handler = handlers[request.path] or refuse
    handler(request)
    return true
  end),
}

moonbridge.run { access_log = os.getenv("ACCESS_LOG") }
