// The viewer-response function of Precast, on /package: CloudFront Functions, runtime cloudfront-js-2.0.
// It runs behind the cache, and not for errors
// (https://docs.aws.amazon.com/AmazonCloudFront/latest/DeveloperGuide/edge-function-restrictions-all.html).

function handler(event) {
  const response = event.response;
  const headers = response.headers;
  if (response.statusCode !== 200 && response.statusCode !== 206 && response.statusCode !== 304) {
    return response;
  }
  // Caches between here and the device must know what the answer depends on.
  headers.vary = { value: 'If-None-Match' };
  // edge.StatusHeader: the device holds everything. See edge.Decision.CacheResponse.
  if (headers['x-precast-status']) {
    delete headers['x-precast-status'];
    response.statusCode = 304;
    response.statusDescription = 'Not Modified';
  }
  return response;
}
