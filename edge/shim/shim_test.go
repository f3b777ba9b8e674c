// Package shim_test runs the shim's tests and benchmarks in Node, the runtime it is made for.
package shim_test

import (
	"bytes"
	"crypto/md5"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"hash/crc32"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/precast-ota/precast/edge"
	"github.com/precast-ota/precast/internal/format/index"
	"github.com/precast-ota/precast/seed"
)

// node runs a program in Node; there must be one.
func node(t testing.TB, env []string, args ...string) []byte {
	t.Helper()
	cmd := exec.Command("node", args...)
	cmd.Env = append(os.Environ(), env...)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("node %s (Node 20 or later must be installed): %v\n%s", strings.Join(args, " "), err, out)
	}
	return out
}

// wasm builds edge/wasm.
func wasm(t testing.TB, path, tags string) {
	t.Helper()
	cmd := exec.Command("go", "build", "-trimpath", "-buildvcs=false", "-buildmode=c-shared", "-ldflags=-s -w", "-tags", tags, "-o", path, "../wasm")
	cmd.Env = append(os.Environ(), "GOOS=wasip1", "GOARCH=wasm")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build: %v\n%s", err, out)
	}
}

func write(t testing.TB, path string, data []byte) {
	t.Helper()
	if err := os.WriteFile(path, data, 0o644); err != nil {
		t.Fatal(err)
	}
}

func item(app, track, version string, attrs ...string) index.Item {
	content := []byte(app + " " + version)
	return index.Item{App: app, Track: track, Version: version, Size: int64(len(content)),
		MD5: md5.Sum(content), SHA256: sha256.Sum256(content), Attrs: attrs}
}

// sample is the sample's index; later generations have another OS.
func sample(generation uint64) *index.Index {
	var items []index.Item
	for _, it := range seed.SampleItems() {
		version := it.Version
		if it.App == "os_armv8" && generation > 1 {
			version += "." + strconv.FormatUint(generation, 10)
		}
		items = append(items, item(it.App, it.Track, version, it.Attrs()...))
	}
	return index.New(index.Index{Generation: generation, Sequence: generation, Format: "test", BaseURL: "https://cdn.example", Items: items})
}

// request is a request to the edge, and native Go's answer.
type request struct {
	Query string `json:"query"`
	Held  string `json:"held"`
	Epoch uint64 `json:"epoch"`
	ASCII bool   `json:"ascii"` // broken UTF-8 and the like are left out of the comparison with plain JavaScript

	Status    int    `json:"status"`
	Sent      int    `json:"sent"` // to the cache
	Key       string `json:"key"`
	Selection string `json:"selection"`
	Headers   string `json:"headers"`
	Body      string `json:"body"`
}

func answered(latest *edge.Latest, query, held string) request {
	r := request{Query: query, Held: held, Epoch: 20513, ASCII: !strings.ContainsAny(query, "%\x00")}
	d := edge.Decide(latest.Index(), query, held)
	r.Status, r.Sent = d.Status, d.Status
	if d.Status == edge.StatusOK {
		d.Epoch = r.Epoch
		_, r.Key = d.Object()
		r.Selection = d.Selection.String()
		return r
	}
	response := d.CacheResponse()
	r.Sent = response.Status
	for _, h := range response.Headers {
		r.Headers += h.Name + ": " + h.Value + "\n"
	}
	r.Body = response.Body
	return r
}

// requests are every selection of the sample with several held lists, and bad ones.
func requests(t testing.TB, ix *index.Index) []request {
	t.Helper()
	var latest edge.Latest
	if err := latest.Offer(ix.Encode()); err != nil {
		t.Fatal(err)
	}
	var tags []string
	for i := range ix.Items {
		tags = append(tags, edge.Hex(ix.Items[i].MD5[:]), edge.Hex(ix.Items[i].SHA256[:]))
	}
	helds := []string{"", tags[0], tags[1], strings.Join(tags, ","), "*", strings.ToUpper(tags[4]), `W/"` + tags[6] + `", "x"`, strings.Repeat("a", edge.MaxTagHeader+1)}
	var all []request
	values := []string{"", "prod", "beta"}
	for _, arch := range []string{"armv8", "ARMV7", "vax", ""} {
		for _, os := range values {
			for _, gamer := range values {
				for _, camera := range values {
					for _, rest := range []string{"", "&payloadType=metadataOnly", "&payloadType=statement", "&payloadType=x", "&attrCellular=prod", "&VideoStreamer=beta", "&a=%C3%A4+b&attr=x", "&b=%zz", "&c=%00"} {
						query := "cpuArch=" + arch + "&os=" + os + "&attrGamer=" + gamer + "&attrCamera=" + camera + rest
						for _, held := range helds {
							all = append(all, answered(&latest, query, held))
						}
					}
				}
			}
		}
	}
	all = append(all, answered(&latest, strings.Repeat("x", edge.MaxQuery+1), ""), answered(&latest, "", ""))
	return all
}

func TestShim(t *testing.T) {
	dir := t.TempDir()
	wasm(t, filepath.Join(dir, "edge.wasm"), "")
	wasm(t, filepath.Join(dir, "faults.wasm"), "faults")
	for generation := range uint64(3) {
		write(t, filepath.Join(dir, fmt.Sprintf("index.%d", generation)), sample(generation).Encode())
	}
	future := bytes.Clone(sample(9).Encode())
	future[3] = 200
	body := future[:len(future)-4]
	sum := crc32.ChecksumIEEE(body)
	write(t, filepath.Join(dir, "index.future"), append(body, byte(sum), byte(sum>>8), byte(sum>>16), byte(sum>>24)))
	all := requests(t, sample(1))
	statuses := map[int]int{}
	for _, r := range all {
		statuses[r.Status]++
	}
	for _, want := range []int{200, 304, 400, 404} {
		if statuses[want] == 0 {
			t.Fatalf("no request is answered with %d: %v", want, statuses)
		}
	}
	data, err := json.Marshal(all)
	if err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(dir, "requests.json"), data)
	out := node(t, []string{"SHIM_TEST_DIR=" + dir}, "--test", "--test-reporter=tap", "shim.test.mjs")
	if !bytes.Contains(out, []byte("# fail 0")) || bytes.Contains(out, []byte("# pass 0")) {
		t.Fatalf("%s", out)
	}
	t.Logf("%d requests, statuses %v; node: %s", len(all), statuses, out[bytes.LastIndex(out, []byte("# tests")):])
}
