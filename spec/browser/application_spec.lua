-- The page of examples/application.lua as people use it, in a real browser: make test-browser.

local browser = require "spec.support.browser"
local process = require "spec.support.process"
local server = require "spec.support.server"

local TAB, ENTER = utf8.char(0xE004), utf8.char(0xE007)
local EVIL = "<b>bold</b> & </textarea>\n<script>document.title = 'owned'</script>"

local s, b

local function file(name, content)
  local path = process.scratch(name)
  local handle = assert(io.open(path, "wb"))
  handle:write(content)
  handle:close()
  return path
end

-- Waits: a click may return before the next page has begun.
local function assert_at(url)
  assert.truthy(process.wait_until(function() return b:url() == url end), b:url())
end

local function note(comment)
  local code, output = s:curl("--fail --form-string comment=" .. process.quote(comment) .. " URL/")
  assert.equal(0, code, output)
end

-- HTML Tidy finds nothing to complain about.
local function assert_valid(arguments)
  local path = process.scratch("page.html")
  assert.equal(0, (s:curl("-o " .. path .. " " .. arguments)))
  assert.same({ 0, "" }, { process.run("tidy -quiet -errors --drop-empty-elements no " .. path) })
end

describe("the page of examples/application.lua #browser", function()
  before_each(function()
    s = server.start {
      file = server.root .. "/examples/application.lua", args = { process.scratch("notes.db") },
    }
    b = browser.start()
    b:open(s.url)
  end)

  after_each(function()
    browser.cleanup()
    server.cleanup()
  end)

  it("takes a comment and several files", function()
    local binary = ("\0\1\2\3\r\n--"):rep(200000)
    b:find("#comment"):type(EVIL)
    b:find("#files"):type(file("holiday.jpg", binary) .. "\n" .. file("zwei \"ü\" <i>.txt", "abc"))
    b:find("button"):click()
    assert_at(s.url .. "/#note-1")
    assert.equal("Notes", b:title())
    assert.equal(EVIL, b:find("#note-1 .comment"):property("textContent"))
    assert.equal("holiday.jpg 1.5 MiB\nzwei \"ü\" <i>.txt 3 bytes", b:find("#note-1 .files"):text())
    assert.equal("", b:find("#comment"):property("value"))
    b:screenshot("notes")
    -- What is downloaded is what was uploaded, and is not shown as a page of this site.
    local head, length = table.unpack(b:script([[
      const response = await fetch(document.querySelector("#note-1 a").href);
      const content = new Uint8Array(await response.arrayBuffer());
      return [response.headers.get("Content-Disposition"), content.length];
    ]]))
    assert.same({ "attachment; filename*=UTF-8''holiday.jpg", #binary }, { head, math.tointeger(length) })
    assert.equal(binary, s:request("/files/1").body)
    assert.same({}, b:console())
  end)

  it("says what is wrong, and keeps what was written", function()
    b:find("#comment"):type("a comment of some length")
    b:find("#files"):type(file("film.mp4", ("x"):rep(30 * 1024 * 1024)))
    b:find("button"):click()
    assert.truthy(process.wait_until(function() return b:title() == "Error: the note was not added" end))
    local alert = b:find("[role=alert]")
    assert.truthy(alert:visible())
    assert.equal("The note was not added\n“film.mp4” is too large: a file may have up to 10 MiB.",
      alert:text())
    assert.equal("a comment of some length", b:find("#comment"):property("value"))
    b:screenshot("error")
    b:find("button"):click()
    assert_at(s.url .. "/#note-1")
    b:find("button"):click()
    assert_at(s.url .. "/")
    assert.truthy(b:find("[role=alert]"):text():find("Write a comment, or choose a file.", 1, true))
    b:open(s.url .. "/none")
    assert.equal("404 Not Found", b:title())
    b:screenshot("not-found")
    b:find("a"):click()
    assert_at(s.url .. "/")
  end)

  it("shows notes of others as they come, as it shows them when it is loaded again", function()
    local code, output = s:curl(("--fail --form-string comment=%s -F 'files=@\"%s\"' URL/")
      :format(process.quote(EVIL), file("<i>.txt", ("x"):rep(5000))))
    assert.equal(0, code, output)
    note("second")
    local function items() return b:script("return [...document.querySelectorAll('#notes > li')].length") end
    assert.truthy(process.wait_until(function() return items() == 2 end))
    local function outline()
      return b:script([[
        return [...document.querySelectorAll("#notes *")].map(e => [e.tagName, e.id, e.className,
          e.getAttribute("href"), e.getAttribute("datetime"),
          e.children.length ? "" : e.textContent].join("|"));
      ]])
    end
    local live = outline()
    assert.truthy(live[1]:find("LI|note-2|", 1, true))
    b:screenshot("live")
    b:open(s.url)
    assert.same(live, outline())
    assert.equal("Notes", b:title())
    assert.same({}, b:console())
  end)

  it("gets what it has missed while the server was away", function()
    note("first")
    local function items() return b:script("return [...document.querySelectorAll('#notes > li')].length") end
    assert.truthy(process.wait_until(function() return items() == 1 end))
    local port, arguments = s.port, { process.scratch("notes.db") }
    assert.equal(0, s:stop())
    local function start(file_port)
      return server.start {
        file = server.root .. "/examples/application.lua", args = arguments, port = file_port,
      }
    end
    -- Another database has other notes, of which the topic remembers nothing.
    local other = start()
    for _, comment in ipairs { "of old", "second", "third" } do
      other:curl("--fail --form-string comment=" .. process.quote(comment) .. " URL/")
    end
    assert.equal(0, other:stop())
    s = start(port)
    assert.truthy(process.wait_until(function() return items() == 3 end))
    note("fourth")
    assert.truthy(process.wait_until(function() return items() == 4 end))
    assert.equal("fourth", b:find("#notes > li .comment"):text())
  end)

  it("has a chat", function()
    b:find("a[href='/chat']"):click()
    assert_at(s.url .. "/chat")
    local function shows(text)
      return process.wait_until(function() return b:find("#lines"):text():find(text, 1, true) end)
    end
    assert.truthy(shows "You are connected.")
    local line = EVIL:gsub("\n", " ")
    b:find("#name"):type("Ann")
    b:find("#line"):type(line .. ENTER)
    assert.truthy(shows "Ann has come")
    assert.truthy(shows("Ann " .. line))
    assert.equal("Chat", b:title())
    assert.equal("", b:find("#line"):property("value"))
    assert.same({ "textbox", "Name" }, { b:find("#name"):accessible() })
    assert.same({ "textbox", "Line" }, { b:find("#line"):accessible() })
    assert.same({ "button", "Say" }, { b:find("button"):accessible() })
    b:screenshot("chat")
    assert.same({}, b:console())
  end)

  it("can be used by the keyboard and by assistive technology", function()
    assert.equal("en", b:find("html"):property("lang"))
    assert.same({ "main", "" }, { b:find("main"):accessible() })
    assert.same({ "heading", "Notes" }, { b:find("h1"):accessible() })
    assert.same({ "region", "Latest notes" }, { b:find("section"):accessible() })
    b:press(TAB)
    assert.same({ "textbox", "Comment" }, { b:focused():accessible() })
    b:press("typed" .. TAB)
    assert.equal("files", b:focused():property("id"))
    assert.truthy(select(2, b:focused():accessible()):find("^Files"))
    b:press(TAB)
    assert.same({ "button", "Add note" }, { b:focused():accessible() })
    b:press(ENTER)
    assert_at(s.url .. "/#note-1")
    assert.equal("typed", b:find("#note-1 .comment"):text())
  end)

  it("fits on small screens, whatever is written", function()
    note(("overlong"):rep(50))
    b:narrow(320)
    b:open(s.url)
    assert.truthy(b:script("const { scrollWidth, clientWidth } = document.documentElement;"
      .. " return scrollWidth <= clientWidth && innerWidth == 320"))
    b:screenshot("narrow")
  end)

  it("is valid HTML", function()
    note(EVIL)
    assert_valid("-F 'files=@" .. file("a.txt", "abc") .. "' -L URL/")
    assert_valid("--form-string comment= URL/")
    assert_valid("URL/none")
    assert_valid("URL/chat")
  end)
end)
