package server_test

import (
	"bytes"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/precast-ota/precast/builder"
	"github.com/precast-ota/precast/edge"
	"github.com/precast-ota/precast/internal/format/index"
	"github.com/precast-ota/precast/internal/operate/release"
	"github.com/precast-ota/precast/internal/run/server"
	"github.com/precast-ota/precast/internal/store/local"
)

// broken is what happens to files on the disk, behind the store's back.
var broken = map[string]func(file string) error{
	"flipped": func(file string) error {
		data, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		data[len(data)/2] ^= 4
		return os.WriteFile(file, data, 0o644)
	},
	"last byte": func(file string) error {
		data, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		data[len(data)-1] ^= 1
		return os.WriteFile(file, data, 0o644)
	},
	"cut":     func(file string) error { return os.Truncate(file, 100) },
	"emptied": func(file string) error { return os.Truncate(file, 0) },
	"missing": os.Remove,
	"its description emptied": func(file string) error {
		return os.Truncate(strings.Replace(file, "/objects/", "/meta/", 1), 0)
	},
}

// lines is a log.
type lines struct {
	mu sync.Mutex
	bytes.Buffer
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.Buffer.Write(p)
}

// damagedSite serves a folder without copies, and tells where its files are.
func damagedSite(t *testing.T) (s *site, dir string, log *lines) {
	t.Helper()
	dir = t.TempDir()
	store, err := local.Open(dir, local.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { store.Close() })
	s, log = &site{t: t, store: store}, &lines{}
	logger := slog.New(slog.NewTextHandler(log, nil))
	s.pub = server.NewPublished(store.Objects(), logger)
	srv := httptest.NewServer(server.New(store.Objects(), s.pub, server.NewMetrics(), logger).Handler())
	t.Cleanup(srv.Close)
	s.url = srv.URL
	return s, dir, log
}

// try asks without failing: an answer may break off.
func (s *site) try(path string, header ...string) (int, []byte, error) {
	s.t.Helper()
	req, err := http.NewRequest(http.MethodGet, s.url+path, nil)
	if err != nil {
		s.t.Fatal(err)
	}
	for i := 0; i < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	resp, err := http.DefaultTransport.RoundTrip(req)
	if err != nil {
		s.t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	return resp.StatusCode, body, err
}

func keyFile(dir, key string) string { return filepath.Join(dir, "objects", filepath.FromSlash(key)) }

// S12: an answer that is composed of a damaged piece breaks off or is right, never ends with other bytes. The next one is
// right, and the log names the piece. It makes no difference whether the server has sent the piece before.
func TestS12AnswersOfADamagedPiece(t *testing.T) {
	t.Parallel()
	const path = "/package?cpuArch=armv8&attrGamer=prod&attrCellular=prod"
	for name, damage := range broken {
		for _, known := range []bool{false, true} {
			t.Run(fmt.Sprintf("S12 %s known %t", name, known), func(t *testing.T) {
				t.Parallel()
				s, dir, log := damagedSite(t)
				fill(t, s, 100_000)
				other := newSite(t, withoutCopies(), sample(100_000))
				want := other.get(path).body
				if known {
					if got := s.get(path); !bytes.Equal(got.body, want) {
						t.Fatal("the two sites differ")
					}
				}
				d := edge.Decide(s.pub.Index(), strings.TrimPrefix(path, "/package?"), "")
				keys := make([]string, d.Set.Len())
				for i := range keys {
					keys[i] = builder.PieceKey(d.Set.Item(i))
					if err := damage(keyFile(dir, keys[i])); err != nil {
						t.Fatal(err)
					}
				}
				tries := 0
				for ; tries <= len(keys); tries++ {
					status, body, err := s.try(path)
					if err != nil {
						continue // it broke off
					}
					if status != http.StatusOK || !bytes.Equal(body, want) {
						t.Fatalf("%d with %d bytes, not the %d that are right", status, len(body), len(want))
					}
					break
				}
				if tries > len(keys) {
					t.Fatal("it keeps breaking off")
				}
				log.mu.Lock()
				text := log.String()
				log.mu.Unlock()
				for _, key := range keys {
					if !strings.Contains(text, `msg="a missing or damaged piece was made again" key=`+key) {
						t.Errorf("the log does not name %s:\n%s", key, text)
					}
				}
				if metric := string(s.get("/metrics").body); !strings.Contains(metric, fmt.Sprintf("\nprecast_mended_pieces_total %d\n", len(keys))) {
					t.Errorf("the metrics do not say that %d pieces were made again", len(keys))
				}
				// What a device resumes is right, too.
				status, body, err := s.try(path, "Range", fmt.Sprintf("bytes=%d-", len(want)/3))
				if err != nil || status != http.StatusPartialContent || !bytes.Equal(body, want[len(want)/3:]) {
					t.Errorf("the rest: %d, %d bytes, %v", status, len(body), err)
				}
			})
		}
	}
}

func fill(t *testing.T, s *site, size int64) {
	t.Helper()
	sample(size)(&release.Importer{Objects: s.store.Objects(), Catalog: s.store.Catalog()})
	s.build(withoutCopies())
}

// S12: if the binary is damaged as well, devices are told to come back, the log names both, and answers that do not need
// it are sent.
func TestS12AnswersOfADamagedBinary(t *testing.T) {
	t.Parallel()
	const path, elsewhere = "/package?cpuArch=armv8&attrGamer=prod", "/package?cpuArch=armv7&attrCamera=prod"
	for name, damage := range broken {
		t.Run("S12 "+name, func(t *testing.T) {
			t.Parallel()
			s, dir, log := damagedSite(t)
			fill(t, s, 20_000)
			d := edge.Decide(s.pub.Index(), strings.TrimPrefix(path, "/package?"), "")
			e := edge.Decide(s.pub.Index(), strings.TrimPrefix(elsewhere, "/package?"), "")
			it := alone(d.Set, e.Set)
			if it == nil {
				t.Fatal("the two sets do not differ")
			}
			for _, key := range []string{builder.PieceKey(it), builder.BinaryKey(it)} {
				if err := damage(keyFile(dir, key)); err != nil {
					t.Fatal(err)
				}
			}
			unavailable := 0
			for range 4 {
				status, _, err := s.try(path)
				if err == nil && status != http.StatusServiceUnavailable {
					t.Fatalf("status %d, to its end", status)
				}
				if err == nil {
					unavailable++
				}
			}
			if unavailable < 3 {
				t.Errorf("%d of 4 devices were told to come back", unavailable)
			}
			log.mu.Lock()
			text := log.String()
			log.mu.Unlock()
			for _, key := range []string{builder.PieceKey(it), builder.BinaryKey(it)} {
				if !strings.Contains(text, key) {
					t.Errorf("the log does not name %s:\n%s", key, text)
				}
			}
			if status, _, err := s.try(elsewhere); status != http.StatusOK || err != nil {
				t.Errorf("another selection: %d, %v", status, err)
			}
		})
	}
}

// alone is an item of one set that is not in the other.
func alone(set, other edge.Set) *index.Item {
	for i := range set.Len() {
		in := false
		for j := range other.Len() {
			in = in || other.Item(j).SHA256 == set.Item(i).SHA256
		}
		if !in {
			return set.Item(i)
		}
	}
	return nil
}
