// Queues no-op jobs in bulk: `fill.mjs REDIS_PORT`, one JSON body per line on stdin. Job ids are 1, 2, 3, … in that order.
import { readFileSync } from 'node:fs';
import { Queue } from 'bullmq';

const BATCH = 500;
const port = Number(process.argv[2]);
const lines = readFileSync(0, 'utf8').split('\n').filter(Boolean);
const queue = new Queue('bench', { connection: { host: '127.0.0.1', port } });
for (let at = 0; at < lines.length; at += BATCH) {
  await queue.addBulk(lines.slice(at, at + BATCH).map((line) => ({ name: 'noop', data: JSON.parse(line) })));
}
await queue.close();
