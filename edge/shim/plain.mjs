// The same decision in plain JavaScript, for comparison only: bench.mjs measures what Go as WebAssembly
// costs beside it. It is written as one would write it, and holds the same limits. It knows no rollouts or floors.
import { createHash } from 'node:crypto';

const fold = (s) => s.replace(/[A-Z]+/g, (c) => c.toLowerCase());

// parseIndex reads the encoding of internal/format/index.
export function parseIndex(b) {
  let at = 4;
  const uint = () => { let v = 0, scale = 1; for (;;) { const c = b[at++]; v += (c & 127) * scale; if (c < 128) return v; scale *= 128; } };
  const text = () => { const n = uint(); return b.toString('utf8', at, (at += n)); };
  const hex = (n) => b.toString('hex', at, (at += n));
  if (b.toString('latin1', 0, 3) !== 'PCX' || b[3] !== 3 || crc32(b.subarray(0, -4)) !== b.readUInt32LE(b.length - 4)) throw new Error('corrupt');
  const ix = { generation: uint(), sequence: uint(), format: text(), baseURL: text(), items: [], byApp: new Map(), byAttr: new Map() };
  for (let i = 0; i < 5; i++) uint();
  text();
  const attrs = Array.from({ length: uint() }, text);
  const add = (map, name, i) => { const list = map.get(name); if (list) list.push(i); else map.set(name, [i]); };
  for (let i = 0, n = uint(); i < n; i++) {
    const it = { app: text(), track: text(), version: text(), size: uint(), md5: hex(16), sha256: hex(32) };
    it.folded = fold(it.track);
    it.record = record(it);
    add(ix.byApp, fold(it.app), i);
    for (let j = 0, m = uint(); j < m; j++) add(ix.byAttr, fold(attrs[uint()]), i);
    if (b[at++] !== 0 || uint() !== 0) throw new Error('rollouts and floors are not for this one');
    ix.items.push(it);
  }
  return ix;
}

const table = Array.from({ length: 256 }, (_, n) => { for (let k = 0; k < 8; k++) n = n & 1 ? (n >>> 1) ^ 0xedb88320 : n >>> 1; return n >>> 0; });
function crc32(b) { let c = ~0; for (const v of b) c = table[(c ^ v) & 255] ^ (c >>> 8); return ~c >>> 0; }

const field = (s) => { const t = Buffer.from(s), n = Buffer.alloc(4); n.writeUInt32LE(t.length); return Buffer.concat([n, t]); };
function record(it) {
  const size = Buffer.alloc(8);
  size.writeBigUInt64LE(BigInt(it.size));
  return Buffer.concat([field(it.app), field(it.version), size, Buffer.from(it.md5, 'hex'), Buffer.from(it.sha256, 'hex')]);
}

const plain = /^[A-Za-z0-9._~-]*$/;
function decode(s) {
  if (!plain.test(s)) s = decodeURIComponent(s.replace(/\+/g, ' '));
  if (Buffer.byteLength(s) > 255 || /[\x00-\x1f\x7f]/.test(s)) throw new Error('refused');
  return fold(s);
}
const encode = (s) => (plain.test(s) ? s : encodeURIComponent(s).replace(/[!'()*]/g, (c) => '%' + c.charCodeAt(0).toString(16).toUpperCase()));

function parseTags(header) {
  const tags = new Set(), list = header.split(',');
  if (list.length > 256) throw new Error('refused');
  for (let tag of list) {
    tag = tag.trim().replace(/^[Ww]\//, '').replace(/^"|"$/g, '');
    if (/^(?:[0-9a-f]{32}|[0-9a-f]{64})$/i.test(tag)) tags.add(tag.toLowerCase());
  }
  if (tags.size > 64) throw new Error('refused');
  return tags;
}

// decide returns { status, key, selection } as edge.Decide and Decision.Object do.
export function decide(ix, query, held, epoch = 0) {
  if (query.length > 8000 || held.length > 20480) return { status: 400 };
  const params = new Map();
  let tags;
  try {
    let n = 0;
    for (const part of query.split('&')) {
      const eq = part.indexOf('=');
      if (eq <= 0 || eq === part.length - 1) continue;
      if (++n > 128) return { status: 400 };
      const key = decode(part.slice(0, eq)), value = decode(part.slice(eq + 1));
      if (!params.has(key)) params.set(key, value);
    }
    tags = parseTags(held);
  } catch { return { status: 400 }; }
  const arch = params.get('cpuarch'), os = params.get('os') ?? 'prod', payload = params.get('payloadtype') ?? 'fullpayload';
  if (!arch || (payload !== 'fullpayload' && payload !== 'metadataonly' && payload !== 'statement')) return { status: 400 };
  const found = new Set(), canonical = [];
  const add = (positions, track) => { for (const i of positions ?? []) if (ix.items[i].folded === track) found.add(i); };
  add(ix.byApp.get('os_' + arch), os);
  for (const name of [...params.keys()].sort()) {
    const track = params.get(name);
    if (name === 'os' ? track === 'prod' : name === 'payloadtype' ? track === 'fullpayload' : name === 'attr') continue;
    canonical.push(`${encode(name)}=${encode(track)}`);
    if (name === 'cpuarch' || name === 'os' || name === 'payloadtype') continue;
    if (name.startsWith('attr')) add(ix.byAttr.get(name.slice(4)), track);
    else add(ix.byApp.get(name), track);
  }
  const seen = new Set(), set = [];
  for (const i of [...found].sort((a, b) => a - b)) {
    const it = ix.items[i], id = `${it.app}\0${it.version}\0${it.sha256}`;
    if (!seen.has(id)) { seen.add(id); set.push(it); }
  }
  if (set.length === 0) return { status: 404 };
  if (set.length > 256) return { status: 400 };
  const hash = createHash('sha256').update(field('precast set 1')).update(field(ix.format)).update(field(ix.baseURL));
  let mask = 0n, all = true;
  set.forEach((it, i) => {
    hash.update(it.record);
    if (tags.has(it.md5) || tags.has(it.sha256)) mask |= 1n << BigInt(i);
    else all = false;
  });
  const id = hash.digest('hex');
  if (payload === 'statement') {
    const what = createHash('sha256').update(`${canonical.filter((p) => p !== 'payloadtype=statement').join('&')}\n${id}\n`).digest('hex');
    return { status: 200, key: `statements/${String(ix.generation).padStart(20, '0')}/${epoch}/${what}`, selection: canonical.join('&') };
  }
  const metadata = payload === 'metadataonly';
  const key = metadata ? `manifests/${id}/${mask.toString(16)}.json` : `bundles/${id}/${mask.toString(16)}.tar.gz`;
  return { status: all ? 304 : 200, key: all ? '' : key, selection: all ? '' : canonical.join('&') };
}
