// The published index: fetched in the background, at most once at a time, and given to the Go instance.
// Whatever happens to the stored one, the last good index goes on being used.

const RETRY = 1000; // ms between looks while there is no index at all

// published keeps an index fresh. fetch(etag) is as s3.mjs's get; offer(encoded) takes an index into use
// and returns '' or what is wrong with it. Times are milliseconds of now().
export function published({ fetch, offer, now, log, refresh, timeout }) {
  let encoded = null, etag = '', checked = -Infinity, pending = null;

  function start() {
    const mine = (pending = { since: now(), promise: null });
    mine.promise = fetch(etag).then((got) => {
      if (got.status === 304) return;
      const wrong = offer(got.body);
      if (wrong) throw new Error(`the stored index is ${wrong}`);
      encoded = got.body;
      etag = got.etag ?? '';
    }).catch((e) => {
      log('ERROR', encoded === null ? 'fetch index: there is none yet' : 'refresh index: the last good one stays in use', { error: e.message });
    }).finally(() => {
      if (pending !== mine) return;
      pending = null;
      // A failure counts as a look, too: nobody waits for the next one. What was asked for at a time is no
      // newer than that time.
      checked = mine.since;
    });
  }

  return {
    // encoded is the index in use, or null.
    encoded: () => encoded,
    // fresh resolves as soon as the index in use may answer. One that was looked at not long ago may, and is
    // refreshed meanwhile; an older one (Lambda freezes what it does not use) is waited for.
    async fresh() {
      const age = Math.abs(now() - checked); // clocks are set back, too
      if (age < (encoded === null ? Math.min(refresh, RETRY) : refresh)) return;
      // A look that was frozen half way is not waited for: its connection is gone.
      if (pending === null || Math.abs(now() - pending.since) > timeout) start();
      if (encoded === null || age >= 2 * refresh) await pending.promise;
    },
  };
}
