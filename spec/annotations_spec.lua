-- The annotations name the options of the reference, as exact classes, and every way to the modules.
-- Runs once: it reads files.

local process = require "spec.support.process"
local server = require "spec.support.server"

-- The names in the first column of the tables of a section.
local function documented(page, heading)
  local names = {}
  local section = process.slurp("docs/reference/" .. page):match("\n#+ " .. heading .. "\n(.-)\n#")
  for cell in section:gmatch("\n| (`[^|]*) |") do
    for name in cell:gmatch("`([%w_]+)`") do names[#names + 1] = name end
  end
  table.sort(names)
  return names
end

-- The fields of a class that is exact.
local function annotated(file, class, without)
  local names = {}
  local text = process.slurp("library/" .. file)
  local fields = text:match("%-%-%-@class %(exact%) " .. class:gsub("%p", "%%%0") .. "\n(.-)\n\n")
  for name in (fields or ""):gmatch("@field ([%w_]+)") do
    if not (without or {})[name] then names[#names + 1] = name end
  end
  table.sort(names)
  return names
end

describe("the annotations", function()
  after_each(server.cleanup)

  it("have the options of the reference, and no other", function()
    assert.same(documented("http.md", "Options"),
      annotated("moonbridge_http.lua", "moonbridge_http.options",
        { header_size_limit = true, body_size_limit = true }))
    assert.same(documented("client.md", "Options"),
      annotated("moonbridge_http.lua", "moonbridge_http.request_options"))
    assert.same(documented("websocket.md", "Options of websocket_connect"),
      annotated("moonbridge_http.lua", "moonbridge_http.websocket_connect_options"))
    assert.same(documented("websocket.md", "Options of websocket"),
      annotated("moonbridge_http.lua", "moonbridge_http.websocket_options"))
    assert.same(documented("server.md", "Options"),
      annotated("moonbridge.lua", "moonbridge.pool",
        { prepare = true, connect = true, finish = true, idle_time = true }))
    assert.same(documented("push.md", "request:hold"),
      annotated("moonbridge_http.lua", "moonbridge_http.hold_options"))
    assert.same(documented("server.md", "Options of `run`"),
      annotated("moonbridge.lua", "moonbridge.options"))
  end)

  it("are exact where a table of options is", function()
    local text = process.slurp("library/moonbridge.lua") .. process.slurp("library/moonbridge_http.lua")
      .. process.slurp("library/moonbridge_io.lua")
    for _, class in ipairs { "moonbridge.listener", "moonbridge.pool", "moonbridge.options",
      "moonbridge_http.options", "moonbridge_http.request_options", "moonbridge_http.time_limits",
      "moonbridge_io.exec_options" } do
      assert.truthy(text:find("---@class (exact) " .. class .. "\n", 1, true), class)
    end
  end)

  it("let no unknown field pass, of requests and handles either", function()
    for _, file in ipairs { "moonbridge", "moonbridge_http", "moonbridge_io", "moonbridge_callback" } do
      assert.falsy(process.slurp("library/" .. file .. ".lua"):find("%[any%]"), file)
    end
  end)

  it("know the dotted names of the modules", function()
    for _, name in ipairs { "io", "http", "callback" } do
      local dotted, flat = "moonbridge." .. name, "moonbridge_" .. name
      assert.equal(require(flat), require(dotted))
      local text = process.slurp("library/moonbridge/" .. name .. ".lua")
      assert.truthy(text:find("---@meta " .. dotted .. "\n", 1, true))
      assert.truthy(text:find(('return require "%s"'):format(flat), 1, true))
    end
  end)

  it("know the globals of the launcher", function()
    local stock = { PORT = true }
    local _, output = server.run_script [[for name in pairs(_G) do print(name) end]]
    for name in output:gmatch("%S+") do stock[name] = true end
    local s = server.start {
      launcher = true,
      script = [[
        local names = {}
        for name in pairs(_G) do
          names[#names + 1] = name
        end
        table.sort(names)
        io.stderr:write("globals: ", table.concat(names, " "), ".\n")
        os.exit(0)
      ]],
      ready = false,
    }
    s:wait()
    local text = process.slurp("library/launcher.lua")
    local own = {}
    for name in assert(s:log():match("globals: ([^.]*)%.")):gmatch("%S+") do
      if not stock[name] then
        own[#own + 1] = name
        local declared = text:find("\n" .. name .. " = ", 1, true)
          or text:find("\nfunction " .. name .. "(", 1, true)
        assert.truthy(declared, name)
      end
    end
    assert.same({ "_MOONBRIDGE_VERSION", "listen", "moonbridge_io", "timeout" }, own)
  end)
end)
