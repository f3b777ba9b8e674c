package edge_test

import (
	"fmt"
	"testing"

	"github.com/precast-ota/precast/edge"
	"github.com/precast-ota/precast/internal/format/index"
)

// BenchmarkDecide10000 answers a device from an index of 10,000 items; its set has 28 of them.
func BenchmarkDecide10000(b *testing.B) {
	var items []index.Item
	for i := range 10_000 {
		app, track := fmt.Sprint("app", i/2), []string{"beta", "prod"}[i%2]
		items = append(items, item(app, track, fmt.Sprint(i), fmt.Sprint("attr", i/2%400)))
	}
	ix := indexOf(append(items, item("os_armv8", "prod", "1"))...)
	const query = "cpuArch=armv8&attrAttr7=prod&attrAttr11=beta&app4000=prod"
	held := md5Of("app7", "15")
	d := edge.Decide(ix, query, held)
	if d.Status != edge.StatusOK || d.Set.Len() != 28 || d.Mask.Empty() {
		b.Fatalf("status %d, set of %d, held %s", d.Status, d.Set.Len(), d.Mask)
	}
	b.Run("decide", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			edge.Decide(ix, query, held)
		}
	})
	b.Run("ID", func(b *testing.B) {
		for b.Loop() {
			_ = d.Set.ID()
		}
	})
}
