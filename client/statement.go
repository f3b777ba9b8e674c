package client

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"

	"github.com/precast-ota/precast/internal/trust/keyring"
	"github.com/precast-ota/precast/internal/trust/statement"
)

// contents identifies the files of a statement. (The set ID does so only if the signer was honest.)
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

// statement fetches and verifies the statement for the device's selection. The device names the files that it holds only
// if there are floors. Otherwise all devices of a selection send the same request, which a cache can answer.
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

// statementHolding fetches and verifies the statement for a device that holds files with these digests.
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
