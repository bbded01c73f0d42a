-- Names that a handler asks for again and again are remembered: what was assigned, other tables and other
-- requests must not notice.

local server = require "spec.support.server"
local app = require "spec.http.app"

-- The entry for a name, asked for often enough to be remembered.
local ROUTES = [[
  local function look(view, name)
    local first = view[name]
    for _ = 1, 5 do
      local further = view[name]
      if further ~= first then error("the value of " .. name .. " has changed") end
    end
    return first
  end
  local function answer(request, ...)
    local texts = table.pack(...)
    for index = 1, texts.n do texts[index] = tostring(texts[index]) end
    return reply(request, table.concat(texts, " "))
  end
]]

local TARGET = "?a=1&b=2&a=3&c=%34"
local HEADERS = { Cookie = "a=5; b=%36", ["X-Text"] = "seven", ["X-List"] = "x, y" }

describe("a name that is asked for again and again", function()
  local s
  teardown(server.cleanup)

  local function ask(path)
    local response = s:request { target = path .. TARGET, headers = HEADERS }
    assert.equal(200, response.status, response.body)
    return response.body
  end

  setup(function()
    s = app.start(ROUTES .. [[
      function routes.values(request)
        local function value(view, name) return look(request[view], name) end
        return answer(request,
          value("get_params", "a"), value("get_params", "c"), value("get_params", "z"), value("cookies", "b"),
          value("cookies", "a"), value("cookies", "c"),
          value("headers_value", "X-Text"), value("headers_value", "x-text"),
          value("headers_value", "X-None"),
          value("headers", "X-Text")[1], value("headers_csv_table", "X-List")[2],
          value("headers_csv_string", "X-LIST"), look(request.headers_flags["X-List"], "Y"))
      end

      function routes.many(request)
        local params, texts = request.get_params, {}
        for round = 1, 3 do
          for number = 1, 20 do texts[number] = params[("%c"):format(96 + number)] or "-" end
        end
        return answer(request, table.concat(texts))
      end

      function routes.plenty(request)
        local params, found = request.get_params, 0
        for _ = 1, 3 do
          for number = 1, 100 do
            if look(params, "n" .. number) == nil then found = found + 1 end
          end
          for _, name in ipairs { "a", "b", "c" } do found = found + #look(params, name) end
          for number = 1, 50 do look(request.headers_flags["X-List"], "n" .. number) end
        end
        return answer(request, found, look(request.headers_flags["X-List"], "x"))
      end

      function routes.empty(request)
        local params, names = request.get_params, {}
        local before = { look(params, "a"), next(request.cookies) }
        for name in pairs(params) do names[#names + 1] = name end
        params.a, request.cookies.b = "x", "y"
        for name in pairs(params) do names[#names + 1] = name end
        return answer(request, #before, look(params, "a"), request.get_params_list.a[1],
          look(request.cookies, "b"), table.concat(names))
      end

      function routes.assigned(request)
        local params, cookies = request.get_params, request.cookies
        local before = look(params, "a") .. look(params, "b") .. look(params, "c") .. look(cookies, "a")
        params.a, params.b, cookies.a = "x", nil, "y"
        request.get_params_list.c = { "z" }
        local names = {}
        for name, value in pairs(params) do names[#names + 1] = name .. value end
        table.sort(names)
        return answer(request, before, look(params, "a"), look(params, "b"), look(params, "c"),
          look(cookies, "a"), look(cookies, "b"), table.concat(names), #request.get_params_list.a)
      end

      function routes.headers_assigned(request)
        local values, lists = request.headers_value, request.headers
        local before = look(values, "X-Text") .. look(lists, "X-Text")[1] .. look(lists, "x-text")[1]
        values["x-text"], lists["X-TEXT"] = "a", { "b" }
        local after = look(values, "X-Text") .. look(lists, "X-Text")[1] .. look(lists, "x-text")[1]
        lists["x-text"] = { "c" }
        return answer(request, before, after, look(lists, "X-Text")[1])
      end

      function routes.headers_assigned_once(request)
        local lists = request.headers
        local before = look(lists, "X-Text")[1] .. look(lists, "x-text")[1]
        lists["x-text"] = { "a" }
        return answer(request, before, look(lists, "X-Text")[1], look(lists, "x-text")[1])
      end

      local kept
      function routes.keep(request)
        kept = { request.get_params, request.cookies, request.headers_value, request.headers }
        return answer(request, look(kept[1], "a"), look(kept[2], "a"), look(kept[3], "X-Text"),
          look(kept[4], "X-Text")[1])
      end

      function routes.use(request)
        local own = table.concat({ look(request.get_params, "a"), look(request.cookies, "a"),
          look(request.headers_value, "X-Text"), look(request.headers, "X-Text")[1] }, " ")
        collectgarbage()
        return answer(request, own, look(kept[1], "a"), look(kept[2], "a"), look(kept[3], "X-Text"),
          #kept[4]["X-None"], request.get_params == request.get_params, request.get_params.b)
      end
    ]])
  end)

  it("has the same value each time", function()
    assert.equal("1 4 nil 6 5 nil seven seven nil seven y x, y true", ask "/values")
    assert.equal("124" .. ("-"):rep(17), ask "/many")
    assert.equal("309 true", ask "/plenty")
  end)

  it("has what is assigned to it", function()
    assert.equal("1245 x nil z y 6 axcz 1", ask "/assigned")
    assert.equal("sevensevenseven abb c", ask "/headers_assigned")
    assert.equal("sevenseven a a", ask "/headers_assigned_once")
    assert.equal("0 x x y a", s:request("/empty").body)
  end)

  it("has the value of its own request", function()
    local connection = s:connect()
    assert.equal("1 5 seven seven", connection:request { target = "/keep" .. TARGET, headers = HEADERS }.body)
    local headers = { Cookie = "a=6", ["X-Text"] = "eight" }
    assert.equal("2 6 eight eight 1 5 nil 0 true nil",
      connection:request { target = "/use?a=2", headers = headers }.body)
  end)
end)
