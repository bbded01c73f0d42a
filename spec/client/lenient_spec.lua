-- http.request: what `lenient` accepts, and is an error otherwise.

local http = require "moonbridge_http"
local scripted = require "spec.support.scripted"

local always = scripted.always

after_each(scripted.cleanup)

local CHUNKED = "5\r\nhello\r\n0\r\n\r\n"
local responses = {
  ["both framings"] =
    "HTTP/1.1 200 OK\r\nX: y\r\nTransfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n" .. CHUNKED,
  ["blanks after names"] = "HTTP/1.1 200 OK\r\nX \t: y\r\nContent-Length : 5\r\n\r\nhello",
  ["blanks before the first name"] = "HTTP/1.1 200 OK\r\n  X: y\r\nContent-Length: 5\r\n\r\nhello",
  ["LF at all line ends"] = "HTTP/1.1 200 OK\nX: y\nContent-Length: 5\n\nhello",
  ["LF at one line end"] = "HTTP/1.1 200 OK\r\nX: y\nContent-Length: 5\r\n\r\nhello",
}

describe("a response that has two readings", function()
  for name, response in pairs(responses) do
    it("is an error unless it is asked for: " .. name, function()
      local s = always(response)
      for _, lenient in ipairs { 0, true, 0, true, false } do
        local options = { url = s.url }
        if lenient ~= 0 then options.lenient = lenient end
        local body, status, headers = http.request(options)
        if lenient == true then
          assert.same({ "hello", 200, "y" }, { body, status, headers.x })
        else
          assert.is_nil(body)
          assert.is_string(status)
        end
      end
      assert.is_nil((http.request(s.url)))
    end)
  end

  it("does not let the connection be used again if it has both framings", function()
    local s = always(responses["both framings"])
    for _ = 1, 2 do assert.equal("hello", (http.request { url = s.url, lenient = true })) end
    assert.equal(2, s:requests()[2].connection)
  end)

  it("is an error all the same if it breaks other rules", function()
    for _, lines in ipairs { "Content-Length: 5\r\nContent-Length: 6\r\n", "A b: c\r\n",
      "Content-Length: +5\r\n",
      "Transfer-Encoding: gzip\r\n", ": x\r\n", "A: b\rc\r\n" } do
      local s = always("HTTP/1.1 200 OK\r\n" .. lines .. "\r\nhello")
      assert.is_nil((http.request { url = s.url, lenient = true }))
    end
    assert.has_error(function() http.request { url = "http://127.0.0.1/", lenient = "yes" } end)
  end)
end)

describe("two equal Content-Lengths", function()
  it("are one number", function()
    for _, lines in ipairs { "Content-Length: 5\r\nContent-Length: 5", "Content-Length: 5, 5",
      "Content-Length: 5 ,5\r\nContent-Length: 5" } do
      local s = always("HTTP/1.1 200 OK\r\n" .. lines .. "\r\n\r\nhello")
      local body, _, headers = http.request(s.url)
      assert.same({ "hello", "5" }, { body, headers["content-length"] })
    end
    for _, odd in ipairs { ", 5", "5, ", "5, 6", "5 5" } do
      local s = always("HTTP/1.1 200 OK\r\nContent-Length: " .. odd .. "\r\n\r\nhello")
      assert.same({ nil, "invalid Content-Length in response" }, { http.request(s.url) })
    end
  end)
end)
