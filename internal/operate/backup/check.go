package backup

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"

	"github.com/precast-ota/precast/internal/format/layout"
)

// Source is where a backup is read from: a Folder or an ArchiveFile.
type Source interface {
	// manifest fails with ErrNone if no backup was completed.
	manifest() (*Manifest, error)
	// walk calls yield with each content that is there, once, and the first part that has it; in any order.
	walk(ctx context.Context, m *Manifest, yield func(p Part, body io.Reader) error) error
}

// Checked is a backup that has been read to its last byte.
type Checked struct {
	*Manifest
	// Problems are what is wrong with it: it is not to be restored then.
	Problems []string `json:"problems"`

	state *state
}

// Check reads a backup, and verifies every byte of it, and that nothing is left out that its catalog or a generation
// names. It fails with ErrNone if there is none, or it was interrupted.
func Check(ctx context.Context, from Source, progress func(done, total int)) (*Checked, error) {
	c, err := check(ctx, from, progress)
	if err != nil {
		return nil, fmt.Errorf("check the backup: %w", err)
	}
	return c, nil
}

func check(ctx context.Context, from Source, progress func(done, total int)) (*Checked, error) {
	m, err := from.manifest()
	if err != nil {
		return nil, err
	}
	c := &Checked{Manifest: m, Problems: []string{}, state: &state{small: make(map[string][]byte)}}
	byDigest := make(map[string][]Part)
	for _, p := range m.Parts {
		byDigest[p.SHA256] = append(byDigest[p.SHA256], p)
	}
	total := len(byDigest)
	missing := maps.Clone(byDigest)
	err = from.walk(ctx, m, func(p Part, body io.Reader) error {
		data, err := c.read(verify(ctx, body, p), p)
		if err != nil && ctx.Err() != nil {
			return ctx.Err()
		}
		if err != nil {
			c.problem("%s: %v", p.Key, err)
		}
		for _, same := range byDigest[p.SHA256] {
			if !same.isBinary() && err == nil {
				c.state.small[same.Key] = data
			}
			if same.Size != p.Size {
				c.problem("%s: it has %d bytes, not %d", same.Key, p.Size, same.Size)
			}
		}
		delete(missing, p.SHA256)
		if progress != nil {
			progress(total-len(missing), total)
		}
		return nil
	})
	if err != nil && !errors.Is(err, ErrDamaged) {
		return nil, err
	}
	if err != nil {
		c.problem("%v", err)
	}
	for _, parts := range missing {
		for _, p := range parts {
			c.problem("%s: it is not there", p.Key)
		}
	}
	if len(c.Problems) == 0 {
		c.complete()
	}
	slices.Sort(c.Problems)
	return c, nil
}

// read reads a part. It keeps what is small.
func (c *Checked) read(body io.Reader, p Part) ([]byte, error) {
	if p.isBinary() {
		_, err := io.Copy(io.Discard, body)
		return nil, err
	}
	return io.ReadAll(body)
}

func (c *Checked) problem(format string, args ...any) {
	c.Problems = append(c.Problems, fmt.Sprintf(format, args...))
}

// complete looks for what the parts name, and compares them with what the manifest says of them.
func (c *Checked) complete() {
	if err := c.state.parse(); err != nil {
		c.problem("%v", err)
		return
	}
	has := make(map[string]bool)
	for _, p := range c.Parts {
		has[p.Key] = true
	}
	for key, must := range c.state.binaries {
		if must && !has[key] && !slices.Contains(c.Missing, key) {
			c.problem("%s: the catalog or a generation names it, and it is not in the backup", key)
		}
	}
	if !has[catalogPart] || len(c.state.items) != c.Items {
		c.problem("%s: it has %d items, not %d", catalogPart, len(c.state.items), c.Items)
	}
	var generation, sequence uint64
	var pin string
	if ix := c.state.index; ix != nil {
		generation, sequence, pin = ix.Generation, ix.Sequence, ix.Pin
	}
	if generation != c.Generation || sequence != c.Sequence || pin != c.Pin {
		c.problem("%s: it is generation %d, plan %d, pin %q; %s says generation %d, plan %d, pin %q",
			layout.IndexKey, generation, sequence, pin, manifestName, c.Generation, c.Sequence, c.Pin)
	}
	// Devices that have an old root key walk from version to version.
	if _, ok := c.state.small[layout.KeyringKey]; ok && len(c.state.keys(layout.KeyringHistoryPrefix)) == 0 {
		c.problem("%s: none of its versions is in the backup", layout.KeyringKey)
	}
}
