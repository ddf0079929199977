// The console's page: shows what the event stream tells, and acts through the same API that curl would use.
// Everything that comes from a job is put in as text, never as markup.
"use strict";

const base = location.pathname.replace(/ui\/?$/, "");
const states = ["scheduled", "queued", "running", "succeeded", "failed", "cancelled"];
const rowsMax = 200;
const jobs = new Map(); // id → job, as last told
let shown = null; // state to show, or all
let open = null; // id of the job in the panel
let held = 0; // new jobs that wait behind the button while the pointer is on the table
let follow = null; // stops the log that the panel follows

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
  if (frame.kind === "snapshot") jobs.clear();
  let fresh = 0;
  for (const job of frame.jobs) {
    if (!jobs.has(job.id)) fresh += 1;
    jobs.set(job.id, job);
  }
  trim();
  drawFunctions(frame.stats);
  const busy = $("jobs").matches(":hover") && frame.kind === "changes";
  if (busy) held += fresh; else held = 0;
  draw(busy);
  if (open && frame.jobs.some((job) => job.id === open)) drawPanel();
}

// Ids grow with time, so the smallest are the oldest.
function trim() {
  if (jobs.size <= rowsMax) return;
  const old = [...jobs.keys()].sort().slice(0, jobs.size - rowsMax);
  old.filter((id) => id !== open).forEach((id) => jobs.delete(id));
}

// --- drawing ---

function drawFunctions(stats) {
  const shownStates = ["queued", "running", "succeeded", "failed"];
  $("functions").replaceChildren(...stats.map((f) => {
    const counts = shownStates.map((state) => {
      const n = state === "queued" ? f.queued + f.scheduled : f[state];
      return el("span", { className: `${state} ${n ? "some" : ""}`, textContent: `${n.toLocaleString()} ${state}` });
    });
    return el("div", { className: "function" }, el("b", { textContent: f.name + (f.paused ? " (paused)" : "") }), ...counts);
  }));
}

function draw(keepRows) {
  const wanted = [...jobs.values()].filter((job) => !shown || job.state === shown);
  wanted.sort((a, b) => (a.id < b.id ? 1 : -1));
  const body = $("jobs");
  const present = new Map([...body.children].map((row) => [row.dataset.id, row]));
  const kept = keepRows ? wanted.filter((job) => present.has(job.id)) : wanted;
  kept.forEach((job) => fill(present.get(job.id) ?? newRow(job.id, present), job));
  const rows = kept.map((job) => present.get(job.id));
  if (!keepRows || rows.length !== body.children.length) body.replaceChildren(...rows);
  $("fresh").hidden = !held;
  $("fresh").textContent = `▲ ${held} new`;
  $("empty").hidden = wanted.length > 0;
  document.querySelector("table").hidden = wanted.length === 0;
}

function newRow(id, present) {
  const row = el("tr", { tabIndex: 0 });
  row.dataset.id = id;
  row.append(...Array.from({ length: 6 }, () => el("td")));
  row.lastChild.className = "wide";
  present.set(id, row);
  return row;
}

function fill(row, job) {
  const [state, name, attempt, took, when, what] = row.children;
  row.className = job.id === open ? "open" : "";
  state.className = `state ${job.state}`;
  state.textContent = job.state;
  name.textContent = job.function;
  attempt.textContent = job.attempts_max ? `${job.attempt} of ${job.attempts_max}` : job.attempt;
  took.textContent = duration(job);
  const due = `${job.attempt ? "again at" : "at"} ${clock(job.due_at)}`;
  when.textContent = job.state === "scheduled" && job.due_at ? due : clock(job.created_at);
  what.className = job.error ? "wide" : "wide id";
  what.textContent = job.error ? headline(job.error) : job.id;
}

function drawPanel() {
  const job = jobs.get(open);
  const panel = $("panel");
  panel.hidden = !job;
  if (!job) return;
  const log = panel.querySelector(".log") ?? el("pre", { className: "log" });
  panel.replaceChildren(
    el("header", {}, el("h2", { textContent: job.function }), el("span", { className: `state ${job.state}`, textContent: job.state })),
    actions(job),
    ...errorOf(job),
    facts(job),
    ...attemptsOf(job),
    el("h3", { textContent: "Log" }), log,
    ...resultOf(job),
  );
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
  if (job.error.trace) parts.push(el("pre", { textContent: job.error.trace }));
  return parts;
}

function facts(job) {
  const list = [
    ["job", job.id], ["attempt", job.attempts_max ? `${job.attempt} of ${job.attempts_max}` : job.attempt],
    ["accepted", local(job.created_at)], ["next attempt", local(job.due_at)], ["started", local(job.started_at)],
    ["finished", local(job.finished_at)], ["took", duration(job)], ["input", `${job.input_bytes} bytes ${job.content_type ?? ""}`],
  ].filter(([, value]) => value);
  return el("dl", {}, ...list.flatMap(([key, value]) => [el("dt", { textContent: key }), el("dd", { textContent: value })]));
}

function attemptsOf(job) {
  if (!job.attempts?.length) return [];
  const lines = job.attempts.map((a) => `${a.number}  ${clock(a.finished_at)}  ${a.outcome}${a.error ? "  " + a.error : ""}`);
  return [el("h3", { textContent: "Attempts" }), el("pre", { textContent: lines.join("\n") })];
}

function resultOf(job) {
  if (!job.result) return [];
  const path = `v1/jobs/${job.id}/result`;
  const text = el("pre", { textContent: "…" });
  const small = job.result.bytes <= 65536 && /json|text/.test(job.result.content_type);
  if (small) ask(path).then((r) => r.text()).then((t) => { text.textContent = pretty(t); });
  const link = el("a", { href: base + path, textContent: `${job.result.bytes} bytes of ${job.result.content_type}` });
  return [el("h3", { textContent: "Result" }), el("p", {}, link), ...(small ? [text] : [])];
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

function show(id) {
  open = id;
  follow?.abort();
  $("panel").replaceChildren();
  $("panel").hidden = !id;
  [...$("jobs").children].forEach((row) => row.classList.toggle("open", row.dataset.id === id));
  if (!id) return;
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
const isToday = (time) => new Date(time).toDateString() === new Date().toDateString();
const clock = (time) => (!time ? "" : isToday(time) ? new Date(time).toLocaleTimeString() : local(time));
const local = (time) => (time ? new Date(time).toLocaleString() : "");

function duration(job) {
  if (!job.started_at || !job.finished_at) return "";
  const ms = new Date(job.finished_at) - new Date(job.started_at);
  return ms < 1000 ? `${ms} ms` : `${(ms / 1000).toFixed(1)} s`;
}

function pretty(text) {
  try { return JSON.stringify(JSON.parse(text), null, 2); } catch { return text; }
}

// --- begin ---

function begin() {
  $("states").replaceChildren(...["all", ...states].map((word) => {
    const b = button(word, () => {
      shown = word === "all" ? null : word;
      [...$("states").children].forEach((other) => other.setAttribute("aria-pressed", other === b));
      draw(false);
    });
    b.setAttribute("aria-pressed", word === "all");
    return b;
  }));
  $("try").textContent = `curl -d '{}' ${location.origin}${base}v1/functions/NAME/jobs`;
  $("fresh").onclick = () => { held = 0; draw(false); };
  $("jobs").addEventListener("click", (e) => show(e.target.closest("tr").dataset.id));
  $("jobs").addEventListener("keydown", (e) => { if (e.key === "Enter") show(e.target.closest("tr").dataset.id); });
  document.addEventListener("keydown", (e) => { if (e.key === "Escape") show(null); });
  listen();
}

begin();
