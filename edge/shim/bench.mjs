// Measures the packaged edge beside plain.mjs, alternating, and prints one JSON object. Arguments: a folder
// with index.small, index.large and requests.json, and the folder of the unpacked edge.zip.
import { readFileSync } from 'node:fs';
import { spawnSync } from 'node:child_process';
import { instantiate } from './go.mjs';
import { parseIndex, decide as plainDecide } from './plain.mjs';

const [, , dir, packaged] = process.argv;
const file = (name) => readFileSync(`${dir}/${name}`);
const requests = JSON.parse(file('requests.json'));
const module = new WebAssembly.Module(readFileSync(`${packaged}/edge.wasm`));
const quantile = (times, q) => [...times].sort((a, b) => a - b)[Math.floor(q * (times.length - 1))];
const results = {};

function decisions(name, encoded, asked) {
  const go = instantiate(module), ix = parseIndex(encoded);
  const wrong = go.offer(encoded);
  if (wrong) throw new Error(wrong);
  const answers = { go: (r) => go.decide(r.query, r.held), plain: (r) => plainDecide(ix, r.query, r.held) };
  const times = { go: [], plain: [] };
  for (let round = 0; round < 30; round++)
    for (const [who, answer] of Object.entries(answers))
      for (const r of asked) {
        const start = process.hrtime.bigint();
        answer(r);
        if (round > 9) times[who].push(Number(process.hrtime.bigint() - start) / 1000);
      }
  for (const who of ['go', 'plain']) {
    results[`${name}_${who}_p50_us`] = quantile(times[who], 0.5);
    results[`${name}_${who}_p99_us`] = quantile(times[who], 0.99);
  }
  results[`${name}_p50_ratio`] = results[`${name}_go_p50_us`] / results[`${name}_plain_p50_us`];
}

decisions('small', file('index.small'), requests.small);
decisions('large', file('index.large'), requests.large);

// A large index: parsing, and memory for it.
{
  const encoded = file('index.large'), times = [], go = instantiate(module);
  const before = go.exports.memory.buffer.byteLength;
  for (let i = 0; i < 10; i++) {
    const start = process.hrtime.bigint();
    if (go.offer(encoded)) throw new Error('refused');
    times.push(Number(process.hrtime.bigint() - start) / 1e6);
  }
  results.large_bytes = encoded.length;
  results.large_parse_ms = quantile(times, 0.5);
  results.large_parse_first_ms = times[0];
  results.large_memory_mb = (go.exports.memory.buffer.byteLength - before) / (1 << 20);
}

// Cold start: a process that loads, reads an index and decides once. A process that does nothing is
// measured as well.
{
  const program = {
    go: `const { readFileSync } = await import('node:fs'); const { instantiate } = await import(${JSON.stringify(new URL('go.mjs', `file://${packaged}/`).href)});
      await import(${JSON.stringify(new URL('s3.mjs', `file://${packaged}/`).href)}); await import(${JSON.stringify(new URL('handler.mjs', `file://${packaged}/`).href)});
      const go = instantiate(new WebAssembly.Module(readFileSync(${JSON.stringify(packaged + '/edge.wasm')})));
      go.offer(readFileSync(${JSON.stringify(dir + '/index.small')})); go.decide('cpuarch=armv8', '');`,
    plain: `const { readFileSync } = await import('node:fs'); const { parseIndex, decide } = await import(${JSON.stringify(new URL('plain.mjs', import.meta.url).href)});
      await import(${JSON.stringify(new URL('s3.mjs', `file://${packaged}/`).href)}); await import(${JSON.stringify(new URL('handler.mjs', `file://${packaged}/`).href)});
      decide(parseIndex(readFileSync(${JSON.stringify(dir + '/index.small')})), 'cpuarch=armv8', '');`,
    nothing: '',
  };
  const times = { go: [], plain: [], nothing: [] };
  for (let round = 0; round < 21; round++)
    for (const [who, text] of Object.entries(program)) {
      const start = process.hrtime.bigint();
      const run = spawnSync(process.execPath, ['--input-type=module', '-e', text]);
      if (run.status !== 0) throw new Error(String(run.stderr));
      times[who].push(Number(process.hrtime.bigint() - start) / 1e6);
    }
  for (const who of Object.keys(times)) results[`cold_${who}_ms`] = quantile(times[who], 0.5);
  results.cold_ratio = results.cold_go_ms / results.cold_plain_ms;
}

console.log(JSON.stringify(results));
