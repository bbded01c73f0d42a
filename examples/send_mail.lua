-- Sends a text file of any size as a mail over SMTP (RFC 5321), streamed.
--
--   lua5.4 examples/send_mail.lua HOST PORT FROM TO SUBJECT FILE
--
-- Requires LuaSocket's mime module (Debian: lua-socket).

local callback = require "moonbridge_callback"
local moonbridge_io = require "moonbridge_io"
local mime = require "mime"

local host, port, from, to, subject, path = table.unpack(arg)
assert(path, "usage: send_mail.lua HOST PORT FROM TO SUBJECT FILE")
for _, text in ipairs { from, to, subject } do
  assert(not text:find("[%c<>]"), "control characters and angle brackets have no place here")
end

local socket = assert(moonbridge_io.tcpconnect(host, port))

-- Reads a reply of one or more lines, and checks that it has the expected code.
local function expect(code)
  repeat
    local line = assert(socket:read(1000, "\n"))
    assert(line:sub(1, 3) == code, "the server says: " .. line)
  until line:sub(4, 4) ~= "-"
end

local function command(text, code)
  assert(socket:flush(text, "\r\n"))
  expect(code)
end

expect("220")
command("EHLO localhost", "250")
command("MAIL FROM:<" .. from .. ">", "250")
command("RCPT TO:<" .. to .. ">", "250")
command("DATA", "354")

-- The headers, then the file with CRLF line ends and dots at the beginning of lines doubled.
local head = ("From: <%s>\r\nTo: <%s>\r\nSubject: %s\r\nDate: %s\r\n\r\n")
  :format(from, to, subject, os.date("!%a, %d %b %Y %H:%M:%S +0000"))
local text = callback.send.chain(callback.send.file(io.open(path, "rb")), mime.normalize("\r\n"))
assert(callback.send_to(socket, callback.send.string(head)))
local count = assert(callback.send_to(socket, callback.send.chain(text, mime.stuff())))

command("\r\n.", "250") -- the line end before the dot: the last line of the file may have none
command("QUIT", "221")
socket:close()
print(("sent %d bytes to %s"):format(count, to))
