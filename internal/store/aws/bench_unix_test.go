//go:build unix

package aws

import (
	"bytes"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"syscall"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/minio/crc64nvme"

	"github.com/precast-ota/precast/builder"
	"github.com/precast-ota/precast/internal/format/layout"
)

// cpuTime is what this process has used so far, all of its threads.
func cpuTime(b *testing.B) time.Duration {
	var usage syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &usage); err != nil {
		b.Fatal(err)
	}
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}

// BenchmarkPut compares Put of a bundle of 20 MB, checksum known, with net/http doing the same and
// nothing else. "cpu-ratio" is the processor time of the first by that of the second, in each case with
// the server's, which reads the body and throws it away.
func BenchmarkPut(b *testing.B) {
	for _, tls := range []bool{false, true} {
		name := "http"
		if tls {
			name = "https"
		}
		b.Run(name, func(b *testing.B) { benchmarkPut(b, tls) })
	}
}

func benchmarkPut(b *testing.B, tls bool) {
	const size = 20 << 20
	discard := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if n, err := io.Copy(io.Discard, r.Body); n != size || err != nil {
			b.Errorf("server got %d bytes, %v", n, err)
		}
		w.Header().Set("ETag", `"etag"`)
	})
	server := httptest.NewUnstartedServer(discard)
	client := httpClient()
	if tls {
		server.StartTLS()
		config := server.Client().Transport.(*http.Transport).TLSClientConfig
		client = client.WithTransportOptions(func(t *http.Transport) { t.TLSClientConfig.RootCAs = config.RootCAs })
	} else {
		server.Start()
	}
	defer server.Close()
	objects, err := NewObjects(NewS3(aws.Config{
		Region: "us-east-1", BaseEndpoint: &server.URL, HTTPClient: client,
		Credentials:                credentials.NewStaticCredentialsProvider("id", "secret", ""),
		RequestChecksumCalculation: aws.RequestChecksumCalculationWhenSupported,
	}), "bucket", ObjectsOptions{})
	if err != nil {
		b.Fatal(err)
	}
	content := make([]byte, size)
	rand.NewChaCha8([32]byte{1}).Read(content)
	body := builder.Body{Reader: bytes.NewReader(content), Size: size, CRC64NVME: crc64nvme.Checksum(content), Checked: true}
	key := layout.BundleKey(sha, "1")
	put := func() {
		if _, err := objects.Put(b.Context(), key, body, builder.PutOptions{IfAbsent: true}); err != nil {
			b.Fatal(err)
		}
	}
	// The same kind of client and of reader.
	raw := func() {
		req, err := http.NewRequestWithContext(b.Context(), http.MethodPut, server.URL+"/bucket/"+key, io.NopCloser(bytes.NewReader(content)))
		if err != nil {
			b.Fatal(err)
		}
		req.ContentLength = size
		resp, err := client.Do(req)
		if err != nil {
			b.Fatal(err)
		}
		resp.Body.Close()
	}
	put()
	raw()
	var ours, theirs time.Duration
	const batch = 20 // between two looks at the clock: it may be as coarse as a scheduler's tick
	for b.Loop() {
		start := cpuTime(b)
		for range batch {
			put()
		}
		middle := cpuTime(b)
		for range batch {
			raw()
		}
		ours, theirs = ours+middle-start, theirs+cpuTime(b)-middle
	}
	b.ReportMetric(float64(ours)/float64(theirs), "cpu-ratio")
	b.ReportMetric(float64(ours.Microseconds())/float64(b.N*batch)/1000, "cpu-ms/put")
	b.ReportMetric(float64(theirs.Microseconds())/float64(b.N*batch)/1000, "cpu-ms/raw")
}
