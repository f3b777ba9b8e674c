// Package client is a device that keeps itself up to date from a server, or a CDN, that it need not trust.
//
// It trusts root keys that its maker put in. They sign the keyring, whose keys sign statements: what one
// generation of the catalog gives to one selection, with every file's length and digest, and until when
// that is to be believed. What a bundle holds counts only as far as the statement says the same.
// docs/trust.md tells the whole, and what it protects from.
//
// It imports nothing outside the standard library and this module.
package client

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/precast-ota/precast/edge"
	"github.com/precast-ota/precast/internal/trust/signing"
)

// Options are what a device is configured with.
type Options struct {
	// URL is where packages come from, such as https://packages.example.com. Another mirror may be
	// taken at any time.
	URL string
	// Selection is what the device is: a query such as cpuArch=armv8&attrGamer=prod, in any spelling. It may have a
	// slot; otherwise the client draws one, once, and remembers it.
	Selection string
	// NoSlot: the device sends no slot, and gets a release when its rollout has ended.
	NoSlot bool
	// Held are the SHA-256 digests, in hex, of the files that the device was made with. They tell which floors it
	// has passed, until it has installed something else.
	Held []string
	// Roots are the root keys that the device is made with, in PEM; one is enough.
	Roots []byte
	// Dir is a folder of the client's own. It remembers there what it has seen; a device whose folder is
	// lost can be shown old generations again.
	Dir string
	// Install takes a new set of files into use. All of them have been verified, moments ago. If it fails,
	// the next Update calls it again.
	Install func(ctx context.Context, set Set) error

	HTTP   *http.Client // nil: http.DefaultClient
	Rand   io.Reader    // nil: crypto/rand
	Clock  Clock        // nil: the system's
	Limits Limits       // zero values: DefaultLimits
}

// Limits bound what a server can make a device do.
type Limits struct {
	// MinRate is how many bytes a second must come in every RateWindow, of headers and bodies.
	MinRate    int64
	RateWindow time.Duration
	// MaxJump is by how much a generation may exceed the last one seen. Whoever steals a signing key could
	// otherwise make devices refuse all generations to come, until the key is revoked.
	MaxJump uint64
	// MaxVersions is how many keyrings a device walks through at once. The next Update goes on from there,
	// but for the first one, which has nothing to remember until it finds a keyring that the roots have signed.
	MaxVersions uint64
	// Resumes is how often a download that breaks off is gone on with, at once.
	Resumes int
}

// DefaultLimits are for a device on a slow line.
func DefaultLimits() Limits {
	return Limits{MinRate: 512, RateWindow: 30 * time.Second, MaxJump: 1 << 20, MaxVersions: 256, Resumes: 8}
}

// maxFirst is the greatest generation that a device believes at first sight.
const maxFirst = 1 << 40

// Clock tells time.
type Clock interface {
	Now() time.Time
	// AfterFunc calls f in a goroutine of its own after d, unless stop is called before.
	AfterFunc(d time.Duration, f func()) (stop func() bool)
}

type systemClock struct{}

func (systemClock) Now() time.Time { return time.Now() }

func (systemClock) AfterFunc(d time.Duration, f func()) (stop func() bool) {
	return time.AfterFunc(d, f).Stop
}

// File is one file that a statement lists.
type File struct {
	App, Version string
	Name         string // in bundles
	Size         int64  // bytes
	SHA256       string // hex
	Path         string // on this device; empty where there is none
}

// Set is all that a device is to have.
type Set struct {
	Generation uint64
	ID         string
	Expires    time.Time // of the statement
	For        []string  // for which devices of the selection it is: see docs/trust.md; empty: for all
	Files      []File
}

// Result is what an Update did.
type Result struct {
	Set
	Changed    bool  // Install was called
	Downloaded int64 // bytes of bundles
	// More: what the device has now is a floor. Once it runs, another Update gets what comes after.
	More bool
}

// Client is a device. Its methods may be called by one process at a time.
type Client struct {
	opt       Options
	base      *url.URL
	selection edge.Selection
	slot      int // of the selection; edge.NoSlot if it has none
	roots     []signing.PublicKey

	mu   sync.Mutex
	skip map[Check]bool // tests leave checks out, to see that these are the ones that hold an attack off
}

// New makes a client.
func New(opt Options) (*Client, error) {
	c := &Client{opt: opt}
	var err error
	if c.base, err = url.Parse(strings.TrimSuffix(opt.URL, "/")); err != nil || c.base.Host == "" {
		return nil, fmt.Errorf("make client: %q is not an address such as https://packages.example.com", opt.URL)
	}
	if c.selection, c.slot, err = edge.ParseQuery(opt.Selection); err != nil {
		return nil, fmt.Errorf("make client: selection %q: %w", opt.Selection, err)
	}
	c.selection = c.selection.Bare()
	if c.roots, err = parseRoots(opt.Roots); err != nil {
		return nil, fmt.Errorf("make client: %w", err)
	}
	if opt.Dir == "" || opt.Install == nil {
		return nil, errors.New("make client: there is no Dir or no Install")
	}
	if c.opt.HTTP == nil {
		c.opt.HTTP = http.DefaultClient
	}
	if c.opt.Rand == nil {
		c.opt.Rand = rand.Reader
	}
	if c.opt.Clock == nil {
		c.opt.Clock = systemClock{}
	}
	c.opt.Limits = opt.Limits.orDefaults()
	return c, nil
}

func (l Limits) orDefaults() Limits {
	d := DefaultLimits()
	if l.MinRate > 0 {
		d.MinRate = l.MinRate
	}
	if l.RateWindow > 0 {
		d.RateWindow = l.RateWindow
	}
	if l.MaxJump > 0 {
		d.MaxJump = l.MaxJump
	}
	if l.MaxVersions > 0 {
		d.MaxVersions = l.MaxVersions
	}
	if l.Resumes > 0 {
		d.Resumes = l.Resumes
	}
	return d
}

// Selection is what the device is, in canonical form.
func (c *Client) Selection() string { return c.selection.String() }
