package fsck

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/precast-ota/precast/edge"
	"github.com/precast-ota/precast/internal/format/index"
	"github.com/precast-ota/precast/internal/format/layout"
	"github.com/precast-ota/precast/internal/trust/keyring"
	"github.com/precast-ota/precast/internal/trust/statement"
)

// signed verifies one statement, where there are any, against the keyring that is served and against the index: what
// signs statements signs all of them. Whether a device trusts the keyring only its root key tells (precast verify).
func (a *asker) signed(ctx context.Context, ix *index.Index) error {
	set, query := anyAnswer(ix)
	if query == "" {
		return nil
	}
	p := Problem{Key: a.address("package?" + query + "&payloadtype=statement"), Devices: "those that verify install nothing"}
	status, data, err := a.small(ctx, p.Key, statement.MaxBytes)
	if err != nil {
		return err
	}
	if status == http.StatusNotFound && strings.Contains(string(data), edge.ErrNotSigned) {
		return nil
	}
	if status != http.StatusOK {
		return a.wrong(ctx, p, Unexpected, fmt.Errorf("status %d, not %d", status, http.StatusOK))
	}
	said, err := statement.Parse(data)
	if err != nil {
		return a.wrong(ctx, p, WrongBytes, err)
	}
	now := time.Now()
	if a.device.Now != nil {
		now = a.device.Now()
	}
	ring, err := a.ring(ctx, said.Key, now)
	if ring == nil || err != nil {
		return err
	}
	key, err := ring.SigningKey(said.Key)
	if err == nil {
		err = said.Verify(key)
	}
	if err == nil {
		err = said.Expired(now)
	}
	// Another generation may have been published meanwhile.
	if err == nil && said.Generation == ix.Generation && said.Set != set.ID() {
		err = fmt.Errorf("it is of the set %s, the index says %s", said.Set, set.ID())
	}
	if err != nil {
		return a.wrong(ctx, p, WrongBytes, err)
	}
	return a.looked(ctx, nil)
}

// anyAnswer returns the first set that a device which holds nothing gets, and its query; no query if there is none.
func anyAnswer(ix *index.Index) (set edge.Set, query string) {
	walk := edge.NewWalk(ix, ix.Params.MaxCombinations)
	for v := range walk.Visits {
		if set, err := v.Resolve(); err == nil && set.Len() > 0 && len(v.Held) == 0 {
			return set, walk.Query(v.Device)
		}
	}
	return edge.Set{}, ""
}

// ring gets the keyring that is served. It is nil if it does not serve the key that signs, which is reported.
func (a *asker) ring(ctx context.Context, signs string, now time.Time) (*keyring.Keyring, error) {
	p := Problem{Key: a.address(layout.KeyringKey), Devices: "those that verify install nothing"}
	status, data, err := a.small(ctx, p.Key, keyring.MaxBytes)
	if err != nil {
		return nil, err
	}
	if status != http.StatusOK {
		return nil, a.wrong(ctx, p, Missing, fmt.Errorf("status %d: statements are signed, and devices find no keyring (precast keys publish)", status))
	}
	ring, err := keyring.Parse(data)
	if err != nil {
		return nil, a.wrong(ctx, p, WrongBytes, err)
	}
	if err := ring.Serves(signs, now); err != nil {
		if errors.Is(err, keyring.ErrExpiring) {
			p.Devices = "those that verify will install nothing then"
		}
		return nil, a.wrong(ctx, p, Unexpected, err)
	}
	return ring, nil
}

// wrong reports what is wrong with an answer.
func (a *asker) wrong(ctx context.Context, p Problem, kind Kind, err error) error {
	p.Kind, p.Detail = kind, err.Error()
	a.problem(p)
	return a.looked(ctx, nil)
}

// address is that of a path.
func (a *asker) address(path string) string {
	return strings.TrimSuffix(a.device.URL, "/") + "/" + path
}

// small gets a small answer.
func (a *asker) small(ctx context.Context, address string, most int64) (status int, data []byte, err error) {
	resp, err := a.send(ctx, http.MethodGet, address, nil)
	if err != nil {
		return 0, nil, err
	}
	defer resp.Body.Close()
	data, err = io.ReadAll(io.LimitReader(resp.Body, most+1))
	a.read(int64(len(data)))
	return resp.StatusCode, data, err
}
