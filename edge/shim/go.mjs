// Loads the Go reactor of edge/wasm, and gives it the few WASI calls that Go's runtime imports.
import { randomFillSync } from 'node:crypto';

// A Fault means that the instance is not to be used again: what a panic or trap left behind in its
// memory may answer wrongly.
export class Fault extends Error {}

function wasi(state) {
  const view = () => (state.view?.buffer === state.memory.buffer ? state.view : (state.view = new DataView(state.memory.buffer)));
  const none = (count, size) => { view().setUint32(count, 0, true); view().setUint32(size, 0, true); return 0; };
  return {
    args_sizes_get: none, args_get: () => 0, environ_sizes_get: none, environ_get: () => 0, sched_yield: () => 0,
    clock_time_get(id, _precision, out) {
      view().setBigUint64(out, id === 0 ? BigInt(Date.now()) * 1000000n : process.hrtime.bigint(), true);
      return 0;
    },
    random_get(at, n) { randomFillSync(new Uint8Array(state.memory.buffer, at, n)); return 0; },
    // Go writes only what it dies of.
    fd_write(_fd, vectors, n, out) {
      let total = 0;
      for (let i = 0; i < n; i++) {
        const at = view().getUint32(vectors + 8 * i, true), length = view().getUint32(vectors + 8 * i + 4, true);
        if (state.stderr.length < 4096) state.stderr += Buffer.from(state.memory.buffer, at, length).toString();
        total += length;
      }
      view().setUint32(out, total, true);
      return 0;
    },
    // The runtime sleeps only while it dies: every clock it waits for rings at once.
    poll_oneoff(subscriptions, events, n, out) {
      if (++state.polls > 1000) throw new Fault('the Go runtime sleeps');
      const v = view();
      for (let i = 0; i < n; i++) {
        const event = events + 32 * i;
        v.setBigUint64(event, v.getBigUint64(subscriptions + 48 * i, true), true);
        v.setUint16(event + 8, 0, true);
        v.setUint8(event + 10, 0);
      }
      v.setUint32(out, n, true);
      return 0;
    },
    proc_exit(code) { throw new Fault(`the Go program exited with ${code}`); },
  };
}

const VERDICTS = ['used', 'corrupt', 'of an unknown format version', 'older than the one in use'];

// Limits of edge.Decide: what is longer is refused, so no more of it need be passed on.
const MAX_QUERY = 8000, MAX_HEADER = 20480, MAX_COHORT = 1024;

// instantiate makes one instance. It is good until one of its functions throws a Fault.
export function instantiate(module) {
  const state = { memory: null, view: null, stderr: '', polls: 0 };
  const { exports } = new WebAssembly.Instance(module, { wasi_snapshot_preview1: wasi(state) });
  const memory = (state.memory = exports.memory);
  exports._initialize();
  const base = exports.buf();
  let bytes = Buffer.from(memory.buffer), dead = false;
  const view = () => (bytes.buffer === memory.buffer ? bytes : (bytes = Buffer.from(memory.buffer))); // growth detaches it

  function call(f, ...args) {
    if (dead) throw new Fault('the instance is dead');
    try {
      const result = f(...args);
      if (result >= 0) return result;
    } catch (e) {
      state.stderr = `${e?.message ?? e}: ${state.stderr}`;
    }
    dead = true;
    throw new Fault(state.stderr.slice(0, 500) || 'refused a length');
  }

  function answer(status) {
    const v = view(), lengths = [0, 4, 8, 12].map((o) => v.readUInt32LE(base + o));
    let at = base + 16;
    const [key, selection, headers, body] = lengths.map((n) => (n === 0 ? '' : v.utf8Slice(at, (at += n))));
    return { status, key, selection, headers, body };
  }

  return {
    exports, call,
    // decide answers a request; epoch is that of statements now.
    decide(query, held, epoch = 0, cohort = '') {
      const v = view();
      const n = v.utf8Write(query.slice(0, MAX_QUERY + 1), base);
      const h = held === '' ? 0 : v.utf8Write(held.slice(0, MAX_HEADER + 1), base + n);
      const c = cohort === '' ? 0 : v.utf8Write(cohort.slice(0, MAX_COHORT + 1), base + n + h);
      return answer(call(exports.decide, n, h, c, epoch));
    },
    unavailable: () => answer(call(exports.unavailable)),
    // offer takes an encoded index into use; it returns '' or what is wrong with the index.
    offer(encoded) {
      const at = exports.indexbuf(encoded.length);
      if (at === 0) return 'too long';
      view().set(encoded, at);
      const verdict = call(exports.offer, encoded.length);
      return verdict === 0 ? '' : VERDICTS[verdict];
    },
    generation: () => call(exports.generation),
  };
}
