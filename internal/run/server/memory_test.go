package server_test

import (
	"bufio"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"runtime"
	"strings"
	"testing"

	"github.com/precast-ota/precast/builder"
	"github.com/precast-ota/precast/internal/format/catalog"
	"github.com/precast-ota/precast/internal/operate/release"
)

// S3: what a request was decided on is not kept while its bundle is sent.
func TestRequestsAreNotKeptS3(t *testing.T) {
	large := make([]byte, 12<<20) // more than the kernel takes of it
	r := rand.NewChaCha8([32]byte{})
	_, _ = r.Read(large)
	s := newSite(t, builder.Options{}, func(im *release.Importer) {
		it := catalog.Item{App: "os_armv8", Track: "prod", Version: "1", DeviceAttr: map[string]bool{}}
		if _, err := im.Import(t.Context(), []release.Release{{Item: it, Open: content(string(large))}}, false); err != nil {
			t.Fatal(err)
		}
	})
	host := strings.TrimPrefix(s.url, "http://")
	heap := func() int64 {
		runtime.GC()
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return int64(m.HeapAlloc)
	}
	const requests, header = 150, 50 << 10
	// keeps is what each of the requests with so many bytes in headers keeps.
	keeps := func(bytes int) int64 {
		before := heap()
		for range requests {
			c, err := net.Dial("tcp", host)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { c.Close() })
			// net/http keeps names and values.
			fmt.Fprintf(c, "GET /package?cpuArch=armv8&x=%s HTTP/1.1\r\nHost: h\r\nX: %s\r\nY%s: y\r\n\r\n",
				strings.Repeat("q", 200), strings.Repeat("x", bytes/2), strings.Repeat("y", bytes/2))
			resp, err := http.ReadResponse(bufio.NewReaderSize(c, 16), nil) // the body is not read
			if err != nil || resp.StatusCode != 200 {
				t.Fatalf("%v %v", resp, err)
			}
		}
		return (heap() - before) / requests
	}
	few, many := keeps(100), keeps(header)
	if many-few > header/4 {
		t.Errorf("%d KiB are kept for a request with %d KiB of headers, %d KiB for one without", many>>10, header>>10, few>>10)
	}
	t.Logf("%d KiB kept, %d KiB without headers", many>>10, few>>10)
}
