--- The requests of `make bench`, and the answers that all peers give. wrk reads them as well: its Lua is 5.1.
--
-- A case: `key`; `title`; `path` (with its query); `request` (all bytes of it); `body` (of the response) or
-- `json` (a value, whatever its serialisation); `length` (true: the response has a Content-Length, false: it
-- has none, nil: either).

local requests = {}

-- What a browser sends with a request for a page: 14 fields, 3 cookies among them.
local BROWSER = {
  "Host: www.example.com:8080",
  "User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0",
  "Accept: text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8",
  "Accept-Language: en-GB,en;q=0.7,de;q=0.3",
  "Accept-Encoding: gzip, deflate, br, zstd",
  "Referer: http://www.example.com:8080/articles?page=1",
  "Connection: keep-alive",
  "Cookie: theme=dark; session=4f2b8c1e9a7d4e6b8f0a3c5d7e9b1f2a; consent=necessary%2Cstatistics",
  "Upgrade-Insecure-Requests: 1",
  "Sec-Fetch-Dest: document",
  "Sec-Fetch-Mode: navigate",
  "Sec-Fetch-Site: same-origin",
  "Sec-Fetch-User: ?1",
  "Priority: u=0, i",
}
local QUERY = "?page=2&sort=date&order=desc&q=moon%20bridge"

local function message(method, path, fields, content_type, body)
  local lines = { method .. " " .. path .. " HTTP/1.1" }
  for _, field in ipairs(fields) do lines[#lines + 1] = field end
  if body then
    lines[#lines + 1] = "Content-Type: " .. content_type
    lines[#lines + 1] = "Content-Length: " .. #body
  end
  return table.concat(lines, "\r\n") .. "\r\n\r\n" .. (body or "")
end

local function add(case)
  case.path = case.path or "/" .. case.key .. (case.query or "")
  case.request = message(case.content and "POST" or "GET", case.path, case.fields or BROWSER,
    case.content_type, case.content)
  requests[#requests + 1] = case
  requests[case.key] = case
end

--- The page that answers a browser: 1,800 bytes.
requests.PAGE = ("<p>The moon in a thousand words.</p>\n"):rep(50):sub(1, 1799) .. "\n"

--- The large page: so many pieces of 5 KiB.
requests.PIECES = 20
requests.PIECE = ("<li>An entry in a list</li>\n"):rep(200):sub(1, 5119) .. "\n"

--- Hello world, as wrk asks for it; not among the cases, but measured beside them.
requests.HELLO = {
  key = "hello", title = "hello world",
  request = "GET / HTTP/1.1\r\nHost: 127.0.0.1:8080\r\n\r\n", body = "Hello, World!\n", length = true,
}

add {
  key = "page", title = "a browser's request, 1.8 KB with Content-Length",
  query = QUERY, body = requests.PAGE, length = true,
}
add {
  key = "page_chunked", title = "a browser's request, 1.8 KB without Content-Length",
  query = QUERY, body = requests.PAGE, length = false,
}

-- Five fields of a comment, 500 bytes urlencoded.
local COMMENT = ("The+moon+is+a+bridge%2C+they+say%3A+%22one+that+carries+nobody%22.+"):rep(6):sub(1, 386)
add {
  key = "form", title = "an urlencoded form of 5 fields",
  content_type = "application/x-www-form-urlencoded",
  content = "name=Ada+Lovelace&email=ada%40example.org&article=1815&comment=" .. COMMENT
    .. "&csrf_token=7d41f3a9c2e85b60d1f4a7e3b9c6d2f8a0e5c7b1",
  body = "Ada Lovelace on 1815\n", length = true,
}

local BOUNDARY = "----geckoformboundary5f1c9e3a7b2d4f6081c3e5a7b9d2f4c6"
local function part(name, value)
  return ("--%s\r\nContent-Disposition: form-data; name=\"%s\"\r\n\r\n%s\r\n"):format(BOUNDARY, name, value)
end
add {
  key = "multipart", title = "a multipart form of 3 fields",
  content_type = "multipart/form-data; boundary=" .. BOUNDARY,
  content = part("name", "Ada Lovelace") .. part("article", "1815")
    .. part("comment", ("A bridge that carries nobody. "):rep(7)) .. "--" .. BOUNDARY .. "--\r\n",
  body = "Ada Lovelace on 1815\n", length = true,
}

-- An order of ten items, about 500 bytes.
local items, answer = {}, {}
for index = 1, 10 do
  items[index] = ('{"article":%d,"count":%d,"price":%d.5}'):format(1000 + index, index, index)
  answer[index] = { article = 1000 + index, sum = index * (index + 0.5) }
end
add {
  key = "json", title = "JSON in and out, 10 items",
  fields = {
    BROWSER[1], BROWSER[2], "Accept: application/json", BROWSER[4], BROWSER[5], BROWSER[7], BROWSER[8],
  },
  content_type = "application/json",
  content = ('{"customer":"Ada Lovelace","express":true,"items":[%s]}'):format(table.concat(items, ",")),
  json = { customer = "Ada Lovelace", items = answer, total = 412.5 }, length = true,
}

add {
  key = "pieces", title = "a page of 100 KiB in 20 pieces, without Content-Length",
  query = QUERY, body = requests.PIECE:rep(requests.PIECES), length = false,
}

return requests
