// A signed, conditional GET from S3 by the execution role's credentials, without the SDK: the SDK takes
// longer to load than everything else here together.
import http from 'node:http';
import https from 'node:https';
import { createHash, createHmac } from 'node:crypto';

const hmac = (key, text) => createHmac('sha256', key).update(text).digest();
const sha256 = (text) => createHash('sha256').update(text).digest('hex');
const escape = (c) => '%' + c.charCodeAt(0).toString(16).toUpperCase();
const encode = (path) => path.split('/').map((part) => encodeURIComponent(part).replace(/[!'()*]/g, escape)).join('/');

// sign returns a GET's headers with its signature
// (https://docs.aws.amazon.com/AmazonS3/latest/API/sig-v4-header-based-auth.html). date is YYYYMMDDTHHMMSSZ.
export function sign({ host, path, region, date, credentials, headers = {}, payload = 'UNSIGNED-PAYLOAD' }) {
  const signed = { ...headers, host, 'x-amz-content-sha256': payload, 'x-amz-date': date };
  if (credentials.token) signed['x-amz-security-token'] = credentials.token;
  const names = Object.keys(signed).sort(), list = names.join(';');
  const day = date.slice(0, 8), scope = `${day}/${region}/s3/aws4_request`;
  const request = ['GET', path, '', ...names.map((name) => `${name}:${signed[name]}`), '', list, payload].join('\n');
  const text = ['AWS4-HMAC-SHA256', date, scope, sha256(request)].join('\n');
  const key = ['s3', 'aws4_request'].reduce(hmac, hmac(hmac('AWS4' + credentials.secret, day), region));
  const signature = createHmac('sha256', key).update(text).digest('hex');
  signed.authorization = `AWS4-HMAC-SHA256 Credential=${credentials.id}/${scope}, SignedHeaders=${list}, Signature=${signature}`;
  return signed;
}

const MAX_INDEX = 16 << 20; // index.MaxEncoded

// client returns get({ bucket, region, endpoint }, key, etag) -> { status: 200, body, etag } | { status: 304 }.
// It rejects on every other answer. timeout is in milliseconds, for the whole answer.
export function client({ timeout }) {
  // No connection is kept: while Lambda freezes the instance it dies, unnoticed, and what is asked through it
  // next fails. The agents are kept for https.Agent's TLS sessions.
  const options = { keepAlive: false, maxSockets: 4 };
  const agents = { 'http:': new http.Agent(options), 'https:': new https.Agent(options) };
  return function get({ bucket, region, endpoint }, key, etag) {
    const base = new URL(endpoint || `https://${bucket}.s3.${region}.amazonaws.com`);
    const path = encode(endpoint ? `/${bucket}/${key}` : `/${key}`);
    // Lambda renews the variables: they are read every time.
    const { AWS_ACCESS_KEY_ID: id, AWS_SECRET_ACCESS_KEY: secret, AWS_SESSION_TOKEN: token } = process.env;
    const date = new Date(Date.now()).toISOString().replace(/[-:]|\.\d{3}/g, '');
    const headers = sign({ host: base.host, path, region, date, credentials: { id, secret, token }, headers: etag ? { 'if-none-match': etag } : {} });
    const { request } = base.protocol === 'http:' ? http : https;
    return new Promise((resolve, reject) => {
      const fail = (why) => reject(new Error(`get ${bucket}/${key}: ${why}`));
      const req = request({ hostname: base.hostname, port: base.port, path, headers, agent: agents[base.protocol], signal: AbortSignal.timeout(timeout) }, (res) => {
        const parts = [];
        let size = 0;
        res.on('data', (part) => {
          if ((size += part.length) > MAX_INDEX) req.destroy(new Error('longer than an index may be'));
          else parts.push(part);
        });
        res.on('error', (e) => fail(e.message));
        res.on('end', () => {
          if (res.statusCode === 304) resolve({ status: 304 });
          else if (res.statusCode === 200) resolve({ status: 200, body: Buffer.concat(parts), etag: res.headers.etag });
          else fail(`status ${res.statusCode}: ${Buffer.concat(parts).toString('utf8', 0, 300)}`);
        });
      });
      req.on('error', (e) => fail(e.message));
      req.end();
    });
  };
}
