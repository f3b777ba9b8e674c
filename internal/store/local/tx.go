package local

import (
	"context"

	"go.etcd.io/bbolt"
)

// view and update run f in a transaction unless ctx has ended. What update wrote is durable when it
// returns nil. A transaction is short: it is not interrupted.

func view(ctx context.Context, db *bbolt.DB, f func(*bbolt.Tx) error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	return db.View(f)
}

func update(ctx context.Context, db *bbolt.DB, f func(*bbolt.Tx) error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if db.IsReadOnly() {
		return ErrReadOnly
	}
	return db.Update(f)
}
