// Runs the edge for a Go test (see nodeproc): a line { requests } in, a line { answers } out. A request is that
// of eventOf and { raw, store }: whether the runtime has rawQueryString, and what the key value store has (see
// host.js). The arguments are edge.wasm, an index and the folder of the packed functions.
import { readFileSync } from 'node:fs';
import { createInterface } from 'node:readline';
import { instantiate } from '../shim/go.mjs';
import { eventOf, load, outcome, parsedQuery, reassembled } from './cloudfront.mjs';

const [, , module, index, functions] = process.argv;
const handler = load(`${functions}/function.js`), respond = load(`${functions}/response.js`);
const go = instantiate(new WebAssembly.Module(readFileSync(module)));
const wrong = go.offer(readFileSync(index));
if (wrong) throw new Error(`the index is ${wrong}`);

// What a device gets in the end, when a request for a package goes on to the origin handler: the key of an
// object, or { status, headers, body }.
function end(request) {
  const { uri, querystring, headers } = request;
  if (uri !== '/package') return undefined;
  const { status, key, ...texts } = go.decide(querystring, headers['x-precast-held']?.value ?? '', 0, headers['x-precast-cohort']?.value ?? '');
  if (key !== '') return { status, key };
  const lines = texts.headers.split('\n').filter(Boolean).map((line) => line.split(': '));
  let response = { statusCode: status, headers: Object.fromEntries(lines.map(([name, value]) => [name.toLowerCase(), { value }])), cookies: {} };
  if (status < 400) response = respond({ version: '1.0', request, response });
  const { headers: all, ...rest } = outcome({ ...response, body: { data: texts.body } });
  return { status: rest.status, headers: all, body: rest.body };
}

function answer({ raw, store, ...request }) {
  const sent = raw ? request.query : reassembled(parsedQuery(request.query));
  try {
    const result = handler(eventOf(request), { raw, store, query: request.query });
    return { sent, ...outcome(result), end: result.statusCode === undefined ? end(result) : undefined };
  } catch (error) {
    return { sent, thrown: String(error.stack) };
  }
}

for await (const line of createInterface({ input: process.stdin, crlfDelay: Infinity })) {
  process.stdout.write(JSON.stringify({ answers: JSON.parse(line).requests.map(answer) }) + '\n');
}
