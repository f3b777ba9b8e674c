// The origin-request handler: an event in, a request or an answer out. What is decided is decided in Go.
import { instantiate, Fault } from './go.mjs';
import { published } from './published.mjs';

const PATH = '/package';
const HELD = 'x-precast-held', COHORT = 'x-precast-cohort', SELECTION = 'x-precast-selection'; // edge.HeldHeader, and so on
const REASONS = { 200: 'OK', 400: 'Bad Request', 404: 'Not Found', 503: 'Service Unavailable' };

// The answer's texts are Go's lines of "name: value".
function generated({ status, headers, body }) {
  const response = { status: String(status), statusDescription: REASONS[status] ?? '', headers: {} };
  for (const line of headers.split('\n')) {
    const colon = line.indexOf(': ');
    if (colon > 0) response.headers[line.slice(0, colon).toLowerCase()] = [{ key: line.slice(0, colon), value: line.slice(colon + 2) }];
  }
  if (body !== '') response.body = body;
  return response;
}

const joined = (lines) => (lines === undefined ? '' : lines.length === 1 ? lines[0].value : lines.map((line) => line.value).join(','));

// The bucket is baked into the package, or else comes with the origin as custom headers: they are set in
// the distribution, and what a viewer sends cannot be there.
function place(config, origin) {
  if (config.bucket) return config;
  const custom = (origin?.s3 ?? origin?.custom)?.customHeaders ?? {};
  const bucket = custom['x-precast-bucket']?.[0]?.value, region = custom['x-precast-region']?.[0]?.value;
  if (!bucket || !region) throw new Error('no bucket: bake one into config.json, or give the origin the custom headers x-precast-bucket and x-precast-region');
  return { ...config, bucket, region };
}

// makeHandler returns the handler. module is edge.wasm, compiled; get is of s3.mjs; config has
// refreshSeconds, timeoutSeconds and maybe bucket, region, endpoint and statementSeconds, the period of
// package statement's Schedule; log takes level, message and fields.
export function makeHandler({ module, get, config, log, now = Date.now }) {
  let go = instantiate(module), where = null;
  const period = config.statementSeconds || 86400;
  const unavailable = generated(go.unavailable());
  const index = published({
    fetch: (etag) => get(where, 'index', etag),
    offer(encoded) {
      let wrong;
      try {
        wrong = go.offer(encoded);
      } catch (e) {
        log('ERROR', 'offer index', { error: e.message, fault: e instanceof Fault });
        replace(go); // it may have been dead before
        wrong = go.offer(encoded);
      }
      if (!wrong) log('INFO', 'index in use', { generation: go.generation(), bytes: encoded.length });
      return wrong;
    },
    now, log, refresh: 1000 * config.refreshSeconds, timeout: 1000 * config.timeoutSeconds,
  });

  // replace makes a new instance after a fault, with the index that was in use.
  function replace(broken) {
    if (go !== broken) return; // somebody else has
    go = instantiate(module);
    if (index.encoded() !== null) go.offer(index.encoded());
  }

  function decide(request) {
    const { headers, querystring } = request;
    const { status, key, selection, ...rest } = go.decide(querystring, joined(headers[HELD]), Math.floor(now() / 1000 / period), joined(headers[COHORT]));
    if (key === '') return generated({ status, ...rest });
    // The object store must not see the device's query; the composer reads it from the header. To the store
    // the headers are nothing, and it refuses more than 8,192 bytes of them; for the composer this runs again, on
    // the request as it was.
    request.uri = '/' + key;
    request.querystring = '';
    if (request.origin?.s3) for (const name of [HELD, COHORT]) delete headers[name];
    else headers[SELECTION] = [{ key: 'X-Precast-Selection', value: selection }];
    return request;
  }

  async function handler(event, context) {
    const { request } = event.Records[0].cf;
    if (request.uri !== PATH) return request;
    const requestId = context?.awsRequestId;
    try {
      where ??= place(config, request.origin);
      await index.fresh();
    } catch (e) {
      log('ERROR', 'find the index', { requestId, error: e.message });
    }
    for (let attempt = 0; attempt < 2; attempt++) {
      const mine = go;
      try {
        return decide(request);
      } catch (e) {
        log('ERROR', 'decide', { requestId, error: e.message, fault: e instanceof Fault, attempt });
        try { replace(mine); } catch (again) { log('ERROR', 'replace the instance', { requestId, error: again.message }); }
      }
    }
    return structuredClone(unavailable);
  }
  handler.instance = () => go; // for tests
  return handler;
}
