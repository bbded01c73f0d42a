--- How `make test` lets busted report: one line for each test, as it runs, and each failure in full at once.
--
-- The name is written before the test begins, so that the log of a run that was cut off ends with the test
-- under way.

local pretty = require "pl.pretty"

local function text_of(message)
  if type(message) == "string" then return message end
  return message == nil and "no message" or pretty.write(message)
end

return function(options)
  local busted = require "busted"
  local handler = require "busted.outputHandlers.base"()
  require "luassert":set_parameter("TableErrorHighlightColor", "none")

  local function write(...)
    io.write(...)
    io.flush()
    return nil, true
  end

  function handler.testStart(element)
    return write(handler.getFullName(element), " ... ")
  end

  function handler.testEnd(element, _, status)
    return write(("%s, %.2f s\n"):format(status == "success" and "ok" or status, element.duration or 0))
  end

  function handler.failed(element, _, message, trace)
    local place = element.trace or trace or {}
    write("\nFAILED: ", handler.getFullName(element), "\n",
      ("%s:%s: %s\n"):format(place.short_src or "?", place.currentline or "?", text_of(message)))
    return write(options.verbose and trace and trace.traceback and trace.traceback .. "\n" or "")
  end

  function handler.suiteEnd()
    for _, each in ipairs(handler.pendings) do
      write("pending: ", each.name, each.message and ": " .. text_of(each.message) or "", "\n")
    end
    return write(("%d passed, %d failed, %d pending in %.1f s\n"):format(handler.successesCount,
      handler.failuresCount + handler.errorsCount, handler.pendingsCount, handler.getDuration()))
  end

  busted.subscribe({ "test", "start" }, handler.testStart, { predicate = handler.cancelOnPending })
  busted.subscribe({ "test", "end" }, handler.testEnd, { predicate = handler.cancelOnPending })
  busted.subscribe({ "suite", "end" }, handler.suiteEnd)
  busted.subscribe({ "failure" }, handler.failed)
  busted.subscribe({ "error" }, handler.failed)
  return handler
end
