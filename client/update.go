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
