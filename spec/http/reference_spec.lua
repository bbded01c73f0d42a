-- The examples of docs/reference/http.md are servers that run as they stand, and the commands behind
-- them print what is shown.

local process = require "spec.support.process"
local server = require "spec.support.server"

local text = assert(process.slurp("docs/reference/http.md"))

-- The blocks of the page in their order: { language, text, line }.
local function blocks()
  local list = {}
  local line, current = 0, nil
  for content in text:gmatch("([^\n]*)\n") do
    line = line + 1
    local fence = content:match("^```(%a*)$")
    if fence and not current then
      current = { language = fence, line = line, lines = {} }
    elseif fence then
      list[#list + 1] = current
      current = nil
    elseif current then
      table.insert(current.lines, content)
    end
  end
  return list
end

-- The commands of a console block: { command, expected output }.
local function commands(block)
  local list = {}
  for _, line in ipairs(block.lines) do
    local command = line:match("^%$ (.*)$")
    if command then
      list[#list + 1] = { command, "" }
    else
      list[#list][2] = list[#list][2] .. line .. "\n"
    end
  end
  return list
end

describe("docs/reference/http.md", function()
  after_each(server.cleanup)

  local program
  for _, block in ipairs(blocks()) do
    if block.language == "lua" and #block.lines > 3 then
      program = table.concat(block.lines, "\n")
    elseif block.language == "console" then
      local source = program
      it("line " .. block.line .. ": the commands print what is shown", function()
        local port = server.free_port()
        local s = server.start { script = source:gsub("port = 8080", "port = " .. port), port = port }
        for _, pair in ipairs(commands(block)) do
          local command = pair[1]:gsub("127.0.0.1:8080", "127.0.0.1:" .. s.port)
          local _, output = process.run(command)
          assert.equal(pair[2], (output:gsub(":" .. s.port, ":8080")))
        end
      end)
    end
  end

  it("names every function for handlers", function()
    local http = require "moonbridge_http"
    for _, name in ipairs { "generate_handler", "encode_html", "encode_uri", "decode_uri", "encode_path",
      "decode_path", "parse_query" } do
      assert.is_function(http[name])
      assert.is_truthy(text:find(name, 1, true), name .. " is not documented")
    end
  end)
end)
