--- The requests of `make bench-lapis`, byte by byte, and the answers. wrk reads them as well: its Lua is 5.1.

local FIELDS = "Host: shop.example.com\r\nUser-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:128.0)\r\n"
  .. "Accept: text/html,application/json\r\nAccept-Language: en\r\nCookie: theme=dark\r\n"

local function get(target) return ("GET %s HTTP/1.1\r\n%s\r\n"):format(target, FIELDS) end

local FORM = "author=Ada+Lovelace&text=" .. ("It+carries+nobody.+"):rep(10)

local function list()
  local items = {}
  for number = 1, 20 do items[number] = ("<li>number &lt;%d&gt;</li>"):format(number) end
  return '<!DOCTYPE HTML><html lang="en"><head><title>Lapis Page</title></head><body><h1>Numbers</h1><ul>'
    .. table.concat(items) .. "</ul></body></html>"
end

local requests = {
  { key = "hello", title = "hello world", request = get "/", body = "Hello, World!\n" },
  {
    key = "json", title = "a route with parameters, JSON", request = get "/greet/moon?page=2",
    json = { greeting = "Hello, moon!", page = 2 },
  },
  {
    key = "form", title = "an urlencoded form",
    request = "POST /comment HTTP/1.1\r\n" .. FIELDS .. "Content-Type: application/x-www-form-urlencoded\r\n"
      .. ("Content-Length: %d\r\n\r\n%s"):format(#FORM, FORM),
    body = "Ada Lovelace: " .. ("It carries nobody. "):rep(10),
  },
  { key = "list", title = "a page with layout and signed session", request = get "/list", body = list() },
}

for _, case in ipairs(requests) do requests[case.key] = case end

return requests
