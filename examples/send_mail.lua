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

-- Ends the program with a message and an exit code (2: it was called in the wrong way).
local function give_up(message, code)
  io.stderr:write("send_mail.lua: ", message, "\n")
  os.exit(code or 1)
end

local function check(value, message)
  return value or give_up(message)
end

local has_mime, mime = pcall(require, "mime")
if not has_mime then give_up("LuaSocket's module mime is missing (Debian: lua-socket)", 2) end

local host, port, from, to, subject, path = ...
if not path then give_up("usage: send_mail.lua HOST PORT FROM TO SUBJECT FILE", 2) end
for _, text in ipairs { from, to, subject } do
  if text:find("[%c<>]") then give_up("control characters and angle brackets have no place here", 2) end
end
local file = check(io.open(path, "rb"))

local socket = check(moonbridge_io.tcpconnect(host, port))

-- Reads a reply of one or more lines, and checks that it has the expected code. Gives its text.
local function expect(code)
  local lines = {}
  repeat
    local line = check(socket:read(1000, "\n"))
    check(line:sub(1, 3) == code, "the server says: " .. line)
    lines[#lines + 1] = line:sub(5)
  until line:sub(4, 4) ~= "-"
  return table.concat(lines)
end

local function command(text, code)
  check(socket:flush(text, "\r\n"))
  return expect(code)
end

local user, password = os.getenv "MAIL_USER", os.getenv "MAIL_PASSWORD"

expect("220")
if ("\n" .. command("EHLO localhost", "250")):find("\nSTARTTLS%s") then
  command("STARTTLS", "220")
  -- From here on nobody can read or change what is said, and the server is the one that was meant.
  check(socket:starttls { host = host, ca = os.getenv "MAIL_CA" })
  command("EHLO localhost", "250")
else
  check(not user, "the server has no STARTTLS: a password is not sent to it")
end
if user then
  check(password, "MAIL_PASSWORD is not set")
  command("AUTH PLAIN " .. mime.b64("\0" .. user .. "\0" .. password), "235")
end
command("MAIL FROM:<" .. from .. ">", "250")
command("RCPT TO:<" .. to .. ">", "250")
command("DATA", "354")

-- The headers, then the file with CRLF line ends and dots at the beginning of lines doubled.
local head = ("From: <%s>\r\nTo: <%s>\r\nSubject: %s\r\nDate: %s\r\n\r\n")
  :format(from, to, subject, os.date("!%a, %d %b %Y %H:%M:%S +0000"))
local text = callback.send.chain(callback.send.file(file), mime.normalize("\r\n"))
check(callback.send_to(socket, callback.send.string(head)))
local count = check(callback.send_to(socket, callback.send.chain(text, mime.stuff())))

command("\r\n.", "250") -- the line end before the dot: the last line of the file may have none
command("QUIT", "221")
socket:close()
print(("sent %d bytes to %s"):format(count, to))
