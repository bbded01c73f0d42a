-- Parameters, cookies and flags of which there are thousands are not kept in tables, and behave as
-- if they were (reference, "request.get_params", "request.cookies", "request.headers_flags").

local http = require "moonbridge_http"
local server = require "spec.support.server"
local app = require "spec.http.app"

local COUNT = 3000

-- A query with `COUNT` names; each third of them has three values, apart from each other.
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

describe("thousands of parameters", function()
  local firsts, lists
  before_each(function() firsts, lists = http.parse_query(query()) end)

  it("are found by their names", function()
    for number = 1, COUNT, 7 do
      assert.equal(number .. " 1", firsts["n" .. number])
      assert.same(values_of(number), lists["n" .. number])
    end
    assert.is_nil(firsts.n0)
    assert.same({}, lists.n0)
    assert.is_nil(firsts[1])
    assert.equal(lists.n3, lists.n3)
  end)

  it("are given by pairs, each once", function()
    local found = {}
    for name, value in pairs(firsts) do
      assert.is_nil(found[name])
      found[name] = value
    end
    for number = 1, COUNT do
      assert.equal(number .. " 1", found["n" .. number])
      found["n" .. number] = nil
    end
    assert.is_nil(next(found))
    local count = 0
    for name, list in pairs(lists) do
      count = count + 1
      assert.equal(list, lists[name])
      assert.same(values_of(tonumber(name:sub(2))), list)
    end
    assert.equal(COUNT, count)
  end)

  it("can be assigned to", function()
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
    for name, list in pairs(lists) do found[name] = list[2] end
    assert.same({ "z", "changed" }, { found.n2, found.n6 })
  end)

  it("can be assigned to while they are iterated", function()
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

describe("of a request", function()
  after_each(server.cleanup)

  it("thousands of cookies, flags and parameters are there", function()
    local s = app.start [[
      function routes.default(request)
        local flags, count = request.headers_flags["X-List"], 0
        for name, value in pairs(flags) do
          assert(value == true and name == name:lower())
          count = count + 1
        end
        local cookies = 0
        for _ in pairs(request.cookies) do cookies = cookies + 1 end
        return reply(request, table.concat({ request.cookies.n7, tostring(request.cookies.n0), cookies,
          tostring(flags.N7), tostring(flags.n0), count, request.get_params.n7,
          #request.get_params_list.n9 }, " "))
      end
    ]]
    local cookies, flags = {}, {}
    for number = 1, COUNT do
      cookies[number] = ("n%d=%d%%20"):format(number, number)
      flags[number] = "N" .. number
    end
    local response = s:request { target = "/?" .. query(), headers = {
      { "Cookie", table.concat(cookies, "; ") }, { "X-List", table.concat(flags, ", ") },
      { "Cookie", "n7=other" }, { "x-list", "n7, n8" },
    } }
    assert.equal("7  nil 3000 true false 3000 7 1 3", response.body)
  end)

  it("are refused if they are made to collide in Lua's hash (400)", function()
    local s = app.start [[
      function routes.default(request)
        return reply(request, tostring(request.get_params.a))
      end
    ]]
    local fields = {}
    for number = 1, 4000 do
      -- Lua 5.3 hashes every second byte of a string of this length.
      fields[number] = ("x"):rep(22) .. ("%06x"):format(number):gsub(".", "%0x")
    end
    assert.equal(400, s:request { target = "/?" .. table.concat(fields, "&") }.status)
  end)
end)

describe("a list of thousands of values", function()
  local list
  before_each(function()
    local parts = {}
    for number = 1, COUNT do parts[number] = "a=" .. number end
    list = select(2, http.parse_query(table.concat(parts, "&"))).a
  end)

  it("is a sequence", function()
    assert.equal(COUNT, #list)
    assert.same({ "1", "257", "3000" }, { list[1], list[257], list[COUNT] })
    assert.same({ nil, nil }, { list[0], list[COUNT + 1] })
    assert.same({ "2", nil, nil }, { list[2.0], list[2.5], list.a })
    local count = 0
    for place, value in ipairs(list) do
      assert.equal(tostring(place), value)
      count = place
    end
    assert.equal(COUNT, count)
    assert.equal("2998,2999,3000", table.concat(list, ",", COUNT - 2))
    assert.same({ "7", "8" }, { table.unpack(list, 7, 8) })
  end)

  it("can be changed and iterated", function()
    assert.equal("3000", table.remove(list))
    list[1] = nil
    list[2] = "x"
    list.more = "y"
    assert.same({ nil, "x", "3", "2999", nil, "y" },
      { list[1], list[2], list[3], list[COUNT - 1], list[COUNT], list.more })
    local count = 0
    for _ in pairs(list) do count = count + 1 end
    assert.equal(COUNT - 1, count)
  end)
end)
