-- Sends a text file of any size as a mail over SMTP (RFC 5321), streamed; over TLS if the server has STARTTLS
-- (RFC 3207).
--
--   lua5.4 examples/send_mail.lua HOST PORT FROM TO SUBJECT FILE
--
-- The variables MAIL_USER and MAIL_PASSWORD say who sends it; MAIL_CA names a file with the certificate of a
-- private authority.
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

-- Reads a reply of one or more lines, and checks that it has the expected code. Gives its text.
local function expect(code)
  local lines = {}
  repeat
    local line = assert(socket:read(1000, "\n"))
    assert(line:sub(1, 3) == code, "the server says: " .. line)
    lines[#lines + 1] = line:sub(5)
  until line:sub(4, 4) ~= "-"
  return table.concat(lines)
end

local function command(text, code)
  assert(socket:flush(text, "\r\n"))
  return expect(code)
end

local user, password = os.getenv "MAIL_USER", os.getenv "MAIL_PASSWORD"

expect("220")
if ("\n" .. command("EHLO localhost", "250")):find("\nSTARTTLS%s") then
  command("STARTTLS", "220")
  -- From here on nobody can read or change what is said, and the server is the one that was meant.
  assert(socket:starttls { host = host, ca = os.getenv "MAIL_CA" })
  command("EHLO localhost", "250")
else
  assert(not user, "the server has no STARTTLS: a password is not sent to it")
end
if user then
  assert(password, "MAIL_PASSWORD is not set")
  command("AUTH PLAIN " .. mime.b64("\0" .. user .. "\0" .. password), "235")
end
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
