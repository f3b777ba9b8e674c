// What a viewer function is called by, in a context of Node's vm. Its value is { cloudfront, call, outcome }: call
// runs a handler, and outcome says what came of it once the context's microtasks have run. They must run when a
// script of the context ends (microtaskMode: 'afterEvaluate'): then they count for the script's timeout too.
//
// The module "cloudfront" has what is documented, and the store has what the caller says:
// { content: { key: value }, down: whether reads fail }, or null where no store is associated.
// https://docs.aws.amazon.com/AmazonCloudFront/latest/DeveloperGuide/functions-custom-methods.html
(function () {
  let current = null;

  const cloudfront = {
    kvs() {
      const { store, reads } = current;
      if (store === null) throw new Error('no key value store is associated');
      const read = (key) => {
        reads.push(key);
        if (store.down) throw new Error('the key value store does not answer');
        return Object.keys(store.content).includes(key) ? store.content[key] : undefined;
      };
      return {
        async get(key, options) {
          const value = read(key), format = options && options.format || 'string';
          if (value === undefined) throw new Error('KeyNotFound: ' + key);
          if (format === 'json') return JSON.parse(value);
          if (format !== 'string') throw new Error('the stand-in has no format ' + format);
          return value;
        },
        async exists(key) { return read(key) !== undefined; },
        async meta() {
          read('');
          return { creationDateTime: '2026-01-01T00:00:00Z', lastUpdatedDateTime: '2026-01-01T00:00:00Z', keyCount: Object.keys(store.content).length };
        },
      };
    },
  };

  // request is JSON: { event, store } and raw, what rawQueryString returns, if the runtime has it: it is new.
  function call(handler, request) {
    const { event, store, raw, hasRaw } = JSON.parse(request);
    const mine = current = { store, reads: [], done: { error: 'the handler does not end' } };
    if (hasRaw) Object.defineProperty(event.request, 'rawQueryString', { value: () => raw });
    (async () => handler(event))().then(
      (value) => { mine.done = { value: value === undefined ? null : value }; },
      (error) => { mine.done = { error: String(error && error.stack || error) }; },
    );
  }

  // JSON: { value } or { error }, and the keys that were read.
  function outcome() {
    return JSON.stringify({ reads: current.reads, ...current.done });
  }

  return { cloudfront, call, outcome };
})()
