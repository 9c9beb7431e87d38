// Shared by all widgets. Python puts this file before the widget's own script.

function element(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (value !== false && value !== null && value !== undefined)
      node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children.filter((child) => child !== null));
  return node;
}

function button(text, label, action, more = {}) {
  return element("button", { type: "button", "aria-label": label, title: label, onclick: action, ...more }, text);
}

// The colour of a run, a system or a curve
function dot(colour) {
  return element("span", { class: "t2r-dot", style: `background:${colour}` });
}

// Hands a file to whoever looks on.
function saveFile(name, blob) {
  const url = URL.createObjectURL(blob);
  element("a", { href: url, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(url), 60_000); // some browsers read it after the click
}

function saveJson(name, content) {
  saveFile(name, new Blob([JSON.stringify(content, null, 1)], { type: "application/json" }));
}

function drawing(tag, attributes = {}) {
  const node = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  return node;
}

// Pictures come as bytes. A picture is shown once it is decoded, so that nothing flickers.
function pictureUrl(bytes) {
  return URL.createObjectURL(new Blob([bytes]));
}

async function showPicture(image, url) {
  image.dataset.wanted = url;
  const next = new Image();
  next.src = url;
  await next.decode();
  if (image.dataset.wanted === url) image.src = url;
}

// Asks Python for pictures by key, keeps the answers, and calls `arrived` when one comes.
class PictureStore {
  constructor(model, arrived = () => {}) {
    this.model = model;
    this.urls = new Map();
    this.asked = new Set();
    this.failed = new Set(); // asked for again after `failed.clear()`
    this.promised = new Map();
    this.listen = ({ kind, key, asked }, buffers) => {
      if (kind !== "picture" && asked !== "picture") return;
      this.forget(key);
      if (kind === "picture") this.urls.set(key, pictureUrl(buffers[0]));
      else this.failed.add(key);
      this.promised.get(key)?.(this.urls.get(key));
      this.promised.delete(key);
      arrived(key);
    };
    model.on("msg:custom", this.listen);
  }

  // The address of a picture; null until it has come
  get(key) {
    if (this.urls.has(key)) return this.urls.get(key);
    if (!this.asked.has(key) && !this.failed.has(key)) {
      this.asked.add(key);
      this.model.send({ kind: "picture", key });
    }
    return null;
  }

  // The same as a promise, which gives undefined for a picture that could not be made. A key is promised to one who waits.
  async soon(key) {
    return this.get(key) ?? new Promise((done) => this.promised.set(key, done));
  }

  waiting() {
    return this.asked.size;
  }

  forget(key) {
    if (this.urls.has(key)) URL.revokeObjectURL(this.urls.get(key));
    this.urls.delete(key);
    this.asked.delete(key);
    this.failed.delete(key);
  }

  close() {
    this.model.off("msg:custom", this.listen);
    for (const key of [...this.urls.keys()]) this.forget(key);
  }
}

// Questions to Python, each with a number of its own, and a promise of the answer.
function questions(model) {
  const name = Math.random().toString(36).slice(2);
  const waiting = new Map();
  let last = 0;
  const listen = (message, buffers) => {
    waiting.get(message.number)?.({ ...message, buffers });
    waiting.delete(message.number);
  };
  const ask = (question) =>
    new Promise((answered) => {
      const number = `${name}-${++last}`;
      waiting.set(number, answered);
      model.send({ ...question, number });
    });
  model.on("msg:custom", listen);
  return { ask, close: () => model.off("msg:custom", listen) };
}

// What went wrong in Python
function problemOf(model) {
  const node = element("p", { class: "t2r-problem", role: "alert" });
  const draw = () => (node.textContent = model.get("problem"));
  model.on("change:problem", draw);
  draw();
  return { node, close: () => model.off("change:problem", draw) };
}

function save(model, values) {
  for (const [name, value] of Object.entries(values)) model.set(name, value);
  model.save_changes();
}

// Keys work while the widget has the focus, and JupyterLab does not take them for its own.
// Typing into a field or a list is left alone.
function onKeys(root, actions) {
  root.tabIndex = 0;
  root.setAttribute("data-lm-suppress-shortcuts", "true");
  root.addEventListener("keydown", (event) => {
    const inField = ["SELECT", "TEXTAREA"].includes(event.target.tagName) || event.target.type === "text";
    const onButton = ["BUTTON", "SUMMARY"].includes(event.target.tagName) && [" ", "Enter"].includes(event.key);
    const onRange = event.target.type === "range" && /^(Arrow|Page|Home|End)/.test(event.key);
    const action = actions[event.key];
    if (inField || onRange) return event.stopPropagation(); // or the notebook moves to another cell
    if (!action || onButton || event.ctrlKey || event.metaKey) return;
    event.preventDefault();
    event.stopPropagation();
    action(event);
  });
}

function clamp(value, low, high) {
  return Math.min(high, Math.max(low, value));
}
