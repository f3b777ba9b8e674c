package local

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"time"

	"go.etcd.io/bbolt"
	bberrors "go.etcd.io/bbolt/errors"

	"github.com/precast-ota/precast/internal/files"
	"github.com/precast-ota/precast/internal/format/index"
	"github.com/precast-ota/precast/internal/format/layout"
)

// ErrLocked: another process (or another Store) has the data folder.
var ErrLocked = errors.New("in use by another process")

const (
	dbName = "precast.db"
	// A process that is just ending gets this long to let go of the folder.
	lockTimeout = 250 * time.Millisecond

	defaultMaxReceives = 5
)

// Errors of folders without a catalog.
var (
	ErrNoCatalog = errors.New("there is no catalog")
	// ErrLostCatalog: something is published, and there is no database, or one in which there has never been an item.
	ErrLostCatalog = errors.New("the catalog is lost")
)

// Options configure a Store; the zero value is usable.
type Options struct {
	// Now tells the time; nil means time.Now. Long polls wait on real timers whatever it tells.
	Now func() time.Time
	// MaxReceives is how often a message is received before it becomes a dead letter; 0 means 5.
	MaxReceives int
	// Existing makes Open fail with ErrNoCatalog where there is no database, instead of creating one.
	Existing bool
	// NewCatalog lets the catalog be new and empty although something is published: without it, Open fails with
	// ErrLostCatalog, as the first change would take everything else from the devices.
	NewCatalog bool
}

// Store is an open data folder.
type Store struct {
	db      *bbolt.DB
	objects *Objects
	catalog *Catalog
	queue   *Queue
	ledger  *Ledger

	closeOnce sync.Once
	closed    chan struct{} // closed by Close, to end the waits
	closeErr  error
}

// Open opens the data folder dir, which it creates if missing, for this process alone. It fails with
// ErrLocked while another has it.
func Open(dir string, opt Options) (*Store, error) {
	s, err := open(dir, opt)
	if err != nil {
		return nil, fmt.Errorf("open data folder %s: %w", dir, err)
	}
	return s, nil
}

func (opt *Options) complete() error {
	if opt.Now == nil {
		opt.Now = time.Now
	}
	if opt.MaxReceives < 0 {
		return fmt.Errorf("check options: MaxReceives is %d", opt.MaxReceives)
	}
	if opt.MaxReceives == 0 {
		opt.MaxReceives = defaultMaxReceives
	}
	return nil
}

func open(dir string, opt Options) (*Store, error) {
	if err := opt.complete(); err != nil {
		return nil, err
	}
	if err := opt.checkDatabase(dir); err != nil {
		return nil, err
	}
	objects, err := openObjects(dir)
	if err != nil {
		return nil, err
	}
	db, err := bbolt.Open(filepath.Join(dir, dbName), 0o600, &bbolt.Options{
		Timeout:      lockTimeout,
		FreelistType: bbolt.FreelistMapType,
	})
	if errors.Is(err, bberrors.ErrTimeout) {
		return nil, ErrLocked
	}
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", dbName, err)
	}
	s := &Store{db: db, objects: objects, closed: make(chan struct{})}
	if err := s.start(dir, opt); err != nil {
		return nil, errors.Join(err, db.Close())
	}
	return s, nil
}

func (s *Store) start(dir string, opt Options) error {
	if err := s.db.Update(takeUp); err != nil {
		return err
	}
	if err := s.checkCatalog(dir, opt); err != nil {
		return err
	}
	// The database file's name must survive a crash as well as its content.
	if err := syncDir(dir); err != nil {
		return err
	}
	if err := files.Sweep(s.objects.tmp, ""); err != nil {
		return err
	}
	return s.connect(opt)
}

// connect makes the drivers over the database.
func (s *Store) connect(opt Options) error {
	s.catalog = &Catalog{db: s.db, now: opt.Now, changed: newSignal(), closed: s.closed}
	s.ledger = &Ledger{db: s.db, now: opt.Now}
	queue, err := newQueue(s.db, opt, s.closed)
	if err != nil {
		return err
	}
	s.queue = queue
	return nil
}

// checkDatabase refuses to create a database where that is not wanted.
func (opt Options) checkDatabase(dir string) error {
	info, err := os.Stat(filepath.Join(dir, dbName))
	switch {
	case err != nil && !errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("open %s: %w", dbName, err)
	case err == nil && info.Size() > 0:
		return nil
	case !opt.NewCatalog && isPublished(dir):
		return ErrLostCatalog
	case opt.Existing:
		return ErrNoCatalog
	}
	return nil
}

// checkCatalog refuses a catalog that has never had an item, where something is published.
func (s *Store) checkCatalog(dir string, opt Options) error {
	if opt.NewCatalog || !isPublished(dir) {
		return nil
	}
	return s.db.View(func(tx *bbolt.Tx) error {
		if k, _ := tx.Bucket(bucketItems).Cursor().First(); k == nil && tx.Bucket(bucketChanges).Sequence() == 0 {
			return ErrLostCatalog
		}
		return nil
	})
}

// isPublished tells whether devices of a folder get anything, or got it before the index was lost.
func isPublished(dir string) bool {
	data, err := os.ReadFile(filepath.Join(dir, "objects", layout.IndexKey))
	if errors.Is(err, fs.ErrNotExist) {
		_, err := os.Stat(filepath.Join(dir, "objects", filepath.FromSlash(layout.HistoryPrefix)))
		return err == nil
	}
	ix, err := index.Parse(data)
	return err != nil || ix.Len() > 0
}

// Objects returns the objects of the folder; they stay usable after Close.
func (s *Store) Objects() *Objects { return s.objects }

// Catalog returns the catalog with its change log.
func (s *Store) Catalog() *Catalog { return s.catalog }

// Queue returns the queue with its dead letters.
func (s *Store) Queue() *Queue { return s.queue }

// Ledger returns the ledger.
func (s *Store) Ledger() *Ledger { return s.ledger }

// Close ends all waits and lets go of the folder. Closing again does nothing.
func (s *Store) Close() error {
	s.closeOnce.Do(func() {
		close(s.closed)
		s.closeErr = s.db.Close()
	})
	if s.closeErr != nil {
		return fmt.Errorf("close %s: %w", dbName, s.closeErr)
	}
	return nil
}

// errClosed ends a wait when the store closes; bbolt's own error, so that callers see one.
var errClosed = bberrors.ErrDatabaseNotOpen

// u64 is n in big-endian order: keys made of it sort by number.
func u64(n uint64) []byte { return binary.BigEndian.AppendUint64(nil, n) }

// ensure that dir exists, with mode if it is made.
func ensureDir(dir string, mode os.FileMode) error {
	if err := os.MkdirAll(dir, mode); err != nil {
		return fmt.Errorf("create folder: %w", err)
	}
	return nil
}
