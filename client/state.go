package client

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"precast/internal/keyring"
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

// syncDir makes a rename survive a power cut.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
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
