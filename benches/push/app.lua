-- Two workers, whose handlers hold event streams.
local moonbridge = require "moonbridge"

moonbridge.listen {
  { proto = "tcp", host = "127.0.0.1", port = tonumber(os.getenv "PORT") },
  pre_fork = 2, min_fork = 2, max_fork = 2,
  connect = moonbridge.http.generate_handler(function(request)
    if request.path == "events" then
      request:send_status("200 OK")
      request:send_header("Content-Type", "text/event-stream")
      return request:hold { topics = "news" }
    elseif request.path == "publish" then
      assert(moonbridge.publish("news", "data: " .. request.body .. "\n\n"))
      request:send("204 No Content")
    else
      request:send("200 OK", "text/plain", "Hello, World!\n")
    end
    return true
  end),
}
moonbridge.run()
