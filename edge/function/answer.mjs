// Runs function.js for a Go test (see nodeproc): a line { requests } in, a line { answers } out.
// A request is that of eventOf and { raw }: whether the runtime has rawQueryString.
import { createInterface } from 'node:readline';
import { eventOf, load, outcome, parsedQuery, reassembled } from './cloudfront.mjs';

const handler = load();

function answer({ raw, ...request }) {
  const sent = raw ? request.query : reassembled(parsedQuery(request.query));
  try {
    return { sent, ...outcome(handler(eventOf(request), { raw, query: request.query })) };
  } catch (error) {
    return { sent, thrown: String(error.stack) };
  }
}

for await (const line of createInterface({ input: process.stdin, crlfDelay: Infinity })) {
  process.stdout.write(JSON.stringify({ answers: JSON.parse(line).requests.map(answer) }) + '\n');
}
