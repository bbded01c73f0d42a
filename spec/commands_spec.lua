-- The command lines of the documents, and those in the first lines of the examples, work as they stand there.
-- Runs once: nothing here depends on the version of Lua.

local process = require "spec.support.process"
local server = require "spec.support.server"

local quote = process.quote

-- The names of the project's documents.
local function documents()
  local _, list = process.run(("cd %s && ls *.md docs/*.md docs/reference/*.md benches/*.md"):format(
    quote(server.root)))
  return list:gmatch("%S+")
end

-- The command lines of a document: indented lines, and texts in backquotes.
local function command_lines(path)
  local list, text = {}, process.slurp(server.root .. "/" .. path):gsub("```.-```", "")
  for line in text:gmatch("\n    ([^\n]+)") do list[#list + 1] = line:gsub("%s+#.*$", "") end
  for line in text:gmatch("`([^`\n]+)`") do list[#list + 1] = line end
  return list
end

-- All command lines for a program, with its name at the beginning or after variables: line and document.
local function lines_for(program)
  local found = {}
  for path in documents() do
    for _, line in ipairs(command_lines(path)) do
      local words = line
      repeat
        local before = words
        words = words:gsub("^[A-Z_]+='[^']*' ", ""):gsub("^[A-Z_]+=[^'%s]* ", "")
      until words == before
      if words == program or words:find("^" .. program .. " ") then found[#found + 1] = { line, path } end
    end
  end
  assert(#found > 0)
  return found
end

describe("the command lines of the documents", function()
  after_each(server.cleanup)

  it("with make name targets that there are", function()
    for _, found in ipairs(lines_for "make") do
      local line, path = found[1], found[2]
      -- What it would do, without doing it.
      local dry = line:gsub("make", "make -n", 1)
      local code, output = process.run(("cd %s && %s"):format(quote(server.root), dry))
      assert.equal(0, code, path .. ": " .. line .. "\n" .. output)
      local benchmark = line:match "make bench%-([%w-]+)"
      if benchmark and benchmark ~= "app" and benchmark ~= "lapis" then
        local script = ("%s/benches/%s/run"):format(server.root, benchmark)
        assert.truthy(process.slurp(script), path .. " names a benchmark that is not there: " .. benchmark)
      end
    end
  end)

  it("with moonbridge name options that there are", function()
    local folder = process.scratch("app")
    assert(os.execute(("mkdir -p %s/views %s/locale"):format(folder, folder)))
    process.write(folder .. "/app.lua", ([[
      listen { { proto = "tcp", host = "127.0.0.1", port = %d }, connect = print }
    ]]):format(server.free_port()))
    for _, found in ipairs(lines_for "moonbridge") do
      local line, path = found[1], found[2]
      if line:find "app%.lua" then
        local words = line:gsub("^moonbridge", ""):gsub("%-%-check", ""):gsub("/run/", folder .. "/")
          :gsub("/var/log/", folder .. "/")
        local code, output = process.run(("cd %s && LUA_PATH='%s/lua/?.lua;;' "
          .. "LUA_CPATH='%s/build/lua%s/?.so;;' %s %s/bin/moonbridge --check %s"):format(
          folder, server.root, server.root, server.lua_version,
          server.interpreter, server.root, words))
        assert.equal(0, code, path .. ": " .. line .. "\n" .. output)
      end
    end
  end)
end)

describe("the links of the documents", function()
  -- The anchors of a page, as GitHub makes them of its headings.
  local function anchors(text)
    local set = {}
    for heading in ("\n" .. text:gsub("```.-```", "")):gmatch("\n#+ ([^\n]+)") do
      local slug = heading:gsub("%[(.-)%]%b()", "%1"):lower():gsub("[^%w _\128-\255-]", "")
      slug = slug:gsub(" ", "-")
      set[slug] = true
    end
    return set
  end

  it("lead to files and headings that there are", function()
    for path in documents() do
      local text = process.slurp(server.root .. "/" .. path)
      local folder = path:match "^.*/" or ""
      for link in text:gsub("```.-```", ""):gsub("`[^`\n]+`", ""):gmatch("%]%(([^%s)]+)%)") do
        if not link:find "^%a+:" then
          local file, anchor = link:match "^([^#]*)#?(.*)$"
          local target = file == "" and path or folder .. file
          local code = process.run(("test -e %s"):format(quote(server.root .. "/" .. target)))
          local message = path .. " links to " .. link
          assert.equal(0, code, message)
          if anchor ~= "" and target:find "%.md$" then
            local there = anchors(process.slurp(server.root .. "/" .. target))
            assert.truthy(there[anchor], message)
          end
        end
      end
    end
  end)
end)

describe("the first lines of examples/", function()
  after_each(server.cleanup)

  -- What a placeholder stands for, in the folder where the commands run.
  local WORDS = { FOLDER = "folder", FILE = "file.txt" }

  -- Those that speak HTTP; spec/server/examples_spec.lua and others hold all of them to what they do.
  local SERVERS = {
    "application", "helloworld", "interval", "reverse_proxy", "static", "stream_file", "upload",
  }

  -- The first lines of an example: its arguments, and the commands of a client.
  local function first_lines(text)
    local comment = text:match "^(.-\n)\n"
    local arguments = assert(comment:match "%-%-   lua5%.4 examples/[%w_]+%.lua ?(.-)   ")
    local clients = {}
    for command in comment:gmatch "(curl [^\n]*)\n" do clients[#clients + 1] = command end
    return arguments, clients
  end

  for _, name in ipairs(SERVERS) do
    it(name .. ".lua start it and talk to it", function()
      local folder, port = process.scratch("clone"), server.free_port()
      assert(os.execute(("mkdir -p %s/folder && cp -r %s/examples %s"):format(folder, server.root, folder)))
      process.write(folder .. "/picture.jpg", "no real picture")
      process.write(folder .. "/file.txt", "some text")
      local file = ("%s/examples/%s.lua"):format(folder, name)
      local text = process.slurp(file)
      process.write(file, (text:gsub("%f[%d]8080%f[%D]", port)))
      local arguments, clients = first_lines(text)
      local upstream = server.start {
        script = [[ require "moonbridge".listen { { proto = "tcp", host = "127.0.0.1", port = PORT },
          connect = require "moonbridge_http".generate_handler(function(request)
            request:send("200 OK", "text/plain", "after")
            return true
          end) } require "moonbridge".run() ]],
      }
      local words = {}
      for word in arguments:gmatch "%S+" do
        words[#words + 1] = WORDS[word] or word:gsub(":8000", ":" .. upstream.port)
      end
      server.start { file = file, args = words, cwd = folder, port = port, env = { TMPDIR = false } }
      if #clients == 0 then clients = { "curl http://127.0.0.1:8080/" } end
      for _, client in ipairs(clients) do
        local endless = client:find(" -N ", 1, true)
        local command = client:gsub("127.0.0.1:8080", "127.0.0.1:" .. port)
          :gsub("curl", "curl -sSf --max-time " .. (endless and 1 or server.TIMEOUT))
        local shell = quote("set -o pipefail; " .. command)
        local code, output = process.run(("cd %s && bash -c %s"):format(folder, shell))
        -- 28: an endless stream was still open when the time was up.
        assert.equal(endless and 28 or 0, code, client .. "\n" .. output)
      end
    end)
  end
end)
