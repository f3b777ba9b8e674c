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
const ask = ({ store, reads, ...request }) => outcome(handler(eventOf(request), { query: request.query, store, reads }));
const askParsed = ({ store, ...request }) => outcome(handler(eventOf(request), { raw: false, store }));

const failure = (status, description, error, more = {}) => ({
  status,
  description,
  headers: { 'cache-control': 'public, max-age=10', 'content-type': 'application/json', 'x-content-type-options': 'nosniff', ...more },
  body: JSON.stringify({ error }) + '\n',
});
const badRequest = (error) => failure(400, 'Bad Request', error);
const passed = (query, headers = {}) => ({ uri: '/package', query, headers, cookies: {} });

// evaluate returns the value of an expression where the function runs.
function evaluate(expression, before = '', options = undefined) {
  const folder = fs.mkdtempSync(path.join(os.tmpdir(), 'precast-function-'));
  try {
    const file = path.join(folder, 'function.js');
    fs.writeFileSync(file, `${before}async function handler() { return { value: ${expression} }; }`);
    return load(file)({ request: {} }, options).value;
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
  assert.equal(evaluate('typeof cf'), 'undefined', 'without the import');
  assert.throws(() => evaluate('1', "import fs from 'fs';"), /import/);
  assert.throws(() => evaluate("await import('cloudfront')"), /import/);
  assert.throws(() => evaluate('await { then() {} }'), /does not end/);
  assert.equal(evaluate("'a,b'.split(',').map(function (s) { return s.toUpperCase(); }).join('')"), 'AB');
});

test('the key value store is what is documented of it', () => {
  const store = { content: { a: '{"b":1}', '': 'x' } }, module = 'import cf from "cloudfront";\n';
  const value = (expression, s = store) => evaluate(expression, module, { store: s });
  assert.equal(value("await cf.kvs().get('a')"), '{"b":1}');
  assert.equal(value("await cf.kvs().get('a', { format: 'string' })"), '{"b":1}');
  assert.deepEqual(value("await cf.kvs().get('a', { format: 'json' })"), { b: 1 });
  assert.equal(value("await cf.kvs().exists('a')"), true);
  assert.equal(value("await cf.kvs().exists('constructor')"), false);
  assert.equal(value('(await cf.kvs().meta()).keyCount'), 2);
  assert.equal(value('Object.keys(cf.kvs()).join()'), 'get,exists,meta');
  assert.equal(value('Object.keys(cf).join()'), 'kvs');
  for (const key of ['b', 'A', 'constructor', '__proto__']) assert.throws(() => value(`await cf.kvs().get('${key}')`), /KeyNotFound/);
  assert.throws(() => value("await cf.kvs().get('a')", null), /no key value store/);
  for (const call of ["get('a')", "exists('a')", 'meta()']) assert.throws(() => value(`await cf.kvs().${call}`, { ...store, down: true }), /does not answer/);
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
      ...(v.single && Buffer.byteLength(v.single) <= 1022 && { 'if-none-match': [`"${v.single}"`] }),
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

test('a statement says what is held too: it depends on the floors that a device has passed', () => {
  const headers = { 'if-none-match': [`${MD5}, ${HEX64}`] }, held = { 'x-precast-held': [`${HEX64},${MD5}`] };
  assert.deepEqual(ask({ query: 'payloadType=Statement&cpuArch=x', headers }), passed('cpuarch=x&payloadtype=statement', held));
});

// table makes a store of the values of a table of rollouts.
const table = (...values) => ({ content: Object.fromEntries(values.map((value, i) => [`rollouts.${i}`, value])) });
const cohort = (query, store) => {
  const got = ask({ query, store });
  assert.equal(got.status, undefined, query);
  return got.headers['x-precast-cohort']?.join();
};
const ALL = 'x 1 0 9999 os=prod\n'; // slots 0 to 9998

test('a slot is in a rollout or not', () => {
  const store = table('a 3 9000 2000 attrgamer=beta,scoreboard=prod\n');
  let inside = 0;
  for (let slot = 0; slot < 10000; slot++) {
    const want = (3 * slot + 9000) % 10000 < 2000;
    if (want) inside++;
    assert.equal(cohort(`${GOOD}&attrGamer=beta&slot=${slot}`, store), want ? 'a~2000' : undefined, String(slot));
  }
  assert.equal(inside, 2000);
});

test('a slot is read in any spelling, and is no part of the query', () => {
  const store = table('x 1 0 8 os=prod\n');
  for (const slot of ['slot=7', 'SLOT=7', 'sl%6ft=7', 'slot=007', 'slot=%37', 'slot=0000007', 'slot=7&slot=9', 'slot=&slot=7', 'slot=7&Slot=x']) {
    assert.deepEqual(ask({ query: `${slot}&${GOOD}`, store }), passed('cpuarch=armv8', { 'x-precast-cohort': ['x~8'] }), slot);
    assert.deepEqual(askParsed({ query: `${slot}&${GOOD}`, store }), passed('cpuarch=armv8', { 'x-precast-cohort': ['x~8'] }), slot);
  }
  for (const slot of ['slot=8', 'slot=9999', 'slot=9&slot=7', 'slot=', 'slot', 'aslot=7', 'attrslot=7', 'slo=7']) {
    assert.equal(cohort(`${slot}&${GOOD}`, store), undefined, slot);
  }
});

test('no other slot', () => {
  for (const slot of ['10000', '-1', '+1', '%2B1', '1e3', '0x7', '7.0', '7+', '+7', '%207', 'x', '٧', '99999999999999999999', '1_0', 'NaN']) {
    assert.deepEqual(ask({ query: `${GOOD}&slot=${slot}`, store: table(ALL) }), badRequest('slot is not a number from 0 to 9999'), slot);
  }
  assert.deepEqual(ask({ query: 'slot=x' }), badRequest('Missing cpuArch query param'));
  assert.deepEqual(ask({ query: `${GOOD}&slot=x&payloadType=x` }), badRequest('Invalid payloadType param'));
  const long = Array.from({ length: 10 }, (_, i) => `&k${i}=${'!'.repeat(255)}`).join('') + `&last=${'!'.repeat(160)}`;
  assert.deepEqual(ask({ query: `${GOOD}&slot=x${long}` }), badRequest('slot is not a number from 0 to 9999'));
  assert.deepEqual(ask({ query: `${GOOD}&slot=1${long}` }), badRequest('Query is longer than 8000 bytes'));
});

test('the table is read for slots only', () => {
  const read = (request) => {
    const reads = [];
    ask({ ...request, reads, store: table(`+\n`, ALL + '+\n', 'y 1 0 9999 os=prod\n', ALL) });
    return reads;
  };
  assert.deepEqual(read({ query: `${GOOD}&slot=1` }), ['rollouts.0', 'rollouts.1', 'rollouts.2']);
  for (const query of [GOOD, `${GOOD}&slot=`, `${GOOD}&slot=10000`, 'slot=1', `${GOOD}&slot=1&payloadType=x`]) assert.deepEqual(read({ query }), [], query);
  assert.deepEqual(read({ query: `${GOOD}&slot=1`, headers: { 'if-none-match': ['x'.repeat(20481)] } }), []);
  assert.deepEqual(read({ query: `${GOOD}&slot=1`, uri: `/binaries/${HEX64}/a_1` }), []);
  assert.deepEqual(read({ query: `${GOOD}&slot=1`, method: 'POST' }), []);
});

test('no more than eight values are read', () => {
  const reads = [], store = table(...Array.from({ length: 20 }, (_, i) => `r${String(i).padStart(2, '0')} 1 0 9999 os=prod\n+\n`));
  const got = ask({ query: `${GOOD}&slot=1`, store, reads });
  assert.deepEqual(reads, Array.from({ length: 8 }, (_, i) => `rollouts.${i}`));
  assert.deepEqual(got.headers['x-precast-cohort'], [Array.from({ length: 8 }, (_, i) => `r0${i}~9999`).join('.')]);
});

test('whatever is wrong with the table, a device is not refused', () => {
  const query = `${GOOD}&slot=1`, none = passed('cpuarch=armv8');
  for (const store of [null, { content: {}, down: true }, table(), table(''), table('\n'), table('+\n'), table('+\n', ''), table('nonsense'), table('{}'),
    table('x 1 0 9999'), table('x 1 0 9999 '), table('x 1 0 1e9 os=prod\n'), table('x 1 0 99999 os=prod\n'), table('x 1 0 -1 os=prod\n'),
    table('X 1 0 9999 os=prod\n'), table(`${'x'.repeat(33)} 1 0 9999 os=prod\n`), table('x y 1 0 9999 os=prod\n'), table('x  1 0 9999 os=prod\n'),
    table('x 1 0 9999 os=prod attr=x\n'), table('x 1 0 9999 constructor\n'), table('x 1 0 9999 __proto__,toString&valueOf\n'), table(',,,&&& \n\0')]) {
    assert.deepEqual(ask({ query, store }), none, JSON.stringify(store));
  }
  // What there is of it counts: a rollout's devices do not go back because its successor is not there yet.
  assert.equal(cohort(query, table(ALL + '+\n')), 'x~9999');
  assert.equal(cohort(query, table('a b\n' + ALL)), 'x~9999');
  assert.equal(cohort(query, table(ALL.trimEnd())), 'x~9999');
});

test('a rollout matters to a query that has all of a selector', () => {
  for (const [selectors, query, want] of [
    ['os=prod', 'cpuArch=x', true],
    ['os=prod', 'cpuArch=x&os=prod', true],
    ['os=prod', 'cpuArch=x&OS=PROD', true],
    ['os=prod', 'cpuArch=x&os=beta', false],
    ['os=prod', 'cpuArch=x&os=', true],
    ['os=beta', 'cpuArch=x&os=Beta', true],
    ['cpuarch=armv8&os=prod', 'cpuArch=ARMV8', true],
    ['cpuarch=armv8&os=prod', 'cpuArch=armv7', false],
    ['cpuarch=armv8&os=beta', 'cpuArch=armv8', false],
    ['attrgamer=beta,scoreboard=beta', 'cpuArch=x&attrGamer=beta', true],
    ['attrgamer=beta,scoreboard=beta', 'cpuArch=x&scoreBoard=beta', true],
    ['attrgamer=beta,scoreboard=beta', 'cpuArch=x&attrGamer=prod&scoreboard=prod', false],
    ['attrgamer=beta', 'cpuArch=x&attrGamer=prod&attrGamer=beta', false],
    ['attrgamer=beta', 'cpuArch=x&xattrgamer=beta', false],
    ['attrgamer=beta', 'cpuArch=x&attrgamer=betax', false],
    ['attrdark%20mode=beta%202', 'cpuArch=x&attrDark+Mode=Beta%202', true],
    ['gr%C3%B6%C3%9Fe=%C3%9F', 'cpuArch=x&größe=ß', true],
    ['x%2By%3D1%262=prod', 'cpuArch=x&x%2by=1%262=prod', false],
    ['x%2By%3D1%262=prod', 'cpuArch=x&x%2by%3d1%262=prod', true],
  ]) {
    assert.equal(cohort(`${query}&slot=0`, table(`s 1 0 1 ${selectors}\n`)), want ? 's~1' : undefined, `${selectors} ${query}`);
  }
});

test('of one salt the smallest share that a slot is in, and salts in order', () => {
  const store = table('a 1 0 10 os=prod\na 1 0 10 attrgamer=prod\na 1 0 100 os=prod\na 1 0 1000 attrgamer=prod\nb 1 0 50 os=prod\nb-c_9 1 0 9999 os=prod\n+\n',
    'b-c_9 1 0 9999 os=prod\nc 7 1 5000 os=beta\nd 3 0 1 os=prod\n');
  for (const [slot, want] of [[0, 'a~10.b~50.b-c_9~9999.d~1'], [9, 'a~10.b~50.b-c_9~9999'], [10, 'a~100.b~50.b-c_9~9999'], [99, 'a~100.b-c_9~9999'],
    [100, 'b-c_9~9999'], [9998, 'b-c_9~9999'], [9999, undefined]]) {
    assert.equal(cohort(`${GOOD}&slot=${slot}`, store), want);
  }
  assert.equal(cohort(`${GOOD}&slot=100&attrGamer=prod`, store), 'a~1000.b-c_9~9999');
  assert.equal(cohort(`${GOOD}&slot=0`, table('b 1 0 9 os=prod\na 1 0 9 os=prod\nb 1 0 9 os=prod\n')), 'b~9', 'a table that is not sorted makes no list that is not');
});

test('a cohort of 1,024 bytes', () => {
  const salts = Array.from({ length: 40 }, (_, i) => `s${String(i).padStart(2, '0')}${'x'.repeat(29)}`);
  const lines = salts.map((salt) => `${salt} 1 0 5000 os=prod\n`).concat('t 1 0 5000 os=prod\n');
  const values = Array.from({ length: 3 }, (_, i) => lines.slice(14 * i, 14 * i + 14).join('') + (i < 2 ? '+\n' : ''));
  const got = cohort(`${GOOD}&slot=1`, table(...values)).split('.');
  assert.deepEqual(got, [...salts.slice(0, 26).map((salt) => `${salt}~5000`), 't~5000']); // 26 * 38 - 1 bytes; the 27th would make 1,025
});

test('a binary', () => {
  for (const name of ['os_armv8_1.1.0', '...', '.a', 'a.', '..a', '.%2ea', 'gr%C3%B6%C3%9Fe_1', 'größe_1', 'a%20b_1', '%', 'package']) {
    const uri = `/binaries/${HEX64}/${name}`;
    const headers = {
      host: ['example.com'], range: ['bytes=5-'], 'if-range': [`"${HEX64}"`], 'if-none-match': [`"${HEX64}", ${MD5}`],
      'x-precast-held': [MD5, MD5], 'x-precast-selection': [GOOD], 'x-precast-cohort': ['x~1', 'y~1'],
    };
    const { 'x-precast-held': _, 'x-precast-selection': __, 'x-precast-cohort': ___, ...kept } = headers;
    const want = { uri, query: '', headers: kept, cookies: {} };
    assert.deepEqual(ask({ uri, headers, query: 'cpuArch=%zz&x=y' }), want);
    assert.deepEqual(askParsed({ uri, headers, query: 'cpuArch=%zz&x=y' }), want);
  }
});

test('headers that only the function may set, and conditions on a copy', () => {
  const headers = {
    host: ['example.com'], 'user-agent': ['device'], accept: ['a', 'b'], range: ['bytes=0-99'], 'if-range': ['"x"'],
    'if-match': ['*'], 'if-modified-since': ['Mon, 01 Jan 2024 00:00:00 GMT'], 'if-unmodified-since': ['Mon, 01 Jan 2024 00:00:00 GMT'],
    'x-precast-held': [MD5], 'x-precast-selection': ['cpuarch=x'], 'x-precast-cohort': ['x~9999'],
  };
  const kept = { host: ['example.com'], 'user-agent': ['device'], accept: ['a', 'b'], range: ['bytes=0-99'], 'if-range': ['"x"'] };
  assert.deepEqual(ask({ query: GOOD, headers }), passed('cpuarch=armv8', kept));
  assert.deepEqual(ask({ query: `${GOOD}&slot=1`, headers, store: table(ALL) }), passed('cpuarch=armv8', { ...kept, 'x-precast-cohort': ['x~9999'] }));
  assert.deepEqual(ask({ query: `${GOOD}&slot=1`, headers, store: null }), passed('cpuarch=armv8', kept));
});

test('a range or condition that is longer than S3 takes is left out', () => {
  const uri = `/binaries/${HEX64}/a_1`;
  for (const name of ['range', 'if-range', 'if-none-match', 'if-match', 'if-modified-since', 'if-unmodified-since']) {
    for (const [lines, kept] of [[['x'.repeat(1024)], true], [['x'.repeat(1025)], false], [['é'.repeat(513)], false], [['x'.repeat(512), 'x'.repeat(512)], false]]) {
      const want = { uri, query: '', headers: { host: ['h'], ...(kept && { [name]: lines }) }, cookies: {} };
      assert.deepEqual(ask({ uri, headers: { host: ['h'], [name]: lines } }), want, `${name} ${lines[0].length}`);
    }
  }
  assert.deepEqual(ask({ uri, headers: { range: ['bytes=0-9'], 'if-range': ['x'.repeat(1025)] } }).headers, {}, 'a range without its condition');
  assert.deepEqual(ask({ query: GOOD, headers: { range: ['x'.repeat(1025)], 'if-range': ['x'.repeat(1025)], 'if-none-match': ['x'.repeat(1023)] } }), passed('cpuarch=armv8'));
  assert.deepEqual(ask({ query: GOOD, headers: { 'if-none-match': ['x'.repeat(1022)] } }), passed('cpuarch=armv8', { 'if-none-match': [`"${'x'.repeat(1022)}"`] }));
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

// CloudFront Functions are for what takes less than a millisecond
// (https://docs.aws.amazon.com/AmazonCloudFront/latest/DeveloperGuide/edge-functions-choosing.html): what is hostile must not
// cost many times of what a device costs. Both are measured in turns, with what it costs to call at all.
test('hostile input costs little', () => {
  const params = (name, value) => `${GOOD}&` + Array.from({ length: 127 }, (_, i) => `${name(i)}=${value}`).join('&');
  const escape = (text) => [...Buffer.from(text)].map((byte) => '%' + byte.toString(16)).join('');
  const tags = (list) => ({ query: GOOD, headers: { 'if-none-match': [list] } });
  const digests = Array.from({ length: 256 }, (_, i) => `"${String(i).padStart(64, '0')}"`);
  const cases = {
    typical: { query: 'cpuArch=armv8&attrGamer=prod&attrCamera=beta&os=prod', headers: { 'if-none-match': [`"${MD5}", "${HEX64}"`] } },
    'tags of one character': tags('a,'.repeat(10_000)), 'blank tags': tags(' ,'.repeat(10_000)), blanks: tags(' '.repeat(20_000)),
    'no digests': tags(digests.join(',').replace(/"0/g, '"z')), 'too many digests': tags(digests.join(',')), 'lines of tags': { query: GOOD, headers: { 'if-none-match': Array(200).fill('a,'.repeat(40)) } },
    'tags that are not ASCII': tags('aé'.repeat(6000)),
    'plain parameters': { query: params((i) => `k${i}`, 'X'.repeat(54)) },
    'escaped parameters': { query: params((i) => escape(`key${i}`), escape('ABCDEFGHIJKLM')) },
    'escaped punctuation': { query: params((i) => escape(`!{}${i}`), escape("!'()*!'()*((")) },
    'escaped parameters that are not ASCII': { query: params((i) => escape(`éèêëéè${i}`), escape('é')) },
    'parameters that are not ASCII': { query: params((i) => `éA${i}`, 'éAÉB'.repeat(8)) },
    'a fault at the end': { query: params((i) => escape(`key${i}`), escape('ABCDEFGHIJKLM')) + '%' },
    'separators': { query: GOOD + '&a='.repeat(2600) },
  };
  const times = {};
  for (let round = 0; round < 70; round++) {
    for (const [name, request] of Object.entries(cases)) {
      const event = eventOf(request);
      event.request.querystring = {}; // parsed before the function is called
      const start = process.hrtime.bigint();
      handler(event, { query: request.query });
      if (round >= 20) (times[name] ??= []).push(Number(process.hrtime.bigint() - start) / 1000);
    }
  }
  // The fastest of each: what else the machine does only adds to it.
  const typical = Math.min(...times.typical);
  for (const [name, all] of Object.entries(times)) {
    const least = Math.min(...all);
    assert.ok(least <= 20 * typical, `${name}: ${least.toFixed(0)} us, ${(least / typical).toFixed(1)} times the usual ${typical.toFixed(0)} us`);
  }
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
