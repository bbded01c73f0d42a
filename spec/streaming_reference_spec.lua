-- The examples of docs/reference/callback.md, client.md and websocket.md are programs that run as they stand,
-- and the pages and annotations name what the modules have.

local callback = require "moonbridge_callback"
local http = require "moonbridge_http"
local process = require "spec.support.process"
local server = require "spec.support.server"

-- The fenced blocks of a page: list of {language, text, line}.
local function blocks(text)
  local list, line, current = {}, 0, nil
  for content in text:gmatch("([^\n]*)\n") do
    line = line + 1
    local fence = content:match("^```(%a*)$")
    if not fence and current then
      table.insert(current, content)
    elseif current then
      current.text = table.concat(current, "\n")
      list[#list + 1], current = current, nil
    elseif fence then
      current = { language = fence, line = line }
    end
  end
  return list
end

local function with_port(text, port)
  return (text:gsub("port = 8080", "port = " .. port):gsub("127%.0%.0%.1:8080", "127.0.0.1:" .. port))
end

for _, page in ipairs { "callback", "client", "websocket" } do
  describe("docs/reference/" .. page .. ".md", function()
    after_each(server.cleanup)

    local program -- the server that the examples below it talk to
    for _, block in ipairs(blocks(assert(process.slurp("docs/reference/" .. page .. ".md")))) do
      local source, served = block.text, program
      if source:find("moonbridge.run()", 1, true) then
        program = source
        it("line " .. block.line .. ": the server starts", function()
          local port = server.free_port()
          server.start { script = with_port(source, port), port = port }
        end)
      elseif block.language == "lua" then
        it("line " .. block.line .. ": the example runs", function()
          local port = server.free_port()
          if served then server.start { script = with_port(served, port), port = port } end
          local code, output, log = server.run_script(with_port(source, port))
          assert.same({ 0, "", "" }, { code, output, log })
        end)
      elseif block.language == "console" then
        it("line " .. block.line .. ": the command prints what is shown", function()
          local port = server.free_port()
          server.start { script = with_port(served, port), port = port }
          local command, shown = source:match("^%$ ([^\n]*)\n(.*)$")
          local _, output = process.run(with_port(command, port))
          assert.equal(shown, (output:gsub("\n$", "")))
        end)
      end
    end
  end)
end

describe("the pages and annotations", function()
  local function names_all(module, text, what)
    for name in pairs(module) do
      assert.truthy(text:find(name, 1, true), what .. " does not name " .. name)
    end
  end

  it("of callbacks name every function", function()
    for _, path in ipairs { "docs/reference/callback.md", "library/moonbridge_callback.lua" } do
      local text = process.slurp(path)
      names_all(callback, text, path)
      names_all(callback.receive, text, path)
      names_all(callback.send, text, path)
    end
    assert(load(process.slurp("library/moonbridge_callback.lua")))
  end)

  it("of callbacks name no function that does not exist", function()
    local classes = { callback = callback, receive = callback.receive, send = callback.send }
    local text = process.slurp("library/moonbridge_callback.lua")
    for class, name in text:gmatch("\nfunction ([%w_]+)%.([%w_]+)") do
      assert.truthy(classes[class][name], class .. "." .. name)
    end
  end)

  it("of the client name its functions", function()
    for _, path in ipairs { "docs/reference/client.md", "library/moonbridge_http.lua" } do
      local text = process.slurp(path)
      for _, name in ipairs { "request", "request_call", "request_yield", "close_idle_connections" } do
        assert.is_function(http[name])
        assert.truthy(text:find(name, 1, true), path .. " does not name " .. name)
      end
    end
  end)
end)
