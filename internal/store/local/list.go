package local

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/precast-ota/precast/builder"
	"github.com/precast-ota/precast/internal/format/layout"
)

// List implements builder.Objects. It holds one folder's names in memory at a time, and those of the
// folders above it.
func (o *Objects) List(ctx context.Context, prefix string, yield func(builder.ObjectInfo) error) error {
	// Start below the folders that the prefix names whole. The names come from outside: no .. in them.
	start := prefix[:strings.LastIndexByte(prefix, '/')+1]
	if start != "" && !fs.ValidPath(strings.TrimSuffix(start, "/")) {
		return nil // no key looks like this
	}
	if strings.ContainsRune(start, 0) {
		return nil
	}
	l := lister{objects: o, prefix: prefix, yield: yield}
	err := l.walk(ctx, start)
	if err != nil && !l.yielded {
		return fmt.Errorf("list objects %q: %w", prefix, err)
	}
	return err
}

type lister struct {
	objects *Objects
	prefix  string
	yield   func(builder.ObjectInfo) error
	yielded bool // the error is yield's
}

// walk lists the objects below dir, which is empty or ends in a slash.
func (l *lister) walk(ctx context.Context, dir string) error {
	entries, err := os.ReadDir(filepath.Join(l.objects.data, filepath.FromSlash(dir)))
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR) || errors.Is(err, syscall.ENAMETOOLONG) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("read folder: %w", err)
	}
	// Keys below a folder continue with a slash, so that is how the folder sorts among files:
	// "a.b" before "a/b".
	names := make([]string, 0, len(entries))
	for _, e := range entries {
		name := dir + e.Name()
		if e.IsDir() {
			name += "/"
		}
		if strings.HasPrefix(name, l.prefix) || e.IsDir() && strings.HasPrefix(l.prefix, name) {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	for _, name := range names {
		if err := ctx.Err(); err != nil {
			return err
		}
		if strings.HasSuffix(name, "/") {
			if err := l.walk(ctx, name); err != nil {
				return err
			}
			continue
		}
		if err := l.object(ctx, name); err != nil {
			return err
		}
	}
	return nil
}

func (l *lister) object(ctx context.Context, key string) error {
	if _, err := l.objects.paths(key); err != nil {
		return nil // a file that is not ours
	}
	f, info, err := l.objects.open(ctx, key)
	if errors.Is(err, builder.ErrNotExist) {
		return nil // removed meanwhile, or not ours
	}
	if err != nil {
		return fmt.Errorf("stat object %q: %w", key, err)
	}
	f.Close()
	info.Meta, info.Headers = nil, layout.Headers{}
	err = l.yield(info)
	l.yielded = err != nil
	return err
}
