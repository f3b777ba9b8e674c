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
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/precast-ota/precast/edge"
	"github.com/precast-ota/precast/internal/format/layout"
	"github.com/precast-ota/precast/internal/trust/keyring"
	"github.com/precast-ota/precast/internal/trust/signing"
	"github.com/precast-ota/precast/internal/trust/statement"
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

// parseRoots reads one or more PEM blocks.
func parseRoots(text []byte) ([]signing.PublicKey, error) {
	var roots []signing.PublicKey
	for {
		block, rest := pem.Decode(text)
		if block == nil {
			break
		}
		key, err := signing.ParsePublicPEM(pem.EncodeToMemory(block))
		if err != nil {
			return nil, err
		}
		roots, text = append(roots, key), rest
	}
	if len(roots) == 0 {
		return nil, errors.New("there is no root key in PEM")
	}
	return roots, nil
}

// Update asks whether there is something new, and takes it into use. Its error is a *Refusal if the
// server sent something that is not to be believed; the device then has what it had before.
func (c *Client) Update(ctx context.Context) (Result, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	res, err := c.update(ctx)
	if err != nil {
		return Result{}, fmt.Errorf("update from %s: %w", c.base.Host, err)
	}
	return res, nil
}

func (c *Client) update(ctx context.Context) (Result, error) {
	for _, dir := range []string{c.opt.Dir, c.filesDir()} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return Result{}, err
		}
	}
	st, err := c.load()
	if err != nil {
		return Result{}, err
	}
	if err := c.draw(st); err != nil {
		return Result{}, err
	}
	if err := c.updateKeyring(ctx, st); err != nil {
		return Result{}, err
	}
	said, err := c.statement(ctx, st)
	if err != nil {
		return Result{}, err
	}
	downloaded, err := c.complete(ctx, st, said)
	// A new generation may have been published between the two answers, or a cache may have only one of
	// them: then another look shows another statement.
	if refused := (*Refusal)(nil); errors.As(err, &refused) && refused.Check != TooSlow {
		again, errAgain := c.statement(ctx, st)
		if errAgain != nil {
			return Result{}, errors.Join(err, errAgain)
		}
		if contents(again) == contents(said) {
			return Result{}, err
		}
		said = again
		var more int64
		more, err = c.complete(ctx, st, said)
		downloaded += more
	}
	if err != nil {
		return Result{}, err
	}
	return c.takeIntoUse(ctx, st, said, downloaded)
}

// takeIntoUse hands the files of a statement over, if they are others than before, and remembers it.
func (c *Client) takeIntoUse(ctx context.Context, st *state, said *statement.Signed, downloaded int64) (Result, error) {
	res := Result{Set: c.set(said), Downloaded: downloaded, More: len(said.Claims.Unless) > 0}
	res.Changed = st.Contents != contents(said)
	if res.Changed {
		for _, f := range res.Files {
			if err := c.hashFile(f); err != nil {
				return Result{}, err
			}
		}
		if err := c.opt.Install(ctx, res.Set); err != nil {
			return Result{}, fmt.Errorf("install generation %d: %w", said.Generation, err)
		}
	}
	st.Generation, st.SignedBy, st.Contents = said.Generation, said.Key, contents(said)
	st.Installed, st.Unless = digests(said.Items), said.Claims.Unless
	st.Floors = len(said.Claims.Unless)+len(said.Claims.After) > 0
	if err := c.save(st); err != nil {
		return Result{}, err
	}
	if res.Changed {
		c.prune(res.Files)
	}
	return res, nil
}

func (c *Client) set(said *statement.Signed) Set {
	s := setOf(&said.Statement)
	for i := range s.Files {
		s.Files[i].Path = c.filePath(s.Files[i].SHA256)
	}
	return s
}

// contents stands for the files of a statement. (Their set ID does so only if whoever signed was honest.)
func contents(said *statement.Signed) string {
	sum := sha256.New()
	for _, it := range said.Items {
		fmt.Fprintf(sum, "%s %d %s\n", it.SHA256, it.Size, it.FileName())
	}
	return hex.EncodeToString(sum.Sum(nil))
}

func digests(items []statement.Item) []string {
	var all []string
	for _, it := range items {
		all = append(all, it.SHA256)
	}
	return all
}

func setOf(said *statement.Statement) Set {
	s := Set{Generation: said.Generation, ID: said.Set, Expires: said.Expires, For: said.For()}
	for _, it := range said.Items {
		s.Files = append(s.Files, File{App: it.App, Version: it.Version, Name: it.FileName(), Size: it.Size, SHA256: it.SHA256})
	}
	return s
}

// updateKeyring brings the keyring up to date. What the root keys have signed is remembered at once, also
// if nothing else of this update is to be believed.
func (c *Client) updateKeyring(ctx context.Context, st *state) error {
	newest, err := c.fetchKeyring(ctx, layout.KeyringKey)
	if err != nil {
		return err
	}
	if st.keyring == nil {
		err = c.firstKeyring(ctx, st, newest)
	} else {
		err = c.nextKeyrings(ctx, st, newest)
	}
	if st.keyring == nil {
		return err
	}
	// What a revoked key has signed says nothing about generations: a thief may have counted far ahead.
	if slices.Contains(st.keyring.Revoked, st.SignedBy) {
		st.Generation, st.SignedBy, st.Contents, st.Unless = 0, "", "", nil
	}
	if err := errors.Join(err, c.save(st)); err != nil {
		return err
	}
	return c.check(ExpiredKeyring, st.keyring.Expired(c.opt.Clock.Now()))
}

// firstKeyring walks back from the newest keyring to one that the roots of this device have signed.
func (c *Client) firstKeyring(ctx context.Context, st *state, newest *keyring.Keyring) error {
	k := newest
	for range c.opt.Limits.MaxVersions {
		if k.TrustedBy(c.roots) == nil || k.Version == 1 {
			break
		}
		before, err := c.fetchKeyring(ctx, layout.KeyringVersionKey(k.Version-1))
		if err != nil {
			return err
		}
		if err := c.check(UntrustedKeyring, k.Follows(before)); err != nil {
			return err
		}
		k = before
	}
	if err := c.check(UntrustedKeyring, k.TrustedBy(c.roots)); err != nil {
		return err
	}
	st.keyring = newest
	return nil
}

// nextKeyrings walks from the keyring that is known to the newest one.
func (c *Client) nextKeyrings(ctx context.Context, st *state, newest *keyring.Keyring) error {
	known := st.keyring
	switch {
	case newest.Version < known.Version:
		return c.check(OldKeyring, fmt.Errorf("keyring has version %d, after version %d", newest.Version, known.Version))
	case newest.Version == known.Version:
		if !bytes.Equal(newest.Text(), known.Text()) {
			return c.check(UntrustedKeyring, fmt.Errorf("there are two keyrings of version %d", known.Version))
		}
		return nil
	}
	last := known.Version + min(newest.Version-known.Version, c.opt.Limits.MaxVersions)
	for known.Version < last {
		next := newest
		if known.Version+1 < newest.Version {
			var err error
			if next, err = c.fetchKeyring(ctx, layout.KeyringVersionKey(known.Version+1)); err != nil {
				return err
			}
		}
		if err := c.check(UntrustedKeyring, next.Follows(known)); err != nil {
			return err
		}
		if next.Version <= known.Version { // only where the check is left out
			break
		}
		known, st.keyring = next, next
	}
	if known.Version < newest.Version {
		return fmt.Errorf("keyring is at version %d of %d: the next update goes on from there", known.Version, newest.Version)
	}
	return nil
}

func (c *Client) fetchKeyring(ctx context.Context, key string) (*keyring.Keyring, error) {
	data, err := c.get(ctx, "/"+key, "", keyring.MaxBytes, nil)
	if err != nil {
		return nil, fmt.Errorf("get %s: %w", key, err)
	}
	k, err := keyring.Parse(data)
	if err != nil {
		return nil, refuse(Malformed, fmt.Errorf("get %s: %w", key, err))
	}
	return k, nil
}

// statement asks for the statement of the device's selection, and checks all that can be checked of it. What the device
// holds matters only where there are floors: without it, all devices ask for one statement.
func (c *Client) statement(ctx context.Context, st *state) (*statement.Signed, error) {
	held := c.held(st)
	if st.Floors {
		return c.statementHolding(ctx, st, held)
	}
	said, err := c.statementHolding(ctx, st, nil)
	if refused := (*Refusal)(nil); errors.As(err, &refused) && refused.Check == OtherStep && len(held) > 0 {
		return c.statementHolding(ctx, st, held)
	}
	return said, err
}

// statementHolding asks for a statement as a device that says that it holds files of these digests.
func (c *Client) statementHolding(ctx context.Context, st *state, held []string) (*statement.Signed, error) {
	data, err := c.get(ctx, "/package", c.query(st)+"&payloadType=statement", statement.MaxBytes, held)
	if err != nil {
		return nil, fmt.Errorf("get statement: %w", err)
	}
	said, err := statement.Parse(data)
	if err != nil {
		return nil, refuse(Malformed, fmt.Errorf("get statement: %w", err))
	}
	if err := c.signed(st.keyring, said); err != nil {
		return nil, err
	}
	if said.Selection != c.selection.String() {
		if err := c.check(OtherSelection, fmt.Errorf("statement is for %q, not for %q", said.Selection, c.selection.String())); err != nil {
			return nil, err
		}
	}
	if err := said.True(c.slotOf(st), c.held(st)); errors.Is(err, statement.ErrOtherRollout) {
		if err := c.check(OtherRollout, err); err != nil {
			return nil, err
		}
	} else if err := c.check(OtherStep, err); err != nil {
		return nil, err
	}
	if err := c.check(ExpiredStatement, said.Expired(c.opt.Clock.Now())); err != nil {
		return nil, err
	}
	return said, c.generation(st, said)
}

func (c *Client) signed(k *keyring.Keyring, said *statement.Signed) error {
	key, err := k.SigningKey(said.Key)
	switch {
	case errors.Is(err, keyring.ErrRevoked):
		return c.check(RevokedKey, fmt.Errorf("statement: %w", err))
	case err != nil:
		return c.check(UnknownKey, fmt.Errorf("statement: %w", err))
	}
	if err := said.Verify(key); err != nil {
		return c.check(WrongSignature, fmt.Errorf("statement: %w", err))
	}
	return nil
}

func (c *Client) generation(st *state, said *statement.Signed) error {
	most := st.Generation + c.opt.Limits.MaxJump
	if st.Generation == 0 {
		most = maxFirst
	}
	switch {
	case said.Generation < st.Generation:
		return c.check(OldGeneration, fmt.Errorf("statement is of generation %d, after %d", said.Generation, st.Generation))
	case said.Generation > most:
		return c.check(FarGeneration, fmt.Errorf("statement is of generation %d, too far from %d", said.Generation, st.Generation))
	case said.Generation == st.Generation && st.Contents != "" && contents(said) != st.Contents && !st.before(said):
		return c.check(OtherContent, fmt.Errorf("statement is of generation %d, of which another one said another thing", said.Generation))
	}
	return nil
}

// complete downloads what is lacking of a statement's files.
func (c *Client) complete(ctx context.Context, st *state, said *statement.Signed) (downloaded int64, err error) {
	var lacking, held []statement.Item
	for _, it := range said.Items {
		if info, err := os.Stat(c.filePath(it.SHA256)); err == nil && info.Size() == it.Size {
			held = append(held, it)
		} else {
			lacking = append(lacking, it)
		}
	}
	if len(lacking) == 0 {
		return 0, nil
	}
	// Which floors the device has passed, the server has to be told again, if it matters.
	var passed []string
	if len(said.Claims.After) > 0 {
		passed = slices.DeleteFunc(slices.Clone(c.held(st)), func(sum string) bool {
			return slices.ContainsFunc(said.Items, func(it statement.Item) bool { return it.SHA256 == sum })
		})
		passed = passed[:min(len(passed), edge.MaxTags)]
	}
	// A request may name so many; what else is held comes once more.
	n := min(len(held), edge.MaxTags-len(passed))
	held, coming := held[:n], append(slices.Clone(lacking), held[n:]...)
	tags := append(digests(held), passed...)
	for again := false; ; again = true {
		name, resumed, n, err := c.download(ctx, c.query(st), said, coming, tags)
		downloaded += n
		if err == nil {
			err = c.unpackFile(name, said, lacking)
		}
		if err == nil {
			c.forgetDownloads("")
			return downloaded, nil
		}
		if !errors.As(err, new(*Refusal)) {
			return downloaded, err // what has been downloaded is gone on with
		}
		if name != "" {
			os.Remove(name)
		}
		// What was begun may have been spoilt by somebody who has gone since.
		if !resumed || again {
			return downloaded, err
		}
	}
}

// filesDir has every file under its digest.
func (c *Client) filesDir() string { return filepath.Join(c.opt.Dir, "files") }

func (c *Client) filePath(sha256 string) string { return filepath.Join(c.filesDir(), sha256) }

// Selection is what the device is, in canonical form.
func (c *Client) Selection() string { return c.selection.String() }
