// CloudFront around function.js, for tests: the language that the runtime documents, the event that a
// request becomes, and what the function's answer means.
import fs from 'node:fs';
import { pathToFileURL } from 'node:url';
import vm from 'node:vm';

// The globals and methods that cloudfront-js-2.0 documents, without Date, Math.random and Promise: the function
// has neither clock nor chance, and awaits.
// https://docs.aws.amazon.com/AmazonCloudFront/latest/DeveloperGuide/functions-javascript-runtime-20.html
const documented = {
  globals: `globalThis Object String Number Boolean Function RegExp JSON Array Math Error EvalError RangeError
    ReferenceError SyntaxError TypeError URIError NaN Infinity undefined decodeURI decodeURIComponent encodeURI
    encodeURIComponent isFinite isNaN parseFloat parseInt`,
  statics: {
    Object: `create defineProperties defineProperty freeze getOwnPropertyDescriptor getOwnPropertyDescriptors
      getOwnPropertyNames getPrototypeOf isExtensible isFrozen isSealed keys preventExtensions seal assign entries
      values`,
    String: 'fromCharCode fromCodePoint',
    Array: 'isArray of',
    Number: `EPSILON MAX_SAFE_INTEGER MIN_SAFE_INTEGER MAX_VALUE MIN_VALUE NaN NEGATIVE_INFINITY
      POSITIVE_INFINITY isFinite isInteger isNaN isSafeInteger parseInt parseFloat`,
    JSON: 'parse stringify',
    Math: 'abs ceil floor max min pow round sign sqrt trunc',
  },
  prototypes: {
    Object: 'hasOwnProperty isPrototypeOf propertyIsEnumerable toString valueOf',
    String: `charAt charCodeAt concat indexOf lastIndexOf match replace search slice split substr substring
      toLowerCase trim toUpperCase codePointAt endsWith includes repeat startsWith padStart padEnd trimStart trimEnd
      replaceAll toString valueOf`,
    Array: `concat every filter forEach indexOf join lastIndexOf map pop push reduce reduceRight reverse shift slice
      some sort splice unshift copyWithin fill find findIndex includes toString`,
    Number: 'toExponential toFixed toPrecision toString valueOf',
    Function: 'apply bind call toString',
  },
};

// Runs in the context. Constructors and lengths stay, and what is named by a symbol: the engine needs them.
const restrict = `(function (documented) {
  function keep(object, words) {
    const kept = words.split(/\\s+/).concat('constructor', 'length', 'name', 'prototype');
    for (const name of Object.getOwnPropertyNames(object)) {
      if (!kept.includes(name)) delete object[name];
    }
  }
  const all = globalThis;
  for (const name in documented.prototypes) keep(all[name].prototype, documented.prototypes[name]);
  const { statics, globals } = documented;
  const objects = Object.keys(statics).map((name) => [all[name], statics[name]]);
  keep(all, globals + ' console');
  objects.forEach(([object, words]) => keep(object, words));
})`;

const host = fs.readFileSync(new URL('host.js', import.meta.url), 'utf8');

// The folder of function.js and response.js: the sources, or what is packed.
const folder = process.env.PRECAST_FUNCTIONS ? pathToFileURL(process.env.PRECAST_FUNCTIONS + '/') : import.meta.url;

// load returns a function from an event to the handler's answer. Its options: query, what rawQueryString is to
// return; raw: false for a runtime without rawQueryString; store, as host.js has it; reads, a list that gets the
// keys that the function read.
export function load(file = new URL('function.js', folder)) {
  const context = vm.createContext({}, { codeGeneration: { strings: false, wasm: false }, microtaskMode: 'afterEvaluate' });
  const { cloudfront, call, outcome } = vm.runInContext(host, context);
  const parts = vm.runInContext(restrict, context);
  parts(JSON.parse(JSON.stringify(documented)));
  // The only module is imported in the only way. Functions are strict by default in this runtime.
  const source = fs.readFileSync(file, 'utf8');
  const body = source.replace(/^import cf from ?(["'])cloudfront\1;/m, '');
  const handler = vm.runInContext(`(function (${body === source ? '' : 'cf'}) { 'use strict'; ${body}\n; return handler; })`, context, { filename: 'function.js' })(cloudfront);
  const script = new vm.Script('called()');
  return (event, { raw = true, query = '', store = { content: {} }, reads } = {}) => {
    context.called = () => { delete context.called; call(handler, JSON.stringify({ event, store, raw: query, hasRaw: raw })); };
    script.runInContext(context);
    const { value, error, reads: keys } = JSON.parse(outcome());
    reads?.push(...keys);
    if (error !== undefined) throw new Error(error);
    return value;
  };
}

// parsedQuery is the querystring object of an event. Names and values are as they were sent.
export function parsedQuery(text) {
  const values = new Map();
  for (const part of text.split('&')) {
    const equals = part.indexOf('=');
    const name = equals < 0 ? part : part.slice(0, equals);
    if (part !== '') values.set(name, [...(values.get(name) ?? []), equals < 0 ? '' : part.slice(equals + 1)]);
  }
  return Object.fromEntries([...values].map(([name, all]) => [name, field(all)]));
}

// reassembled is the query that a parsed one says.
export function reassembled(parsed) {
  return Object.entries(parsed)
    .flatMap(([name, { value, multiValue }]) => (multiValue ?? [{ value }]).map((v) => (v.value ? `${name}=${v.value}` : name)))
    .join('&');
}

// field is a parameter or header of an event: multiValue only where there are several.
function field(values) {
  return values.length === 1 ? { value: values[0] } : { value: values[0], multiValue: values.map((value) => ({ value })) };
}

// eventOf makes the event of a request; headers are lists of lines by name, in lower case.
export function eventOf({ method = 'GET', uri = '/package', query = '', headers = {} }) {
  return {
    version: '1.0',
    context: { distributionDomainName: 'd111111abcdef8.cloudfront.net', eventType: 'viewer-request', requestId: 'EXAMPLE' },
    viewer: { ip: '198.51.100.11' },
    request: {
      method,
      uri,
      querystring: parsedQuery(query),
      headers: Object.fromEntries(Object.entries(headers).map(([name, lines]) => [name, field(lines)])),
      cookies: { session: { value: 'x' } },
    },
  };
}

// outcome says what CloudFront makes of the handler's answer: { status, headers, body } of a response, or the
// { uri, query, headers } that go on to the cache. Headers of a request are lists of lines.
export function outcome(answer) {
  const lines = (f) => f.multiValue?.map((v) => v.value) ?? [f.value];
  if (answer.statusCode !== undefined) {
    const headers = Object.fromEntries(Object.entries(answer.headers).map(([name, f]) => [name, lines(f).join(', ')]));
    return { status: answer.statusCode, description: answer.statusDescription, headers, body: answer.body.data };
  }
  const headers = Object.fromEntries(Object.entries(answer.headers).map(([name, f]) => [name, lines(f)]));
  return { uri: answer.uri, query: answer.querystring, headers, cookies: answer.cookies };
}
