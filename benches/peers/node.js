// The application for Node.js, in two processes: node node.js PORT
"use strict";
const cluster = require("node:cluster");
const http = require("node:http");
const { execFileSync } = require("node:child_process");

const CONSTANTS = `
local requests = dofile "benches/support/requests.lua"
io.write(requests.PIECES, "\\n", requests.PAGE, requests.PIECE)`;

function reply(response, body, contentType = "text/plain") {
  response.writeHead(200, { "Content-Type": contentType, "Content-Length": Buffer.byteLength(body) });
  response.end(body);
}

function refuse(response) {
  response.writeHead(400, { "Content-Type": "text/plain" });
  response.end("something is missing\n");
}

function cookie(request, name) {
  for (const pair of (request.headers.cookie || "").split("; ")) {
    const equals = pair.indexOf("=");
    if (pair.slice(0, equals) === name) return decodeURIComponent(pair.slice(equals + 1));
  }
}

function expected(request) {
  const params = new URLSearchParams(request.url.slice(request.url.indexOf("?") + 1));
  return params.get("page") === "2" && params.get("q") === "moon bridge"
    && cookie(request, "theme") === "dark" && request.headers["accept-language"];
}

function withBody(request, use) {
  const chunks = [];
  request.on("data", (chunk) => chunks.push(chunk));
  request.on("end", () => use(Buffer.concat(chunks).toString()));
}

function answerForm(response, form) {
  const [name, article] = [form.get("name"), form.get("article")];
  if (!(name && article && form.get("comment"))) return refuse(response);
  reply(response, `${name} on ${article}\n`);
}

// Node.js leaves multipart to the application.
function parseMultipart(body, boundary) {
  const fields = new Map();
  for (const part of ("\r\n" + body).split("\r\n--" + boundary).slice(1, -1)) {
    const head = part.indexOf("\r\n\r\n");
    fields.set(/name="([^"]*)"/.exec(part.slice(0, head))[1], part.slice(head + 4));
  }
  return fields;
}

function handlers(PAGE, PIECE, PIECES) {
  return {
    "/": (request, response) => reply(response, "Hello, World!\n"),
    "/page": (request, response) => {
      if (!expected(request)) return refuse(response);
      reply(response, PAGE, "text/html");
    },
    "/page_chunked": (request, response) => {
      if (!expected(request)) return refuse(response);
      response.writeHead(200, { "Content-Type": "text/html" });
      response.write(PAGE);
      response.end();
    },
    "/pieces": (request, response) => {
      if (!expected(request)) return refuse(response);
      response.writeHead(200, { "Content-Type": "text/html" });
      for (let index = 0; index < PIECES; index++) response.write(PIECE);
      response.end();
    },
    "/form": (request, response) => withBody(request, (body) => {
      answerForm(response, new URLSearchParams(body));
    }),
    "/multipart": (request, response) => withBody(request, (body) => {
      const boundary = /boundary=(.*)/.exec(request.headers["content-type"])[1];
      answerForm(response, parseMultipart(body, boundary));
    }),
    "/json": (request, response) => withBody(request, (body) => {
      const order = JSON.parse(body);
      const items = order.items.map((item) => ({ article: item.article, sum: item.count * item.price }));
      const total = items.reduce((sum, item) => sum + item.sum, 0);
      reply(response, JSON.stringify({ customer: order.customer, items, total }), "application/json");
    }),
  };
}

if (cluster.isPrimary) {
  for (let index = 0; index < 2; index++) cluster.fork();
} else {
  const output = execFileSync("lua5.4", ["-e", CONSTANTS]).toString();
  const [count, text] = [output.slice(0, output.indexOf("\n")), output.slice(output.indexOf("\n") + 1)];
  const routes = handlers(text.slice(0, 1800), text.slice(1800), Number(count));
  const server = http.createServer((request, response) => {
    const question = request.url.indexOf("?");
    const path = question < 0 ? request.url : request.url.slice(0, question);
    (routes[path] || ((_, other) => refuse(other)))(request, response);
  });
  server.keepAliveTimeout = 65000;
  server.listen(Number(process.argv[2]), "127.0.0.1");
}
