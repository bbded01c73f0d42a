// Shows notes of others as they come. Without this script the page shows them when it is loaded again.

const list = document.getElementById("notes");

function element(name, className, ...content) {
  const made = document.createElement(name);
  if (className) made.className = className;
  made.append(...content);
  return made;
}

function size(bytes) {
  if (bytes === 1) return "1 byte";
  let unit = "bytes";
  for (const larger of ["KiB", "MiB"]) if (bytes >= 1024) [bytes, unit] = [bytes / 1024, larger];
  return `${bytes.toFixed(1).replace(/\.0$/, "")} ${unit}`;
}

function file(about) {
  const link = element("a", "", about.name);
  link.href = about.url;
  return element("li", "", link, " ", element("span", "hint", size(about.size)));
}

function item(note) {
  const made = element("li");
  made.id = `note-${note.id}`;
  if (note.comment) made.append(element("p", "comment", note.comment));
  if (note.files.length) made.append(element("ul", "files", ...note.files.map(file)));
  const time = element("time", "", note.created.replace(/T(\d+:\d+):\d+Z/, " $1 UTC"));
  time.dateTime = note.created;
  made.append(element("p", "hint", time));
  return made;
}

function show(note) {
  list.dataset.last = Math.max(list.dataset.last, note.id);
  if (!document.getElementById(`note-${note.id}`)) list.prepend(item(note));
}

// Gets what the stream cannot give, as the server does not remember so much.
async function fetchMissed() {
  let notes;
  do {
    const response = await fetch(`/api/notes?after=${list.dataset.last}`);
    if (!response.ok) return;
    ({ notes } = await response.json());
    notes.forEach(show);
  } while (notes.length);
}

const source = new EventSource(`/events?after=${list.dataset.last}`);
source.addEventListener("note", (event) => show(JSON.parse(event.data)));
source.addEventListener("gap", fetchMissed);
