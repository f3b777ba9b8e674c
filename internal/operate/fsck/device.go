package fsck

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/precast-ota/precast/builder"
	"github.com/precast-ota/precast/edge"
	"github.com/precast-ota/precast/internal/format/index"
	"github.com/precast-ota/precast/internal/format/layout"
	"github.com/precast-ota/precast/internal/format/manifest"
)

// Device asks a server or CDN what devices ask: for every combination of attributes of an index, holding
// nothing, each of its items alone, and everything. It reads one bundle with each release, and with a deep check all of
// them. It needs nothing but the URL and the index.
type Device struct {
	URL    string // http(s)://host, without /package
	Client *http.Client
	// MaxCombinations asked for, those that name the fewest attributes first; 0: as many as are covered.
	MaxCombinations int
	Now             func() time.Time // nil: time.Now
}

// maxOnes bounds for how many packages of a combination it is asked what a device gets that holds just that one:
// most sets have fewer, and a set may have 256.
const maxOnes = 16

// usual is how many questions a combination is thought to take until its set is known.
const usual = 4

// asker is one check of a server.
type asker struct {
	*checker
	device Device
	base   *url.URL

	urls map[string]*index.Item // of binaries that manifests name
	seen map[string]bool        // releases in bundles that are read to their end, by key of the binary
}

// Check asks. Its error says that it could not.
func (d Device) Check(ctx context.Context, ix *index.Index, opt Options) (*Report, error) {
	base, err := url.Parse(d.URL)
	if err != nil || base.Host == "" || base.Scheme != "http" && base.Scheme != "https" {
		return nil, fmt.Errorf("ask %s: it is not of the form http(s)://host", d.URL)
	}
	a := &asker{checker: newChecker(nil, opt), device: d, base: base, urls: make(map[string]*index.Item), seen: make(map[string]bool)}
	a.rep.URL, a.rep.Generation, a.rep.Sequence = d.URL, ix.Generation, ix.Sequence
	if err := a.run(ctx, ix); err != nil {
		return nil, fmt.Errorf("ask %s: %w", d.URL, err)
	}
	slices.SortFunc(a.rep.Problems, func(x, y Problem) int {
		return cmp.Or(cmp.Compare(x.Key, y.Key), cmp.Compare(x.Kind, y.Kind), cmp.Compare(x.Detail, y.Detail))
	})
	return a.rep, nil
}

func (a *asker) run(ctx context.Context, ix *index.Index) error {
	most := ix.Params.MaxCombinations
	if a.device.MaxCombinations > 0 {
		most = uint64(a.device.MaxCombinations)
	}
	walk := edge.NewWalk(ix, most)
	a.total = usual * int(min(float64(most), walk.Count(), 1<<40))
	// The first failure ends it: a server that cannot be reached is not asked 100,000 times.
	asking, askCtx := errgroup.WithContext(ctx)
	asking.SetLimit(a.opt.Concurrency)
	for v := range walk.Visits {
		if askCtx.Err() != nil {
			break
		}
		v.Attrs = slices.Clone(v.Attrs)
		query := walk.Query(v.Device)
		asking.Go(func() error { return a.combination(askCtx, ix, v.Device, query) })
	}
	if err := asking.Wait(); err != nil {
		return err
	}
	a.rep.Combinations, a.rep.Variants, a.rep.Rest = walk.Considered, walk.Variants, walk.Rest()
	if err := a.signed(ctx, ix); err != nil {
		return err
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	a.mu.Lock()
	a.total = a.rep.Objects + len(a.urls)
	a.mu.Unlock()
	var fetching errgroup.Group
	fetching.SetLimit(a.opt.Concurrency)
	for address, it := range a.urls {
		fetching.Go(func() error { return a.binaryAt(ctx, address, it) })
	}
	return fetching.Wait()
}

// combination asks everything that devices of one combination may ask, in the rollouts that they are in, having
// passed the floors that they have. The query asks for a bundle.
func (a *asker) combination(ctx context.Context, ix *index.Index, d edge.Device, query string) error {
	bundle, list := question{query: query}, question{query: query + "&payloadtype=metadataonly", list: true}
	set, err := edge.Resolve(ix, d)
	if err != nil { // too many packages for one bundle
		return a.ask(ctx, bundle, edge.Set{Index: ix}, http.StatusBadRequest)
	}
	if set.Len() == 0 {
		return a.ask(ctx, bundle, set, http.StatusNotFound)
	}
	var all []string
	for i := range min(set.Len(), max(edge.MaxTags-len(d.Held), 0)) {
		all = append(all, edge.Hex(set.Item(i).SHA256[:]))
	}
	holding := [][]string{nil, all}
	if len(all) > 1 {
		for i := range min(len(all), maxOnes) {
			holding = append(holding, all[i:i+1])
		}
	}
	a.mu.Lock()
	a.total += max(0, len(holding)+1-usual)
	a.mu.Unlock()
	for _, more := range holding {
		if err := a.askHolding(ctx, ix, d, bundle, more); err != nil {
			return err
		}
	}
	return a.askHolding(ctx, ix, d, list, nil)
}

// askHolding asks as a device that holds more than it takes to have passed floors: it may have passed another one by
// that.
func (a *asker) askHolding(ctx context.Context, ix *index.Index, d edge.Device, q question, more []string) error {
	d.Held = slices.Concat(d.Held, more)
	set, err := edge.Resolve(ix, d)
	if err != nil {
		return err
	}
	q.held, q.mask = d.Held, set.Held(d.Held)
	if q.mask.Full(set.Len()) {
		return a.ask(ctx, q, set, http.StatusNotModified)
	}
	return a.ask(ctx, q, set, http.StatusOK)
}

// question is one request for /package.
type question struct {
	query string
	held  []string
	mask  edge.Mask // of the set
	list  bool      // asks for the manifest
}

// ask sends a request and compares the answer with the index.
func (a *asker) ask(ctx context.Context, q question, set edge.Set, status int) error {
	address := a.address("package?" + q.query)
	p := Problem{Key: address, Devices: "those that ask this get another answer than the catalog says"}
	if len(q.held) > 0 {
		p.Key += " holding " + strings.Join(q.held, ", ")
	}
	method := http.MethodHead
	whole := a.opt.Deep || !q.list && status == http.StatusOK && a.unseen(set, q.mask)
	if whole || q.list {
		method = http.MethodGet
	}
	resp, err := a.send(ctx, method, address, q.held)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != status {
		p.Kind, p.Detail = Unexpected, fmt.Sprintf("status %d, not %d", resp.StatusCode, status)
		a.problem(p)
		return a.looked(ctx, nil)
	}
	if status != http.StatusOK {
		return a.looked(ctx, nil)
	}
	kind := layout.Bundle
	if q.list {
		kind = layout.Manifest
	}
	want := layout.HeadersOf(kind)
	for name, value := range map[string]string{
		"Content-Type": want.ContentType, "Content-Disposition": want.ContentDisposition, "Content-Encoding": "",
	} {
		if got := resp.Header.Get(name); got != value {
			other := p
			other.Kind, other.Detail = Unexpected, fmt.Sprintf("%s: %q, not %q", name, got, value)
			a.problem(other)
		}
	}
	if q.list {
		return a.looked(ctx, a.listed(ctx, p, resp.Body, set, q.mask))
	}
	if !whole {
		return a.looked(ctx, nil)
	}
	in := &tally{r: resp.Body}
	err = readBundle(ctx, in, set, q.mask)
	a.read(in.n)
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case in.err != nil:
		p.Kind, p.Detail = Unreadable, in.err.Error()
		a.problem(p)
	case err != nil:
		p.Kind, p.Detail = WrongBytes, err.Error()
		a.problem(p)
	}
	return a.looked(ctx, nil)
}

// unseen tells whether a bundle has a release that no bundle had that was read before. It is taken to be read now.
func (a *asker) unseen(set edge.Set, held edge.Mask) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	before := len(a.seen)
	for i := range set.Len() {
		if !held.Has(i) {
			a.seen[builder.BinaryKey(set.Item(i))] = true
		}
	}
	return len(a.seen) > before
}

func (a *asker) send(ctx context.Context, method, address string, held []string) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, method, address, nil)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Accept-Encoding", "identity") // else the client would unpack on its own
	if len(held) > 0 {
		req.Header.Set("If-None-Match", strings.Join(held, ", "))
	}
	client := a.device.Client
	if client == nil {
		client = http.DefaultClient
	}
	return client.Do(req)
}

// listed compares a manifest with the index, and notes the binaries that it names.
func (a *asker) listed(ctx context.Context, p Problem, body io.Reader, set edge.Set, held edge.Mask) error {
	want := manifest.New(set, held)
	encoded, err := want.Encode()
	if err != nil {
		return err
	}
	got, err := io.ReadAll(io.LimitReader(body, int64(len(encoded))+1))
	a.read(int64(len(got)))
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case err != nil:
		p.Kind, p.Detail = Unreadable, err.Error()
		a.problem(p)
		return nil
	case !bytes.Equal(got, encoded):
		p.Kind, p.Detail = WrongBytes, "the manifest is not what the index says"
		a.problem(p)
	}
	files := want.Files()
	a.mu.Lock()
	defer a.mu.Unlock()
	for i := range set.Len() {
		it := set.Item(i)
		e, ok := files[layout.FileName(it.App, it.Version)]
		if !ok {
			continue
		}
		ref, err := a.base.Parse(e.URL)
		if err != nil {
			p.Kind, p.Detail = Unexpected, err.Error()
			a.rep.Problems = append(a.rep.Problems, p)
			continue
		}
		a.urls[ref.String()] = it
	}
	return nil
}

// binaryAt fetches a binary as a manifest names it.
func (a *asker) binaryAt(ctx context.Context, address string, it *index.Item) error {
	p := Problem{Key: address, Devices: noBinary}
	method := http.MethodHead
	if a.opt.Deep {
		method = http.MethodGet
	}
	resp, err := a.send(ctx, method, address, nil)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	switch {
	case resp.StatusCode == http.StatusNotFound:
		p.Kind, p.Detail = Missing, "status 404"
	case resp.StatusCode != http.StatusOK:
		p.Kind, p.Detail = Unexpected, fmt.Sprintf("status %d, not 200", resp.StatusCode)
	case resp.ContentLength >= 0 && resp.ContentLength != it.Size:
		p.Kind, p.Detail = WrongLength, fmt.Sprintf("it has %d bytes, not %d", resp.ContentLength, it.Size)
	}
	if p.Kind != "" || !a.opt.Deep {
		if p.Kind != "" {
			a.problem(p)
		}
		return a.looked(ctx, nil)
	}
	p.Devices = badBinary
	sha := sha256.New()
	n, err := copyAll(ctx, sha, resp.Body)
	a.read(n)
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case err != nil:
		p.Kind, p.Detail = Unreadable, err.Error()
		a.problem(p)
	default:
		a.compare(p, "sha256", hex.EncodeToString(sha.Sum(nil)), edge.Hex(it.SHA256[:]))
	}
	return a.looked(ctx, nil)
}
