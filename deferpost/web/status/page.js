
"use strict";
// Whatever a client could have chosen (ids, routes, reasons, lines of a stack) gets into the page
// as text or as the value of an attribute that holds text, never as HTML.

const LIVE_SILENCE = 12000;  // ms without a document after which the stream counts as broken
const POLL_EVERY = 2000;
const STREAM_AGAIN = 15000;  // ms of polling after which the stream is tried again
const LANES = 28;
const LISTED = 12;

const $ = (id) => document.getElementById(id);
const role = document.documentElement.dataset.role;
// From the origin, which has no user and password in it even where the address has.
const base = location.origin + location.pathname;

// Elements.

function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.append(...children);  // strings become text
  return made;
}

function shape(tag, attributes = {}, text = "") {
  const made = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.textContent = text;
  return made;
}

// What belongs to an element: the parts of it that change.
const held = new WeakMap();

function holding(node, parts) {
  held.set(node, parts);
  return node;
}

function write(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

// One child for each item, kept while its key stays, so that the focus stays where it is.
function keyed(parent, items, keyOf, make, update) {
  const old = held.get(parent) ?? new Map();
  const kept = new Map();
  let place = parent.firstChild;
  for (const item of items) {
    const key = keyOf(item);
    if (kept.has(key)) continue;
    const node = old.get(key) ?? make(item);
    kept.set(key, node);
    update(held.get(node), item);
    if (node === place) place = place.nextSibling;
    else parent.insertBefore(node, place);
  }
  for (const [key, node] of old) if (!kept.has(key)) drop(node);
  held.set(parent, kept);
}

function drop(node) {
  const focused = node.contains(document.activeElement);
  node.remove();
  if (focused) $("pools").focus({preventScroll: true});
}

// A button that goes away must not take the keyboard's place with it.
function showButton(button, shown) {
  if (!shown && button === document.activeElement) button.closest("td").focus();
  button.hidden = !shown;
}

// Words.

const UNITS = [[86400, "d"], [3600, "h"], [60, "min"]];

function duration(seconds) {
  if (seconds === null || seconds === undefined) return "–";
  if (seconds < 0.0005) return "0 ms";
  if (seconds < 0.01) return (seconds * 1000).toFixed(1) + " ms";
  if (seconds < 1) return Math.round(seconds * 1000) + " ms";
  if (seconds < 10) return seconds.toFixed(1) + " s";
  if (seconds < 60) return Math.floor(seconds) + " s";
  for (const [index, [size, name]] of UNITS.entries()) {
    if (seconds < size) continue;
    const rest = Math.floor(seconds % size);
    const [smaller, unit] = UNITS[index + 1] ?? [1, "s"];
    return `${Math.floor(seconds / size)} ${name} ${Math.floor(rest / smaller)} ${unit}`;
  }
  return "";
}

function memory(bytes) {
  if (bytes === null) return "";
  const mib = bytes / 2 ** 20;
  return mib < 1024 ? `${Math.round(mib)} MiB` : `${(mib / 1024).toFixed(1)} GiB`;
}

const STATES = {succeeded: "✓ succeeded", failed: "✕ failed", canceled: "⊘ canceled", expired: "◷ expired"};
const words = (name) => name.replaceAll("_", " ");

// The document.

let last = null;  // the last document that is shown
let lastAt = 0;  // when it came, in ms of this page
const passed = () => (performance.now() - lastAt) / 1000;  // seconds since then

function show(state) {
  last = state;
  lastAt = performance.now();
  document.body.classList.remove("stale");
  write($("version"), state.version);
  const ready = $("ready");
  ready.className = "badge " + (state.ready ? "good" : "bad");
  write(ready, state.ready ? "Ready" : state.accepting ? "Not ready" : "Accepts nothing");
  document.title = (state.ready ? "" : "! ") + "deferpost";
  keyed($("pools"), state.pools, (pool) => pool.name, makePool, updatePool);
  showTimes(state.percentiles);
  showRefusals(state.refusals);
  showRecent(state.recent);
  pass();
}

// What goes on by itself between two documents.
function pass() {
  if (last === null) return;
  write($("uptime"), `up ${duration(last.uptime + passed())}`);
  for (const cell of document.querySelectorAll("[data-seconds]")) {
    const seconds = Number(cell.dataset.seconds) + passed();
    write(cell, duration(seconds));
  }
  drawLanes();
}

// Pools and their workers.

function makePool(pool) {
  const figures = element("dl", {class: "figures"});
  const body = element("tbody");
  const heads = [["Worker", "who"], ["State", "stage"], ["Job", ""], ["For", "num"], ["Memory", "num"], ["Jobs done", "num"], ["Age", "num"], ["", "do"]];
  const row = element("tr", {}, ...heads.map(([text, kind]) => element("th", {scope: "col", class: kind}, text)));
  const table = element("table", {class: "rows workers", "aria-label": `Workers of pool ${pool.name}`}, element("thead", {}, row), body);
  const badge = element("span", {class: "badge"});
  const head = element("div", {class: "pool-head"}, element("h3", {}, pool.name), element("span", {class: "kind"}, pool.kind), badge);
  const more = element("p", {class: "hint"});
  const node = element("article", {class: "card"}, head, figures, table, more);
  return holding(node, {figures, body, table, badge, more});
}

function updatePool(node, pool) {
  const [kind, text] = pool.hung ? ["bad", "Hangs"] : !pool.ready ? ["bad", "Not ready"] : pool.stuck ? ["warn", `${pool.stuck} will not stop`] : ["good", "Ready"];
  node.badge.className = "badge " + kind;
  write(node.badge, text);
  const figures = [
    {name: "Running", text: pool.running, of: pool.size},
    {name: "Waiting", text: pool.waiting, of: pool.max_waiting, wait: true},
    {name: "Oldest waits", seconds: pool.oldest_waiting},
    {name: "Workers restarted", text: pool.restarts},
  ];
  keyed(node.figures, figures, (figure) => figure.name, makeFigure, updateFigure);
  node.table.hidden = pool.workers.length === 0;
  keyed(node.body, pool.workers, (worker) => worker.name, () => makeWorker(), (row, worker) => updateWorker(row, worker, pool));
  const hiddenOnes = (pool.workers_total ?? 0) - pool.workers.length;
  const none = pool.workers_total === null ? "This pool does not tell of its workers." : pool.workers_total === 0 ? "No worker has been needed yet." : "";
  write(node.more, hiddenOnes > 0 ? `And ${hiddenOnes} more.` : none);
  node.more.hidden = node.more.textContent === "";
}

function makeFigure(figure) {
  const value = element("span");
  const small = element("small");
  const fill = element("span");
  const bar = element("span", {class: figure.wait ? "bar wait" : "bar"}, fill);
  bar.hidden = figure.of === undefined;
  const node = element("div", {}, element("dt", {}, figure.name), element("dd", {}, value, small, bar));
  return holding(node, {value, small, bar, fill});
}

function updateFigure(node, figure) {
  if ("seconds" in figure) tick(node.value, figure.seconds);
  else write(node.value, String(figure.text));
  if (figure.of === undefined) return;
  write(node.small, ` of ${figure.of}`);
  const part = figure.of ? Math.min(1, figure.text / figure.of) : 0;
  node.fill.style.width = `${part * 100}%`;
  node.bar.classList.toggle("full", Boolean(figure.wait) && part >= 1);
}

// A time that goes on: pass() writes it.
function tick(node, seconds) {
  if (seconds === null || seconds === undefined) {
    delete node.dataset.seconds;
    write(node, "–");
  } else {
    node.dataset.seconds = seconds;
  }
}

const BUTTONS = [["stack", "", "Stack", openStack], ["cancel", "danger", "Cancel", askCancel], ["restart", "danger", "Restart", askRestart]];

function makeWorker() {
  const cell = (label, kind = "") => element("td", {"data-label": label, class: kind});
  const who = cell("Worker");
  const stage = cell("State");
  const job = cell("Job", "job wide");
  const cells = {who, stage, job, run: cell("For"), memory: cell("Memory"), done: cell("Jobs done"), age: cell("Age")};
  const badge = element("span", {class: "badge"});
  stage.append(badge);
  const route = element("span");
  const id = element("span", {class: "id"});
  const row = element("tr", {}, ...Object.values(cells));
  const parts = {cells, badge, route, id, buttons: {}, worker: null, pool: null};
  // With the focus on it when its button goes away; see showButton.
  const act = element("td", {class: "do", tabindex: "-1"});
  for (const [name, kind, text, then] of BUTTONS) {
    parts.buttons[name] = element("button", {type: "button", class: kind}, text);
    parts.buttons[name].addEventListener("click", () => then(parts.worker, parts.pool));
  }
  if (role === "operator") act.append(element("span", {class: "doing"}, ...Object.values(parts.buttons)));
  row.append(act);
  return holding(row, parts);
}

const STAGES = {idle: "", busy: "good", starting: "warn", leaving: "warn"};

function updateWorker(row, worker, pool) {
  row.worker = worker;
  row.pool = pool;
  const {cells} = row;
  write(cells.who, worker.name + (worker.pid === null ? "" : ` · pid\u00a0${worker.pid}`));
  row.badge.className = "badge " + (worker.canceling ? "bad" : STAGES[worker.stage] ?? "");
  write(row.badge, worker.canceling ? "told to stop" : worker.stage);
  const busy = worker.job !== null;
  if (busy) {
    write(row.route, worker.route ?? "");
    write(row.id, worker.job_id ?? "");
    row.id.title = worker.job_id ?? "";
    if (!row.route.parentNode) cells.job.replaceChildren(row.route, row.id);
  } else {
    cells.job.replaceChildren();
  }
  cells.run.classList.toggle("long", busy && worker.canceling);
  if (busy) tick(cells.run, worker.run_seconds);
  else {
    delete cells.run.dataset.seconds;
    write(cells.run, "");
  }
  write(cells.memory, memory(worker.memory));
  write(cells.done, String(worker.jobs_done));
  tick(cells.age, worker.age);
  if (role !== "operator") return;
  const {stack, cancel, restart} = row.buttons;
  showButton(stack, busy);
  showButton(cancel, busy && !worker.canceling);
  showButton(restart, worker.pid !== null && worker.stage !== "leaving");
  stack.setAttribute("aria-label", `Stack of job ${worker.job_id}`);
  cancel.setAttribute("aria-label", `Cancel job ${worker.job_id}`);
  restart.setAttribute("aria-label", `Restart worker ${worker.name}`);
}

// Times, on a logarithmic scale.

function showTimes({queue, run}) {
  const rows = [["Waiting", queue], ["Running", run]];
  keyed($("times"), rows, ([name]) => name, ([name]) => {
    const cells = ["p50", "p90", "p99", "count"].map(() => element("td"));
    return holding(element("tr", {}, element("th", {scope: "row"}, name), ...cells), cells);
  }, (cells, [, spread]) => {
    const values = ["p50", "p90", "p99"].map((name) => spread.count ? duration(spread[name]) : "–");
    [...values, String(spread.count)].forEach((text, index) => write(cells[index], text));
  });
  drawTimes(queue, run);
}

function drawTimes(queue, run) {
  const width = $("times-plot").clientWidth;
  const left = 66, right = 22, height = 92;
  const highest = Math.max(queue.p99, run.p99, 0.1);
  const [low, high] = [-3, Math.ceil(Math.log10(highest) - 1e-9)];
  const x = (seconds) => left + (width - left - right) * (Math.log10(Math.max(seconds, 0.001)) - low) / (high - low);
  const svg = shape("svg", {height, viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": "How long jobs waited and ran; the table below has the figures"});
  for (let power = low; power <= high; power += 1) {
    const at = x(10 ** power);
    const name = power < 0 ? `${10 ** (power + 3)} ms` : `${10 ** power} s`;
    svg.append(shape("line", {class: "grid", x1: at, x2: at, y1: 4, y2: 72}), shape("text", {x: at, y: 88, "text-anchor": "middle"}, name));
  }
  [["Waiting", "queue", queue, 22], ["Running", "run", run, 54]].forEach(([name, kind, spread, y]) => {
    svg.append(shape("text", {class: "name", x: 0, y: y + 4}, name));
    if (!spread.count) return;
    svg.append(shape("line", {class: `range ${kind}`, x1: x(spread.p50), x2: x(spread.p99), y1: y, y2: y}));
    const marks = [["p50", {r: 5.5}], ["p90", {r: 4}], ["p99", {r: 2.5}]];
    for (const [which, size] of marks) {
      const mark = shape("circle", {class: kind, cx: x(spread[which]), cy: y, ...size});
      mark.append(shape("title", {}, `${name}: ${which} ${duration(spread[which])}`));
      svg.append(mark);
    }
    svg.append(shape("text", {x: x(spread.p50), y: y - 9, "text-anchor": "middle"}, "p50"));
    if (x(spread.p99) - x(spread.p50) > 32) svg.append(shape("text", {x: x(spread.p99), y: y - 9, "text-anchor": "middle"}, "p99"));
  });
  $("times-plot").replaceChildren(svg);
}

function showRefusals(refusals) {
  $("no-refusals").hidden = refusals.length > 0;
  const most = refusals[0]?.count ?? 1;
  keyed($("refusals"), refusals, (one) => `${one.status} ${one.reason}`, (one) => {
    const name = one.reason === String(one.status) ? one.reason : `${words(one.reason)} (${one.status})`;
    const count = element("span");
    const fill = element("span");
    return holding(element("li", {}, element("span", {}, name), count, element("span", {class: "bar"}, fill)), {count, fill});
  }, (item, one) => {
    write(item.count, one.count.toLocaleString("en"));
    item.fill.style.width = `${100 * one.count / most}%`;
  });
}

// Recent jobs: a table, and lanes of workers.

function showRecent(recent) {
  const newest = recent.slice(-LISTED).reverse();
  $("no-recent").hidden = recent.length > 0;
  $("recent").parentNode.hidden = recent.length === 0;
  keyed($("recent"), newest, (job) => `${job.id} ${job.created}`, makeRecent, () => {});
}

function makeRecent(job) {
  const waited = (job.started ?? job.ended) - job.created;
  const reason = job.reason ? `, ${words(job.reason)}` : "";
  const cells = [
    ["Ended", new Date(job.ended * 1000).toLocaleTimeString("en-GB")],
    ["Outcome", (STATES[job.state] ?? job.state) + reason],
    ["Route", job.route], ["Id", job.id],
    ["Status", job.status === 499 ? "499, left" : String(job.status)],
    ["Waited", duration(waited)], ["Ran", job.started === null ? "–" : duration(job.ended - job.started)],
  ];
  return element("tr", {}, ...cells.map(([label, text]) => element("td", {"data-label": label, title: text, class: label === "Id" || label === "Outcome" ? "wide" : "slim"}, text)));
}

const PATTERNS = {failed: "M0 0L6 6M6 0L0 6", canceled: "M0 6L6 0", expired: "M3 0V6"};

function patterns() {
  const defs = shape("defs");
  for (const [state, path] of Object.entries(PATTERNS)) {
    const pattern = shape("pattern", {id: `p-${state}`, class: state, width: 6, height: 6, patternUnits: "userSpaceOnUse"});
    pattern.append(shape("rect", {width: 6, height: 6}), shape("path", {d: path, "stroke-width": 1.6}));
    defs.append(pattern);
  }
  return defs;
}

function jobBar(state, at) {
  const known = state in PATTERNS;
  return shape("rect", {class: state, ...at, ...(known ? {fill: `url(#p-${state})`, stroke: "currentColor"} : {})});
}

function drawLegend() {
  const entry = (kind, text) => {
    const svg = shape("svg", {viewBox: "0 0 26 12"});
    if (kind === "q") svg.append(shape("rect", {class: "q", x: 0, y: 5, width: 26, height: 3}));
    else svg.append(jobBar(kind, {x: 1, y: 1, width: 24, height: 10, rx: 2}));
    return element("span", {}, svg, text);
  };
  $("legend").replaceChildren(entry("q", "waiting"), entry("running", "running now"), ...Object.entries(STATES).map(([state, text]) => entry(state, text)));
}

// The lanes: one for each worker that is known; of others, as many as have overlapping jobs.
function lanesOf(state, now) {
  const lanes = new Map();
  const lane = (pool, name) => {
    const key = JSON.stringify([pool, name]);
    if (!lanes.has(key)) lanes.set(key, {pool, name, jobs: []});
    return lanes.get(key);
  };
  const packed = new Map();
  const place = (pool, job) => {
    const ends = packed.get(pool) ?? packed.set(pool, []).get(pool);
    let row = ends.findIndex((end) => end <= job.from);
    if (row < 0) row = ends.push(0) - 1;
    ends[row] = job.to;
    lane(pool, `#${row + 1}`).jobs.push(job);
  };
  for (const pool of state.pools) {
    const {kind} = pool;
    for (const worker of pool.workers) {
      const own = kind === "reactor" ? null : lane(pool.name, worker.name);  // a coroutine is its job alone
      if (worker.job === null) continue;
      const job = {id: worker.job_id, route: worker.route, created: null, from: now - worker.run_seconds - passed(), to: now, state: worker.canceling ? "running canceling" : "running", words: "running"};
      if (own) own.jobs.push(job);
      else place(pool.name, job);
    }
  }
  const reactors = new Set(state.pools.filter((pool) => pool.kind === "reactor").map((pool) => pool.name));
  for (const done of state.recent) {
    const job = {id: done.id, route: done.route, created: done.created, from: done.started ?? done.ended, to: done.ended, state: done.state, words: STATES[done.state] ?? done.state, never: done.started === null};
    if (job.never) lane(done.pool, "not started").jobs.push(job);
    else if (done.worker !== null && !reactors.has(done.pool)) lane(done.pool, done.worker).jobs.push(job);
    else place(done.pool, job);
  }
  const order = state.pools.map((pool) => pool.name);
  const inOrder = new Intl.Collator("en", {numeric: true});
  return [...lanes.values()].filter((lane) => lane.jobs.length > 0).sort(
    (one, other) => order.indexOf(one.pool) - order.indexOf(other.pool) || inOrder.compare(one.name, other.name));
}

// Times to mark on an axis: about as many as are wanted, at round distances.
function marksOf(span, wanted) {
  const rough = span / wanted;
  const unit = 10 ** Math.floor(Math.log10(rough));
  const step = unit * [1, 2, 5, 10].find((times) => unit * times >= rough);
  return Array.from({length: Math.floor(span / step) + 1}, (_, index) => index * step);
}

function drawLanes() {
  const box = $("lanes");
  const width = box.clientWidth;
  if (last === null || width === 0) return;
  const now = last.time + passed();
  const all = lanesOf(last, now);
  const shown = all.slice(0, LANES);
  // As far back as all that is known of goes: further back some jobs are not known any more.
  const oldest = last.recent.length ? Math.min(...last.recent.map((job) => job.ended)) : now - 60;
  const span = Math.min(120, Math.max(2, (now - oldest) * 1.02));
  const row = 22, left = width < 520 ? 84 : 150, right = 8, top = 4;
  const height = top + Math.max(1, shown.length) * row + 22;
  const x = (time) => left + (width - left - right) * Math.min(1, Math.max(0, 1 - (now - time) / span));
  const counts = Object.keys(STATES).map((state) => `${last.recent.filter((job) => job.state === state).length} ${state}`);
  const svg = shape("svg", {height, viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": `The last ${last.recent.length} jobs: ${counts.join(", ")}`});
  svg.append(patterns());
  let before = null;
  shown.forEach((lane, index) => {
    const y = top + index * row;
    svg.append(shape("rect", {class: "lane", x: left, y: y + 1, width: width - left - right, height: row - 3, rx: 3}));
    if (lane.pool !== before && index > 0) svg.append(shape("line", {class: "grid", x1: 0, x2: width, y1: y - .5, y2: y - .5}));
    const room = Math.floor(left / 7.2);
    const name = width < 520 || lane.pool === before ? lane.name : `${lane.pool} · ${lane.name}`;
    const label = shape("text", {class: lane.pool === before ? "" : "name", x: 0, y: y + 15}, name.length > room ? name.slice(0, room - 1) + "…" : name);
    label.append(shape("title", {}, `${lane.pool} ${lane.name}`));
    svg.append(label);
    before = lane.pool;
    const drawn = lane.jobs.filter((job) => job.to >= now - span);
    for (const job of drawn) {
      const [start, end] = [x(job.created ?? job.from), x(job.from)];
      if (end - start >= 0.5) svg.append(shape("rect", {class: "q", x: start, y: y + row - 6, width: end - start, height: 3}));
    }
    for (const job of drawn) {
      const [from, to] = [x(job.from), x(job.to)];
      const bar = jobBar(job.state, {x: from, y: y + 3, width: Math.max(job.never ? 5 : 2, to - from), height: row - 10, rx: 2});
      const waited = job.created === null ? "" : `, waited ${duration(job.from - job.created)}`;
      bar.append(shape("title", {}, `${job.route} ${job.id}\n${job.words}${waited}, ran ${duration(job.to - job.from)}`));
      svg.append(bar);
    }
  });
  for (const ago of marksOf(span, width < 520 ? 2 : 5)) {
    const at = x(now - ago);
    if (at > left + 24) svg.append(shape("text", {x: at, y: height - 5, "text-anchor": ago === 0 ? "end" : "middle"}, ago === 0 ? "now" : `${Number(ago.toPrecision(2))} s ago`));
  }
  if (all.length > LANES) svg.append(shape("text", {x: 0, y: height - 5}, `${all.length - LANES} more not drawn`));
  box.replaceChildren(...(all.length ? [svg] : []));
}

// What operators do.

let noticeTimer = 0;

function notify(text, bad = false) {
  const notice = $("notice");
  notice.className = bad ? "notice bad" : "notice";
  notice.hidden = false;
  write(notice, text);
  clearTimeout(noticeTimer);
  noticeTimer = setTimeout(() => { notice.hidden = true; }, 8000);
}

async function problemOf(response) {
  if (response.status === 401) return "Your token is no longer valid: load the page again to sign in.";
  try {
    return (await response.json()).detail || response.statusText;
  } catch {
    return `${response.status} ${response.statusText}`;
  }
}

async function act(path, body, done) {
  try {
    const response = await fetch(base + path, {method: "POST", headers: {"Content-Type": "application/json"}, body: JSON.stringify(body)});
    if (response.ok) notify(done(await response.json()));
    else notify(await problemOf(response), true);
  } catch {
    notify("The daemon could not be reached.", true);
  }
}

function ask(title, text, no, yes, then) {
  write($("confirm-title"), title);
  write($("confirm-text"), text);
  write($("confirm-no"), no);
  write($("confirm-yes"), yes);
  $("confirm-yes").onclick = () => { $("confirm").close(); then(); };
  openDialog($("confirm"));
}

function askCancel({job, job_id: id, route}, {name: pool}) {
  ask(`Cancel job ${id}?`, `It runs ${route} in pool ${pool}. Its work is lost, and its client is answered 503.`, "Let it run", "Cancel the job",
    () => act("cancel", {pool, job, id}, ({state}) => state === "canceled" ? `Job ${id} is canceled.` : `Job ${id} was told to stop.`));
}

function askRestart({name: worker, job}, {name: pool}) {
  ask(`Restart worker ${worker}?`, `A new process takes its place in pool ${pool}${job === null ? "" : " when its job is over"}.`, "Keep it", "Restart the worker",
    () => act("restart", {pool, worker}, () => `Worker ${worker} is being replaced.`));
}

// The focus goes back to the button, or near it where that has gone meanwhile.
function openDialog(dialog) {
  const before = document.activeElement;
  dialog.addEventListener("close", () => {
    if (before.isConnected && !before.hidden) before.focus();
    else (before.isConnected ? before.closest("td") : $("pools")).focus();
  }, {once: true});
  dialog.showModal();
}

let stackOf = null;

function openStack({job, job_id: id, name, route}, {name: pool}) {
  stackOf = {pool, job};
  write($("stack-title"), "Stack of a running job");
  write($("stack-of"), `${route} in ${pool}, ${name} · ${id}`);
  write($("stack-text"), "");
  openDialog($("stack"));
  readStack();
}

async function readStack() {
  const asked = stackOf;
  const note = (text) => { if (asked === stackOf) write($("stack-note"), text); };
  note("Asking its worker …");
  try {
    const response = await fetch(`${base}stack?${new URLSearchParams(asked)}`);
    if (!response.ok) return note(await problemOf(response));
    const text = await response.text();
    if (asked !== stackOf) return undefined;
    const pre = $("stack-text");
    write(pre, text);
    pre.scrollTop = pre.scrollHeight;  // where the code stands
    return note(`As of ${new Date().toLocaleTimeString("en-GB")}`);
  } catch {
    return note("The daemon could not be reached.");
  }
}

// The connection: a stream of documents, or else one every now and then.

let stream = null;
let timer = 0;
let pollingSince = 0;
let paused = false;

function link(kind, text) {
  $("link").className = `link ${kind}`;
  write($("link"), text);
  document.body.classList.toggle("stale", kind === "lost" || kind === "held");
}

function later(act, ms) {
  clearTimeout(timer);
  timer = setTimeout(act, ms);
}

function disconnect() {
  clearTimeout(timer);
  stream?.close();
  stream = null;
}

function connect() {
  disconnect();
  stream = new EventSource(base + "events");
  stream.addEventListener("state", (event) => {
    link("live", "Live");
    show(JSON.parse(event.data));
    later(poll, LIVE_SILENCE);
  });
  stream.onerror = () => { pollingSince = performance.now(); poll(); };
  later(poll, LIVE_SILENCE);
}

async function poll() {
  disconnect();
  try {
    const response = await fetch(base + "state", {signal: AbortSignal.timeout(10000)});
    if (paused) return;
    if (response.status === 401) {
      link("lost", "Signed out");
      $("sign-in").hidden = false;
      return;
    }
    if (!response.ok) throw new Error(String(response.status));
    show(await response.json());
    link("poll", "Every 2 s");
  } catch {
    if (paused) return;
    link("lost", last === null ? "Disconnected" : `Disconnected since ${new Date(Date.now() - passed() * 1000).toLocaleTimeString("en-GB")}`);
    pollingSince = 0;  // a stream as soon as there is somebody again
  }
  const again = performance.now() - pollingSince > STREAM_AGAIN || $("link").classList.contains("lost");
  later(again ? connect : poll, POLL_EVERY);
}

function pause(on) {
  paused = on;
  $("pause").setAttribute("aria-pressed", String(on));
  if (on) {
    disconnect();
    link("held", "Paused");
  } else {
    connect();
  }
}

drawLegend();
$("sign-in").hidden = role !== "visitor";
$("pause").addEventListener("click", () => pause(!paused));
$("stack-refresh").addEventListener("click", readStack);
$("stack-close").addEventListener("click", () => $("stack").close());
$("stack").addEventListener("close", () => { stackOf = null; });
$("confirm-no").addEventListener("click", () => $("confirm").close());
// A page that nobody sees asks for nothing.
document.addEventListener("visibilitychange", () => {
  if (paused) return;
  if (document.hidden) disconnect();
  else connect();
});
new ResizeObserver(() => { if (last !== null) { drawTimes(last.percentiles.queue, last.percentiles.run); drawLanes(); } }).observe($("lanes").parentNode);
const calm = matchMedia("(prefers-reduced-motion: reduce)");
setInterval(() => { if (!paused && !document.hidden && !document.body.classList.contains("stale")) pass(); }, calm.matches ? 5000 : 1000);
connect();
