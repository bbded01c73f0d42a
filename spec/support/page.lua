--- The programs, files and commands of a page of the manual: blocks of code, and shell sessions after them.

local process = require "spec.support.process"
local server = require "spec.support.server"

local page = {}

-- The blocks of a page in their order: { language, text, line }.
local function blocks(text)
  local list, line, current = {}, 0, nil
  for content in text:gmatch("([^\n]*)\n") do
    line = line + 1
    local fence = content:match("^```(%a*)$")
    if fence and not current then
      current = { language = fence, line = line, text = "" }
    elseif fence then
      list[#list + 1] = current
      current = nil
    elseif current then
      current.text = current.text .. content .. "\n"
    end
  end
  return list
end

-- The commands of a shell session: { command, expected output }.
local function commands(text)
  local list = {}
  for line in text:gmatch("([^\n]*)\n") do
    local command = line:match("^%$ (.*)$")
    if command then
      list[#list + 1] = { command, "" }
    else
      list[#list][2] = list[#list][2] .. line .. "\n"
    end
  end
  return list
end

--- The shell sessions of a page, each with the program before it, as a list of { line, run }. `run(assert)`
-- starts the program on a free port in place of 8080, and holds what the commands print to what is shown.
-- A program that does not call `run` is started by the launcher.
-- @param path from the project's folder
function page.sessions(path)
  local list, program = {}, nil
  for _, block in ipairs(blocks(assert(process.slurp(path)))) do
    if block.language == "lua" and block.text:find "listen" then
      program = block.text
    elseif block.language == "console" then
      local source = program
      list[#list + 1] = { line = block.line, run = function(assert)
        local port = server.free_port()
        server.start {
          script = source:gsub("port = 8080", "port = " .. port), port = port,
          launcher = not source:find("moonbridge.run()", 1, true),
        }
        for _, pair in ipairs(commands(block.text)) do
          local _, output = process.run((pair[1]:gsub("127.0.0.1:8080", "127.0.0.1:" .. port)))
          assert.equal(pair[2], (output:gsub(":" .. port, ":8080")))
        end
      end }
    end
  end
  return list
end

-- The name of the file that a block contains, if its first line is a comment that is one.
local function file_name(text)
  return text:match "^[-/#]+ ([%w_/.]+%.%w+)\n" or text:match "^/%* ([%w_/.]+%.%w+) %*/\n"
end

--- The steps of a tutorial: each is a shell session with the files that stand before it, which replace those
-- of the same names from earlier steps.
-- @return list of { line, files = { name → text }, commands = { { command, output } } }
function page.steps(path)
  local list, files = {}, {}
  for _, block in ipairs(blocks(assert(process.slurp(path)))) do
    local name = file_name(block.text)
    if name then
      files[name] = block.text
    elseif block.language == "console" then
      list[#list + 1] = { line = block.line, files = files, commands = commands(block.text) }
      files = {}
    end
  end
  return list
end

return page
