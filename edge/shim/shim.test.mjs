// Run by shim_test.go, which makes the files that the arguments name.
import test from 'node:test';
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { once } from 'node:events';
import http from 'node:http';
import { instantiate, Fault } from './go.mjs';
import { makeHandler } from './handler.mjs';
import { client, sign } from './s3.mjs';
import { parseIndex, decide as plainDecide } from './plain.mjs';

const dir = process.env.SHIM_TEST_DIR;
const file = (name) => readFileSync(`${dir}/${name}`);
const real = new WebAssembly.Module(file('edge.wasm')), faulty = new WebAssembly.Module(file('faults.wasm'));
const first = file('index.1'), second = file('index.2'), requests = JSON.parse(file('requests.json'));
const QUERY = 'attrgamer=prod&cpuarch=armv8';

// A bucket with one object, and a clock.
function bench({ module = faulty, config = {}, origin } = {}) {
  const b = { time: 1_000_000, gets: 0, logs: [], stored: first, etag: '"1"' };
  b.get = async (where, key, etag) => {
    b.gets++;
    b.where = where;
    if (b.hold) await b.hold;
    if (b.broken) throw new Error(b.broken);
    assert.equal(key, 'index');
    return etag === b.etag ? { status: 304 } : { status: 200, body: b.stored, etag: b.etag };
  };
  b.handler = makeHandler({
    module, get: (...args) => b.get(...args), now: () => b.time, config: { bucket: 'b', region: 'r', refreshSeconds: 5, timeoutSeconds: 2, ...config },
    log: (level, msg, fields) => b.logs.push({ level, msg, ...fields }),
  });
  b.ask = (querystring = QUERY, headers = {}, uri = '/package') => {
    const request = { method: 'GET', uri, querystring, headers: {}, origin };
    for (const [name, value] of Object.entries(headers)) request.headers[name] = [].concat(value).map((v) => ({ key: name, value: v }));
    return b.handler({ Records: [{ cf: { request } }] }, { awsRequestId: 'id' });
  };
  b.generation = () => b.handler.instance().generation();
  return b;
}

test('WebAssembly decides as native Go does', () => {
  const go = instantiate(real);
  assert.equal(go.offer(first), '');
  for (const r of requests) {
    const got = go.decide(r.query, r.held, r.epoch, r.cohort), what = JSON.stringify(r).slice(0, 300);
    assert.deepEqual(got, { status: r.sent, key: r.key, selection: r.selection, headers: r.headers, body: r.body }, what);
  }
});

const vectors = (name) => JSON.parse(readFileSync(new URL(`../../testdata/canonical/${name}`, import.meta.url)));

test('WebAssembly answers the golden vectors as they say', () => {
  const { index, cases } = vectors('decide.json');
  const go = instantiate(real), none = instantiate(real);
  assert.equal(go.offer(Buffer.from(index, 'base64')), '');
  for (const c of cases) {
    const { status, key, headers, body } = (c.noIndex ? none : go).decide(c.query, c.held, 0, c.cohort);
    const got = { status, key, headers: Object.fromEntries(headers.split('\n').filter(Boolean).map((line) => line.split(': '))), body };
    if (got.headers['X-Precast-Status']) { // for the viewer-response function
      got.status = Number(got.headers['X-Precast-Status']);
      delete got.headers['X-Precast-Status'];
    }
    assert.deepEqual(got, { status: c.status, key: c.key ?? '', headers: c.headers ?? {}, body: c.body ?? '' }, c.why);
  }
});

test('WebAssembly reads queries and held lists as the golden vectors say', () => {
  const go = instantiate(real);
  assert.equal(go.offer(first), '');
  const why = ({ status, body }) => (status === 400 ? JSON.parse(body).error : '');
  let accepted = 0;
  for (const v of vectors('selection.json')) {
    const got = go.decide(v.query, '');
    assert.equal(why(got), v.error ?? '', v.why);
    if (v.canonical === undefined) continue;
    accepted++;
    // One spelling and the canonical one are one request.
    assert.deepEqual(got, go.decide(v.canonical, ''), v.why);
  }
  for (const v of vectors('held.json')) {
    const got = go.decide(QUERY, v.header);
    assert.equal(why(got), v.error ?? '', v.why);
    if (v.held !== undefined) assert.deepEqual(got, go.decide(QUERY, v.held), v.why);
  }
  assert.ok(accepted > 50, String(accepted));
});

test('the epoch of a statement follows from the clock and the period', async () => {
  const log = () => {};
  const get = async () => ({ status: 200, body: first, etag: '"1"' });
  for (const [statementSeconds, now, want] of [[undefined, 86400e3 * 20513 - 1, 20512], [undefined, 86400e3 * 20513, 20513], [3600, 3600e3 * 7 + 5, 7]]) {
    const handler = makeHandler({ module: real, get, config: { bucket: 'b', region: 'r', refreshSeconds: 5, timeoutSeconds: 2, statementSeconds }, log, now: () => now });
    const request = { uri: '/package', querystring: 'cpuarch=armv8&payloadtype=statement', headers: {}, method: 'GET' };
    const got = await handler({ Records: [{ cf: { request } }] }, {});
    assert.match(got.uri ?? JSON.stringify(got), new RegExp(`^/statements/[0-9]{20}/${want}/[0-9a-f]{64}$`));
    assert.equal(got.headers['x-precast-selection'][0].value, 'cpuarch=armv8&payloadtype=statement');
  }
});

test('the plain implementation that it is measured against decides the same', () => {
  const ix = parseIndex(first);
  for (const r of requests.filter((r) => r.ascii)) {
    const got = plainDecide(ix, r.query, r.held, r.epoch);
    assert.deepEqual([got.status, got.key ?? '', got.selection ?? ''], [r.status, r.key, r.selection], JSON.stringify(r).slice(0, 300));
  }
});

test('Go asks for nothing that the shim does not have', () => {
  const have = ['args_get', 'args_sizes_get', 'clock_time_get', 'environ_get', 'environ_sizes_get', 'fd_write', 'poll_oneoff', 'proc_exit', 'random_get', 'sched_yield'];
  for (const i of WebAssembly.Module.imports(real)) assert.ok(i.module === 'wasi_snapshot_preview1' && have.includes(i.name), i.name);
});

test('a request becomes an object, and its query a header', async () => {
  const r = await bench().ask();
  assert.match(r.uri, /^\/bundles\/[0-9a-f]{64}\/0\.tar\.gz$/);
  assert.equal(r.querystring, '');
  assert.deepEqual(r.headers['x-precast-selection'], [{ key: 'X-Precast-Selection', value: QUERY }]);
});

test('S3 gets none of the headers that are for the composer: it refuses more than 8,192 bytes of them', async () => {
  const headers = { 'x-precast-held': 'a'.repeat(32), 'x-precast-cohort': 'x~1', range: 'bytes=0-9' };
  const s3 = await bench({ origin: { s3: {} } }).ask(QUERY, headers), custom = await bench({ origin: { custom: {} } }).ask(QUERY, headers);
  assert.equal(s3.uri, custom.uri);
  assert.deepEqual(Object.keys(s3.headers), ['range']);
  assert.deepEqual(Object.keys(custom.headers).sort(), ['range', 'x-precast-cohort', 'x-precast-held', 'x-precast-selection']);
});

test('everything held: nothing, for the viewer-response function to make a 304 of', async () => {
  const all = requests.find((r) => r.status === 304);
  const r = await bench().ask(all.query, { 'x-precast-held': all.held });
  assert.deepEqual(r, {
    status: '200', statusDescription: 'OK',
    headers: {
      'cache-control': [{ key: 'Cache-Control', value: 'public, max-age=30, stale-while-revalidate=30' }], vary: [{ key: 'Vary', value: 'If-None-Match' }],
      'x-precast-status': [{ key: 'X-Precast-Status', value: '304' }],
    },
  });
});

test('what a cache that revalidates puts into If-None-Match is nothing to the edge', async () => {
  for (const { query, held } of requests.filter((r) => r.status === 304).slice(0, 3))
    for (const tag of [held, '"0123456789abcdef0123456789abcdef"'])
      assert.deepEqual(await bench().ask(query, { 'x-precast-held': held, 'if-none-match': tag }), await bench().ask(query, { 'x-precast-held': held }));
});

test('errors are JSON with their headers', async () => {
  const r = await bench().ask('attrgamer=prod');
  assert.equal(r.status, '400');
  assert.equal(r.body, '{"error":"Missing cpuArch query param"}\n');
  assert.equal(r.headers['cache-control'][0].value, 'public, max-age=10');
  assert.equal((await bench().ask('cpuarch=vax')).status, '404');
});

test('other paths are left alone', async () => {
  const b = bench(), r = await b.ask('a=1', {}, '/binaries/x');
  assert.deepEqual([r.uri, r.querystring, b.gets], ['/binaries/x', 'a=1', 0]);
});

test('before the first publish: 503 that says when to come again; then it is found', async () => {
  const b = bench();
  b.broken = 'status 403';
  const r = await b.ask();
  assert.deepEqual([r.status, r.headers['retry-after'][0].value, r.headers['cache-control'][0].value], ['503', '5', 'no-store']);
  assert.equal(r.body, '{"error":"No catalog has been published yet"}\n');
  b.broken = '';
  assert.equal((await b.ask()).status, '503', 'no look at every request');
  b.time += 1000;
  assert.match((await b.ask()).uri, /^\/bundles\//);
});

test('1,000 requests at once make one fetch', async () => {
  const b = bench();
  let release;
  b.hold = new Promise((r) => (release = r));
  const all = Promise.all(Array.from({ length: 1000 }, () => b.ask()));
  release();
  assert.ok((await all).every((r) => r.uri.startsWith('/bundles/')));
  assert.equal(b.gets, 1);
});

test('within five seconds no look; then one in the background, which nobody waits for', async () => {
  const b = bench();
  const old = (await b.ask()).uri;
  b.time += 4999;
  await b.ask();
  assert.equal(b.gets, 1);
  b.time += 1;
  [b.stored, b.etag] = [second, '"2"'];
  let release;
  b.hold = new Promise((r) => (release = r));
  assert.equal((await b.ask()).uri, old);
  assert.equal((await b.ask()).uri, old);
  assert.equal(b.gets, 2);
  release();
  b.hold = null;
  await new Promise(setImmediate);
  assert.notEqual((await b.ask()).uri, old);
  assert.equal(b.generation(), 2);
});

test('an index that was not looked at for long is not answered from', async () => {
  const b = bench();
  const old = (await b.ask()).uri;
  [b.stored, b.etag] = [second, '"2"'];
  b.time += 10_000;
  assert.notEqual((await b.ask()).uri, old);
});

test('a look that was frozen half way is not waited for', async () => {
  const b = bench();
  const old = (await b.ask()).uri;
  b.time += 5000;
  b.hold = new Promise(() => {}); // its connection is gone: it never ends
  assert.equal((await b.ask()).uri, old);
  b.hold = null;
  [b.stored, b.etag] = [second, '"2"'];
  b.time += 3_600_000;
  assert.notEqual((await b.ask()).uri, old);
  assert.equal(b.gets, 3);
});

test('a clock that is set back does not stop the looks', async () => {
  const b = bench();
  await b.ask();
  b.time -= 3_600_000;
  await b.ask();
  assert.equal(b.gets, 2);
});

test('nothing new is a conditional GET', async () => {
  const b = bench();
  await b.ask();
  b.time += 20_000;
  await b.ask();
  assert.deepEqual([b.gets, b.logs.filter((l) => l.msg === 'index in use').length], [2, 1]);
});

for (const [what, broken] of [
  ['truncated', second.subarray(0, second.length - 1)], ['empty', Buffer.alloc(0)], ['not an index', Buffer.from('<Error>')],
  ['damaged', Buffer.from(second).fill(0, 40, 41)], ['of a future version', file('index.future')], ['older', file('index.0')], ['too long', Buffer.alloc((16 << 20) + 1)],
])
  test(`an index that is ${what} is refused, and the last good one stays; then all is well again`, async () => {
    const b = bench();
    const old = (await b.ask()).uri;
    [b.stored, b.etag] = [broken, '"bad"'];
    b.time += 20_000;
    assert.equal((await b.ask()).uri, old);
    assert.equal(b.generation(), 1);
    assert.match(b.logs.at(-1).error, /the stored index is/);
    [b.stored, b.etag] = [second, '"2"'];
    b.time += 20_000;
    assert.notEqual((await b.ask()).uri, old);
  });

test('S3 is down: the last good index answers, at one look in a second; then all is well again', async () => {
  const b = bench();
  const old = (await b.ask()).uri;
  b.broken = 'connect ECONNREFUSED';
  b.time += 20_000;
  for (let i = 0; i < 10; i++) assert.equal((await b.ask()).uri, old);
  assert.equal(b.gets, 2);
  b.time += 999;
  assert.equal((await b.ask()).uri, old);
  assert.equal(b.gets, 2);
  b.broken = '';
  [b.stored, b.etag] = [second, '"2"'];
  b.time += 1;
  assert.notEqual((await b.ask()).uri, old);
  assert.equal(b.gets, 3);
});

test('looks that fail do not make an index younger: cdn.Settled after a publish no request gets the old one', async () => {
  const b = bench(), published = b.time;
  const old = (await b.ask()).uri;
  [b.stored, b.etag] = [second, '"2"'];
  for (b.time = published + 5000; b.time < published + 10_400; b.time += 100) {
    b.broken = 'connect ECONNREFUSED';
    await b.ask();
    await new Promise(setImmediate);
  }
  b.broken = '';
  for (b.time = published + 12_000; b.time < published + 15_000; b.time += 100) assert.notEqual((await b.ask()).uri, old, String(b.time - published));
});

test('a failure before a freeze is no reason not to look after it', async () => {
  const b = bench();
  const old = (await b.ask()).uri;
  b.time += 5000;
  let fail;
  b.hold = new Promise((_, reject) => (fail = reject));
  assert.equal((await b.ask()).uri, old);
  b.time += 3_600_000;
  b.hold = null;
  fail(new Error('read ECONNRESET'));
  await new Promise(setImmediate);
  [b.stored, b.etag] = [second, '"2"'];
  assert.notEqual((await b.ask()).uri, old);
});

test('a connection that died in a freeze is not asked through', async (t) => {
  const b = bench(), seen = new Set();
  const server = http.createServer((req, res) => {
    if (seen.has(req.socket)) return req.socket.destroy(); // its other end is gone
    seen.add(req.socket);
    res.setHeader('etag', b.etag);
    res.end(b.stored);
  }).listen(0, '127.0.0.1');
  await once(server, 'listening');
  t.after(() => { server.closeAllConnections(); server.close(); });
  const get = client({ timeout: 30_000 });
  b.get = (where, ...rest) => get({ ...where, endpoint: `http://127.0.0.1:${server.address().port}` }, ...rest);
  const old = (await b.ask()).uri;
  assert.match(old, /^\/bundles\//);
  [b.stored, b.etag] = [second, '"2"'];
  b.time += 3_600_000;
  assert.notEqual((await b.ask()).uri, old);
});

test('a fetch that throws is a look that failed', async () => {
  const b = bench(), get = b.get;
  b.get = () => { throw new TypeError('Invalid URL'); };
  assert.equal((await b.ask()).status, '503');
  assert.match(b.logs[0].error, /Invalid URL/);
  b.get = get;
  b.time += 1000;
  assert.match((await b.ask()).uri, /^\/bundles\//);
});

for (const [kind, what, why] of [[0, 'a panic', /a panic for the test/], [1, 'a nil map', /nil map/], [2, 'a deadlock', /deadlock|exited/], [3, 'a stack overflow', /stack/]])
  test(`${what} ends the instance; the next request is answered by a new one, with the same index`, async () => {
    const b = bench(), before = (await b.ask()).uri, go = b.handler.instance();
    assert.throws(() => go.call(go.exports.fault, kind), (e) => e instanceof Fault && why.test(e.message));
    assert.throws(() => go.decide(QUERY, ''), Fault);
    assert.equal((await b.ask()).uri, before);
    assert.notEqual(b.handler.instance(), go);
    assert.equal(b.gets, 1, 'the index need not be fetched again');
  });

test('an instance that dies when a new index comes: another one takes it', async () => {
  const b = bench(), before = (await b.ask()).uri, go = b.handler.instance();
  go.offer = () => go.call(go.exports.fault, 0);
  [b.stored, b.etag] = [second, '"2"'];
  b.time += 20_000;
  assert.notEqual((await b.ask()).uri, before);
  assert.equal(b.generation(), 2);
});

test('an instance that died before the first index came', async () => {
  const b = bench(), go = b.handler.instance();
  assert.throws(() => go.call(go.exports.fault, 2), Fault);
  assert.match((await b.ask()).uri, /^\/bundles\//);
});

test('a request that breaks every instance: 503 that says when to come again', async () => {
  const b = bench();
  await b.ask();
  const request = { uri: '/package', get querystring() { throw new Error('hostile'); }, headers: {} };
  const r = await b.handler({ Records: [{ cf: { request } }] }, {});
  assert.deepEqual([r.status, r.headers['retry-after'][0].value, r.body], ['503', '5', '{"error":"The package is not available right now"}\n']);
  assert.match((await b.ask()).uri, /^\/bundles\//);
});

test('the bucket comes with the origin, S3 or composer, when none is baked in', async () => {
  const customHeaders = { 'x-precast-bucket': [{ key: 'X-Precast-Bucket', value: 'fleet' }], 'x-precast-region': [{ key: 'X-Precast-Region', value: 'eu-west-1' }] };
  for (const origin of [{ s3: { customHeaders } }, { custom: { customHeaders } }]) {
    const b = bench({ config: { bucket: '', region: '' }, origin });
    assert.match((await b.ask()).uri, /^\/bundles\//);
    assert.deepEqual([b.where.bucket, b.where.region], ['fleet', 'eu-west-1']);
  }
  // Not from the viewer.
  const b = bench({ config: { bucket: '', region: '' }, origin: { s3: { customHeaders: {} } } });
  assert.equal((await b.ask(QUERY, { 'x-precast-bucket': 'evil', 'x-precast-region': 'r' })).status, '503');
  assert.match(b.logs[0].error, /x-precast-bucket/);
});

test('lengths that no viewer can send are refused, not fatal', async () => {
  const b = bench();
  assert.equal((await b.ask('cpuarch=' + 'ä'.repeat(1 << 20))).status, '400');
  assert.equal((await b.ask(QUERY, { 'x-precast-held': 'ä'.repeat(1 << 20) })).status, '400');
});

test('200,000 decisions: the memory stays', () => {
  const go = instantiate(faulty);
  go.offer(first);
  const after = (n) => { for (let i = 0; i < n; i++) go.decide(`${QUERY}&x=${i}`, ''); return go.exports.heap(); };
  after(50_000);
  assert.ok(after(150_000) < 16 << 20);
  assert.ok(go.exports.memory.buffer.byteLength < 32 << 20, String(go.exports.memory.buffer.byteLength));
});

test('SigV4: the GET example of the S3 manual', () => {
  const h = sign({
    host: 'examplebucket.s3.amazonaws.com', path: '/test.txt', region: 'us-east-1', date: '20130524T000000Z',
    payload: 'e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855', headers: { range: 'bytes=0-9' },
    credentials: { id: 'AKIAIOSFODNN7EXAMPLE', secret: 'wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY' },
  });
  assert.match(h.authorization, /Signature=f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41$/);
});

test('the S3 client: found, not modified, refused, cut off, too slow', async (t) => {
  let answer;
  const server = http.createServer((req, res) => answer(req, res)).listen(0, '127.0.0.1');
  await once(server, 'listening');
  t.after(() => { server.closeAllConnections(); server.close(); });
  const where = { bucket: 'b', region: 'r', endpoint: `http://127.0.0.1:${server.address().port}` };
  const get = client({ timeout: 300 });
  answer = (req, res) => { assert.equal(req.url, '/b/index'); res.setHeader('etag', '"1"'); res.end('data'); };
  assert.deepEqual(await get(where, 'index', ''), { status: 200, body: Buffer.from('data'), etag: '"1"' });
  answer = (req, res) => { res.statusCode = req.headers['if-none-match'] === '"1"' ? 304 : 500; res.end(); };
  assert.deepEqual(await get(where, 'index', '"1"'), { status: 304 });
  answer = (_req, res) => { res.statusCode = 403; res.end('<Code>AccessDenied</Code>'); };
  await assert.rejects(get(where, 'index', ''), /status 403: <Code>AccessDenied/);
  answer = (req, res) => { res.setHeader('content-length', '10'); res.write('half'); setImmediate(() => req.socket.destroy()); };
  await assert.rejects(get(where, 'index', ''));
  answer = () => {};
  await assert.rejects(get(where, 'index', ''), /abort|timeout/i);
  server.close();
});
