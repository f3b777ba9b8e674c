package local

import (
	"encoding/binary"
	"fmt"

	"go.etcd.io/bbolt"

	"github.com/precast-ota/precast/internal/format/catalog"
)

// The version is kept beside the buckets of the ports, which are declared beside their drivers.
var (
	bucketStore = []byte("store")
	keyVersion  = []byte("schema") // -> catalog.Version, 8 bytes
)

// takeUp makes a database of this version of a new one, or of one that an earlier program wrote, all in its
// transaction. It fails with a catalog.VersionError if a later program wrote it.
func takeUp(tx *bbolt.Tx) error {
	if err := checkVersion(tx); err != nil {
		return err
	}
	// Version 1 had no log; nothing else is new in version 2.
	for _, name := range [][]byte{
		bucketStore, bucketItems, bucketChanges, bucketCursors, bucketLog,
		bucketBodies, bucketStates, bucketVisible, bucketDead, bucketTokens,
		bucketEntries, bucketOpened,
	} {
		if _, err := tx.CreateBucketIfNotExists(name); err != nil {
			return fmt.Errorf("create bucket %s: %w", name, err)
		}
	}
	return tx.Bucket(bucketStore).Put(keyVersion, u64(catalog.Version))
}

// checkVersion fails if this program does not know a database's version. A new one has none.
func checkVersion(tx *bbolt.Tx) error {
	b := tx.Bucket(bucketStore)
	if b == nil {
		return nil
	}
	v := b.Get(keyVersion)
	if len(v) != 8 {
		return fmt.Errorf("read the version of %s: %d bytes, not 8", dbName, len(v))
	}
	return catalog.CheckVersion(binary.BigEndian.Uint64(v))
}
