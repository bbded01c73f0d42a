--- The results of a benchmark as a table in Markdown, with what it was measured on.

local process = require "spec.support.process"

local markdown = {}

local function output(command)
  local _, text = process.run(command)
  return text:match("^%s*([^\n]-)%s*\n*$")
end

--- A sentence: the machine, the date and the command.
-- @param command text
function markdown.circumstances(command)
  return ("%s, %s processors, Linux %s, %s: `%s`."):format(
    output "sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | head -n 1", output "nproc", output "uname -r",
    os.date("!%Y-%m-%d"), command)
end

--- The settings among these names that the environment has, as they stand before a command.
function markdown.settings(names)
  local words = {}
  for _, name in ipairs(names) do
    local value = os.getenv(name)
    if value then
      words[#words + 1] = ("%s=%s "):format(name, value:find("[^%w_.]") and process.quote(value) or value)
    end
  end
  return table.concat(words)
end

local function with_commas(number)
  local digits = ("%.0f"):format(number)
  local first = (#digits - 1) % 3 + 1
  return digits:sub(1, first) .. digits:sub(first + 1):gsub("%d%d%d", ",%0")
end

--- One cell: the requests per second, and the processor time of each.
function markdown.cell(result)
  if result.rate == 0 then return "–" end
  return ("%s (%s µs)"):format(with_commas(result.rate), with_commas(result.cpu))
end

--- Prints a table.
-- @param head list of column titles
-- @param rows list of lists of cells; a missing cell is empty
function markdown.print(head, rows)
  local function line(cells)
    local words = {}
    for index = 1, #head do words[index] = cells[index] or "" end
    print("| " .. table.concat(words, " | ") .. " |")
  end
  line(head)
  print("|---" .. ("|--:"):rep(#head - 1) .. "|")
  for _, cells in ipairs(rows) do line(cells) end
end

return markdown
