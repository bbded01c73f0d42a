--- A headless Chromium for specs, spoken to by WebDriver (https://www.w3.org/TR/webdriver2/) through
--- Debian's chromedriver.
--
--     local b = browser.start()
--     b:open(s.url)
--     b:find("button"):click()
--     browser.cleanup()

local http = require "socket.http"
local json = require "dkjson"
local lfs = require "lfs"
local ltn12 = require "ltn12"
local mime = require "mime"
local process = require "spec.support.process"
local server = require "spec.support.server"

local browser = {}

--- Where screenshots are left to be looked at.
browser.SCREENSHOTS = server.root .. "/build/browser"

-- Seconds for a command: a page that loads, a browser that starts on a busy machine.
local PATIENCE = 30

-- The key by which WebDriver marks an element.
local ELEMENT = "element-6066-11e4-a52e-4f735466cecf"

-- Nothing but the pages that a spec opens is asked for, and nothing is kept.
local FLAGS = {
  "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
  "--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-breakpad",
  "--disable-dev-shm-usage", "--no-proxy-server", "--window-size=900,900", "--force-color-profile=srgb",
}

local Browser, Element = {}, {}
Browser.__index, Element.__index = Browser, Element

local running = {}

-- One command; its result, or an error with WebDriver's message.
local function command(url, method, value)
  local body = value and json.encode(value)
  local parts = {}
  local ok, status = http.request {
    url = url, method = method, sink = ltn12.sink.table(parts),
    source = body and ltn12.source.string(body),
    headers = { ["Content-Type"] = "application/json", ["Content-Length"] = body and #body },
    create = function()
      local connection = require("socket").tcp()
      connection:settimeout(PATIENCE)
      return connection
    end,
  }
  if not ok then error("chromedriver does not answer: " .. tostring(status), 0) end
  local answer = json.decode(table.concat(parts), 1, json.null)
  if status ~= 200 then error(answer.value.message, 0) end
  if answer.value ~= json.null then return answer.value end
end

function Browser:command(method, path, value)
  if method == "POST" and not value then value = setmetatable({}, { __jsontype = "object" }) end
  return command(self.session .. path, method, value)
end

--- Starts a browser with an empty profile.
function browser.start()
  local port = server.free_port()
  local self = setmetatable({
    driver = process.start { "chromedriver", "--port=" .. port },
  }, Browser)
  running[#running + 1] = self
  assert(process.wait_until(function() return server.listening(port) end, PATIENCE), "no chromedriver")
  local arguments = { table.unpack(FLAGS) }
  arguments[#arguments + 1] = "--user-data-dir=" .. process.scratch("profile")
  local base = ("http://127.0.0.1:%d/session"):format(port)
  local session = command(base, "POST", { capabilities = { alwaysMatch = {
    browserName = "chrome",
    ["goog:loggingPrefs"] = { browser = "ALL" },
    ["goog:chromeOptions"] = { binary = "/usr/bin/chromium", args = arguments },
  } } })
  self.session = base .. "/" .. session.sessionId
  return self
end

--- Ends all browsers of the spec.
function browser.cleanup()
  for index = #running, 1, -1 do
    local self = table.remove(running, index)
    if self.session then pcall(self.command, self, "DELETE", "") end
    self.driver:destroy()
  end
end

--- Opens a page and waits until it is loaded.
function Browser:open(url) self:command("POST", "/url", { url = url }) end

function Browser:url() return self:command("GET", "/url") end

function Browser:title() return self:command("GET", "/title") end

local function element(self, reference)
  return setmetatable({ browser = self, path = "/element/" .. reference[ELEMENT] }, Element)
end

--- The first element that matches a CSS selector; an error if there is none.
function Browser:find(selector)
  return element(self, self:command("POST", "/element", { using = "css selector", value = selector }))
end

--- The element that has the focus.
function Browser:focused() return element(self, self:command("GET", "/element/active")) end

--- Runs JavaScript with the given arguments; a promise that it returns is awaited.
function Browser:script(code, ...)
  return self:command("POST", "/execute/sync", {
    script = code, args = setmetatable({ ... }, { __jsontype = "array" }),
  })
end

--- A width in CSS pixels as that of a small device.
function Browser:narrow(width)
  self:command("POST", "/goog/cdp/execute", { cmd = "Emulation.setDeviceMetricsOverride",
    params = { width = width, height = 800, deviceScaleFactor = 1, mobile = false } })
end

--- "light" or "dark": what the user prefers.
function Browser:prefer(scheme)
  self:command("POST", "/goog/cdp/execute", { cmd = "Emulation.setEmulatedMedia",
    params = { features = { { name = "prefers-color-scheme", value = scheme } } } })
end

--- Presses and releases keys, given as a string of characters, wherever the focus is.
function Browser:press(keys)
  local actions = {}
  for _, code in utf8.codes(keys) do
    actions[#actions + 1] = { type = "keyDown", value = utf8.char(code) }
    actions[#actions + 1] = { type = "keyUp", value = utf8.char(code) }
  end
  self:command("POST", "/actions", { actions = { { type = "key", id = "keyboard", actions = actions } } })
end

--- What the page and the browser wrote to the console since the last call, a line each.
function Browser:console()
  local lines = {}
  for index, entry in ipairs(self:command("POST", "/se/log", { type = "browser" })) do
    lines[index] = entry.level .. " " .. entry.message
  end
  return lines
end

--- Leaves a picture of the window as NAME.png among the screenshots.
function Browser:screenshot(name)
  lfs.mkdir(server.root .. "/build")
  lfs.mkdir(browser.SCREENSHOTS)
  local file = assert(io.open(("%s/%s.png"):format(browser.SCREENSHOTS, name), "wb"))
  file:write((mime.unb64(self:command("GET", "/screenshot"))))
  file:close()
end

--- Types text, or for a file input the paths of files, one a line.
function Element:type(text)
  self.browser:command("POST", self.path .. "/value", { text = text })
end

function Element:click() self.browser:command("POST", self.path .. "/click") end

--- The text as it is shown.
function Element:text() return self.browser:command("GET", self.path .. "/text") end

function Element:property(name) return self.browser:command("GET", self.path .. "/property/" .. name) end

--- Whether the element is shown.
function Element:visible() return self.browser:command("GET", self.path .. "/displayed") end

--- Role and name as assistive technology gets them.
function Element:accessible()
  return self.browser:command("GET", self.path .. "/computedrole"),
    self.browser:command("GET", self.path .. "/computedlabel")
end

return browser
