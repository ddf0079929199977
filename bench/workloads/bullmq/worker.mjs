// A BullMQ worker with a no-op processor: `worker.mjs REDIS_PORT CONCURRENCY`. Runs until it is stopped.
import { Worker } from 'bullmq';

const [port, concurrency] = process.argv.slice(2).map(Number);
const worker = new Worker('bench', async (job) => job.data.n, { connection: { host: '127.0.0.1', port }, concurrency });
worker.on('error', (error) => console.error(error));
process.on('SIGTERM', () => process.exit(0));
