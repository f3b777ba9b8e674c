package edge

import "github.com/precast-ota/precast/internal/format/index"

// Latest holds the newest good index that it was offered. Its zero value holds none.
type Latest struct{ ix *index.Index }

// Index returns the index in use, nil before the first.
func (l *Latest) Index() *index.Index { return l.ix }

// Offer takes an encoded index into use. It fails with index.ErrCorrupt, index.ErrVersion or
// index.ErrOlder; the index in use then stays.
func (l *Latest) Offer(encoded []byte) error {
	ix, err := index.Parse(encoded)
	if err != nil {
		return err
	}
	if err := ix.Replaces(l.ix); err != nil {
		return err
	}
	l.ix = ix
	return nil
}
