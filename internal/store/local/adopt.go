package local

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"

	"github.com/minio/crc64nvme"

	"github.com/precast-ota/precast/internal/format/layout"
)

// Adopt takes up a binary that somebody has copied into the folder by hand: a file without a record, whose content is
// what its name says. It fails with builder.ErrNotExist if there is no file. A binary that has a record is left alone.
func (o *Objects) Adopt(ctx context.Context, key string) error {
	if err := o.adopt(ctx, key); err != nil {
		return fmt.Errorf("take up object %q: %w", key, err)
	}
	return nil
}

func (o *Objects) adopt(ctx context.Context, key string) error {
	p, err := o.paths(key)
	if err != nil {
		return err
	}
	if kind, err := layout.KindOf(key); err != nil || kind != layout.Binary {
		return errors.New("its name does not say what is in it")
	}
	unlock, err := o.lock(key)
	if err != nil {
		return err
	}
	defer unlock()
	if _, err := os.Lstat(p.meta); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	info, err := os.Lstat(p.data)
	if err != nil {
		return notExist(err)
	}
	if !info.Mode().IsRegular() { // opening it could block
		return errors.New("it is not a regular file")
	}
	f, err := os.Open(p.data)
	if err != nil {
		return notExist(err)
	}
	defer f.Close()
	sha, crc := sha256.New(), crc64nvme.New()
	size, err := o.sums(ctx, f, sha, crc)
	if err != nil {
		return err
	}
	digest, _, _ := strings.Cut(strings.TrimPrefix(key, layout.BinaryPrefix), "/")
	if sum := hex.EncodeToString(sha.Sum(nil)); sum != digest {
		return fmt.Errorf("its sha256 is %s", sum)
	}
	if err := f.Sync(); err != nil {
		return fmt.Errorf("sync file: %w", err)
	}
	if err := o.syncData(p); err != nil {
		return err
	}
	return o.writeSidecar(p, record{Size: size, CRC: checksum(crc.Sum64())})
}

// sums reads a file into hashes, and returns its size.
func (o *Objects) sums(ctx context.Context, f *os.File, hashes ...io.Writer) (int64, error) {
	buf, release := o.buffer()
	defer release()
	var size int64
	for {
		if err := ctx.Err(); err != nil {
			return size, err
		}
		n, err := f.Read(buf)
		size += int64(n)
		for _, h := range hashes {
			_, _ = h.Write(buf[:n]) // a hash takes everything
		}
		if err == io.EOF {
			return size, nil
		}
		if err != nil {
			return size, fmt.Errorf("read file: %w", err)
		}
	}
}
