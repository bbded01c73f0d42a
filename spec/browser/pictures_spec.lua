-- Each example with a page, as it looks on a phone and on a desktop, in light and dark: pictures in
-- build/browser/ to be looked at. What a program can see is checked here.

local browser = require "spec.support.browser"
local process = require "spec.support.process"
local server = require "spec.support.server"

local SIZES = { phone = 390, desktop = 1280 }

local s, b

local function add_notes(server_with_notes)
  for number = 1, 3 do
    server_with_notes:curl(("-F comment='Note %d: the bridge is open again, and everybody may cross it.' "
      .. "-F 'files=@LICENSE;filename=timetable.txt' URL/"):format(number))
  end
end

local function start(example, arguments)
  return server.start {
    file = ("%s/examples/%s.lua"):format(server.root, example), args = arguments,
    -- The reverse proxy waits for so many seconds for events that do not come.
    env = { TIMEOUT = 2 },
  }
end

-- The pages: a name, the path, a function that starts the example, and what is done before the picture.
local PAGES = {
  { name = "helloworld", path = "/?name=Moon", start = function() return start "helloworld" end },
  { name = "interval", path = "/", start = function() return start("interval", { "3600" }) end },
  { name = "application-empty", path = "/", start = function()
    return start("application", { process.scratch "notes.db" })
  end },
  { name = "application", path = "/", start = function()
    local application = start("application", { process.scratch "notes.db" })
    add_notes(application)
    return application
  end },
  { name = "application-error", is_error = true, path = "/", start = function()
    return start("application", { process.scratch "notes.db" })
  end, act = function()
    b:find("button"):click()
    assert.truthy(process.wait_until(function() return b:title():find "^Error" end))
  end },
  { name = "application-missing", path = "/none", is_error = true, start = function()
    return start("application", { process.scratch "notes.db" })
  end },
  { name = "application-chat", path = "/chat", start = function()
    return start("application", { process.scratch "notes.db" })
  end, act = function()
    b:find("#name"):type("Ann")
    b:find("#line"):type("Hello, is anybody there?")
    b:find("button"):click()
    assert.truthy(process.wait_until(function()
      return b:find("#lines"):text():find("Ann Hello, is anybody there?", 1, true)
    end))
  end },
  { name = "chat_page", path = "/", start = function() return start "chat_page" end, act = function()
    b:find("#name"):type("Ann")
    local function says(text)
      return process.wait_until(function() return b:find("#lines"):text():find(text, 1, true) end)
    end
    assert.truthy(says("You are connected."))
    b:find("#text"):type("<b>Hello</b>, is anybody there?")
    b:find("button"):click()
    assert.truthy(says("Ann: <b>Hello</b>, is anybody there?"))
  end },
  { name = "events", path = "/", start = function() return start "events" end, act = function()
    b:find("input"):type("<b>Hello</b>, is anybody there?")
    b:find("button"):click()
    assert.truthy(process.wait_until(function()
      return b:find("ul"):text():find("<b>Hello</b>, is anybody there?", 1, true)
    end))
  end },
  -- An error, since the browser asks for an icon that is not in the folder.
  { name = "static", is_error = true, path = "/", start = function()
    return start("static", { "examples" })
  end },
  { name = "reverse_proxy", path = "/", start = function()
    local application = start("application", { process.scratch "notes.db" })
    add_notes(application)
    return start("reverse_proxy", { application.url })
  end },
}

-- The smallest contrast of a text with the page's background (WCAG 2.2, 1.4.3).
local CONTRAST = [[
  const channels = color => color.match(/[0-9.]+/g).slice(0, 3).map(value => {
    const part = value / 255;
    return part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4;
  });
  const luminance = color => {
    const [red, green, blue] = channels(color);
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue;
  };
  const probe = document.body.appendChild(document.createElement("i"));
  probe.style.color = "Canvas";
  const background = luminance(getComputedStyle(probe).color);
  probe.remove();
  const worst = [...document.querySelectorAll("body, body *")].filter(element =>
    [...element.childNodes].some(node => node.nodeType == Node.TEXT_NODE && node.data.trim())
      && !element.closest("script, style, textarea, button, input")).map(element => {
        const text = luminance(getComputedStyle(element).color);
        return (Math.max(text, background) + 0.05) / (Math.min(text, background) + 0.05);
      });
  return Math.min(...worst);
]]

describe("the pages of the examples #browser", function()
  after_each(function()
    browser.cleanup()
    server.cleanup()
  end)

  for _, page in ipairs(PAGES) do
    it("fit, and can be read: " .. page.name, function()
      s = page.start()
      b = browser.start()
      for size, width in pairs(SIZES) do
        for _, scheme in ipairs { "light", "dark" } do
          b:narrow(width)
          b:prefer(scheme)
          b:open(s.url .. page.path)
          if page.act then page.act() end
          b:screenshot(("%s-%s-%s"):format(page.name, size, scheme))
          assert.truthy(b:script("const { scrollWidth, clientWidth } = document.documentElement;"
            .. " return scrollWidth <= clientWidth"), size)
          local contrast = b:script(CONTRAST)
          assert.truthy(contrast >= 4.5, ("%s, %s: contrast %.1f"):format(size, scheme, contrast))
        end
      end
      -- Of statuses from 400 on the browser itself complains.
      if not page.is_error then assert.same({}, b:console()) end
    end)
  end
end)
