// Package statement reads and writes statements: what one generation of the catalog gives to one selection,
// for a limited time, signed. A device that verifies a statement knows, of every file that it will be
// sent, the name, the length and the digest.
//
//	precast statement 1
//	generation 7
//	selection attrgamer=prod&cpuarch=armv8
//	set <set ID>
//	expires 2026-03-08T00:00:00Z
//	rollout <salt> <places> in|out
//	unless <sha256>
//	after <sha256> <sha256> ...
//	item <sha256> <size> <app> <version>
//	key <key ID>
//	signature <base64>
//
// App and version are percent-encoded as in the selection. There are rollout, unless and after lines only where not all
// devices of a selection get the same; see edge.Claims. docs/trust.md repeats this.
package statement

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/precast-ota/precast/edge"
	"github.com/precast-ota/precast/internal/format/index"
	"github.com/precast-ota/precast/internal/format/layout"
	"github.com/precast-ota/precast/internal/trust/signing"
)

// MaxBytes bounds a statement: 256 items of at most 860 bytes, and a selection of 8 KiB; or fewer items with many floors.
const MaxBytes = 256 << 10

const (
	firstLine = "precast statement 1"
	maxName   = 128 // bytes of an app or version, as in package catalog
)

// Statement says what a selection gets.
type Statement struct {
	Generation uint64
	Selection  string // canonical, without payloadType
	Set        string // set ID
	Expires    time.Time
	Claims     edge.Claims
	Items      []Item // in the set's order
}

// Item is one file.
type Item struct {
	SHA256       string // hex
	Size         int64  // bytes
	App, Version string
}

// FileName is the name of the file in a bundle.
func (it Item) FileName() string { return layout.FileName(it.App, it.Version) }

// Of states what a decision is, without an expiry.
func Of(d edge.Decision) Statement {
	set := d.Set
	s := Statement{Generation: set.Index.Generation, Selection: d.Selection.Bare().String(), Set: set.ID(), Claims: d.Claims}
	for i := range set.Len() {
		it := set.Item(i)
		s.Items = append(s.Items, Item{edge.Hex(it.SHA256[:]), it.Size, it.App, it.Version})
	}
	return s
}

// Signed is a statement as it was received.
type Signed struct {
	Statement
	Key       string // ID of the key that has signed, as the statement says
	signature string
}

// text is everything that is signed.
func (s *Statement) text(key string) []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, "%s\ngeneration %d\nselection %s\nset %s\nexpires %s\n", firstLine, s.Generation, s.Selection, s.Set, s.Expires.UTC().Format(time.RFC3339))
	for _, line := range s.For() {
		fmt.Fprintln(&b, line)
	}
	for _, it := range s.Items {
		fmt.Fprintf(&b, "item %s %d %s %s\n", it.SHA256, it.Size, edge.Escape(it.App), edge.Escape(it.Version))
	}
	fmt.Fprintf(&b, "key %s\n", key)
	return b.Bytes()
}

// For says, a line each as they stand in the statement, for which devices of the selection it is; nothing if it is for
// all of them.
func (s *Statement) For() []string {
	var lines []string
	for _, r := range s.Claims.Rollouts {
		verdict := "out"
		if r.In {
			verdict = "in"
		}
		lines = append(lines, fmt.Sprintf("rollout %s %d %s", r.Salt, r.Places, verdict))
	}
	for _, sum := range s.Claims.Unless {
		lines = append(lines, "unless "+sum)
	}
	for _, sums := range s.Claims.After {
		lines = append(lines, "after "+strings.Join(sums, " "))
	}
	return lines
}

// Sign returns the statement as bytes, signed.
func Sign(ctx context.Context, s Statement, by signing.Signer) ([]byte, error) {
	if err := s.check(); err != nil {
		return nil, fmt.Errorf("sign statement: %w", err)
	}
	text := s.text(by.Public().ID())
	value, err := signing.Sign(ctx, by, text)
	if err != nil {
		return nil, fmt.Errorf("sign statement: %w", err)
	}
	return fmt.Appendf(text, "signature %s\n", value), nil
}

// ErrFormat: not a statement, or not in its only form.
var ErrFormat = errors.New("statement is malformed")

// Parse reads what Sign wrote, and nothing else: every statement has one encoding. It fails with ErrFormat. It
// does not verify the signature.
func Parse(data []byte) (*Signed, error) {
	s, err := parse(data)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrFormat, err)
	}
	return s, nil
}

func parse(data []byte) (*Signed, error) {
	var s Signed
	err := signing.ReadLines(data, MaxBytes, firstLine, func(word, rest string) (err error) {
		switch word {
		case "generation":
			s.Generation, err = strconv.ParseUint(rest, 10, 64)
		case "selection":
			s.Selection = rest
		case "set":
			s.Set = rest
		case "expires":
			s.Expires, err = time.Parse(time.RFC3339, rest)
		case "rollout":
			var c edge.Claim
			c, err = parseClaim(rest)
			s.Claims.Rollouts = append(s.Claims.Rollouts, c)
		case "unless":
			s.Claims.Unless = append(s.Claims.Unless, rest)
		case "after":
			s.Claims.After = append(s.Claims.After, strings.Split(rest, " "))
		case "item":
			var it Item
			it, err = parseItem(rest)
			s.Items = append(s.Items, it)
		case "key":
			s.Key = rest
		case "signature":
			s.signature = rest
		default:
			err = errors.New("unknown")
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	if err := s.check(); err != nil {
		return nil, err
	}
	if !signing.IsID(s.Key) {
		return nil, errors.New("it names no key")
	}
	if !bytes.Equal(fmt.Appendf(s.text(s.Key), "signature %s\n", s.signature), data) {
		return nil, errors.New("it is not in its only form")
	}
	return &s, nil
}

func parseClaim(rest string) (edge.Claim, error) {
	parts := strings.Split(rest, " ")
	if len(parts) != 3 || parts[2] != "in" && parts[2] != "out" {
		return edge.Claim{}, errors.New("a rollout has a salt, a number of places, and in or out")
	}
	places, err := strconv.ParseUint(parts[1], 10, 16)
	return edge.Claim{Share: edge.Share{Salt: parts[0], Places: uint16(places)}, In: parts[2] == "in"}, err
}

func parseItem(rest string) (Item, error) {
	parts := strings.Split(rest, " ")
	if len(parts) != 4 {
		return Item{}, errors.New("an item has four fields")
	}
	size, err := strconv.ParseInt(parts[1], 10, 64)
	if err != nil {
		return Item{}, err
	}
	app, err := url.PathUnescape(parts[2])
	if err != nil {
		return Item{}, err
	}
	version, err := url.PathUnescape(parts[3])
	return Item{parts[0], size, app, version}, err
}

// check refuses what no sound catalog has, so that who trusts the signature need not trust that the
// signer checked.
func (s *Statement) check() error {
	if s.Generation == 0 || !signing.IsID(s.Set) { // the forms are the same
		return errors.New("it has no generation or set")
	}
	selection, err := edge.ParseSelection(s.Selection)
	if err != nil || selection.String() != s.Selection {
		return fmt.Errorf("%q is not a canonical selection", s.Selection)
	}
	// Four digits of year, so that times of one length compare as texts do.
	if y := s.Expires.UTC().Year(); y < 2000 || y > 9999 {
		return errors.New("its expiry is out of range")
	}
	if err := checkClaims(s.Claims); err != nil {
		return err
	}
	if len(s.Items) == 0 || len(s.Items) > edge.MaxSet {
		return fmt.Errorf("it has %d items", len(s.Items))
	}
	names := make(map[string]bool, len(s.Items))
	var total int64
	for _, it := range s.Items {
		if !signing.IsID(it.SHA256) || it.Size < 0 || total+it.Size < total {
			return fmt.Errorf("item %q has no digest or size", it.App)
		}
		total += it.Size
		name := it.FileName()
		if !sound(it.App) || !sound(it.Version) || name == layout.ManifestName || names[name] {
			return fmt.Errorf("item %q %q cannot be a file, or is one twice", it.App, it.Version)
		}
		names[name] = true
	}
	return nil
}

func checkClaims(c edge.Claims) error {
	for i, r := range c.Rollouts {
		if !index.IsSalt(r.Salt) || r.Places >= index.Slots {
			return fmt.Errorf("%q to %d places is no rollout", r.Salt, r.Places)
		}
		if i > 0 && (r.Salt < c.Rollouts[i-1].Salt || r.Salt == c.Rollouts[i-1].Salt && r.Places <= c.Rollouts[i-1].Places) {
			return errors.New("its rollouts are not sorted")
		}
	}
	for _, sums := range append([][]string{c.Unless}, c.After...) {
		for i, sum := range sums {
			if !signing.IsID(sum) || i > 0 && sum <= sums[i-1] {
				return errors.New("what devices hold is not told by sorted digests")
			}
		}
	}
	for i, sums := range c.After {
		if len(sums) == 0 || i > 0 && slices.Compare(c.After[i-1], sums) >= 0 {
			return errors.New("what devices hold is not told by sorted digests")
		}
	}
	return nil
}

// True tells whether a statement is for the device of a slot, or edge.NoSlot, that holds files of these SHA-256
// digests, in hex.
func (s *Statement) True(slot int, held []string) error {
	for _, r := range s.Claims.Rollouts {
		if in := slot >= 0 && edge.Place(r.Salt, slot) < int(r.Places); in != r.In {
			return fmt.Errorf("%w: rollout %s to %d of %d", ErrOtherRollout, r.Salt, r.Places, index.Slots)
		}
	}
	for _, sum := range s.Claims.Unless {
		if slices.Contains(held, sum) {
			return fmt.Errorf("%w: it is for devices without %s", ErrOtherStep, sum)
		}
	}
	for _, sums := range s.Claims.After {
		if !slices.ContainsFunc(sums, func(sum string) bool { return slices.Contains(held, sum) }) {
			return fmt.Errorf("%w: it is for devices that have passed a floor, such as %s", ErrOtherStep, sums[0])
		}
	}
	return nil
}

// What a statement says of devices is not true of this one.
var (
	ErrOtherRollout = errors.New("statement is for devices on the other side of a rollout")
	ErrOtherStep    = errors.New("statement is for devices before or after another floor")
)

// sound tells whether a name can be part of a file name on any device: see docs/formats.md, names.
func sound(name string) bool {
	if name == "" || len(name) > maxName || name[0] == '.' || name[0] == '-' || !utf8.ValidString(name) {
		return false
	}
	return !strings.ContainsFunc(name, func(r rune) bool { return r < 0x20 || r == 0x7f || r == '/' || r == '\\' })
}

// Verify fails with signing.ErrSignature unless the key has signed the statement.
func (s *Signed) Verify(key signing.PublicKey) error {
	if key.ID() != s.Key {
		return signing.ErrSignature
	}
	return signing.Verify(key, s.text(s.Key), s.signature)
}

// ErrExpired: the statement was true once.
var ErrExpired = errors.New("statement has expired")

// Expired fails with ErrExpired if now is not before the expiry.
func (s *Statement) Expired(now time.Time) error {
	if !now.Before(s.Expires) {
		return fmt.Errorf("%w: at %s", ErrExpired, s.Expires.UTC().Format(time.RFC3339))
	}
	return nil
}
