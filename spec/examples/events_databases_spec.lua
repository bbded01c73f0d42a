-- The examples that carry events from one machine to another, by databases that really run.
-- Takes long: databases are started, and 1,000 clients.
-- Any version: nothing of it depends on Lua's.

local postgres = require "spec.support.postgres"
local process = require "spec.support.process"
local server = require "spec.support.server"
local streams = require "spec.support.streams"

local CLIENTS = 500 -- of each of the two servers

-- The databases: how each is prepared, started, and what the example is told.
local DATABASES = {
  redis = {
    prepare = function() return { path = process.scratch "redis.sock" } end,
    start = function(self)
      return process.start { "redis-server", "--port", "0", "--unixsocket", self.path, "--save", "",
        "--dir", self.path:match "^(.*)/" }
    end,
    is_ready = function(self)
      return process.run("redis-cli -s " .. self.path .. " ping | grep -q PONG") == 0
    end,
    options = function(self) return { args = { self.path } } end,
    listening = function(self)
      local _, text = process.run(("redis-cli -s %s pubsub numsub lines"):format(self.path))
      return tonumber(text:match "lines%s+(%d+)")
    end,
  },
  postgres = {
    prepare = postgres.cluster,
    start = function(self) return self:start() end,
    is_ready = function(self) return self:is_ready() end,
    options = function(self)
      return { env = { PGHOST = self.folder, PGUSER = "spec", PGDATABASE = "postgres" } }
    end,
    -- Who listens waits for the client, which has asked for the last new lines.
    listening = function(self)
      return tonumber(self:query [[
        SELECT count(*) FROM pg_stat_activity
          WHERE query LIKE 'SELECT id, text FROM line WHERE id >%' AND state = 'idle'
      ]])
    end,
  },
}

local function say(s, text)
  return s:request { target = "/say", body = "text=" .. text,
    headers = { ["Content-Type"] = "application/x-www-form-urlencoded" } }.status
end

for name, database in pairs(DATABASES) do
  describe(("examples/events_%s.lua"):format(name), function()
    local running

    after_each(function()
      streams.cleanup()
      server.cleanup()
      if running then running:destroy() end
    end)

    local function start(self)
      -- What a killed one has left may hinder the next for a moment.
      local done = process.wait_until(function()
        running = database.start(self)
        return process.wait_until(function() return database.is_ready(self) or running:status() end)
          and not running:status()
      end, 3 * process.TIMEOUT)
      assert(done, running:log())
    end

    it("carries each line once and in order to 1,000 clients of two servers, and survives its death",
      function()
        local self = database.prepare()
        start(self)
        local servers, crowds = {}, {}
        for index = 1, 2 do
          local options = database.options(self)
          options.file = ("%s/examples/events_%s.lua"):format(server.root, name)
          servers[index] = server.start(options)
        end
        local function both_listen() return database.listening(self) == 2 end
        assert.truthy(process.wait_until(both_listen), servers[1]:log())
        for index, s in ipairs(servers) do crowds[index] = streams.open(s.port, CLIENTS, "/events") end
        local expected = {}
        local function say_ten(prefix)
          for number = 1, 10 do
            local line = prefix .. number
            assert.equal(204, say(servers[number % 2 + 1], line))
            expected[#expected + 1] = line
          end
        end
        local function all_hear()
          for _, crowd in ipairs(crowds) do
            crowd:wait(function(lines) return lines[#lines] == expected[#expected] end)
          end
          local text = table.concat(expected, " ")
          for _, crowd in ipairs(crowds) do
            for _, heard in ipairs(crowd:heard()) do assert.equal(text, heard) end
          end
        end
        say_ten "a"
        all_hear()

        running:destroy()
        assert.equal(503, say(servers[1], "lost"))
        for _, s in ipairs(servers) do assert.truthy(s:wait_log "no %w+ from", s:log()) end
        start(self)
        assert.truthy(process.wait_until(both_listen), servers[1]:log())
        say_ten "b"
        all_hear()

        -- Who has been away gets what was missed, from whichever server.
        for _, crowd in ipairs(crowds) do
          local id = crowd.streams[1].text:match("id: ([^\n]*)\ndata: b8\n")
          local back = streams.open(servers[1].port, 1, "/events", ("Last-Event-ID: %s\r\n"):format(id))
          back:wait(function(lines) return #lines == 2 end)
          assert.same({ "b9 b10" }, back:heard())
        end
        for _, s in ipairs(servers) do assert.equal(0, s:stop()) end
      end)
  end)
end
