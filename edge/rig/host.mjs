// Runs the Functions and the Lambda@Edge handler for host.go: a line of JSON on stdin is a call, a line on
// stdout its result. Calls overlap. Arguments: the files of the viewer-request Function, the viewer-response
// Function and the handler, and the script host.js of edge/function.
import { createInterface } from 'node:readline';
import { readFileSync } from 'node:fs';
import { pathToFileURL } from 'node:url';
import vm from 'node:vm';

const [requestFile, responseFile, handlerFile, hostScript] = process.argv.slice(1);
const send = (message) => process.stdout.write(JSON.stringify(message) + '\n');
for (const level of ['log', 'info', 'warn', 'error', 'debug']) {
  console[level] = (...parts) => send({ log: parts.map((p) => (typeof p === 'string' ? p : JSON.stringify(p))).join(' ') });
}
// The rig's clock. It stands before anything is imported, and never goes back.
let clock = Number(process.env.RIG_NOW);
delete process.env.RIG_NOW;
Date.now = () => clock;

// A bare context, without evaluation of strings, as CloudFront Functions has none
// (https://docs.aws.amazon.com/AmazonCloudFront/latest/DeveloperGuide/functions-javascript-runtime-20.html).
// A function is strict, and imports nothing but the module of the key value store. What it awaits is done
// within its time, or never.
function load(file) {
  const context = vm.createContext({ __proto__: null, console: { __proto__: null, log: (...parts) => console.log(...parts.map(String)) } }, {
    codeGeneration: { strings: false, wasm: false }, microtaskMode: 'afterEvaluate',
  });
  const { cloudfront, call, outcome } = vm.runInContext(hostScript, context);
  const source = readFileSync(file, 'utf8'), body = source.replace(/^import cf from ?(["'])cloudfront\1;/m, '');
  const handler = vm.runInContext(`(function (${body === source ? '' : 'cf'}) { 'use strict'; ${body}\n; return handler; })`, context, { filename: file.split('/').pop() })(cloudfront);
  const script = new vm.Script('called()');
  return (event, { raw, timeout, store }) => {
    context.called = () => { delete context.called; call(handler, JSON.stringify({ event, store, raw, hasRaw: true })); };
    script.runInContext(context, { timeout });
    const { value, error } = JSON.parse(outcome());
    if (error !== undefined) throw new Error(error);
    return JSON.stringify(value);
  };
}
const { handler } = await import(pathToFileURL(handlerFile));
const functions = {
  request: load(requestFile),
  response: load(responseFile),
  origin: async (event, { id }) => JSON.stringify(await handler(event, { awsRequestId: id, functionName: 'us-east-1.edge', getRemainingTimeInMillis: () => 30000 })),
};

async function run({ id, kind, now, event, options }) {
  clock = Math.max(clock, now);
  const start = process.hrtime.bigint();
  const ms = () => Number(process.hrtime.bigint() - start) / 1e6;
  try {
    const result = await functions[kind](event, options);
    send({ id, result: result ?? 'null', ms: ms() });
  } catch (e) {
    send({ id, error: String(e?.stack ?? e).split('\n').slice(0, 3).join(' '), ms: ms() });
  }
}

send({ ready: true });
createInterface({ input: process.stdin, crlfDelay: Infinity }).on('line', (line) => run(JSON.parse(line))).on('close', () => process.exit(0));
