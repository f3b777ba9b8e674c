// The published index: fetched in the background, at most once at a time, and given to the Go instance.
// Whatever happens to the stored one, the last good index stays in use.

const RETRY = 1000; // ms between looks that fail, and between looks while there is no index at all

// published keeps an index fresh. fetch(etag) is as s3.mjs's get; offer(encoded) takes an index into use
// and returns '' or what is wrong with it. Times are milliseconds of now().
export function published({ fetch, offer, now, log, refresh, timeout }) {
  // looked is when the last look that saw what is stored began, good or not; failed is when one last ended that
  // did not see it.
  let encoded = null, etag = '', looked = -Infinity, failed = -Infinity, pending = null;

  async function look(mine) {
    let seen = false;
    try {
      const got = await fetch(etag);
      const wrong = got.status === 304 ? '' : offer(got.body);
      seen = true;
      if (wrong) throw new Error(`the stored index is ${wrong}`);
      if (got.status !== 304) [encoded, etag] = [got.body, got.etag ?? ''];
    } catch (e) {
      log('ERROR', encoded === null ? 'fetch index: there is none yet' : 'refresh index: the last good one stays in use', { error: e.message });
    }
    if (pending !== mine) return;
    pending = null;
    // What was asked for at a time is no newer than that time. A failure that took longer than a look may was
    // frozen on its way: it says nothing of now.
    if (seen) looked = mine.since;
    else if (Math.abs(now() - mine.since) <= timeout + RETRY) failed = now();
  }

  function start() {
    const mine = (pending = { since: now(), promise: null });
    mine.promise = Promise.resolve(mine).then(look); // not yet: fetch may throw, and pending is to be complete
  }

  return {
    // encoded is the index in use, or null.
    encoded: () => encoded,
    // fresh resolves as soon as the index in use may answer. One whose last look is not long ago may, and is
    // refreshed meanwhile. An older one is waited for: Lambda freezes what it does not use. It answers
    // all the same if that look fails, and until the next, which is a second later.
    async fresh() {
      const since = (t) => Math.abs(now() - t); // clocks are set back, too
      if (since(looked) < (encoded === null ? RETRY : refresh) || since(failed) < RETRY) return;
      // A look that was frozen half way is not waited for: its connection is gone.
      if (pending === null || since(pending.since) > timeout) start();
      if (encoded === null || since(looked) >= 2 * refresh) await pending.promise;
    },
  };
}
