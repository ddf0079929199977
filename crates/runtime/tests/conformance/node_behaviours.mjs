import { spawn, spawnSync } from "node:child_process";

export const echo = (body, ctx) => new Response(body, { headers: { "content-type": ctx.content_type } });

export function show(body) {
  process.stdout.write(body.toString());
  return body;
}

const forever = new Promise(() => setInterval(() => {}, 1000));

function wait() {
  console.log("waiting");
  return forever;
}

export const hang = () => wait();

export function stubborn() {
  process.on("SIGTERM", () => {});
  return wait();
}

function children() {
  spawn("sleep", ["1000"], { stdio: "inherit" });
  spawn("sleep", ["1000"], { stdio: "inherit", detached: true });
  spawnSync("sh", ["-c", "setsid sleep 1000 &"], { stdio: "inherit" });
}

export function family() {
  children();
  return wait();
}

export function parent() {
  children();
  return "done";
}

export function die() {
  spawn("sleep", ["1000"], { stdio: "inherit" });
  console.log("dying");
  process.kill(process.pid, "SIGKILL");
}

export const large = (body) => Buffer.alloc(Number(body.toString()), "x");

export function flood(body) {
  for (let left = Number(body.toString()); left > 0; left -= 100_000) {
    process.stdout.write("x".repeat(Math.min(left, 100_000)));
  }
  return "done";
}

export const environment = () =>
  Object.entries(process.env)
    .map(([name, value]) => `${name}=${value}`)
    .join("\n");
