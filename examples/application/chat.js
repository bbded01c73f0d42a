// The chat: shows what comes over the WebSocket, and sends what is typed. Connects again if the connection breaks.

const MOST = 200;
const lines = document.getElementById("lines");
const form = document.getElementById("chat");
const [name, line] = [document.getElementById("name"), document.getElementById("line")];

let socket;
let wait = 500;

function show(who, text) {
  const item = document.createElement("li");
  if (who) {
    item.append(Object.assign(document.createElement("b"), { textContent: who }), ` ${text}`);
  } else {
    item.append(Object.assign(document.createElement("i"), { textContent: text }));
  }
  lines.append(item);
  while (lines.children.length > MOST) lines.firstChild.remove();
  lines.scrollTop = lines.scrollHeight;
}

function connect() {
  socket = new WebSocket(new URL("/chat/socket", location.href.replace(/^http/, "ws")));
  socket.addEventListener("open", () => {
    wait = 500;
    show("", "You are connected.");
  });
  socket.addEventListener("message", (event) => {
    const [who, text] = event.data.split("\n");
    show(who, text);
  });
  socket.addEventListener("close", () => {
    show("", "The connection is lost. Another attempt follows.");
    setTimeout(connect, wait);
    wait = Math.min(2 * wait, 10000);
  });
}

form.addEventListener("submit", (event) => {
  event.preventDefault();
  if (socket.readyState !== WebSocket.OPEN) return;
  socket.send(`${name.value}\n${line.value}`);
  line.value = "";
  line.focus();
});

connect();
