// The function's entry point: reads what is in the package, and wires.
import { readFileSync } from 'node:fs';
import { client } from './s3.mjs';
import { makeHandler } from './handler.mjs';

const read = (name) => readFileSync(new URL(name, import.meta.url));
// Lambda@Edge has no environment variables of its own: the settings are in the package.
const config = { refreshSeconds: 5, timeoutSeconds: 2, ...JSON.parse(read('config.json')) };

export const handler = makeHandler({
  module: new WebAssembly.Module(read('edge.wasm')),
  get: client({ timeout: 1000 * config.timeoutSeconds }),
  config,
  log: (level, msg, fields) => console.log(JSON.stringify({ level, msg, ...fields })),
});
