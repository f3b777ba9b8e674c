package bundle

import (
	"hash/crc32"
	"math/rand/v2"
	"testing"

	"github.com/minio/crc64nvme"
	"pgregory.net/rapid"
)

func TestCombinedChecksumsAreThoseOfTheWhole(t *testing.T) {
	t.Parallel()
	all := make([]byte, 1<<20)
	_, _ = rand.NewChaCha8([32]byte{}).Read(all)
	rapid.Check(t, func(t *rapid.T) {
		end := rapid.IntRange(0, len(all)).Draw(t, "end")
		ab := all[rapid.IntRange(0, end).Draw(t, "start"):end]
		cut := rapid.IntRange(0, len(ab)).Draw(t, "cut")
		a, b := ab[:cut], ab[cut:]
		got32 := combine32(crc32.ChecksumIEEE(a), crc32.ChecksumIEEE(b), int64(len(b)))
		if want := crc32.ChecksumIEEE(ab); got32 != want {
			t.Fatalf("CRC-32 is %08x, want %08x", got32, want)
		}
		got64 := combine64(crc64nvme.Checksum(a), crc64nvme.Checksum(b), int64(len(b)))
		if want := crc64nvme.Checksum(ab); got64 != want {
			t.Fatalf("CRC-64/NVME is %016x, want %016x", got64, want)
		}
	})
}

// Lengths that no test can hold in memory follow from shorter ones: combining is associative, and n
// zeros can be appended in two runs of any lengths.
func TestCombiningIsAssociative(t *testing.T) {
	t.Parallel()
	length := rapid.Int64Range(0, maxRaw/2)
	rapid.Check(t, func(t *rapid.T) {
		n, m := length.Draw(t, "n"), length.Draw(t, "m")
		a, b, c := rapid.Uint64().Draw(t, "a"), rapid.Uint64().Draw(t, "b"), rapid.Uint64().Draw(t, "c")
		if left, right := combine64(combine64(a, b, n), c, m), combine64(a, combine64(b, c, m), n+m); left != right {
			t.Fatalf("64: (ab)c is %016x, a(bc) %016x", left, right)
		}
		d, e, f := uint32(a), uint32(b), uint32(c)
		if left, right := combine32(combine32(d, e, n), f, m), combine32(d, combine32(e, f, m), n+m); left != right {
			t.Fatalf("32: (ab)c is %08x, a(bc) %08x", left, right)
		}
	})
}
