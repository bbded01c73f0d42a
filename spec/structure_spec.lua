-- The structure of src/: no circles of imports among files or folders, no object spread over files, no long
-- files, no name for two things.
-- Any version: nothing of it depends on Lua's.

local process = require "spec.support.process"
local server = require "spec.support.server"

-- What stands in for others in a build without them.
local STAND_IN = { ["crate::io::tls::absent"] = true }

local MAX_LINES = 400

-- What the folders of `http` and `server` import of each other.
local ROOMS = {
  http = {
    wire = {}, form = { "wire" }, files = { "wire" }, client = { "wire" },
    server = { "form", "wire" }, websocket = { "server", "wire" },
    lua = { "files", "form", "server", "wire" },
  },
  server = {
    ipc = {}, listen = { "ipc", "metrics" }, metrics = { "ipc" }, development = {},
    operator = { "development", "ipc", "listen", "metrics" },
    push = { "ipc", "listen", "metrics" }, status_process = { "ipc", "listen", "metrics" },
    worker = { "ipc", "listen", "metrics" },
    supervisor = { "development", "ipc", "listen", "metrics", "operator", "push", "status_process" },
  },
}

-- The pattern of a module of tests in the file of what it tests.
local TESTS = "#%[cfg%(test%)%]%s*mod [%w_]+ %b{}"

-- Files by the names of their modules; tests do not count.
local function read_sources()
  local files = {}
  local _, list = process.run("find " .. server.root .. "/src -name '*.rs'")
  for file in list:gmatch("[^\n]+") do
    local path = file:sub(#server.root + 6)
    if not path:find("tests?%.rs$") and not path:find("_test/") and not path:find("testing%.rs$") then
      local name = "crate"
      for part in path:gsub("%.rs$", ""):gsub("/mod$", ""):gsub("^lib$", ""):gmatch("[^/]+") do
        name = name .. "::" .. part
      end
      local source = process.slurp(file)
      local text = source:gsub("%s*//[^\n]*", ""):gsub("pub%(in [^)]*%)", "pub"):gsub(TESTS, "")
      local _, lines = source:gsub(TESTS, ""):gsub("\n", "")
      files[name] = { path = path, text = text, lines = lines, exports = {}, imports = {} }
    end
  end
  return files
end

-- The paths of `a::{b, c::{d, e}}`.
local function expand(path, paths)
  local head, group = path:match("^(.-)(%b{})$")
  if not group then
    paths[#paths + 1] = path:gsub("%s+as%s+[%w_]+$", ""):gsub("::self$", "")
    return paths
  end
  local depth, item = 0, ""
  for character in (group:sub(2, -2) .. ","):gmatch(".") do
    if character == "," and depth == 0 then
      item = item:match("^%s*(.-)%s*$")
      if item ~= "" then expand(head .. item, paths) end
      item = ""
    else
      depth = depth + (character == "{" and 1 or character == "}" and -1 or 0)
      item = item .. character
    end
  end
  return paths
end

local function absolute(files, module, path)
  local first, rest = path:match("^([%w_]+)(.*)$")
  while first == "super" do
    module = module:gsub("::[%w_]+$", "")
    first, rest = (rest:match("^::(.*)$") or ""):match("^([%w_]*)(.*)$")
    if first ~= "super" then return module .. "::" .. first .. rest end
  end
  if first == "crate" then return path end
  if first == "self" then return module .. rest end
  return files[module .. "::" .. (first or "")] and module .. "::" .. path
end

local function find_imports(files)
  for name, file in pairs(files) do
    for public, path in file.text:gmatch("%f[%w](p?u?b?[%w%(%)]*%s*)use%s+([^;]+);") do
      for _, one in ipairs(expand(path:gsub("%s+", " "), {})) do
        local target = absolute(files, name, one)
        if target and public:find("pub") then
          file.exports[target:match("[%w_]+$")] = target
        elseif target then
          file.imports[#file.imports + 1] = target
        end
      end
    end
    for path in file.text:gsub("%f[%w]use%s+[^;]+;", ""):gmatch("%f[%w_]([cs][rue][apl][%w_]*::[%w_:]+)") do
      local first = path:match("^[%w_]+")
      if first == "crate" or first == "super" or first == "self" then
        file.imports[#file.imports + 1] = absolute(files, name, path)
      end
    end
  end
end

-- The module where a path ends; what a module exports is what it exports it from.
local function resolve(files, path, depth)
  local module, name = path, nil
  while module and not files[module] do module, name = module:match("^(.*)::([%w_*]+)$") end
  local from = module and files[module].exports[name]
  return from and depth < 9 and resolve(files, from, depth + 1) or module
end

-- `graph`: for each node the set of those that it knows.
local function assert_no_circle(graph)
  local done, path = {}, {}
  local function visit(node)
    for index, before in ipairs(path) do
      assert(before ~= node, "circle: " .. table.concat(path, " -> ", index) .. " -> " .. node)
    end
    if done[node] then return end
    path[#path + 1] = node
    for other in pairs(graph[node] or {}) do visit(other) end
    path[#path] = nil
    done[node] = true
  end
  for node in pairs(graph) do visit(node) end
end

-- The innermost folder that has two modules, and what of them stands side by side there. Nothing if one of
-- the two is that folder itself.
local function part(one, other)
  local folder = ""
  while true do
    local first, second = one:match("^[%w_]+", #folder + 1), other:match("^[%w_]+", #folder + 1)
    if not first or not second then return end
    if first ~= second then return folder, folder .. first, folder .. second end
    folder = folder .. first .. "::"
  end
end

-- The room of a module: a folder in one of ROOMS, else a folder of src.
local function room_of(name)
  local house, room = name:match("^crate::(%w+)::([%w_]+)")
  if ROOMS[house] then return house .. "/" .. room end
  return name:match("^crate::([%w_]+)") or name
end

describe("the sources", function()
  -- No operators, escapes or goto of later versions, and no assignment to the variable of a loop.
  it("compile under Lua 5.1 and 5.5", function()
    assert.equal(0, (process.run("cd " .. server.root .. " && tools/lua55/build")))
    for _, lua in ipairs { "lua5.1", "build/lua5.5/lua" } do
      local command = "cd %s && find src lua bin -name '*.lua' -o -path 'bin/*' | "
        .. "%s -e 'for name in io.stdin:lines() do assert(loadfile(name)) end'"
      local code, output = process.run(command:format(server.root, lua))
      assert.equal(0, code, output)
    end
  end)

  local files = read_sources()
  find_imports(files)

  it("import each other in no circle, straight or through others", function()
    local graph = {}
    for name, file in pairs(files) do
      graph[name] = {}
      for _, import in ipairs(file.imports) do
        local to = resolve(files, import, 0)
        if to and to ~= name then graph[name][to] = true end
      end
    end
    assert_no_circle(graph)
  end)

  -- Each folder as a whole, beside the other folders and files there. At the top, `http` and `server` know
  -- each other, but none of their rooms do.
  it("import each other in no circle of folders", function()
    local graphs = {}
    local function add(graph, one, other)
      graphs[graph] = graphs[graph] or {}
      graphs[graph][one] = graphs[graph][one] or {}
      graphs[graph][one][other] = true
    end
    for name, file in pairs(files) do
      for _, import in ipairs(file.imports) do
        local to = resolve(files, import, 0) or name
        local folder, one, other = part(name, to)
        if one and folder ~= "crate::" then add(folder, one, other) end
        if room_of(name) ~= room_of(to) then add("rooms", room_of(name), room_of(to)) end
      end
    end
    assert.truthy(graphs.rooms["http/lua"]["http/wire"])
    for _, graph in pairs(graphs) do assert_no_circle(graph) end
  end)

  it("import of the other folders what their folder may", function()
    for house, rooms in pairs(ROOMS) do
      local pattern = "^crate::" .. house .. "::([%w_]+)"
      for name, file in pairs(files) do
        local room = rooms[name:match(pattern)]
        for _, import in ipairs(room and file.imports or {}) do
          local other = import:match(pattern)
          local allowed = not rooms[other] or other == name:match(pattern)
          for _, known in ipairs(room) do allowed = allowed or other == known end
          assert(allowed, ("%s imports %s"):format(file.path, import))
        end
      end
    end
  end)

  it("have the methods of a type in the file that defines it", function()
    for _, file in pairs(files) do
      local defined = {}
      for kind, name in file.text:gmatch("%f[%w](%l+) (%u[%w_]*)") do
        defined[name] = defined[name] or kind == "struct" or kind == "enum"
      end
      for header in file.text:gmatch("\nimpl([^\n{]*) {") do
        local name = header:gsub("^%b<>", ""):match("^%s*(%u[%w_]*)")
        local known = not name or header:find(" for ") or defined[name]
        assert(known, ("%s has methods of %s"):format(file.path, name))
      end
    end
  end)

  it("have no more than 400 lines each", function()
    for _, file in pairs(files) do
      assert(file.lines <= MAX_LINES, ("%s has %d lines"):format(file.path, file.lines))
    end
  end)

  it("have one type for a name", function()
    local places = {}
    for module, file in pairs(files) do
      if not STAND_IN[module] then
        for indent, kind, name in ("\n" .. file.text):gmatch("\n(%s*)p?u?b?[%w%(%):]* ?(%l+) ([%u][%w_]*)") do
          if indent == "" and (kind == "struct" or kind == "enum" or kind == "trait" or kind == "type") then
            assert(not places[name], ("%s: %s and %s"):format(name, places[name], file.path))
            places[name] = file.path
          end
        end
      end
    end
  end)
end)
