// The function against the golden vectors and its own promises. Go runs this: see function_test.go.
import assert from 'node:assert/strict';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import test from 'node:test';
import { eventOf, load, outcome, parsedQuery, reassembled } from './cloudfront.mjs';

const vectors = (name) => JSON.parse(fs.readFileSync(new URL(`../../testdata/canonical/${name}.json`, import.meta.url)));

const handler = load();
const HEX64 = '0123456789abcdef'.repeat(4);
const MD5 = 'd41d8cd98f00b204e9800998ecf8427e';
const GOOD = 'cpuArch=armv8';

// ask asks in a runtime that has rawQueryString, askParsed in one that does not.
const ask = (request) => outcome(handler(eventOf(request), { query: request.query }));
const askParsed = (request) => outcome(handler(eventOf(request), { raw: false }));

const failure = (status, description, error, more = {}) => ({
  status,
  description,
  headers: { 'cache-control': 'public, max-age=10', 'content-type': 'application/json', 'x-content-type-options': 'nosniff', ...more },
  body: JSON.stringify({ error }) + '\n',
});
const badRequest = (error) => failure(400, 'Bad Request', error);
const passed = (query, headers = {}) => ({ uri: '/package', query, headers, cookies: {} });

// evaluate returns the value of an expression where the function runs.
function evaluate(expression) {
  const folder = fs.mkdtempSync(path.join(os.tmpdir(), 'precast-function-'));
  try {
    const file = path.join(folder, 'function.js');
    fs.writeFileSync(file, `function handler() { return { value: ${expression} }; }`);
    return load(file)({ request: {} }).value;
  } finally {
    fs.rmSync(folder, { recursive: true });
  }
}

test('the context has what the runtime has, and no more', () => {
  for (const name of ['require', 'process', 'Buffer', 'setTimeout', 'fetch', 'eval', 'Date', 'Map', 'Proxy', 'Symbol', 'unescape', 'WebAssembly']) {
    assert.equal(evaluate(`typeof ${name}`), 'undefined', name);
  }
  for (const method of ['Math.random', 'Object.fromEntries', "''.matchAll", "''.at", '[].flat', '[].findLast', '[].keys']) {
    assert.equal(evaluate(`typeof ${method}`), 'undefined', method);
  }
  assert.equal(evaluate('typeof (function () { return this; })()'), 'undefined', 'strict');
  assert.throws(() => evaluate("(function () {}).constructor('return 1')()"), /Code generation from strings/);
  assert.equal(evaluate("'a,b'.split(',').map(function (s) { return s.toUpperCase(); }).join('')"), 'AB');
});

for (const v of vectors('selection')) {
  test(`selection: ${v.why}`, () => {
    const want = v.error ? badRequest(v.error) : passed(v.canonical);
    assert.deepEqual(ask({ query: v.query }), want);
    // A parsed query tells neither how repeated parameters stood between others, nor about stray separators.
    const parsed = askParsed({ query: v.query });
    assert.deepEqual(parsed, ask({ query: reassembled(parsedQuery(v.query)) }));
    if (!v.error) assert.deepEqual(parsed, want);
    else if (!/parameters$|longer than 8000|key or value/.test(v.error)) assert.equal(parsed.status, v.status);
    if (v.canonical) assert.deepEqual(ask({ query: v.canonical }), want, 'it is its own canonical form');
  });
}

for (const v of vectors('held')) {
  test(`held: ${v.why}`, () => {
    const want = v.error ? badRequest(v.error) : passed('cpuarch=armv8', {
      ...(v.held && { 'x-precast-held': [v.held] }),
      ...(v.single && { 'if-none-match': [`"${v.single}"`] }),
    });
    assert.deepEqual(ask({ query: GOOD, headers: { 'if-none-match': [v.header] } }), want);
    if (v.header.includes(',')) {
      assert.deepEqual(ask({ query: GOOD, headers: { 'if-none-match': v.header.split(',') } }), want, 'one line each');
    }
  });
}

// What the function lets through, the origin does not refuse, and what it refuses, the origin would.
for (const v of vectors('decide').cases) {
  test(`decide: ${v.why}`, () => {
    const got = ask({ query: v.query, headers: { 'if-none-match': [v.held] } });
    if (got.status) assert.deepEqual([got.status, got.body], [v.status, v.body]);
    else if (v.status === 400) assert.match(v.body, /^\{"error":"Selection matches/);
  });
}

test('a query fault comes before a fault of the digests', () => {
  const headers = { 'if-none-match': ['x'.repeat(20481)] };
  assert.deepEqual(ask({ query: 'cpuArch=%zz', headers }), badRequest('Query has a broken percent escape'));
  assert.deepEqual(ask({ query: GOOD, headers }), badRequest('If-None-Match is longer than 20480 bytes'));
});

test('no query at all', () => {
  for (const query of [undefined, '']) assert.deepEqual(ask({ query }), badRequest('Missing cpuArch query param'));
  assert.deepEqual(askParsed({}), badRequest('Missing cpuArch query param'));
});

test('another method', () => {
  for (const method of ['POST', 'PUT', 'DELETE', 'OPTIONS', 'get', '']) {
    for (const uri of ['/package', `/binaries/${HEX64}/a_1`, '/']) {
      assert.deepEqual(ask({ method, uri, query: GOOD }), failure(405, 'Method Not Allowed', 'Use GET or HEAD', { allow: 'GET, HEAD' }));
    }
  }
  assert.deepEqual(ask({ method: 'HEAD', query: GOOD }), passed('cpuarch=armv8'));
});

test('another path', () => {
  for (const uri of ['/', '', '/package/', '//package', '/Package', '/packages', '/package%20', '/p%61ckage', 'package', '/healthz',
    '/metrics', '/index', `/bundles/${HEX64}/0.tar.gz`, '/binaries', '/binaries/', `/binaries/${HEX64}`, `/binaries/${HEX64}/`,
    `/binaries/${HEX64}/a/b`, `/binaries/${HEX64}/.`, `/binaries/${HEX64}/..`, `/binaries/${HEX64}/%2e`, `/binaries/${HEX64}/%2E.`,
    `/binaries/${HEX64}/.%2e`, `/binaries/${HEX64.slice(1)}/a`, `/binaries/0${HEX64}/a`, `/binaries/${HEX64.toUpperCase()}/a`,
    `/binaries/${HEX64}//a`, `//binaries/${HEX64}/a`, `/x/binaries/${HEX64}/a`, `/Binaries/${HEX64}/a`, `/binaries/../package`]) {
    assert.deepEqual(ask({ uri, query: GOOD }), failure(404, 'Not Found', 'Not found: devices ask for /package?cpuArch=...'), uri);
  }
});

test('a keyring', () => {
  for (const uri of ['/keyring', '/keyring.d/00000000000000000001', '/keyring.d/18446744073709551615']) {
    const headers = { host: ['example.com'], 'if-none-match': ['"x"'] };
    assert.deepEqual(ask({ uri, headers: { ...headers, 'x-precast-selection': [GOOD] }, query: 'a=b' }), { uri, query: '', headers, cookies: {} });
  }
  for (const uri of ['/keyring/', '/keyring.d', '/keyring.d/', '/keyring.d/1', '/keyring.d/0000000000000000001x', '/keyring.d/000000000000000000011',
    '/Keyring', '/x/keyring', '/keyringx', '/keyring.d/00000000000000000001/', `/statements/00000000000000000001/20513/${HEX64}`]) {
    assert.equal(ask({ uri, query: GOOD }).status, 404, uri);
  }
});

test('a statement is one object, whatever the device holds', () => {
  const headers = { 'if-none-match': [`${MD5}, ${HEX64}`] };
  assert.deepEqual(ask({ query: 'payloadType=Statement&cpuArch=x', headers }), passed('cpuarch=x&payloadtype=statement'));
  assert.deepEqual(ask({ query: 'payloadType=Statement&cpuArch=x&x=y', headers }), passed('cpuarch=x&payloadtype=statement&x=y'));
  for (const query of ['cpuarch=x&payloadtype=metadataonly', 'cpuarch=x&xpayloadtype=statement', 'cpuarch=x&y=payloadtype%3Dstatement']) {
    assert.ok(ask({ query, headers }).headers['x-precast-held'], query);
  }
});

test('a binary', () => {
  for (const name of ['os_armv8_1.1.0', '...', '.a', 'a.', '..a', '.%2ea', 'gr%C3%B6%C3%9Fe_1', 'größe_1', 'a%20b_1', '%', 'package']) {
    const uri = `/binaries/${HEX64}/${name}`;
    const headers = {
      host: ['example.com'], range: ['bytes=5-'], 'if-range': [`"${HEX64}"`], 'if-none-match': [`"${HEX64}", ${MD5}`],
      'x-precast-held': [MD5, MD5], 'x-precast-selection': [GOOD],
    };
    const { 'x-precast-held': _, 'x-precast-selection': __, ...kept } = headers;
    const want = { uri, query: '', headers: kept, cookies: {} };
    assert.deepEqual(ask({ uri, headers, query: 'cpuArch=%zz&x=y' }), want);
    assert.deepEqual(askParsed({ uri, headers, query: 'cpuArch=%zz&x=y' }), want);
  }
});

test('headers that only the function may set, and conditions on a copy', () => {
  const headers = {
    host: ['example.com'], 'user-agent': ['device'], accept: ['a', 'b'], range: ['bytes=0-99'], 'if-range': ['"x"'],
    'if-match': ['*'], 'if-modified-since': ['Mon, 01 Jan 2024 00:00:00 GMT'], 'if-unmodified-since': ['Mon, 01 Jan 2024 00:00:00 GMT'],
    'x-precast-held': [MD5], 'x-precast-selection': ['cpuarch=x'],
  };
  const kept = { host: ['example.com'], 'user-agent': ['device'], accept: ['a', 'b'], range: ['bytes=0-99'], 'if-range': ['"x"'] };
  assert.deepEqual(ask({ query: GOOD, headers }), passed('cpuarch=armv8', kept));
});

test('If-None-Match in several lines', () => {
  const lines = ['"a"', `W/"${MD5.toUpperCase()}"`, HEX64];
  assert.deepEqual(ask({ query: GOOD, headers: { 'if-none-match': lines } }), passed('cpuarch=armv8', { 'x-precast-held': [`${HEX64},${MD5}`] }));
  assert.deepEqual(ask({ query: GOOD, headers: { 'if-none-match': ['', ' "a" ', ','] } }), passed('cpuarch=armv8', { 'if-none-match': ['"a"'] }));
});

test('values are those that were sent, in a parsed query too', () => {
  const query = 'a=1%261&cpuArch=x%20y&b&c=&=d&a=2&e=f=g+';
  const want = passed('a=1%261&cpuarch=x%20y&e=f%3Dg%20');
  assert.deepEqual(ask({ query }), want);
  assert.deepEqual(askParsed({ query }), want);
});

// CloudFront presents UTF-8 only; should half a character come all the same, it is refused in words.
test('half a character', () => {
  for (const half of ['\ud800', '\udc00', '\udc00\ud800', 'é\ud83d', '\ud83d\ud83d\ude00']) {
    assert.deepEqual(ask({ query: `cpuArch=${half}` }), badRequest('Query is not UTF-8'));
    assert.deepEqual(ask({ query: `${half}=x&${GOOD}` }), badRequest('Query is not UTF-8'));
    assert.deepEqual(ask({ query: `${half}&${GOOD}` }), passed('cpuarch=armv8'));
    assert.equal(ask({ query: GOOD, headers: { 'if-none-match': [`${half},"x"`] } }).status, undefined);
  }
});

test('characters, escaped or not, are canonical as encodeURIComponent has them', () => {
  for (let from = 0x80; from < 0x110000; from += from < 0x10000 ? 64 : 4160) {
    if (from >= 0xd800 && from < 0xe000) continue;
    const chars = String.fromCodePoint(...Array.from({ length: 60 }, (_, i) => from + i));
    const want = encodeURIComponent(chars);
    assert.equal(ask({ query: `cpuArch=${want}` }).query, `cpuarch=${want}`);
    assert.equal(ask({ query: `cpuArch=${chars}` }).query, `cpuarch=${want}`);
  }
});
