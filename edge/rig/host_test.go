package rig_test

import (
	"strings"
	"testing"

	"github.com/precast-ota/precast/edge/rig"
)

// Who has no Node.js is told.
func TestNoNode(t *testing.T) {
	t.Setenv("PATH", t.TempDir())
	_, err := rig.Start(t.Context(), rig.Options{Objects: emptyBucket(t), Dist: dist(t, passingFunction, passingHandler)})
	if err == nil || !strings.Contains(err.Error(), "Node.js 20 or newer") {
		t.Fatal(err)
	}
}

// The functions live on the rig's clock, in the region of an edge location, with the role's credentials and
// nothing else of this machine's environment.
func TestEnvironmentOfTheFunctions(t *testing.T) {
	t.Setenv("SECRET_OF_THIS_MACHINE", "yes")
	r := start(t, rig.Options{Dist: dist(t, passingFunction, `const loaded = Date.now();
		export const handler = async (event, context) => ({status: '200', body: JSON.stringify({loaded, now: Date.now(), id: context.awsRequestId, env: Object.keys(process.env).sort().join(), region: process.env.AWS_REGION})});`)})
	var before, after struct {
		Loaded, Now     int64
		ID, Env, Region string
	}
	at := r.Now()
	decode(t, get(t, r, "/package?1").body, &before)
	r.Advance(90 * 1e9)
	decode(t, get(t, r, "/package?2").body, &after)
	if before.Now != at.UnixMilli() || before.Loaded != at.UnixMilli() || after.Now-before.Now != 90_000 || after.Loaded != before.Loaded {
		t.Fatal(before, after)
	}
	if after.Env != "AWS_ACCESS_KEY_ID,AWS_REGION,AWS_SECRET_ACCESS_KEY,AWS_SESSION_TOKEN,PATH" || after.Region != "ap-northeast-1" || after.ID == "" {
		t.Fatal(after)
	}
}
