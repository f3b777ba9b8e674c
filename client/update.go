package client

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"github.com/precast-ota/precast/edge"
	"github.com/precast-ota/precast/internal/trust/statement"
)

// Update asks the server for the device's files and installs them if they have changed. If the server sent something
// that failed a check, the error is a *Refusal and the device keeps the files that it had.
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
	// A generation may have been published between the statement and the bundle, or a cache may hold only one of
	// them. Then the statement is another one now.
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

// takeIntoUse installs the files of a statement if they differ from those in use, and saves the state.
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

// complete downloads the files of a statement that the device does not have.
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
	passed := c.passed(st, said)
	// A request can name MaxTags digests. Files beyond those are sent although the device has them.
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
			return downloaded, err // the next Update resumes the download
		}
		if name != "" {
			os.Remove(name)
		}
		// The part from an earlier Update may have been forged by an attacker who has gone since.
		if !resumed || again {
			return downloaded, err
		}
	}
}

// passed returns the digests of files in use that the statement does not list, if it is for devices that have passed
// a floor: the server needs them to choose the same bundle.
func (c *Client) passed(st *state, said *statement.Signed) []string {
	if len(said.Claims.After) == 0 {
		return nil
	}
	passed := slices.DeleteFunc(slices.Clone(c.held(st)), func(sum string) bool {
		return slices.ContainsFunc(said.Items, func(it statement.Item) bool { return it.SHA256 == sum })
	})
	return passed[:min(len(passed), edge.MaxTags)]
}

// filesDir is the folder of the verified files, each named by its digest.
func (c *Client) filesDir() string { return filepath.Join(c.opt.Dir, "files") }

func (c *Client) filePath(sha256 string) string { return filepath.Join(c.filesDir(), sha256) }
