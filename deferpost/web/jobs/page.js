
"use strict";
// Whatever a client or a handler could have chosen gets into the page as text, never as HTML.

const SHOWN = 50;  // events that are kept on the page
const PREVIEW = 64 * 1024;  // bytes of a result that are shown

const $ = (id) => document.getElementById(id);
// From the origin, which has no user and password in it even where the address has.
const base = location.origin + location.pathname;

const ENDED = new Set(["succeeded", "failed", "canceled", "expired"]);
const MARKS = {queued: "…", running: "▶", canceling: "◌", succeeded: "✓", failed: "✕", canceled: "⊘", expired: "◷"};
const words = (name) => name.replaceAll("_", " ");

function write(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

function element(tag, text = "", name = "") {
  const made = document.createElement(tag);
  made.textContent = text;
  if (name) made.className = name;
  return made;
}

function notice(text) {
  $("notice").hidden = !text;
  write($("notice"), text);
}

function link(kind, text) {
  $("link").className = "link " + kind;
  write($("link"), text);
}

const UNITS = [[86400, "d"], [3600, "h"], [60, "min"]];

function duration(seconds) {
  if (seconds < 1) return Math.round(seconds * 1000) + " ms";
  if (seconds < 10) return seconds.toFixed(1) + " s";
  if (seconds < 60) return Math.floor(seconds) + " s";
  for (const [index, [size, name]] of UNITS.entries()) {
    if (seconds < size) continue;
    const [smaller, unit] = UNITS[index + 1] ?? [1, "s"];
    return `${Math.floor(seconds / size)} ${name} ${Math.floor((seconds % size) / smaller)} ${unit}`;
  }
  return "";
}

const moment = (text) => new Date(text).toLocaleString();

function size(bytes) {
  if (bytes < 1024) return bytes + " bytes";
  if (bytes < 2 ** 20) return (bytes / 1024).toFixed(1) + " KiB";
  return (bytes / 2 ** 20).toFixed(1) + " MiB";
}

// The document.

let job = null;
let jobAt = 0;  // when it came, in ms of this page
let asking = null;

async function load() {
  const response = await fetch(base, {headers: {Accept: "application/json"}, cache: "no-store"});
  const document = await response.json();
  if (!response.ok) throw new Error(document.detail ?? `The server answered ${response.status}.`);
  show(document);
}

// Events may come quickly: one request at a time, and one more behind it.
function refresh() {
  if (asking) {
    asking.again = true;
    return;
  }
  const mine = asking = {again: false};
  load().then(() => notice(""), (error) => notice(error.message)).finally(() => {
    asking = null;
    if (mine.again) refresh();
  });
}

function show(found) {
  job = found;
  jobAt = performance.now();
  const ended = ENDED.has(job.state);
  write($("route"), job.route);
  document.title = `${MARKS[job.state] ?? ""} ${job.state} ${job.route}`;
  $("state").className = "badge " + (job.state === "succeeded" ? "good" : ended ? "bad" : "");
  write($("state"), `${MARKS[job.state] ?? ""} ${job.state}`);
  write($("reason"), job.reason ? words(job.reason) : "");
  if (ended && $("cancel") === document.activeElement) $("title").focus({preventScroll: true});
  $("cancel").hidden = ended;
  $("cancel").disabled = job.state === "canceling";
  showTimes();
  showProgress(job.progress);
  showFacts();
  showError(job.error);
  if (ended && job.result) showResult(job.result);
}

function showTimes() {
  if (!job) return;
  const passed = ENDED.has(job.state) ? 0 : (performance.now() - jobAt) / 1000;
  const runs = job.started !== null && job.state !== "queued";
  const waited = job.queue_seconds + (runs ? 0 : passed);
  const ran = runs ? job.run_seconds + passed : 0;
  const all = Math.max(waited + ran, 0.001);
  write($("waited-name"), runs || ENDED.has(job.state) ? "Waited" : "Waits");
  write($("ran-name"), runs && !ENDED.has(job.state) ? "Runs" : "Ran");
  write($("waited"), duration(waited));
  write($("ran"), runs ? duration(ran) : "–");
  $("waited-bar").style.width = `${100 * waited / all}%`;
  $("ran-bar").style.marginLeft = `${Math.min(99, 100 * waited / all)}%`;
  $("ran-bar").style.width = `${100 * ran / all}%`;
}

function showProgress(progress) {
  $("progress-part").hidden = !progress;
  if (!progress) return;
  const bar = $("progress");
  if (progress.total) {
    bar.max = progress.total;
    bar.value = progress.done;
    write($("progress-words"), `${progress.done} of ${progress.total}`);
  } else {
    bar.removeAttribute("value");
    if (ENDED.has(job.state)) bar.value = bar.max;
    write($("progress-words"), String(progress.done));
  }
  write($("message"), progress.message ?? "");
}

function showFacts() {
  const facts = [["Id", job.id], ["Created", moment(job.created)]];
  if (job.queue) facts.push(["Place in the queue", String(job.queue.position)]);
  if (job.queue?.estimated_start) facts.push(["Likely to start", moment(job.queue.estimated_start)]);
  if (job.started) facts.push(["Started", moment(job.started)]);
  if (job.finished) facts.push(["Ended", moment(job.finished)]);
  if (job.expires) facts.push(["Kept until", moment(job.expires)]);
  if (job.attempt > 1) facts.push(["Attempt", String(job.attempt)]);
  if (job.webhook) facts.push(["Webhook", job.webhook.state]);
  $("facts").replaceChildren(...facts.map(([name, value]) => {
    const part = element("div");
    part.append(element("dt", name), element("dd", value));
    return part;
  }));
}

function showError(error) {
  $("error-part").hidden = !error;
  if (!error) return;
  write($("error-title"), `${error.status ?? ""} ${error.title ?? "Error"}`.trim());
  write($("error-detail"), error.detail ?? "");
  $("error-more").hidden = false;
  write($("error-more"), JSON.stringify(error, null, 2));
}

let previewed = false;

function showResult(result) {
  $("result-part").hidden = false;
  $("result").href = base + "/result";
  const facts = [`status ${result.status}`, result.content_type, size(result.length ?? 0)];
  write($("result-kind"), facts.filter(Boolean).join(", "));
  const kind = (result.content_type ?? "").split(";")[0].trim().toLowerCase();
  const isText = kind.startsWith("text/") || /[/+](json|xml|yaml|x-ndjson)$/.test(kind);
  if (previewed || !isText || !result.length || job.error) return;
  previewed = true;
  preview(result).catch(() => { previewed = false; });
}

async function preview(result) {
  const response = await fetch(base + "/result", {headers: {Range: `bytes=0-${PREVIEW - 1}`}});
  const reader = response.body.getReader();
  const decoder = new TextDecoder();
  let text = "", bytes = 0;
  while (bytes < PREVIEW) {  // what has no parts comes as a whole
    const {done, value} = await reader.read();
    if (done) break;
    const piece = value.subarray(0, PREVIEW - bytes);
    bytes += piece.length;
    text += decoder.decode(piece, {stream: true});
  }
  reader.cancel().catch(() => {});
  $("preview").hidden = false;
  write($("preview"), text);
  $("preview-more").hidden = bytes >= (result.length ?? 0);
}

// Events.

function tell(event, text) {
  $("no-events").hidden = true;
  const line = element("li");
  line.append(element("span", event.lastEventId, "number"), element("span", event.type), element("span", text));
  $("events").prepend(line);
  while ($("events").children.length > SHOWN) $("events").lastChild.remove();
}

function follow() {
  const stream = new EventSource(base + "/events");
  stream.onopen = () => link("live", "Live");
  stream.onerror = () => {
    if (stream.readyState === EventSource.CLOSED) link("lost", "No events");
    else link("lost", "Connection lost, trying again");
    refresh();
  };
  stream.addEventListener("state", (event) => {
    const data = JSON.parse(event.data);
    tell(event, data.state + (data.reason ? `: ${words(data.reason)}` : ""));
    refresh();
  });
  stream.addEventListener("progress", (event) => {
    const data = JSON.parse(event.data);
    const part = data.total ? `${data.done} of ${data.total}` : String(data.done);
    tell(event, [part, data.message].filter(Boolean).join(": "));
    if (job && !ENDED.has(job.state)) showProgress(data);
  });
  stream.addEventListener("end", (event) => {
    stream.close();
    link("", "Ended");
    const data = JSON.parse(event.data);
    tell(event, data.state + (data.reason ? `: ${words(data.reason)}` : ""));
    show(data);
  });
}

// Canceling.

$("cancel").onclick = () => $("confirm").showModal();
$("confirm-no").onclick = () => $("confirm").close();
$("confirm-yes").onclick = async () => {
  $("confirm").close();
  $("cancel").disabled = true;
  try {
    const response = await fetch(base + "/cancel", {
      method: "POST", headers: {"Content-Type": "application/json"}, body: "{}",
    });
    const found = await response.json();
    if (!response.ok) throw new Error(found.detail ?? `The server answered ${response.status}.`);
    notice("");
    show(found);
  } catch (error) {
    $("cancel").disabled = false;
    notice(error.message);
  }
};

setInterval(showTimes, 500);
refresh();
follow();
