package sha256_test

import (
	stdlib "crypto/sha256"
	"testing"

	"github.com/precast-ota/precast/edge/sha256"

	"pgregory.net/rapid"
)

func TestEqualsTheStandardLibrary(t *testing.T) {
	for n := range 300 { // every padding length, twice over
		data := make([]byte, n)
		for i := range data {
			data[i] = byte(i * n)
		}
		if sha256.Sum256(data) != stdlib.Sum256(data) {
			t.Fatalf("digest of %d bytes differs", n)
		}
	}
	rapid.Check(t, func(t *rapid.T) {
		data := rapid.SliceOfN(rapid.Byte(), 0, 5000).Draw(t, "data")
		if sha256.Sum256(data) != stdlib.Sum256(data) {
			t.Fatalf("digest of %d bytes differs", len(data))
		}
	})
}
