function handler(event) {
  var response = event.response, status = response.statusCode;
  if (status === 200 || status === 206 || status === 304) {
    response.headers['cache-control'] = { value: 'PACKAGE_CACHE_CONTROL' };
    response.headers['vary'] = { value: 'If-None-Match' };
  }
  return response;
}
