-- The page with the notes and the form for a new one, and the error page.

local http = require "moonbridge_http"
local store = require "store"

local page = {}

-- How many notes the page shows.
local SHOWN = 50

local FRAME = [[
<!DOCTYPE html>
<html lang="en">
<head>
  <meta charset="UTF-8">
  <meta name="viewport" content="width=device-width, initial-scale=1">
  <title>{title}</title>
  <link rel="icon" href="data:,">
  <link rel="stylesheet" href="/style.css">
</head>
<body>
<main>
  <h1>{heading}</h1>
{=content}</main>
</body>
</html>
]]

local FORM = [[
{=problem}  <form method="post" action="/" enctype="multipart/form-data">
    <p>
      <label for="comment">Comment</label>
      <textarea id="comment" name="comment" rows="4" maxlength="{longest}">
{comment}</textarea>
    </p>
    <p>
      <label for="files">Files</label>
      <input id="files" name="files" type="file" multiple aria-describedby="files-hint">
      <span id="files-hint" class="hint">Up to {most} files of {largest} each.</span>
    </p>
    <p><button>Add note</button></p>
  </form>
]]

local PROBLEM = [[
  <div id="problem" class="problem" role="alert">
    <h2>The note was not added</h2>
    <p>{text}</p>
  </div>
]]

local NOTES = [[
  <section aria-labelledby="notes-heading">
    <h2 id="notes-heading">Latest notes</h2>
    <ol id="notes" aria-live="polite" data-last="{last}">
{=notes}    </ol>
  </section>
  <p><a href="/chat">To the chat</a></p>
  <script type="module" src="/live.js"></script>
]]

local NOTE = [[
      <li id="note-{id}">
{=comment}{=files}        <p class="hint"><time datetime="{created}">{time}</time></p>
      </li>
]]

local COMMENT = [[
        <p class="comment">{comment}</p>
]]

local FILES = [[
        <ul class="files">
{=files}        </ul>
]]

local FILE = [[
          <li><a href="/files/{id}">{name}</a> <span class="hint">{size}</span></li>
]]

-- Fills in the values: {name} escaped, {=name} as HTML.
local function fill(template, values)
  return (template:gsub("{(=?)(%w+)}", function(raw, name)
    local value = tostring(values[name])
    return raw == "=" and value or http.encode_html(value)
  end))
end

--- A human-readable number of bytes.
function page.size(bytes)
  if bytes == 1 then return "1 byte" end
  local unit = "bytes"
  for _, larger in ipairs { "KiB", "MiB" } do
    if bytes >= 1024 then bytes, unit = bytes / 1024, larger end
  end
  return ("%.1f"):format(bytes):gsub("%.0$", "") .. " " .. unit
end

local function note_html(note)
  local files = {}
  for index, file in ipairs(note.files) do
    files[index] = fill(FILE, { id = file.id, name = file.name, size = page.size(file.size) })
  end
  return fill(NOTE, {
    id = note.id, created = note.created,
    time = (note.created:gsub("T(%d+:%d+):%d+Z", " %1 UTC")),
    comment = note.comment == "" and "" or fill(COMMENT, { comment = note.comment }),
    files = #files == 0 and "" or fill(FILES, { files = table.concat(files) }),
  })
end

--- Sends a page.
-- @param values `title`, `heading` and `content`, the last as HTML
-- @param fields (optional) more header fields, by their names
function page.send(request, status, values, fields)
  request:send_status(status)
  request:send_header("Content-Type", "text/html; charset=UTF-8")
  request:send_header("Cache-Control", "no-store")
  for name, value in pairs(fields or {}) do request:send_header(name, value) end
  request:send_data(fill(FRAME, values))
  return true
end

local function form(comment, problem)
  return fill(FORM, {
    comment = comment, problem = problem and fill(PROBLEM, { text = problem }) or "",
    longest = store.LONGEST_COMMENT, most = store.MOST_FILES, largest = page.size(store.LARGEST_FILE),
  })
end

--- The form and the notes.
function page.show(request)
  local notes = store.latest(SHOWN)
  local items = {}
  for index, note in ipairs(notes) do items[index] = note_html(note) end
  return page.send(request, "200 OK", {
    title = "Notes", heading = "Notes",
    content = form("") .. fill(NOTES, { notes = table.concat(items), last = store.last() }),
  })
end

--- The form again, with the user's input and an error message.
function page.refuse(request, status, problem, comment)
  return page.send(request, status, {
    title = "Error: the note was not added", heading = "Notes", content = form(comment, problem),
  })
end

--- An error page with a link back.
function page.fail(request, status, text, fields)
  return page.send(request, status, {
    title = status, heading = status:match("^%d+ (.*)$"),
    content = fill('  <p>{text}</p>\n  <p><a href="/">To the notes</a></p>\n', { text = text }),
  }, fields)
end

return page
