package local

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"strings"
)

// Free tells how many bytes can still be written to the folder's file system, and how many it has.
func (o *Objects) Free() (free, total int64, err error) {
	free, total, err = statfs(filepath.Dir(o.data))
	if err != nil {
		return 0, 0, fmt.Errorf("look at the file system of %s: %w", filepath.Dir(o.data), err)
	}
	return free, total, nil
}

// Usage sums up the sizes of the folder's files by what they hold: objects by the first part of their keys, which has its
// slash, and everything else (the database, checksums, files that are being written) under no name.
func (o *Objects) Usage(ctx context.Context) (map[string]int64, error) {
	root := filepath.Dir(o.data)
	sizes := make(map[string]int64)
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			var info fs.FileInfo
			if info, err = d.Info(); err == nil {
				sizes[o.kindOf(path)] += info.Size()
			}
		}
		if errors.Is(err, fs.ErrNotExist) { // it has just been removed
			return nil
		}
		return errors.Join(err, ctx.Err())
	})
	if err != nil {
		return nil, fmt.Errorf("sum up %s: %w", root, err)
	}
	return sizes, nil
}

// kindOf is the name that Usage has for a file.
func (o *Objects) kindOf(path string) string {
	if key, ok := strings.CutPrefix(path, o.data+string(filepath.Separator)); ok {
		if first, _, below := strings.Cut(filepath.ToSlash(key), "/"); below {
			return first + "/"
		}
	}
	return ""
}
