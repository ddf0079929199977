// The no-op of the benchmark as a Node handler.
export default function noop(event) {
  return event.n;
}
