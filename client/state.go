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

// state is what a client remembers between updates.
type state struct {
	Selection string `json:"selection"`
	// Keyring is the newest that was verified, without its signatures: whoever had added one would be
	// remembered with it.
	Keyring string `json:"keyring"`
	// Generation is the highest that was believed; SignedBy the ID of the key that had signed it.
	Generation uint64 `json:"generation"`
	SignedBy   string `json:"signedBy"`
	Contents   string `json:"contents"` // of the set in use; empty: there is none
	// Installed are the digests of the set in use; Unless what its statement said of other devices: what comes
	// after the floors that are in it.
	Installed []string `json:"installed,omitempty"`
	Unless    []string `json:"unless,omitempty"`
	// Floors: there were some in that statement. The next one is asked for with what is held.
	Floors bool `json:"floors,omitempty"`
	// Slot is the one that was drawn; nil: none yet.
	Slot *int `json:"slot,omitempty"`

	keyring *keyring.Keyring
}

func (c *Client) statePath() string { return filepath.Join(c.opt.Dir, "state.json") }

// load reads the state. A device that has become another one starts anew, but for the keyring.
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
	if st.Selection != c.selection.String() { // generations are of the whole catalog, and go on counting
		st.Selection, st.Contents = c.selection.String(), ""
	}
	return st, nil
}

// draw draws the device's slot, if it is to have one that is not known. A device draws once: another slot could be on
// the other side of a rollout.
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

// query is what the device asks for.
func (c *Client) query(st *state) string {
	query := c.selection.String()
	if slot := c.slotOf(st); slot != edge.NoSlot {
		query += "&slot=" + strconv.Itoa(slot)
	}
	return query
}

// held returns the digests of what the device runs.
func (c *Client) held(st *state) []string {
	if len(st.Installed) == 0 {
		return c.opt.Held
	}
	return st.Installed
}

// before tells whether a statement is what comes after the floors in use.
func (st *state) before(said *statement.Signed) bool {
	return len(st.Unless) > 0 && !slices.ContainsFunc(said.Items, func(it statement.Item) bool {
		return !slices.Contains(st.Installed, it.SHA256) && !slices.Contains(st.Unless, it.SHA256)
	})
}

// save writes the state whole or not at all.
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
	defer os.Remove(f.Name()) // unless it has got its name
	_, err = f.Write(append(data, '\n'))
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		return fmt.Errorf("save state: %w", err)
	}
	if err := os.Rename(f.Name(), c.statePath()); err != nil {
		return fmt.Errorf("save state: %w", err)
	}
	return syncDir(c.opt.Dir)
}

// prune removes files that are not of the set in use, and what is left of downloads. What cannot be removed
// is tried again after the next change.
func (c *Client) prune(inUse []File) {
	entries, _ := os.ReadDir(c.filesDir())
	for _, e := range entries {
		if !slices.ContainsFunc(inUse, func(f File) bool { return f.SHA256 == e.Name() }) {
			os.Remove(filepath.Join(c.filesDir(), e.Name()))
		}
	}
	c.forgetDownloads("")
}

// forgetDownloads removes all downloads but one.
func (c *Client) forgetDownloads(but string) {
	names, _ := filepath.Glob(filepath.Join(c.opt.Dir, "download-*"))
	for _, name := range names {
		if name != but && name != but+tagSuffix {
			os.Remove(name)
		}
	}
}
