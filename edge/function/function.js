// The viewer-request function of Precast: CloudFront Functions, runtime cloudfront-js-2.0.
//
// It turns every spelling of a request for /package into one canonical form, which is the cache key:
// the query becomes edge.Selection.String, the digests of If-None-Match become edge.Tags.String, in
// X-Precast-Held, and the slot becomes the rollouts that it is in, in X-Precast-Cohort: 10,000 slots would be
// 10,000 entries of the cache. It repeats edge/selection.go and edge/tags.go.
//
// edge/cmd/pack takes comments and white space out before the function is published.
//
// DOCS is https://docs.aws.amazon.com/AmazonCloudFront/latest/DeveloperGuide. The language is what
// DOCS/functions-javascript-runtime-20.html lists; the event: DOCS/functions-event-structure.html.

import cf from 'cloudfront';

const MAX_QUERY = 8000; // bytes, of the raw query and of the canonical one
const MAX_PARAMS = 128; // with a value
const MAX_PARAM = 255; // bytes of a decoded name or value
const MAX_TAG_HEADER = 20480; // bytes
const MAX_TAGS = 64; // different digests
const MAX_TAG_LIST = 256; // entries, whatever they are
const MAX_COHORT = 1024; // bytes
const MAX_VALUES = 8; // of the table of rollouts
const MAX_CONDITION = 1024; // bytes of a range or condition that goes on

const LONG_QUERY = 'Query is longer than ' + MAX_QUERY + ' bytes';
const LONG_PARAM = 'Query has a key or value longer than ' + MAX_PARAM + ' bytes';

// The name of a binary is not "." or "..", escaped or not.
const FILE = /^\/(?:keyring(?:\.d\/[0-9]{20})?|binaries\/[0-9a-f]{64}\/(?!(?:\.|%2[Ee]){1,2}$)[^\/]+)$/;
const SLOT = /^0*[0-9]{1,4}$/;
// A line of the table of rollouts: salt, a, b, share, selectors.
const ROLLOUT = /^([a-z0-9_-]{1,32}) ([0-9]{1,4}) ([0-9]{1,4}) ([0-9]{1,4}) ([^ ]+)$/;
const NOT_ASCII = /[^\x00-\x7f]/;
const NOT_HEX = /[^0-9A-Fa-f]/;
// In queries that are ASCII, in lower case:
const BROKEN_ESCAPE = /%(?![0-9a-f]{2})/;
const CONTROL = /[\x00-\x1f\x7f]|%[01][0-9a-f]|%7f/;
const NOT_ASCII_ESCAPE = /%[89a-f]/;
// A character beyond ASCII: not overlong, no surrogate, not above U+10FFFF.
const UTF8 = /%c[2-9a-f]%[89ab].|%d.%[89ab].|%e0%[ab].%[89ab].|%e[1-9abcef]%[89ab].%[89ab].|%ed%[89].%[89ab].|%f0%[9ab].%[89ab].%[89ab].|%f[123]%[89ab].%[89ab].%[89ab].|%f4%8.%[89ab].%[89ab]./g;

async function handler(event) {
  const request = event.request;
  const headers = request.headers;
  if (request.method !== 'GET' && request.method !== 'HEAD') {
    const refusal = failure(405, 'Method Not Allowed', 'Use GET or HEAD');
    refusal.headers.allow = { value: 'GET, HEAD' };
    return refusal;
  }
  // The origin believes these: no viewer may set them.
  delete headers['x-precast-held'];
  delete headers['x-precast-cohort'];
  delete headers['x-precast-selection'];
  request.cookies = {};
  if (request.uri === '/package') {
    return packageRequest(request, headers);
  }
  if (FILE.test(request.uri)) {
    request.querystring = '';
    return bounded(request, headers);
  }
  return failure(404, 'Not Found', 'Not found: devices ask for /package?cpuArch=...');
}

async function packageRequest(request, headers) {
  const query = canonicalQuery(rawQuery(request));
  const tags = query.error ? query : readTags(headers['if-none-match']);
  if (tags.error) {
    return failure(400, 'Bad Request', tags.error);
  }
  // A string, as in DOCS/example-function-normalize-query-string.html.
  request.querystring = query.text;
  if (tags.held) {
    headers['x-precast-held'] = { value: tags.held };
  }
  if (query.slot) {
    const table = await rolloutTable();
    const cohort = cohortOf(Number(query.slot), table, query.has);
    if (cohort) {
      headers['x-precast-cohort'] = { value: cohort };
    }
  }
  // A single tag may be the ETag of an answer: the cache can compare it. The other conditions would be
  // judged by the copy that one cache happens to have.
  delete headers['if-none-match'];
  delete headers['if-match'];
  delete headers['if-modified-since'];
  delete headers['if-unmodified-since'];
  if (tags.single) {
    headers['if-none-match'] = { value: '"' + tags.single + '"' };
  }
  return bounded(request, headers);
}

// S3 refuses more than 8,192 bytes of headers. Without a range or condition that no device has, the answer is the
// whole one.
function bounded(request, headers) {
  ['if-range', 'range', 'if-none-match', 'if-match', 'if-modified-since', 'if-unmodified-since'].forEach(function (name) {
    if (headers[name] && longerThan(valuesOf(headers[name]).join(','), MAX_CONDITION)) {
      delete headers[name];
      if (name === 'if-range') {
        delete headers.range; // it would be met without its condition
      }
    }
  });
  return request;
}

// edge.Failure. No text of this file needs escapes in JSON.
function failure(status, description, message) {
  return {
    statusCode: status,
    statusDescription: description,
    headers: {
      'cache-control': { value: 'public, max-age=10' },
      'content-type': { value: 'application/json' },
      'x-content-type-options': { value: 'nosniff' }
    },
    body: { encoding: 'text', data: '{"error":"' + message + '"}\n' }
  };
}

// The query as it was sent. rawQueryString is new (DOCS/general-helper-methods.html); without it, what
// was parsed, but not decoded, is put together.
function rawQuery(request) {
  if (typeof request.rawQueryString === 'function') {
    return request.rawQueryString() || '';
  }
  const parts = [];
  Object.keys(request.querystring).forEach(function (name) {
    valuesOf(request.querystring[name]).forEach(function (value) {
      parts.push(value ? name + '=' + value : name);
    });
  });
  return parts.join('&');
}

// All values of a parameter, or all lines of a header.
function valuesOf(field) {
  return field.multiValue ? field.multiValue.map(function (v) { return v.value; }) : [field.value];
}

// The table of rollouts, or what there is of it: whatever is wrong, a device gets the previous release, and is not
// refused. The key of no value throws, and values are best awaited one after the other
// (DOCS/functions-custom-methods.html); await is for statements of an async function only, neither for
// arguments nor in closures (DOCS/async-await-syntax.html).
async function rolloutTable() {
  let table = '';
  let more = true;
  try {
    const store = cf.kvs();
    for (let i = 0; i < MAX_VALUES && more; i++) {
      const value = await store.get('rollouts.' + i);
      table += value;
      more = value.endsWith('+\n'); // no selector ends so
    }
  } catch (e) { }
  return table;
}

// The rollouts that a slot is in, of those that the query can meet: "salt~share", joined by ".".
function cohortOf(slot, table, has) {
  let cohort = '';
  let last = ''; // lines are sorted by salt, then share: the first that matches counts
  const lines = table.split('\n');
  for (let i = 0; i < lines.length; i++) {
    const line = ROLLOUT.exec(lines[i]);
    if (line && line[1] > last && (Number(line[2]) * slot + Number(line[3])) % 10000 < Number(line[4]) && meets(has, line[5])) {
      const longer = cohort + (cohort && '.') + line[1] + '~' + line[4];
      if (longer.length <= MAX_COHORT) {
        cohort = longer;
        last = line[1];
      }
    }
  }
  return cohort;
}

function meets(has, selectors) {
  return selectors.split(',').some(function (selector) {
    return selector.split('&').every(function (param) { return has[param] === true; });
  });
}

// edge.ParseSelection and Selection.String: { text, slot, has } or { error }. has has all parameters, as in a
// selector of the table of rollouts.
//
// Names and values are kept folded and percent-encoded, as in the result: every byte has one spelling. A query with
// nothing wrong in it is encoded as a whole, with control characters for the separators: it has no others.
function canonicalQuery(raw) {
  if (longerThan(raw, MAX_QUERY)) {
    return { error: LONG_QUERY };
  }
  const text = folded(ascii(raw));
  const sound = !BROKEN_ESCAPE.test(text) && !fault(text);
  const equal = sound ? '%02' : '=';
  const parts = sound ? encoded(text.split('&').join('\x01').split('=').join('\x02')).split('%01') : text.split('&');
  const values = {}; // under "=" and the name (none is __proto__ then)
  const names = [];
  let params = 0;
  for (let i = 0; i < parts.length; i++) {
    const at = parts[i].indexOf(equal);
    if (at < 1 || at + equal.length === parts[i].length) {
      continue;
    }
    params++;
    if (params > MAX_PARAMS) {
      return { error: 'Query has more than ' + MAX_PARAMS + ' parameters' };
    }
    const name = canonicalText(parts[i].substring(0, at), sound);
    const value = name.error ? name : canonicalText(parts[i].substring(at + equal.length), sound);
    if (value.error) {
      return value;
    }
    if (values['=' + name.text] === undefined) {
      values['=' + name.text] = value.text;
      names.push(name.text);
    }
  }
  return selection(names, values);
}

function selection(names, values) {
  const payload = values['=payloadtype'] || 'fullpayload';
  if (values['=cpuarch'] === undefined) {
    return { error: 'Missing cpuArch query param' };
  }
  if (payload !== 'fullpayload' && payload !== 'metadataonly' && payload !== 'statement') {
    return { error: 'Invalid payloadType param' };
  }
  const slot = values['=slot'];
  if (slot !== undefined && !SLOT.test(slot)) {
    return { error: 'slot is not a number from 0 to 9999' };
  }
  const params = [];
  const has = { 'os=prod': values['=os'] === undefined };
  for (let i = 0; i < names.length; i++) {
    const param = names[i] + '=' + values['=' + names[i]];
    has[param] = true;
    if (names[i] !== 'attr' && names[i] !== 'slot' && param !== 'os=prod' && param !== 'payloadtype=fullpayload') {
      params.push({ order: byteString(names[i]), text: param });
    }
  }
  params.sort(function (a, b) { return a.order < b.order ? -1 : 1; }); // no two are equal
  const text = params.map(function (p) { return p.text; }).join('&');
  return text.length > MAX_QUERY ? { error: LONG_QUERY } : { text: text, slot: slot, has: has };
}

// Percent-encodes a name or value, unless the query is sound: then it is encoded. { text } or { error }.
function canonicalText(s, sound) {
  if (!sound && BROKEN_ESCAPE.test(s)) {
    return { error: 'Query has a broken percent escape' };
  }
  if (s.length > MAX_PARAM && s.length - 2 * (s.split('%').length - 1) > MAX_PARAM) {
    return { error: LONG_PARAM };
  }
  const error = sound ? '' : fault(s);
  if (error) {
    return { error: error };
  }
  return { text: sound ? s.split('%02').join('%3D') : encoded(s) };
}

// Folds a query that is ASCII: A-Z become a-z, escaped or not, and a blank has one spelling.
function folded(s) {
  return s.toLowerCase().replace(/%4(?=[1-9a-f])/g, '%6').replace(/%5(?=[0-9a])/g, '%7').split('+').join('%20');
}

function fault(s) {
  if (CONTROL.test(s)) {
    return 'Query has a control character';
  }
  return NOT_ASCII_ESCAPE.test(s) && NOT_ASCII_ESCAPE.test(s.replace(UTF8, '')) ? 'Query is not UTF-8' : '';
}

// Escapes everything but RFC 3986's unreserved characters, in the one spelling.
function encoded(s) {
  const text = encodeURIComponent(decodeURIComponent(s));
  return /[!'()*]/.test(text) ? "!'()*".split('').reduce(function (t, c) {
    return t.split(c).join('%' + c.charCodeAt(0).toString(16).toUpperCase());
  }, text) : text;
}

// Sorts as the bytes of a canonical text do: those above 0x7F are written behind the last character of ASCII, which
// no name has.
function byteString(s) {
  return s.indexOf('%') < 0 ? s : decodeURIComponent(s.replace(/%(?=[89A-F])/g, '\x7f'));
}

// edge.ParseTags and SingleTag: { held, single } or { error }.
function readTags(field) {
  const header = field ? valuesOf(field).join(',') : '';
  if (longerThan(header, MAX_TAG_HEADER)) {
    return { error: 'If-None-Match is longer than ' + MAX_TAG_HEADER + ' bytes' };
  }
  const parts = header.split(',', MAX_TAG_LIST + 1);
  if (parts.length > MAX_TAG_LIST) {
    return { error: 'If-None-Match is a list of more than ' + MAX_TAG_LIST };
  }
  const seen = {};
  let tags = 0;
  let single = '';
  for (let i = 0; i < parts.length; i++) {
    const tag = parts[i] === '' ? '' : opaque(parts[i]);
    if (tag !== '') {
      tags++;
      single = tags === 1 ? tag : '';
    }
    if (tag.length === 32 || tag.length === 64) {
      seen[tag.toLowerCase()] = true;
    }
  }
  let digests = Object.keys(seen);
  if (NOT_HEX.test(digests.join(''))) {
    digests = digests.filter(function (tag) { return !NOT_HEX.test(tag); });
  }
  if (digests.length > MAX_TAGS) {
    return { error: 'If-None-Match has more than ' + MAX_TAGS + ' digests' };
  }
  return { held: digests.sort().join(','), single: single };
}

// Strips blanks, the weakness prefix and quotes. (A blank that does not end the tag is passed once: other expressions
// take quadratic time.)
function opaque(tag) {
  let start = tag.search(/[^ \t]/);
  let end = tag.search(/[^ \t][ \t]*$/) + 1;
  if (start < 0) {
    return '';
  }
  const first = tag.charAt(start);
  if ((first === 'W' || first === 'w') && tag.charAt(start + 1) === '/') {
    start += 2;
  }
  if (start < end && tag.charAt(start) === '"') {
    start++;
  }
  if (start < end && tag.charAt(end - 1) === '"') {
    end--;
  }
  return tag.substring(start, end);
}

// Whether the UTF-8 of s has more bytes than that.
function longerThan(s, most) {
  if (s.length > most || 3 * s.length <= most || !NOT_ASCII.test(s)) {
    return s.length > most;
  }
  const others = s.replace(/[\x00-\x7f]+/g, '');
  return s.length - others.length + escaped(others).length / 3 > most;
}

// Percent-encodes what is not ASCII, and leaves alone what is escaped.
function ascii(s) {
  if (!NOT_ASCII.test(s)) {
    return s;
  }
  try {
    return encodeURI(s).split('%25').join('%');
  } catch (e) {
    return s.replace(/[^\x00-\x7f]+/g, escaped);
  }
}

// CloudFront presents UTF-8 only (DOCS/edge-function-restrictions-all.html); half a character is refused.
function escaped(s) {
  try {
    return encodeURIComponent(s);
  } catch (e) {
    return s.replace(/[\s\S]/g, '%FF');
  }
}
