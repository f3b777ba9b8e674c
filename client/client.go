// Package client keeps a device up to date from a server or a CDN that the device need not trust.
//
// The device's maker gives it root keys. They sign the keyring, and the keys in the keyring sign statements. A
// statement lists the files that one generation of the catalog gives to one selection, with the length and the
// SHA-256 of each, and says when it expires. A client installs a file from a bundle only if it matches the
// statement. docs/trust.md describes the whole chain and the attacks that it stops.
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

// Options configure a client.
type Options struct {
	// URL is the address of the server, such as https://packages.example.com. It may be changed to that of a mirror
	// at any time.
	URL string
	// Selection describes the device, as a query in any spelling: cpuArch=armv8&attrGamer=prod. If it has no slot, the
	// client draws one at random, once, and remembers it.
	Selection string
	// NoSlot makes the client send no slot. The device then gets a release only when its rollout has ended.
	NoSlot bool
	// Held are the SHA-256 digests, in hex, of the files that the device was made with. Until the first update they
	// tell the server which floors the device has passed.
	Held []string
	// Roots are the root keys that the device was made with, in PEM; one is enough.
	Roots []byte
	// Dir is a folder that nothing else uses. Required. The client keeps its files and its state there. A device that loses
	// the folder can be made to accept an old generation.
	Dir string
	// Install starts to use a new set of files. Required. The client has just verified all of them. If Install fails, the
	// next Update calls it again.
	Install func(ctx context.Context, set Set) error

	HTTP   *http.Client // nil: http.DefaultClient
	Rand   io.Reader    // nil: crypto/rand
	Clock  Clock        // nil: the system's
	Limits Limits       // zero values: DefaultLimits
}

// Limits restrict what a server can make a device do.
type Limits struct {
	// MinRate is the lowest acceptable speed of a response, in bytes of its body per second, on average over every
	// RateWindow. The wait for its headers counts.
	MinRate    int64
	RateWindow time.Duration
	// MaxJump is how far a generation may be ahead of the last one seen. Without it, the thief of a signing key could
	// make devices reject all later generations until the key is revoked.
	MaxJump uint64
	// MaxVersions is how many versions of the keyring one Update follows. The next Update continues from there. The
	// first Update cannot be continued: it must find a keyring that a root key has signed within so many versions.
	MaxVersions uint64
	// Resumes is how many times an Update resumes an interrupted download immediately.
	Resumes int
}

// DefaultLimits suit a device on a slow line.
func DefaultLimits() Limits {
	return Limits{MinRate: 512, RateWindow: 30 * time.Second, MaxJump: 1 << 20, MaxVersions: 256, Resumes: 8}
}

// maxFirst is the highest generation that a device accepts if it has not seen one yet.
const maxFirst = 1 << 40

// Clock tells time.
type Clock interface {
	Now() time.Time
	// AfterFunc calls f in its own goroutine after d, unless stop is called first.
	AfterFunc(d time.Duration, f func()) (stop func() bool)
}

type systemClock struct{}

func (systemClock) Now() time.Time { return time.Now() }

func (systemClock) AfterFunc(d time.Duration, f func()) (stop func() bool) {
	return time.AfterFunc(d, f).Stop
}

// File is a file that a statement lists.
type File struct {
	App, Version string
	Name         string // in the bundle
	Size         int64  // bytes
	SHA256       string // hex
	Path         string // on this device; empty for Offline
}

// Set is the complete list of files that a device should have.
type Set struct {
	Generation uint64
	ID         string
	Expires    time.Time // of the statement
	For        []string  // which devices of the selection it is for (docs/trust.md); empty: all of them
	Files      []File
}

// Result says what an Update did.
type Result struct {
	Set
	Changed    bool  // Install was called
	Downloaded int64 // bytes of bundles
	// More is true if the device now has a floor: when that runs, another Update gets the release after it.
	More bool
}

// Client updates one device. Only one process at a time may use its folder.
type Client struct {
	opt       Options
	base      *url.URL
	selection edge.Selection
	slot      int // of the selection; edge.NoSlot if it has none
	roots     []signing.PublicKey

	mu   sync.Mutex
	skip map[Check]bool // tests skip checks, to prove that these are the ones that stop an attack
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
	if opt.Dir == "" {
		return nil, errors.New("make client: Options.Dir is required")
	}
	if opt.Install == nil {
		return nil, errors.New("make client: Options.Install is required")
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

// Selection returns the device's selection in canonical form.
func (c *Client) Selection() string { return c.selection.String() }
