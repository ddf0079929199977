// `event` is the JSON that came in; what is returned is the result.
export default async function hello(event, ctx) {
  console.log("attempt", ctx.attempt); // goes to the job's log
  return { hello: event?.name ?? "world" };
}
