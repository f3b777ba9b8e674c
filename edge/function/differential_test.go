package function_test

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"flag"
	"fmt"
	"math/rand/v2"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"regexp"
	"strings"
	"sync/atomic"
	"testing"
	"unicode/utf8"

	"github.com/precast-ota/precast/edge"
	"github.com/precast-ota/precast/edge/nodeproc"
	"github.com/precast-ota/precast/internal/format/index"

	"pgregory.net/rapid"
)

// A request is what a device sends, as CloudFront presents it: its strings are UTF-8.
type request struct {
	Method  string              `json:"method"`
	URI     string              `json:"uri"`
	Query   string              `json:"query"`
	Headers map[string][]string `json:"headers"` // by name in lower case
	// Raw: the runtime has rawQueryString.
	Raw bool `json:"raw"`
	// Store is what the function reads for a slot.
	Store *store `json:"store"`
}

// An answer is what becomes of a request: a response, or a request that goes on to the cache.
type answer struct {
	Status  int    `json:"status,omitempty"`
	Body    string `json:"body,omitempty"`
	URI     string `json:"uri,omitempty"`
	Query   string `json:"query,omitempty"`
	Headers any    `json:"headers"` // map[string]any, as JSON has it
	// End is what the device gets for a request that goes on.
	End *end `json:"end"`
}

// An end is the object that answers a device, or a response that no object gives.
type end struct {
	Status  int               `json:"status"`
	Key     string            `json:"key"`
	Headers map[string]string `json:"headers"`
	Body    string            `json:"body"`
}

// asked is an answer of function.js and what else answer.mjs says.
type asked struct {
	answer
	Sent   string `json:"sent"` // the query that a function without rawQueryString can know
	Thrown string `json:"thrown"`
}

// viewer is the packed function.js in a Node process, with edge.wasm and response.js behind it.
type viewer struct {
	process *nodeproc.Process
	table   edge.Table
}

func startFunction(t testing.TB) *viewer {
	t.Helper()
	// The test's own context ends before its cleanups: the script would be killed, not closed.
	module, indexFile, ix := filepath.Join(t.TempDir(), "edge.wasm"), filepath.Join(t.TempDir(), "index"), vectorIndex(t)
	build := exec.Command("go", "build", "-trimpath", "-buildmode=c-shared", "-o", module, "../wasm")
	build.Env = append(os.Environ(), "GOOS=wasip1", "GOARCH=wasm")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build edge/wasm: %v\n%s", err, out)
	}
	if err := os.WriteFile(indexFile, ix.Encode(), 0o600); err != nil {
		t.Fatal(err)
	}
	p, err := nodeproc.Start(context.WithoutCancel(t.Context()), "answer.mjs", module, indexFile, packedFolder(t))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.Close(); err != nil {
			t.Error(err)
		}
	})
	return &viewer{p, edge.TableOf(ix)}
}

// vectorIndex is the index of the golden vectors.
func vectorIndex(t testing.TB) *index.Index {
	t.Helper()
	var vectors struct{ Index []byte }
	data, err := os.ReadFile(filepath.Join("..", "..", "testdata", "canonical", "decide.json"))
	if err == nil {
		err = json.Unmarshal(data, &vectors)
	}
	if err != nil {
		t.Fatal(err)
	}
	ix, err := index.Parse(vectors.Index)
	if err != nil {
		t.Fatal(err)
	}
	return ix
}

// ask asks function.js many requests in one round trip.
func (f *viewer) ask(requests []request) ([]asked, error) {
	var reply struct {
		Answers []asked `json:"answers"`
	}
	err := f.process.Call(map[string]any{"requests": requests}, &reply)
	if err == nil && len(reply.Answers) != len(requests) {
		err = fmt.Errorf("%d answers to %d requests", len(reply.Answers), len(requests))
	}
	return reply.Answers, err
}

// native is what the Go code makes of a request.
func native(table edge.Table, r request, query string) answer {
	if r.Method != "GET" && r.Method != "HEAD" {
		refusal := refuse(405, "Use GET or HEAD")
		refusal.Headers.(map[string]any)["allow"] = "GET, HEAD"
		return refusal
	}
	headers := make(map[string]any)
	for name, lines := range r.Headers {
		if name != "x-precast-held" && name != "x-precast-cohort" && name != "x-precast-selection" {
			headers[name] = anyOf(lines)
		}
	}
	if regexp.MustCompile(`^/keyring(\.d/[0-9]{20})?$`).MatchString(r.URI) {
		return answer{URI: r.URI, Headers: bounded(headers)}
	}
	if regexp.MustCompile(`^/binaries/[0-9a-f]{64}/[^/]+$`).MatchString(r.URI) && !dots(r.URI) {
		return answer{URI: r.URI, Headers: bounded(headers)}
	}
	if r.URI != "/package" {
		return refuse(404, "Not found: devices ask for /package?cpuArch=...")
	}
	selection, slot, err := edge.ParseQuery(query)
	if err != nil {
		return refuse(edge.StatusBadRequest, err.Error())
	}
	list := strings.Join(r.Headers["if-none-match"], ",")
	tags, err := edge.ParseTags(list)
	if err != nil {
		return refuse(edge.StatusBadRequest, err.Error())
	}
	for _, name := range []string{"if-none-match", "if-match", "if-modified-since", "if-unmodified-since"} {
		delete(headers, name)
	}
	if len(tags) > 0 {
		headers[strings.ToLower(edge.HeldHeader)] = anyOf([]string{tags.String()})
	}
	if tag, ok := edge.SingleTag(list); ok {
		headers["if-none-match"] = anyOf([]string{`"` + tag + `"`})
	}
	// The whole way, without the canonical forms between.
	d := edge.DecideCohort(table.Index, query, "", list)
	if r.Store != nil { // the table
		d = table.Decide(query, list)
		if cohort := table.Cohort(selection, slot); len(cohort) > 0 {
			headers[strings.ToLower(edge.CohortHeader)] = anyOf([]string{cohort.String()})
		}
	}
	e := &end{Status: d.Status}
	if d.Status == edge.StatusOK {
		_, e.Key = d.Object()
	} else {
		response := d.Response()
		e.Body, e.Headers = response.Body, make(map[string]string)
		for _, h := range response.Headers {
			e.Headers[strings.ToLower(h.Name)] = h.Value
		}
	}
	return answer{URI: r.URI, Query: selection.String(), Headers: bounded(headers), End: e}
}

// bounded leaves out ranges and conditions that are too long for S3, and a range whose condition is.
func bounded(headers map[string]any) map[string]any {
	for _, name := range []string{"range", "if-range", "if-none-match", "if-match", "if-modified-since", "if-unmodified-since"} {
		lines, _ := headers[name].([]any)
		n := len(lines) - 1 // commas
		for _, l := range lines {
			n += len(l.(string))
		}
		if n > 1024 {
			delete(headers, name)
			if name == "if-range" {
				delete(headers, "range")
			}
		}
	}
	return headers
}

// dots tells whether the last part of a path is . or .., escaped or not.
func dots(path string) bool {
	name, err := url.PathUnescape(path[strings.LastIndexByte(path, '/')+1:])
	return err == nil && (name == "." || name == "..")
}

func anyOf(lines []string) []any {
	var all []any
	for _, l := range lines {
		all = append(all, l)
	}
	return all
}

func refuse(status int, message string) answer {
	r := edge.Failure(status, message)
	headers := make(map[string]any)
	for _, h := range r.Headers {
		headers[strings.ToLower(h.Name)] = h.Value
	}
	return answer{Status: r.Status, Body: r.Body, Headers: headers}
}

// compare fails unless function.js and Go agree on every request. It returns what they say.
func (f *viewer) compare(t failer, requests []request) []answer {
	t.Helper()
	got, err := f.ask(requests)
	if err != nil {
		t.Fatalf("%v", err)
	}
	var answers []answer
	for i, r := range requests {
		if got[i].Thrown != "" {
			t.Fatalf("%+v: function.js throws %s", r, got[i].Thrown)
		}
		want := native(f.table, r, got[i].Sent)
		if !reflect.DeepEqual(got[i].answer, want) {
			t.Fatalf("%+v:\nthe edge %+v, %+v\nGo       %+v, %+v", r, got[i].answer, got[i].End, want, want.End)
		}
		answers = append(answers, want)
	}
	return answers
}

// failer is what testing.TB and *rapid.T have in common.
type failer interface {
	Helper()
	Fatalf(format string, args ...any)
}

// presented is a text of a request as CloudFront presents it to a function: UTF-8 as it is, everything else
// converted as if it were ISO-8859-1
// (https://docs.aws.amazon.com/AmazonCloudFront/latest/DeveloperGuide/edge-function-restrictions-all.html#function-restrictions-encoding).
func presented(s string) string {
	if utf8.ValidString(s) {
		return s
	}
	latin1 := make([]rune, 0, len(s))
	for i := range len(s) {
		latin1 = append(latin1, rune(s[i]))
	}
	return string(latin1)
}

// vectors returns the queries and headers of the golden vectors.
func vectors(t testing.TB) (queries, headers []string) {
	t.Helper()
	read := func(name string, v any) {
		data, err := os.ReadFile(filepath.Join("..", "..", "testdata", "canonical", name))
		if err == nil {
			err = json.Unmarshal(data, v)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	var selection []struct{ Query string }
	var held []struct{ Header string }
	read("selection.json", &selection)
	read("held.json", &held)
	for _, s := range selection {
		queries = append(queries, s.Query)
	}
	for _, h := range held {
		headers = append(headers, h.Header)
	}
	return queries, headers
}

func TestVectorsDifferential(t *testing.T) {
	f := startFunction(t)
	queries, headers := vectors(t)
	var requests []request
	for i := range max(len(queries), len(headers)) {
		for _, raw := range []bool{true, false} {
			requests = append(requests,
				request{Method: "GET", URI: "/package", Query: queries[i%len(queries)], Raw: raw,
					Headers: map[string][]string{"if-none-match": {headers[i%len(headers)]}}},
				request{Method: "HEAD", URI: "/package", Query: "cpuArch=x&" + queries[i%len(queries)], Raw: raw,
					Headers: map[string][]string{"if-none-match": strings.Split(headers[i%len(headers)], ",")}})
		}
	}
	f.compare(t, requests)
}

// TestDifferential compares requests of all kinds.
func TestDifferential(t *testing.T) {
	f := startFunction(t)
	compared, ends, cohorts := 0, make(map[int]int), make(map[string]int)
	rapid.Check(t, func(t *rapid.T) {
		batch := append(rapid.SliceOfN(requests(), 50, 80).Draw(t, "requests"), rapid.SliceOfN(polls(f.table), 5, 10).Draw(t, "polls")...)
		for _, a := range f.compare(t, batch) {
			if a.End != nil {
				ends[a.End.Status]++
				cohorts[fmt.Sprint(a.Headers.(map[string]any)["x-precast-cohort"])]++
			} else {
				ends[a.Status]++
			}
		}
		compared += len(batch)
	})
	t.Logf("%d requests compared, by status %v, by cohort %v", compared, ends, cohorts)
	if len(cohorts) < 4 {
		t.Errorf("cohorts %v", cohorts)
	}
	for _, status := range []int{200, 304, 400, 404, 405} {
		if ends[status] == 0 {
			t.Errorf("none was answered with %d", status)
		}
	}
}

// However a device spells a request, it asks for one thing.
func TestSpellings(t *testing.T) {
	f := startFunction(t)
	rapid.Check(t, func(t *rapid.T) {
		params, digests := params().Draw(t, "params"), digests().Draw(t, "digests")
		r := rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "seed"), 0))
		var batch []request
		for range 50 {
			batch = append(batch, request{Method: "GET", URI: "/package", Query: spellQuery(r, params), Raw: true,
				Headers: map[string][]string{"if-none-match": spellTags(r, digests)}})
		}
		type triple struct{ uri, query, held string }
		seen := make(map[triple]string)
		for i, a := range f.compare(t, batch) {
			if a.Status != 0 {
				t.Fatalf("%q is refused: %s", batch[i].Query, a.Body)
			}
			held := fmt.Sprint(a.Headers.(map[string]any)["x-precast-held"])
			seen[triple{a.URI, a.Query, held}] = batch[i].Query
		}
		if len(seen) != 1 {
			t.Fatalf("one request is %d: %v", len(seen), seen)
		}
	})
}

// FuzzFunction compares a request and many like it, in one round trip.
func FuzzFunction(f *testing.F) {
	queries, headers := vectors(f)
	for i := range max(len(queries), len(headers)) {
		f.Add(queries[i%len(queries)], headers[i%len(headers)], uint64(i))
	}
	counted := countTogether(f)
	js := startFunction(f)
	f.Fuzz(func(t *testing.T, query, header string, seed uint64) {
		r := rand.New(rand.NewPCG(seed, 1))
		batch := []request{{Method: "GET", URI: "/package", Query: presented(query), Raw: true,
			Headers: map[string][]string{"if-none-match": {presented(header)}}}}
		for range 8 {
			batch = append(batch, request{Method: "GET", URI: "/package", Query: presented(mutate(r, "cpuArch=armv8&attrGamer=prod", queryPieces())), Raw: true,
				Headers: map[string][]string{"if-none-match": spellTags(r, heldOf(r, js.table.Index))}})
		}
		for range 23 {
			batch = append(batch, request{Method: "GET", URI: "/package", Query: presented(mutate(r, query, queryPieces())), Raw: r.IntN(5) > 0,
				Headers: map[string][]string{"if-none-match": {presented(mutate(r, header, headerPieces()))}}})
		}
		js.compare(t, batch)
		counted(len(batch))
	})
}

// leastCompared is how many requests a fuzz run has to compare.
const leastCompared = 100_000

// countTogether returns a function that counts what all processes of a fuzz run compare; the first of them
// prints the sum, and fails if it is too small. (The others, which do the work, have no output.)
func countTogether(f *testing.F) func(int) {
	const env = "PRECAST_FUZZ_COUNTS"
	folder := os.Getenv(env)
	if folder == "" {
		folder = f.TempDir()
		f.Setenv(env, folder)
		fuzzing := flag.Lookup("test.fuzz").Value.String() != ""
		f.Cleanup(func() {
			sum := sumCounts(folder)
			fmt.Fprintf(os.Stderr, "%d requests compared\n", sum)
			if fuzzing && !f.Failed() && sum < leastCompared {
				f.Errorf("%d requests were compared, fewer than %d: fuzz longer (-fuzztime 4000x)", sum, leastCompared)
			}
		})
	}
	var n atomic.Uint64
	path := filepath.Join(folder, fmt.Sprint(os.Getpid()))
	return func(more int) {
		count := binary.LittleEndian.AppendUint64(nil, n.Add(uint64(more)))
		_ = os.WriteFile(path, count, 0o644) // a lost count loses no comparison
	}
}

func sumCounts(folder string) (sum uint64) {
	files, _ := filepath.Glob(filepath.Join(folder, "*"))
	for _, name := range files {
		if b, err := os.ReadFile(name); err == nil && len(b) == 8 {
			sum += binary.LittleEndian.Uint64(b)
		}
	}
	return sum
}
