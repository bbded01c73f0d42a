-- A browser seeks in a file that http.static sends, without taking what is before: make test-browser.

local browser = require "spec.support.browser"
local process = require "spec.support.process"
local server = require "spec.support.server"

-- Of sound: 16 bits, two channels. A player of video takes it as well.
local RATE, SECONDS = 44100 * 4, 300

local function sound(path)
  local size = RATE * SECONDS
  local file = assert(io.open(path, "wb"))
  file:write("RIFF", ("<I4"):pack(36 + size), "WAVEfmt ",
    ("<I4I2I2I4I4I2I2"):pack(16, 1, 2, 44100, RATE, 4, 16), "data", ("<I4"):pack(size))
  file:seek("set", 44 + size - 1)
  file:write("\0")
  file:close()
end

local SERVER = [[
  local moonbridge, http = require "moonbridge", require "moonbridge_http"
  local static = http.static(FOLDER)
  moonbridge.listen{
    { proto = "tcp", host = "127.0.0.1", port = PORT },
    connect = http.generate_handler(function(request)
      local range = request.headers_value["Range"]
      if range then io.stderr:write("asked for ", range, "\n") end
      return static(request)
    end),
  }
  moonbridge.run()
]]

describe("a file that a browser plays #browser", function()
  after_each(function()
    browser.cleanup()
    server.cleanup()
  end)

  it("is sent from where the user seeks to", function()
    local page = process.scratch "index.html"
    process.write(page, "<!DOCTYPE html><title>Player</title>"
      .. "<video src=sound.wav preload=metadata muted></video>")
    sound((page:gsub("index.html$", "sound.wav")))
    local s = server.start { script = SERVER, globals = { FOLDER = page:match "^(.*)/" } }
    local b = browser.start()
    b:open(s.url)
    local duration, reached = table.unpack(b:script([[
      const video = document.querySelector("video"), target = arguments[0];
      const has = event => new Promise((resolve, reject) => {
        video.addEventListener(event, resolve, { once: true });
        video.addEventListener("error", () => reject(video.error.message), { once: true });
      });
      return (async () => {
        if (video.readyState == 0) await has("loadedmetadata");
        video.currentTime = target;
        await has("seeked");
        return [video.duration, video.currentTime];
      })();
    ]], 290))
    assert.same({ SECONDS, 290 }, { duration, reached })
    local far = false
    for first in s:log():gmatch "asked for bytes=(%d+)%-" do far = far or tonumber(first) > 250 * RATE end
    assert.is_true(far, s:log())
  end)
end)
