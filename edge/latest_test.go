package edge_test

import (
	"bytes"
	"errors"
	"testing"

	"github.com/precast-ota/precast/edge"
	"github.com/precast-ota/precast/internal/format/index"

	"pgregory.net/rapid"
)

// Whatever is offered, the index in use is the newest good one so far.
func TestLatest(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var latest edge.Latest
		var want *index.Index
		for range rapid.IntRange(1, 20).Draw(t, "offers") {
			ix := sampleIndex()
			ix.Generation, ix.Sequence = rapid.Uint64Range(1, 4).Draw(t, "generation"), rapid.Uint64Range(1, 4).Draw(t, "sequence")
			encoded := ix.Encode()
			var refused error
			switch rapid.SampledFrom([]string{"good", "good", "truncated", "damaged", "garbage"}).Draw(t, "state") {
			case "good":
				if want != nil && (ix.Generation < want.Generation || ix.Generation == want.Generation && ix.Sequence < want.Sequence) {
					refused = index.ErrOlder
				} else {
					want = ix
				}
			case "truncated":
				encoded, refused = encoded[:rapid.IntRange(0, len(encoded)-1).Draw(t, "length")], index.ErrCorrupt
			case "damaged":
				encoded[rapid.IntRange(0, len(encoded)-1).Draw(t, "at")] ^= rapid.ByteRange(1, 255).Draw(t, "by")
				refused = index.ErrCorrupt
			case "garbage":
				encoded, refused = rapid.SliceOf(rapid.Byte()).Draw(t, "bytes"), index.ErrCorrupt
			}
			if err := latest.Offer(encoded); !errors.Is(err, refused) || (err == nil) != (refused == nil) {
				t.Fatalf("offered: %v, want %v", err, refused)
			}
			got := latest.Index()
			if (got == nil) != (want == nil) || got != nil && !bytes.Equal(got.Encode(), want.Encode()) {
				t.Fatalf("in use: %+v, want %+v", got, want)
			}
		}
	})
}

func TestFailureIsJSON(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		message := rapid.String().Draw(t, "message")
		r := edge.Failure(400, message)
		equalsJSON(t, r.Body, map[string]string{"error": message})
	})
}
