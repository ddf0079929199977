// The console's page: shows what the event stream tells, and acts through the same API that curl would use.
// Everything that comes from a job is put in as text, never as markup.
"use strict";

const base = location.pathname.replace(/ui\/?$/, "");
const states = ["scheduled", "queued", "running", "succeeded", "failed", "cancelled"];
const rowsMax = 200; // jobs that are held: as many that match the filter, as many others
const jobs = new Map(); // id → job, as last told
const texts = new Map(); // path → small inputs and results, as shown in the panel
let functions = []; // as the API lists them
let functionsAt = 0; // when they were asked for
let stats = []; // counts by function, as last told
let shown = null; // state to show, or all
let only = null; // function to show, or all
let open = null; // id of the job in the panel
let held = 0; // new jobs that wait behind the button while the pointer is on the table
let follow = null; // stops the log that the panel follows
let ticking = null; // the timer that counts the time of running jobs, while there are any
let ahead = 0; // how far the server's clock is ahead of ours, in milliseconds

const $ = (id) => document.getElementById(id);
const el = (tag, props = {}, ...children) => {
  const node = Object.assign(document.createElement(tag), props);
  node.append(...children);
  return node;
};

// --- talking to the server ---

// A server with a token asks the browser for it when the page is opened; the browser sends it from then on.
const ask = (path, options = {}) => fetch(base + path, options);

// Server-sent events by fetch, so that a lost connection shows and is made again after a second.
async function listen() {
  for (;;) {
    try {
      const response = await ask("ui/events");
      if (!response.ok) throw new Error(response.statusText);
      const date = Date.parse(response.headers.get("date"));
      // The header has whole seconds: less than two apart are the same time.
      ahead = Math.abs(date - Date.now()) < 2000 ? 0 : date - Date.now() || 0;
      live("live");
      await read(response.body, (line) => {
        if (line.startsWith("data:")) told(JSON.parse(line.slice(5)));
      });
    } catch { /* told below */ }
    live("lost");
    await new Promise((done) => setTimeout(done, 1000));
  }
}

async function read(body, eachLine) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    const lines = (rest + value).split("\n");
    rest = lines.pop();
    lines.forEach(eachLine);
  }
}

function live(word) {
  $("live").className = word;
  $("live-word").textContent = word === "live" ? "live" : "connection lost, trying again";
}

// --- what was told ---

function told(frame) {
  const kept = jobs.get(open);
  if (frame.kind === "snapshot") jobs.clear();
  if (kept) jobs.set(open, kept);
  let fresh = 0;
  for (const job of frame.jobs) {
    if (!jobs.has(job.id) && matches(job)) fresh += 1;
    jobs.set(job.id, job);
  }
  trim();
  stats = frame.stats;
  askFunctions();
  drawFunctions();
  const busy = $("jobs").matches(":hover") && frame.kind === "changes";
  if (busy) held += fresh; else held = 0;
  draw(busy);
  if (frame.kind === "snapshot") askOlder();
  if (open && frame.jobs.some((job) => job.id === open)) drawPanel();
}

const matches = (job) => (!shown || job.state === shown) && (!only || job.function === only);

// Ids grow with time, so the smallest are the oldest.
function trim() {
  for (const group of [true, false]) {
    const ids = [...jobs.values()].filter((job) => matches(job) === group && job.id !== open).map((job) => job.id).sort();
    ids.slice(0, Math.max(0, ids.length - rowsMax)).forEach((id) => jobs.delete(id));
  }
}

// A filter shows the latest that match, not those that match among the latest of all.
async function askOlder() {
  if (!shown && !only) return;
  const query = new URLSearchParams({ limit: 100 });
  if (shown) query.set("state", shown);
  if (only) query.set("function", only);
  const asked = [shown, only];
  try {
    const page = await (await ask(`v1/jobs?${query}`)).json();
    if (asked[0] !== shown || asked[1] !== only) return;
    page.jobs.forEach((job) => jobs.set(job.id, job));
    draw(false);
  } catch { /* the next snapshot asks again */ }
}

// Functions without a job are told by no event. Asked for with a frame, so that a quiet page asks nothing.
async function askFunctions() {
  if (Date.now() - functionsAt < 5000) return;
  functionsAt = Date.now();
  try {
    functions = (await (await ask("v1/functions")).json()).functions;
    drawFunctions();
    draw(true);
  } catch { /* the next frame asks again */ }
}

// --- drawing ---

function drawFunctions() {
  const counted = new Map(stats.map((f) => [f.name, f]));
  const known = new Map(functions.map((f) => [f.name, f]));
  const names = [...new Set([...counted.keys(), ...known.keys()])].sort();
  const cards = new Map([...$("functions").children].map((card) => [card.dataset.name, card]));
  const wanted = names.map((name) => cards.get(name) ?? newCard(name));
  wanted.forEach((card) => fillCard(card, counted.get(card.dataset.name) ?? {}, known.get(card.dataset.name)));
  if (wanted.some((card, at) => card !== $("functions").children[at])) $("functions").replaceChildren(...wanted);
  [...$("functions").children].slice(wanted.length).forEach((card) => card.remove());
}

function newCard(name) {
  const card = el("button", { className: "function", title: "show only its jobs", onclick: () => filter(shown, only === name ? null : name) });
  card.dataset.name = name;
  card.append(el("b", {}, ...breakable(name)), el("i"), el("div"));
  return card;
}

function fillCard(card, counts, known) {
  const [, mark, numbers] = card.children;
  const error = known?.error;
  mark.textContent = counts.paused ? "paused" : error ? "broken" : known ? "" : "not in kvern.toml";
  mark.className = counts.paused || !error ? "mark" : "mark broken";
  mark.title = error ?? "";
  card.setAttribute("aria-pressed", card.dataset.name === only);
  const some = states.filter((state) => counts[state]);
  numbers.replaceChildren(...some.map((state) => el("span", { className: state, textContent: `${counts[state].toLocaleString()} ${state}` })));
  if (!some.length) numbers.replaceChildren(el("span", { textContent: "no jobs" }));
}

function filter(state, name) {
  shown = state;
  only = name;
  held = 0;
  [...$("states").children].forEach((b) => b.setAttribute("aria-pressed", b.textContent === (state ?? "all")));
  [...$("functions").children].forEach((card) => card.setAttribute("aria-pressed", card.dataset.name === name));
  draw(false);
  askOlder();
}

function draw(keepRows) {
  const wanted = [...jobs.values()].filter(matches);
  wanted.sort((a, b) => (a.id < b.id ? 1 : -1));
  const body = $("jobs");
  const present = new Map([...body.children].map((row) => [row.dataset.id, row]));
  const kept = keepRows ? wanted.filter((job) => present.has(job.id)) : wanted.slice(0, rowsMax);
  kept.forEach((job) => fill(present.get(job.id) ?? newRow(job.id, present), job));
  const rows = kept.map((job) => present.get(job.id));
  if (!keepRows || rows.length !== body.children.length) body.replaceChildren(...rows);
  $("fresh").hidden = !held;
  $("fresh").textContent = `▲ ${held} new`;
  document.querySelector("table").hidden = wanted.length === 0;
  drawEmpty(wanted.length === 0);
  tick();
}

function drawEmpty(isEmpty) {
  $("empty").hidden = !isEmpty;
  if (!isEmpty) return;
  const of = only ? ` of ${only}` : "";
  $("empty-word").textContent = shown ? `No job${of} is ${shown}.` : `No jobs${of} yet. Make one:`;
  $("try").hidden = Boolean(shown);
  const name = only ?? functions[0]?.name ?? "NAME";
  $("try").textContent = `curl -d '{}' ${location.origin}${base}v1/functions/${name}/jobs`;
}

// Time passes only for running jobs: without one there is no timer.
function tick() {
  const isRunning = [...jobs.values()].some((job) => job.state === "running");
  if (isRunning && !ticking) ticking = setInterval(drawTimes, 1000);
  if (!isRunning && ticking) ticking = void clearInterval(ticking);
}

function drawTimes() {
  for (const row of $("jobs").children) {
    const job = jobs.get(row.dataset.id);
    if (job?.state === "running") row.children[3].textContent = duration(job);
  }
  const job = jobs.get(open);
  const took = $("panel").querySelector(".took");
  if (took && job?.state === "running") took.textContent = duration(job);
}

function newRow(id, present) {
  const row = el("tr", { tabIndex: 0 });
  row.dataset.id = id;
  row.append(...["state", "name", "attempt", "took", "when", "wide"].map((className) => el("td", { className })));
  present.set(id, row);
  return row;
}

function fill(row, job) {
  const [state, name, attempt, took, when, what] = row.children;
  row.className = job.id === open ? "open" : "";
  state.className = `state ${job.state}`;
  state.textContent = job.state;
  if (name.textContent !== job.function) name.replaceChildren(...breakable(job.function));
  attempt.textContent = job.attempts_max ? `${job.attempt} of ${job.attempts_max}` : job.attempt;
  attempt.title = job.attempts_max ? "its attempt, and the number of the last one that it gets" : "its attempt";
  took.textContent = duration(job);
  const due = `${job.attempt ? "again at" : "at"} ${clock(job.due_at)}`;
  when.textContent = job.state === "scheduled" && job.due_at ? due : clock(job.created_at);
  when.title = `accepted ${local(job.created_at)}`;
  what.className = job.error ? "wide" : "wide id";
  what.replaceChildren(el("div", { textContent: job.error ? headline(job.error) : job.id }));
}

function drawPanel() {
  const job = jobs.get(open);
  const panel = $("panel");
  panel.hidden = !job;
  if (!job) return;
  const log = panel.querySelector(".log") ?? el("pre", { className: "log" });
  const focused = panel.contains(document.activeElement) && document.activeElement.textContent;
  panel.replaceChildren(
    el("header", {},
      el("h2", {}, ...breakable(job.function)), el("span", { className: `state ${job.state}`, textContent: job.state }), actions(job)),
    ...errorOf(job),
    facts(job),
    ...attemptsOf(job),
    el("h3", { textContent: "Log" }), log,
    ...bytesOf("Result", job.result, `v1/jobs/${job.id}/result`, job.finished_at),
    ...bytesOf("Input", { bytes: job.input_bytes, content_type: job.content_type ?? "text of no type" }, `v1/jobs/${job.id}/input`),
  );
  if (focused) [...panel.querySelectorAll("button")].find((b) => b.textContent === focused)?.focus();
}

function actions(job) {
  const final = ["succeeded", "failed", "cancelled"].includes(job.state);
  const buttons = [];
  if (job.state === "failed" || job.state === "cancelled") buttons.push(button("Retry", () => act(job.id, "retry")));
  if (!final) buttons.push(button("Cancel", () => act(job.id, "cancel")));
  buttons.push(button("Close", () => show(null)));
  return el("div", { className: "actions" }, ...buttons);
}

function errorOf(job) {
  if (!job.error) return [];
  const parts = [el("p", { className: "error", textContent: headline(job.error) })];
  if (job.error.trace) parts.push(el("pre", { className: "trace", textContent: job.error.trace }));
  return parts;
}

function facts(job) {
  const list = [
    ["job", job.id, "id"], ["attempt", job.attempts_max ? `${job.attempt} of ${job.attempts_max}` : job.attempt],
    ["accepted", local(job.created_at)], ["next attempt", local(job.due_at)], ["started", local(job.started_at)],
    ["finished", local(job.finished_at)], [job.state === "running" ? "runs for" : "took", duration(job), "took"],
    ["tags", Object.entries(job.tags ?? {}).map(([key, value]) => `${key}:${value}`).join(" ")],
  ].filter(([, value]) => value);
  return el("dl", {}, ...list.flatMap(([key, textContent, className = ""]) => [el("dt", { textContent: key }), el("dd", { textContent, className })]));
}

function attemptsOf(job) {
  if (!job.attempts?.length) return [];
  const lines = job.attempts.map((a) => el("tr", {},
    el("td", { textContent: a.number }), el("td", { textContent: clock(a.finished_at) }), el("td", { textContent: duration(a) }),
    el("td", { className: "wide", textContent: a.error ? `${a.outcome}: ${a.error}` : a.outcome })));
  return [el("h3", { textContent: "Attempts" }), el("table", { className: "attempts" }, el("tbody", {}, ...lines))];
}

// An input, or a result of the time `version`: a link to the bytes, and the text itself if it is small.
function bytesOf(title, about, path, version = "") {
  if (!about) return [];
  const parts = [el("h3", { textContent: title }), el("p", {}, el("a", { href: base + path, textContent: `${amount(about.bytes)} of ${about.content_type}` }))];
  if (!about.bytes || about.bytes > 65536 || !/json|text|form/.test(about.content_type)) return parts;
  const text = el("pre", { textContent: texts.get(path + version) ?? "…" });
  if (!texts.has(path + version)) {
    ask(path).then((r) => r.text()).then((t) => {
      texts.set(path + version, pretty(t));
      text.textContent = pretty(t);
    }).catch(() => { text.textContent = "(could not be read)"; });
  }
  return [...parts, text];
}

const button = (word, onclick) => el("button", { textContent: word, onclick });

// --- acting ---

async function act(id, verb) {
  const response = await ask(`v1/jobs/${id}/${verb}`, { method: "POST" });
  const answer = await response.json();
  if (!response.ok) return void alert(answer.detail ?? answer.title);
  jobs.set(id, answer);
  draw(false);
  show(id);
}

async function show(id) {
  open = id;
  texts.clear();
  // A link to the job, for whoever is asked about it; without an entry in the history for each look.
  history.replaceState(null, "", id ? `#${id}` : location.pathname + location.search);
  follow?.abort();
  $("panel").replaceChildren();
  $("panel").hidden = !id;
  [...$("jobs").children].forEach((row) => row.classList.toggle("open", row.dataset.id === id));
  if (!id) return;
  if (!jobs.has(id)) {
    const response = await ask(`v1/jobs/${id}`);
    if (!response.ok || open !== id) return;
    jobs.set(id, await response.json());
  }
  drawPanel();
  followLog(id);
}

async function followLog(id) {
  follow = new AbortController();
  const log = $("panel").querySelector(".log");
  try {
    const response = await ask(`v1/jobs/${id}/logs?follow=true`, { signal: follow.signal });
    const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
    for (let piece = await reader.read(); !piece.done; piece = await reader.read()) {
      log.append(piece.value);
      log.scrollTop = log.scrollHeight;
    }
    if (!log.textContent) log.textContent = "(nothing was printed)";
  } catch { /* another job was opened */ }
}

// --- words ---

const headline = (error) => (error.class ? `${error.class}: ${error.message}` : error.message);
// A long name may be broken where its words end.
const breakable = (name) => name.split(/(?<=[_-])/).flatMap((part) => [part, el("wbr")]);
const isToday = (time) => new Date(time).toDateString() === new Date().toDateString();
const clock = (time) => (!time ? "" : isToday(time) ? new Date(time).toLocaleTimeString() : local(time));
const local = (time) => (time ? new Date(time).toLocaleString() : "");
const amount = (bytes) => (bytes < 10240 ? `${bytes} bytes` : bytes < 10485760 ? `${Math.round(bytes / 1024)} KiB` : `${Math.round(bytes / 1048576)} MiB`);

// How long a job or an attempt took, or runs until now.
function duration({ started_at: from, finished_at: to, state }) {
  if (!from || (!to && state !== "running")) return "";
  const until = state === "running" ? Date.now() + ahead : new Date(to);
  const ms = Math.max(0, until - new Date(from));
  if (state !== "running" && ms < 1000) return `${ms} ms`;
  const s = Math.floor(ms / 1000);
  if (s < 60) return state === "running" ? `${s} s` : `${(ms / 1000).toFixed(1)} s`;
  if (s < 3600) return `${Math.floor(s / 60)} m ${s % 60} s`;
  return `${Math.floor(s / 3600)} h ${Math.floor(s / 60) % 60} m`;
}

function pretty(text) {
  try { return JSON.stringify(JSON.parse(text), null, 2); } catch { return text; }
}

// --- begin ---

function begin() {
  $("states").replaceChildren(...["all", ...states].map((word) => {
    const b = button(word, () => filter(word === "all" ? null : word, only));
    b.setAttribute("aria-pressed", word === "all");
    return b;
  }));
  $("fresh").onclick = () => { held = 0; draw(false); };
  $("jobs").addEventListener("click", (e) => show(e.target.closest("tr").dataset.id));
  $("jobs").addEventListener("keydown", (e) => { if (e.key === "Enter") show(e.target.closest("tr").dataset.id); });
  document.addEventListener("keydown", (e) => { if (e.key === "Escape") show(null); });
  if (/^#[0-9a-f-]{36}$/.test(location.hash)) show(location.hash.slice(1));
  listen();
}

begin();
