package server

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/precast-ota/precast/builder"
	"github.com/precast-ota/precast/internal/format/layout"
	"github.com/precast-ota/precast/internal/trust/keyring"
)

// KeyWatch checks that the key that signs statements here is in the published keyring. Devices cannot report that they
// reject a key.
type KeyWatch struct {
	Objects builder.Objects
	Key     string // ID
	Now     func() time.Time
	Log     *slog.Logger

	said string // the error that was logged last
}

// Run checks until ctx is done. The interval is how often KeyWatch checks that the signing key is in the published
// keyring.
func (k *KeyWatch) Run(ctx context.Context, interval time.Duration) {
	tick := time.NewTicker(interval)
	defer tick.Stop()
	for {
		k.Look(ctx)
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// Look checks once, and logs what is wrong unless the last check logged the same.
func (k *KeyWatch) Look(ctx context.Context) {
	err := k.check(ctx)
	switch {
	case ctx.Err() != nil:
	case err == nil && k.said != "":
		k.said = ""
		k.Log.InfoContext(ctx, "devices believe what is signed here again", "key", k.Key)
	case err != nil && err.Error() != k.said:
		k.said = err.Error()
		k.Log.ErrorContext(ctx, "devices do not believe what is signed here, or soon will not", "key", k.Key, "error", err)
	}
}

func (k *KeyWatch) check(ctx context.Context) error {
	data, _, err := readKeyring(ctx, k.Objects, layout.KeyringKey)
	if errors.Is(err, builder.ErrNotExist) {
		return errors.New("no keyring is published (precast keys publish)")
	}
	if err != nil {
		return err
	}
	ring, err := keyring.Parse(data)
	if err != nil {
		return err
	}
	if err := ring.Serves(k.Key, k.Now()); err != nil {
		return fmt.Errorf("keyring version %d: %w", ring.Version, err)
	}
	return nil
}
