// Keeps ADDS_IN_FLIGHT `queue.add` calls under way for some seconds: `add.mjs REDIS_PORT SECONDS ADDS_IN_FLIGHT`, body on stdin.
// No HTTP stands in front, so this is the most that a Node gateway over BullMQ could reach.
import { readFileSync } from 'node:fs';
import { Queue } from 'bullmq';

const [port, seconds, inFlight] = process.argv.slice(2).map(Number);
const body = JSON.parse(readFileSync(0, 'utf8'));
const queue = new Queue('bench', { connection: { host: '127.0.0.1', port } });
await queue.waitUntilReady();

const times = [];
const start = performance.now();
const end = start + seconds * 1000;

async function addUntilTheEnd() {
  for (let before = performance.now(); before < end; ) {
    await queue.add('noop', body);
    const after = performance.now();
    times.push(after - before);
    before = after;
  }
}

await Promise.all(Array.from({ length: inFlight }, addUntilTheEnd));
const elapsed = (performance.now() - start) / 1000;
times.sort((a, b) => a - b);
const cpu = process.cpuUsage();
console.log(JSON.stringify({
  requests: times.length,
  rate: times.length / elapsed,
  seconds: elapsed,
  p50_ms: times[Math.floor(times.length * 0.5)],
  p99_ms: times[Math.floor(times.length * 0.99)],
  load_cpu_seconds: (cpu.user + cpu.system) / 1e6,
}));
await queue.close();
