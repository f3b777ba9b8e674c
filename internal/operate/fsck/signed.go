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

// signed holds one statement, where there are any, against the keyring that is served and against the index: what
// signs statements signs all of them. Whether a device trusts the keyring only its root key tells (precast verify).
func (a *asker) signed(ctx context.Context, ix *index.Index, dims edge.Dimensions) error {
	var set edge.Set
	query := ""
	dims.Each(func(_ int, s edge.Selection) bool {
		devices, _ := dims.Devices(s)
		for _, d := range devices {
			found, err := edge.Resolve(ix, d)
			if err == nil && found.Len() > 0 && len(d.Held) == 0 {
				set, query = found, dims.Query(d)
				return false
			}
		}
		return true
	})
	if query == "" {
		return nil
	}
	base := strings.TrimSuffix(a.device.URL, "/")
	p := Problem{Key: base + "/package?" + query + "&payloadtype=statement", Devices: "those that verify install nothing"}
	status, data, err := a.small(ctx, p.Key, statement.MaxBytes)
	if err != nil {
		return err
	}
	if status == http.StatusNotFound && strings.Contains(string(data), edge.ErrNotSigned) {
		return nil
	}
	wrong := func(p Problem, kind Kind, err error) error {
		p.Kind, p.Detail = kind, err.Error()
		a.problem(p)
		return a.looked(ctx, nil)
	}
	if status != http.StatusOK {
		return wrong(p, Unexpected, fmt.Errorf("status %d, not %d", status, http.StatusOK))
	}
	said, err := statement.Parse(data)
	if err != nil {
		return wrong(p, WrongBytes, err)
	}
	ringAt := p
	ringAt.Key = base + "/" + layout.KeyringKey
	status, data, err = a.small(ctx, ringAt.Key, keyring.MaxBytes)
	if err != nil {
		return err
	}
	if status != http.StatusOK {
		return wrong(ringAt, Missing, fmt.Errorf("status %d: statements are signed, and devices find no keyring (precast keys publish)", status))
	}
	ring, err := keyring.Parse(data)
	if err != nil {
		return wrong(ringAt, WrongBytes, err)
	}
	now := time.Now()
	if a.device.Now != nil {
		now = a.device.Now()
	}
	if err := ring.Serves(said.Key, now); errors.Is(err, keyring.ErrExpiring) {
		ringAt.Devices = "those that verify will install nothing then"
		return wrong(ringAt, Unexpected, err)
	} else if err != nil {
		return wrong(ringAt, Unexpected, err)
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
		return wrong(p, WrongBytes, err)
	}
	return a.looked(ctx, nil)
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
