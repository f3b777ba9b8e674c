package edge

import "precast/internal/index"

// Latest holds the newest good index that it was offered, with its table. Its zero value holds none.
type Latest struct{ Table }

// Offer takes an encoded index into use. It fails with index.ErrCorrupt, index.ErrVersion or
// index.ErrOlder; the index in use then stays.
func (l *Latest) Offer(encoded []byte) error {
	ix, err := index.Parse(encoded)
	if err != nil {
		return err
	}
	if err := ix.Replaces(l.Index); err != nil {
		return err
	}
	l.Table = TableOf(ix)
	return nil
}
