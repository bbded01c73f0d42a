-- How many parameters, cookies and elements of a header a request may have (reference, "Options":
-- `request_field_count_limit`), and what names that clients choose may cost. Forms: forms_spec.

local http = require "moonbridge_http"
local server = require "spec.support.server"
local app = require "spec.http.app"

local ROUTES = [[
  function routes.params(request) return reply(request, tostring(#request.get_params_list.a)) end
  function routes.first(request) return reply(request, tostring(request.get_params.a)) end
  function routes.cookies(request) return reply(request, tostring(request.cookies.a)) end
  function routes.list(request) return reply(request, tostring(#request.headers_csv_table["X-List"])) end
  function routes.flags(request) return reply(request, tostring(request.headers_flags["X-List"].a)) end
  function routes.ignore(request) return reply(request, "ignored") end
  function routes.caught(request)
    note(pcall(function() return request.get_params.a end))
    note(pcall(request.send_status, request, "200 OK"))
    return true
  end
]]

-- How each table is asked for with so many entries, and what is said of too many.
local TABLES = {
  { "params", "Too many parameters", function(count)
    return { target = "/params?" .. ("a=1&"):rep(count) }
  end },
  { "first", "Too many parameters", function(count)
    return { target = "/first?" .. ("a&"):rep(count) }
  end },
  { "cookies", "Too many cookies", function(count)
    -- On two lines: they count together.
    local half = count // 2
    return { target = "/cookies", headers = {
      { "Cookie", ("a=1; "):rep(half) }, { "Cookie", ("b=1; "):rep(count - half) } } }
  end },
  { "list", "Too many elements in a header", function(count)
    return { target = "/list", headers = { { "X-List", ("a, "):rep(count) } } }
  end },
  { "flags", "Too many elements in a header", function(count)
    return { target = "/flags", headers = { { "X-List", ("a,"):rep(count) } } }
  end },
}

describe("request_field_count_limit", function()
  after_each(server.cleanup)

  for option, limit in pairs { [""] = 4096, ["request_field_count_limit = 3"] = 3,
    ["request_field_count_limit = 0"] = 0 } do
    it("refuses more parameters, cookies and elements with 400: { " .. option .. " }", function()
      local s = app.start(ROUTES, "{" .. option .. "}")
      local worker = s:workers()[1]
      for _, case in ipairs(TABLES) do
        local name, words, request = table.unpack(case)
        assert.equal(200, s:request(request(limit)).status, name)
        local refusal = s:request(request(limit + 1))
        assert.equal(400, refusal.status, name)
        assert.equal("400 Bad Request\n\n" .. words .. "\n", refusal.body)
      end
      assert.same({ worker }, s:workers())
    end)
  end

  it("can be switched off by false", function()
    local s = app.start(ROUTES, "{ request_field_count_limit = false }")
    for _, case in ipairs(TABLES) do assert.equal(200, s:request(case[3](10000)).status, case[1]) end
    assert.equal("10000", s:request(TABLES[1][3](10000)).body)
    assert.equal("10000", s:request(TABLES[4][3](10000)).body)
  end)

  it("is nothing to a handler that does not look at the table", function()
    local s = app.start(ROUTES, "{ request_field_count_limit = 1 }")
    assert.equal("ignored", s:request("/ignore?a&b&c").body)
    assert.equal("false", s:request({ target = "/flags", headers = { { "X-Other", "a,b" } } }).body)
  end)

  it("raises its words in the handler, which cannot answer any more", function()
    local s = app.start(ROUTES, "{ request_field_count_limit = 1 }")
    local worker = s:workers()[1]
    assert.equal(400, s:request("/caught?a&b").status)
    assert.match("^false Too many parameters\nfalse ", s:request("/notes").body)
    assert.same({ worker }, s:workers())
  end)
end)

describe("names and values that collide in the hash of Lua 5.3", function()
  after_each(server.cleanup)

  -- Every second byte of a text of this length is hashed.
  local function colliding(count, suffix)
    local texts = {}
    for number = 1, count do
      texts[number] = ("x"):rep(22) .. ("%06x"):format(number):gsub(".", "%0x") .. suffix
    end
    return texts
  end

  it("are refused with 400", function()
    local s = app.start(ROUTES)
    local names = table.concat(colliding(4000, "="), "; ")
    assert.equal(400, s:request { target = "/params?" .. names:gsub("; ", "&") }.status)
    assert.equal(400, s:request { target = "/params?=" .. table.concat(colliding(4000, ""), "&=") }.status)
    assert.equal(400, s:request { target = "/cookies", headers = { { "Cookie", names } } }.status)
    for _, target in ipairs { "/list", "/flags" } do
      local headers = { { "X-List", table.concat(colliding(4000, ""), ",") } }
      assert.equal(400, s:request { target = target, headers = headers }.status)
    end
  end)

  it("are an error of parse_query", function()
    local ok, problem = pcall(http.parse_query, table.concat(colliding(4000, ""), "&"))
    assert.is_false(ok)
    assert.match("^Too many names or values with the same hash", (problem:gsub("^.-:%d+: ", "")))
  end)
end)

describe("parse_query", function()
  local COUNT = 20000

  -- Each third of the names has three values, apart from each other.
  local function query()
    local parts = {}
    for value = 1, 3 do
      for number = 1, COUNT do
        local pair = ("n%d=%d+%d"):format(number, number, value)
        if value == 1 or number % 3 == 0 then parts[#parts + 1] = pair end
      end
    end
    return table.concat(parts, "&")
  end

  local function values_of(number)
    local values = { number .. " 1" }
    if number % 3 == 0 then values[2], values[3] = number .. " 2", number .. " 3" end
    return values
  end

  local firsts, lists
  before_each(function() firsts, lists = http.parse_query(query()) end)

  it("takes any number of names and values", function()
    for number = 1, COUNT, 7 do
      assert.equal(number .. " 1", firsts["n" .. number])
      assert.same(values_of(number), lists["n" .. number])
    end
    assert.is_nil(firsts.n0)
    assert.same({}, lists.n0)
    assert.is_nil(firsts[1])
    assert.equal(lists.n3, lists.n3)
    local same = select(2, http.parse_query(("a=1&"):rep(COUNT))).a
    assert.equal(COUNT, #same)
  end)

  it("gives tables whose names pairs gives once", function()
    local count = 0
    for name, list in pairs(lists) do
      count = count + 1
      assert.equal(list, lists[name])
      assert.same(values_of(tonumber(name:sub(2))), list)
    end
    assert.equal(COUNT, count)
    for name, value in pairs(firsts) do
      assert.equal(name:sub(2) .. " 1", value)
      count = count - 1
    end
    assert.equal(0, count)
  end)

  it("gives tables that can be assigned to", function()
    firsts.n1 = "x"
    lists.n2 = { "y", "z" }
    firsts.n3 = nil
    lists.n4 = nil
    firsts.more = "m"
    lists[5] = { "five" }
    lists.n6[2] = "changed"
    local _ = lists.missing
    assert.same({ "x" }, lists.n1)
    assert.equal("y", firsts.n2)
    assert.is_nil(firsts.n3)
    assert.same({}, lists.n4)
    assert.equal("five", firsts[5])
    local found, count = {}, 0
    for name, value in pairs(firsts) do found[name], count = value, count + 1 end
    assert.equal(COUNT, count)
    assert.same({ "x", "y", nil, nil, "5 1", "6 1", "m", "five", nil },
      { found.n1, found.n2, found.n3, found.n4, found.n5, found.n6, found.more, found[5], found.missing })
  end)

  it("gives tables that can be assigned to while they are iterated", function()
    for name, value in pairs(firsts) do
      if value:find("^1") then firsts[name] = nil else firsts[name] = value .. "!" end
    end
    local count = 0
    for _, value in pairs(firsts) do
      assert.match("^[^1].*!$", value)
      count = count + 1
    end
    assert(count > 0 and count < COUNT)
  end)
end)
