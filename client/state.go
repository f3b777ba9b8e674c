package client

import (
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"math/big"
	"os"
	"path/filepath"
	"slices"
	"strconv"

	"github.com/precast-ota/precast/edge"
	"github.com/precast-ota/precast/internal/format/index"
	"github.com/precast-ota/precast/internal/trust/keyring"
	"github.com/precast-ota/precast/internal/trust/statement"
)

// state is what a client keeps between updates.
type state struct {
	Selection string `json:"selection"`
	// Keyring is the newest one that was verified, without its signatures: anybody can add signatures, and those
	// must not be kept.
	Keyring string `json:"keyring"`
	// Generation is the highest one that was verified, SignedBy the ID of the key that signed it.
	Generation uint64 `json:"generation"`
	SignedBy   string `json:"signedBy"`
	Contents   string `json:"contents"` // of the set in use; empty if there is none
	// Installed are the digests of the set in use. Unless are those of its statement: the releases after the floors
	// that are in the set.
	Installed []string `json:"installed,omitempty"`
	Unless    []string `json:"unless,omitempty"`
	// Floors is true if that statement had floors. Then the next request names the files that the device holds.
	Floors bool `json:"floors,omitempty"`
	// Slot is the one that was drawn; nil if there is none yet.
	Slot *int `json:"slot,omitempty"`

	keyring *keyring.Keyring
}

func (c *Client) statePath() string { return filepath.Join(c.opt.Dir, "state.json") }

// load reads the state. If the device's selection has changed, only the keyring, the generation and the slot are kept.
func (c *Client) load() (*state, error) {
	st := &state{Selection: c.selection.String()}
	data, err := os.ReadFile(c.statePath())
	if errors.Is(err, os.ErrNotExist) {
		return st, nil
	}
	if err != nil {
		return nil, err
	}
	if err := json.Unmarshal(data, st); err != nil {
		return nil, fmt.Errorf("read %s: %w (remove it, and the device starts anew)", c.statePath(), err)
	}
	if st.Keyring != "" {
		if st.keyring, err = keyring.Parse([]byte(st.Keyring)); err != nil {
			return nil, fmt.Errorf("read %s: %w (remove it, and the device starts anew)", c.statePath(), err)
		}
	}
	if st.Selection != c.selection.String() { // all selections share one count of generations
		st.Selection, st.Contents = c.selection.String(), ""
	}
	return st, nil
}

// draw chooses the device's slot at random, unless it has one or needs none. It does so only once, because another slot
// could be on the other side of a rollout.
func (c *Client) draw(st *state) error {
	if st.Slot != nil || c.slot != edge.NoSlot || c.opt.NoSlot {
		return nil
	}
	n, err := rand.Int(c.opt.Rand, big.NewInt(index.Slots))
	if err != nil {
		return fmt.Errorf("draw a slot: %w", err)
	}
	slot := int(n.Int64())
	st.Slot = &slot
	return nil
}

// slotOf returns the device's slot, or edge.NoSlot.
func (c *Client) slotOf(st *state) int {
	switch {
	case c.slot != edge.NoSlot || c.opt.NoSlot || st.Slot == nil:
		return c.slot
	default:
		return *st.Slot
	}
}

// query is the query of the device's requests.
func (c *Client) query(st *state) string {
	query := c.selection.String()
	if slot := c.slotOf(st); slot != edge.NoSlot {
		query += "&slot=" + strconv.Itoa(slot)
	}
	return query
}

// held returns the digests of the files that the device uses.
func (c *Client) held(st *state) []string {
	if len(st.Installed) == 0 {
		return c.opt.Held
	}
	return st.Installed
}

// before reports whether a statement has only files in use and the releases after their floors.
func (st *state) before(said *statement.Signed) bool {
	return len(st.Unless) > 0 && !slices.ContainsFunc(said.Items, func(it statement.Item) bool {
		return !slices.Contains(st.Installed, it.SHA256) && !slices.Contains(st.Unless, it.SHA256)
	})
}

// save replaces the state atomically.
func (c *Client) save(st *state) error {
	if st.keyring != nil {
		st.Keyring = string(st.keyring.Text())
	}
	data, err := json.MarshalIndent(st, "", "  ")
	if err != nil {
		return err
	}
	f, err := os.CreateTemp(c.opt.Dir, "state-*")
	if err != nil {
		return fmt.Errorf("save state: %w", err)
	}
	defer os.Remove(f.Name()) // unless it has been renamed
	_, err = f.Write(append(data, '\n'))
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		return fmt.Errorf("save state: %w", err)
	}
	if err := os.Rename(f.Name(), c.statePath()); err != nil {
		return fmt.Errorf("save state: %w", err)
	}
	return syncDir(c.opt.Dir)
}

// prune removes downloads and the files that are not in use. What cannot be removed is tried again after the next
// change.
func (c *Client) prune(inUse []File) {
	entries, _ := os.ReadDir(c.filesDir())
	for _, e := range entries {
		if !slices.ContainsFunc(inUse, func(f File) bool { return f.SHA256 == e.Name() }) {
			os.Remove(filepath.Join(c.filesDir(), e.Name()))
		}
	}
	c.forgetDownloads("")
}

// forgetDownloads removes all downloads except one.
func (c *Client) forgetDownloads(but string) {
	names, _ := filepath.Glob(filepath.Join(c.opt.Dir, "download-*"))
	for _, name := range names {
		if name != but && name != but+tagSuffix {
			os.Remove(name)
		}
	}
}
