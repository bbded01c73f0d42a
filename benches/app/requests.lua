--- The requests of `make bench-app`, each for one of many products. wrk reads them as well: its Lua is 5.1.

local PRODUCTS = 10000

local FIELDS = "Host: shop.example.com\r\nUser-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:128.0)\r\n"
  .. "Accept: application/json\r\nAccept-Language: en\r\nCookie: session=4f2b8c1e9a7d4e6b8f0a3c5d7e9b1f2a\r\n"

local function get(path)
  return function(id) return ("GET %s%d HTTP/1.1\r\n%s\r\n"):format(path, id, FIELDS) end
end

local function product(id)
  return {
    id = id, name = "Product " .. id, cents = id * 7 % 10000 + 99, stock = id % 50,
    description = ("Good for bridges. "):rep(10),
  }
end

local function products(id)
  local list = {}
  for index = 1, 20 do list[index] = product(id + index) end
  return { products = list }
end

local COMMENT = ("It+carries+nobody.+"):rep(10)

local function comment(id)
  local form = ("product=%d&author=Ada+Lovelace&body=%s"):format(id, COMMENT)
  return "POST /comment HTTP/1.1\r\n" .. FIELDS .. "Content-Type: application/x-www-form-urlencoded\r\n"
    .. ("Content-Length: %d\r\n\r\n%s"):format(#form, form)
end

local requests = {
  { key = "product", title = "a row by its key", bytes = get "/product?id=", answer = product },
  { key = "products", title = "a list of 20 rows", bytes = get "/products?after=", answer = products },
  {
    key = "comment", title = "an insert with a form", bytes = comment, status = 201,
    answer = function(id) return { product = id, author = "Ada Lovelace" } end,
  },
}

--- The number of a product that 20 others follow.
function requests.any() return math.random(PRODUCTS - 20) end

for _, case in ipairs(requests) do requests[case.key] = case end

return requests
