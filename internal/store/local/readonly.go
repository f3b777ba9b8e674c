package local

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"go.etcd.io/bbolt"
	bberrors "go.etcd.io/bbolt/errors"

	"github.com/precast-ota/precast/builder"
)

// ErrReadOnly: the folder was opened to be read only.
var ErrReadOnly = errors.New("the data folder is read-only")

// CannotWrite tells whether an error of Open says that this process may not, or cannot, write to the folder. Then
// OpenReadOnly may do.
func CannotWrite(err error) bool {
	return errors.Is(err, syscall.EROFS) || errors.Is(err, fs.ErrPermission)
}

// OpenReadOnly opens a data folder without writing anything to it: no database, no temporary file, no lock file. Any
// number of processes may do so at once. It fails with ErrLocked while another process has it to write.
func OpenReadOnly(dir string, opt Options) (*Store, error) {
	s, err := openReadOnly(dir, opt)
	if err != nil {
		return nil, fmt.Errorf("open data folder %s to read: %w", dir, err)
	}
	return s, nil
}

func openReadOnly(dir string, opt Options) (*Store, error) {
	if err := opt.complete(); err != nil {
		return nil, err
	}
	objects, dir, err := objectsIn(dir)
	if err != nil {
		return nil, err
	}
	objects.readOnly = true
	db, err := bbolt.Open(filepath.Join(dir, dbName), 0, &bbolt.Options{ReadOnly: true, Timeout: lockTimeout})
	if errors.Is(err, bberrors.ErrTimeout) {
		return nil, ErrLocked
	}
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", dbName, err)
	}
	err = db.View(func(tx *bbolt.Tx) error {
		if err := checkVersion(tx); err != nil {
			return err
		}
		if tx.Bucket(bucketLog) == nil {
			return errors.New("an earlier program wrote it: open it once where it can be written to")
		}
		return nil
	})
	s := &Store{db: db, objects: objects, closed: make(chan struct{})}
	if err == nil {
		err = s.connect(opt)
	}
	if err != nil {
		return nil, errors.Join(err, db.Close())
	}
	return s, nil
}

// openAsIs opens an object that a writer is at work on, or died at: the content decides which of the records is its.
func (o *Objects) openAsIs(p paths) (*os.File, builder.ObjectInfo, error) {
	side, sc, f, err := p.open()
	if err != nil {
		return nil, builder.ObjectInfo{}, err
	}
	defer side.Close()
	buf, release := o.buffer()
	defer release()
	rec, err := choose(sc.Candidates, f, buf)
	if err == nil {
		_, err = f.Seek(0, io.SeekStart)
	}
	if err != nil {
		f.Close()
		return nil, builder.ObjectInfo{}, err
	}
	return opened(f, rec.info(p.key))
}
