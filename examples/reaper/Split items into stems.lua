-- Split the selected items into stems: REAPER's own items on new tracks below, in place and in time.
--
-- Runs the command `stemsplit split` on the whole file of each selected item, and puts the stems on new tracks
-- below the item's track, with the item's position, length, start offset, play rate, stretch markers, pitch,
-- fades, gain and loop. The item itself is muted. See README.md beside this script.

local TITLE = "Split items into stems"
local ITEM_VALUES = {
  "D_POSITION", "D_LENGTH", "D_SNAPOFFSET", "B_LOOPSRC", "C_BEATATTACHMODE", "D_VOL",
  "D_FADEINLEN", "D_FADEOUTLEN", "D_FADEINDIR", "D_FADEOUTDIR", "C_FADEINSHAPE", "C_FADEOUTSHAPE",
  "D_FADEINLEN_AUTO", "D_FADEOUTLEN_AUTO",
}
local TAKE_VALUES = {
  "D_STARTOFFS", "D_PLAYRATE", "B_PPITCH", "D_PITCH", "I_PITCHMODE", "D_VOL", "D_PAN", "I_CHANMODE",
}
local LONGEST_DIFFERENCE = 0.001 -- seconds between a file and its stems, as REAPER decodes them

-- Fails with a text for the user: a table, to which error() adds no line number.
local function refuse(text)
  error({ text = text })
end

-- Decodes one JSON value. Objects are lists of { key, value } in their order, with the values by key, too.
local function decode(text)
  local at = 1
  local ESCAPED = { b = "\b", f = "\f", n = "\n", r = "\r", t = "\t" }

  local function unit()
    local code = tonumber(text:sub(at + 2, at + 5), 16)
    at = at + 6
    return code
  end

  local function words()
    local parts = {}
    at = at + 1
    while text:sub(at, at) ~= '"' do
      local plain = text:match('^[^"\\]+', at)
      if plain then
        parts[#parts + 1] = plain
        at = at + #plain
      elseif text:sub(at, at + 1) == "\\u" then
        local code = unit()
        if code >= 0xD800 and code < 0xDC00 and text:sub(at, at + 1) == "\\u" then
          code = 0x10000 + ((code - 0xD800) << 10) + (unit() - 0xDC00)
        end
        parts[#parts + 1] = utf8.char(code)
      else
        local letter = text:sub(at + 1, at + 1)
        if letter == "" then error("the text ends within a string") end
        parts[#parts + 1] = ESCAPED[letter] or letter
        at = at + 2
      end
    end
    at = at + 1
    return table.concat(parts)
  end

  local value
  local function each(close, read)
    local found = {}
    at = text:match("^%s*()", at + 1)
    while text:sub(at, at) ~= close do
      read(found)
      at = text:match("^%s*,?%s*()", at)
      if at > #text then error("the text ends too early") end
    end
    at = at + 1
    return found
  end

  function value()
    local first = text:sub(at, at)
    if first == '"' then return words() end
    if first == "[" then return each("]", function(found) found[#found + 1] = value() end) end
    if first == "{" then
      return each("}", function(found)
        local key = words()
        at = text:match("^%s*:%s*()", at)
        found[#found + 1] = { key, value() }
        found[key] = found[#found][2]
      end)
    end
    local word = text:match("^[%w+.-]+", at) or error("no JSON at " .. at)
    at = at + #word
    return tonumber(word) or ({ ["true"] = true, ["false"] = false })[word]
  end
  return value()
end

-- Quotes a path for REAPER's ExecProcess, which starts programs without a shell.
local function quoted(path)
  local mark = path:find('"', 1, true) and "'" or '"'
  if path:find(mark, 1, true) then
    refuse("The path has both kinds of quotation marks, which REAPER cannot pass on:\n" .. path)
  end
  return mark .. path .. mark
end

-- A number that differs for files, and for options, whose stems must not replace each other.
local function fingerprint(text)
  local sum = 5381
  for index = 1, #text do sum = (sum * 33 + text:byte(index)) % 0x100000000 end
  return string.format("%08x", sum)
end

-- Returns the take and the file of an item; fails for what has no file of sound that a program could split.
local function take_of(item)
  local take = reaper.GetActiveTake(item)
  if not take then refuse("An item without a take has no sound.") end
  local name = reaper.GetTakeName(take)
  if reaper.TakeIsMIDI(take) then refuse("`" .. name .. "` is MIDI: render or freeze it first.") end
  local source = reaper.GetMediaItemTake_Source(take)
  local path = reaper.GetMediaSourceFileName(source, "")
  if reaper.GetMediaSourceType(source, "") == "SECTION" or path == "" then
    refuse("`" .. name .. "` is reversed, or a section of a file: glue the item first.")
  end
  if not reaper.file_exists(path) then refuse("The file of `" .. name .. "` is missing:\n" .. path) end
  return take, path
end

-- Asks for options of `stemsplit split`, and remembers them; nil if the user cancels.
local function ask_options()
  local known = reaper.GetExtState("stemsplit", "options")
  local done, options = reaper.GetUserInputs(TITLE, 1, "Options, or none:,extrawidth=240", known)
  if not done then return nil end
  reaper.SetExtState("stemsplit", "options", options, true)
  return options
end

-- Runs a program; nil if there is none. A system that finds out too late says 127.
local function execute(command)
  local output = reaper.ExecProcess(command, 0)
  return output and not output:match("^127%s*$") and output or nil
end

-- Runs a command of stemsplit and returns its status and output; asks once where the program lies.
local function run(arguments)
  local program = reaper.GetExtState("stemsplit", "program")
  local output = execute((program == "" and "stemsplit" or quoted(program)) .. " " .. arguments)
  if not output then
    local done, found = reaper.GetUserFileNameForRead("", "Where is the program stemsplit?", "")
    if not done then refuse("REAPER does not find the program stemsplit.") end
    reaper.SetExtState("stemsplit", "program", found, true)
    output = execute(quoted(found) .. " " .. arguments) or refuse("Cannot run the program\n" .. found)
  end
  local status, printed = output:match("^(%-?%d+)\r?\n?(.*)$")
  return tonumber(status), printed or ""
end

-- Splits a file; returns a list of { stem, path }. What is split already is not split again.
local function split(path, options)
  local folder = reaper.GetProjectPath("") .. "/stems"
  local template = "{track} " .. fingerprint(path .. "\n" .. options) .. "/{stem}.{ext}"
  local status, output = run(table.concat({
    "split --json --skip-existing", options, "--format wav --template", quoted(template),
    "--out", quoted(folder), quoted(path),
  }, " "))
  local stems, problem
  for line in output:gmatch("[^\r\n]+") do
    local read, event = pcall(decode, line)
    if read and type(event) == "table" then
      if event.event == "plan" then stems = event.outputs end
      if event.status == "error" then
        problem = event.message .. (event.hint and "\n" .. event.hint or "")
      elseif event.status == "skipped" then
        stems = event.outputs
      end
    end
  end
  if status ~= 0 or not stems then refuse(problem or "stemsplit failed:\n" .. output) end
  return stems
end

local function copy(from, to, names, get, set)
  for _, name in ipairs(names) do set(to, name, get(from, name)) end
end

-- Puts a stem onto a track as the item and its take are: the same sound there, at the same time.
local function place(track, stem, path, item, take)
  local source = reaper.PCM_Source_CreateFromFile(path)
  if not source then refuse("REAPER cannot open the stem\n" .. path) end
  local new = reaper.AddMediaItemToTrack(track)
  local new_take = reaper.AddTakeToMediaItem(new)
  reaper.SetMediaItemTake_Source(new_take, source)
  copy(item, new, ITEM_VALUES, reaper.GetMediaItemInfo_Value, reaper.SetMediaItemInfo_Value)
  copy(take, new_take, TAKE_VALUES, reaper.GetMediaItemTakeInfo_Value, reaper.SetMediaItemTakeInfo_Value)
  for index = 0, reaper.GetTakeNumStretchMarkers(take) - 1 do
    local _, position, in_source = reaper.GetTakeStretchMarker(take, index)
    local copied = reaper.SetTakeStretchMarker(new_take, -1, position, in_source)
    reaper.SetTakeStretchMarkerSlope(new_take, copied, reaper.GetTakeStretchMarkerSlope(take, index))
  end
  reaper.GetSetMediaItemTakeInfo_String(new_take, "P_NAME", reaper.GetTakeName(take) .. " - " .. stem, true)
end

-- Returns the tracks of stems below a track, by stem; makes those that are not there yet.
local function stem_tracks(made, track, stems)
  made[track] = made[track] or { last = track }
  local group = made[track]
  for _, pair in ipairs(stems) do
    local stem = pair[1]
    if not group[stem] then
      local index = reaper.GetMediaTrackInfo_Value(group.last, "IP_TRACKNUMBER") -- from 1: that of the next one
      reaper.InsertTrackAtIndex(index, true)
      local new = reaper.GetTrack(0, index)
      local depth = reaper.GetMediaTrackInfo_Value(group.last, "I_FOLDERDEPTH")
      if depth < 0 then -- the last track of a folder: the new one is the last now
        reaper.SetMediaTrackInfo_Value(group.last, "I_FOLDERDEPTH", 0)
        reaper.SetMediaTrackInfo_Value(new, "I_FOLDERDEPTH", depth)
      end
      reaper.GetSetMediaTrackInfo_String(new, "P_NAME", stem, true)
      group[stem], group.last = new, new
    end
  end
  return group
end

-- REAPER may decode a file of a lossy format with the encoder's padding, which stems do not have.
local function check_lengths(take, stems)
  local length = reaper.GetMediaSourceLength(reaper.GetMediaItemTake_Source(take))
  for _, pair in ipairs(stems) do
    local stem_length = reaper.GetMediaSourceLength(reaper.PCM_Source_CreateFromFile(pair[2]))
    if math.abs(stem_length - length) > LONGEST_DIFFERENCE then
      refuse(string.format(
        "The stems last %.3f s, but REAPER plays %.3f s of the file: leave out --start and --duration, "
          .. "or glue the item first.", stem_length, length))
    end
  end
end

local function place_all(jobs, stems_by_path)
  for _, job in ipairs(jobs) do check_lengths(job.take, stems_by_path[job.path]) end
  local made = {}
  for _, job in ipairs(jobs) do
    local stems = stems_by_path[job.path]
    local tracks = stem_tracks(made, reaper.GetMediaItem_Track(job.item), stems)
    for _, pair in ipairs(stems) do place(tracks[pair[1]], pair[1], pair[2], job.item, job.take) end
    reaper.SetMediaItemInfo_Value(job.item, "B_MUTE", 1)
  end
end

local function split_and_place(jobs, options)
  local stems_by_path = {}
  for _, job in ipairs(jobs) do
    stems_by_path[job.path] = stems_by_path[job.path] or split(job.path, options)
  end
  reaper.Undo_BeginBlock()
  reaper.PreventUIRefresh(1)
  local done, problem = pcall(place_all, jobs, stems_by_path)
  reaper.PreventUIRefresh(-1)
  reaper.Undo_EndBlock(TITLE, -1)
  reaper.UpdateArrange()
  if not done then error(problem, 0) end
end

-- Runs a step, and shows the user what it refuses.
local function guarded(step)
  local done, problem = pcall(step)
  if not done then
    reaper.MB(type(problem) == "table" and problem.text or tostring(problem), TITLE, 0)
  end
end

guarded(function()
  local jobs = {}
  for index = 0, reaper.CountSelectedMediaItems(0) - 1 do
    local item = reaper.GetSelectedMediaItem(0, index)
    local take, path = take_of(item)
    jobs[#jobs + 1] = { item = item, take = take, path = path }
  end
  if #jobs == 0 then refuse("Select one or more items with sound first.") end
  local options = ask_options()
  if not options then return end
  reaper.ClearConsole()
  reaper.ShowConsoleMsg("Splitting. REAPER waits until the stems are there, which may take minutes.\n")
  reaper.defer(function() -- after the message is on the screen
    guarded(function() split_and_place(jobs, options) end)
    reaper.ClearConsole()
  end)
end)
