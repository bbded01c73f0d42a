-- The notes in SQLite, and the files that belong to them beside the database.
--
-- A note is { id, comment, created, files = { { id, name, type, size }, ... } }. A failure
-- here throws an error, which ends the worker; that closes the database and rolls back what is not committed.

local sqlite = require "luasql.sqlite3"

local store = {
  LONGEST_COMMENT = 2000, -- characters
  MOST_FILES = 10,
  LARGEST_FILE = 10 * 1024 * 1024, -- bytes
}

local SCHEMA = {
  -- Readers do not wait for a writer.
  "PRAGMA journal_mode = WAL",
  -- AUTOINCREMENT: numbers are never reused, so that clients can ask for all notes after a given one.
  [[CREATE TABLE IF NOT EXISTS note (
      id INTEGER PRIMARY KEY AUTOINCREMENT,
      comment TEXT NOT NULL,
      created TEXT NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%SZ', 'now')))]],
  [[CREATE TABLE IF NOT EXISTS file (
      id INTEGER PRIMARY KEY AUTOINCREMENT,
      note INTEGER NOT NULL REFERENCES note ON DELETE CASCADE,
      name TEXT NOT NULL,
      type TEXT NOT NULL,
      size INTEGER NOT NULL)]],
  "CREATE INDEX IF NOT EXISTS file_of_note ON file (note)",
}

local environment, connection, location

local function literal(value)
  if math.type(value) == "integer" then return tostring(value) end
  assert(not value:find("\0", 1, true), "LuaSQL would cut this text short")
  return "'" .. connection:escape(value) .. "'"
end

-- Runs a statement, replacing each question mark with the next value.
local function execute(statement, ...)
  local values, index = { ... }, 0
  local text = statement:gsub("%?", function()
    index = index + 1
    return literal(values[index])
  end)
  return assert(connection:execute(text))
end

local function rows(...)
  local cursor = execute(...)
  local list = {}
  local row = cursor:fetch({}, "a")
  while row do
    list[#list + 1] = row
    row = cursor:fetch({}, "a")
  end
  cursor:close()
  return list
end

local function last_id()
  return math.tointeger(connection:getlastautoid())
end

--- Opens the database; each worker has to open its own.
function store.open(path)
  location = path
  environment = sqlite.sqlite3()
  connection = assert(environment:connect(path))
  rows("PRAGMA busy_timeout = 5000")
  execute("PRAGMA foreign_keys = ON")
end

function store.close()
  connection:close()
  environment:close()
end

--- Creates the tables, before there are other processes.
function store.create(path)
  store.open(path)
  for _, statement in ipairs(SCHEMA) do
    local result = execute(statement)
    if type(result) == "userdata" then result:close() end
  end
  store.close()
end

--- The path of the file with this number.
function store.file_path(id)
  return ("%s-file-%d"):format(location, id)
end

--- A path for a file that is still being received, in the same file system.
function store.partial_path(name)
  return ("%s-part-%s"):format(location, name)
end

--- Removes the database and all files.
function store.remove(path)
  store.open(path)
  for _, file in ipairs(rows("SELECT id FROM file")) do os.remove(store.file_path(file.id)) end
  store.close()
  for _, suffix in ipairs { "", "-wal", "-shm" } do os.remove(path .. suffix) end
end

--- An error message for the author of an invalid note; nil if it is valid.
function store.objection(comment, file_count)
  local length = utf8.len(comment)
  if not length or comment:find("[\0-\8\11-\31\127]") then
    return "The comment has characters that are no text."
  elseif length > store.LONGEST_COMMENT then
    return ("The comment has %d characters; %d are possible."):format(length, store.LONGEST_COMMENT)
  elseif file_count == 0 and not comment:find("%S") then
    return "Write a comment, or choose a file."
  end
end

--- Stores a note with the files received at `file.path`. Returns the note's number.
function store.add(comment, files)
  execute("BEGIN IMMEDIATE")
  execute("INSERT INTO note (comment) VALUES (?)", comment)
  local id = last_id()
  for _, file in ipairs(files) do
    execute("INSERT INTO file (note, name, type, size) VALUES (?, ?, ?, ?)",
      id, file.name, file.type, file.size)
    assert(os.rename(file.path, store.file_path(last_id())))
  end
  execute("COMMIT")
  return id
end

local function with_files(notes)
  for _, note in ipairs(notes) do
    note.files = rows("SELECT id, name, type, size FROM file WHERE note = ? ORDER BY id", note.id)
  end
  return notes
end

--- The latest notes, the newest first.
function store.latest(count)
  return with_files(rows("SELECT id, comment, created FROM note ORDER BY id DESC LIMIT ?", count))
end

--- Notes with a greater number than the given one, the oldest first.
function store.after(id, count)
  return with_files(rows("SELECT id, comment, created FROM note WHERE id > ? ORDER BY id LIMIT ?",
    id, count))
end

--- The number of the latest note; 0 if there is none.
function store.last()
  return rows("SELECT coalesce(max(id), 0) AS id FROM note")[1].id
end

function store.note(id)
  return with_files(rows("SELECT id, comment, created FROM note WHERE id = ?", id))[1]
end

function store.file(id)
  return rows("SELECT id, name, type, size FROM file WHERE id = ?", id)[1]
end

--- Removes a note and its files. Returns whether there was one.
function store.delete(id)
  local note = store.note(id)
  if not note then return false end
  execute("DELETE FROM note WHERE id = ?", id)
  for _, file in ipairs(note.files) do os.remove(store.file_path(file.id)) end
  return true
end

return store
