// Package reload keeps what was read from files up to date with them, without a restart and without a signal.
package reload

import (
	"context"
	"crypto/tls"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"time"
)

// File is a value read from files. When one of them changes it is read again; if that fails, the last good value stays,
// and the log says why.
type File[T any] struct {
	paths []string
	load  func() (T, error)
	log   *slog.Logger

	mu     sync.Mutex
	value  T
	stamps []stamp
}

type stamp struct {
	size     int64
	modified time.Time
	id       os.FileInfo
}

// New reads the value for the first time.
func New[T any](log *slog.Logger, load func() (T, error), paths ...string) (*File[T], error) {
	f := &File[T]{paths: paths, load: load, log: log}
	f.stamps = f.look()
	var err error
	f.value, err = load()
	return f, err
}

// Get returns the value of the files as they are now.
func (f *File[T]) Get() T {
	f.mu.Lock()
	defer f.mu.Unlock()
	now := f.look()
	for i := range now {
		if now[i].same(f.stamps[i]) {
			continue
		}
		f.stamps = now // also of what cannot be used: it is said once
		v, err := f.load()
		if err != nil {
			f.log.ErrorContext(context.Background(), "read changed file: the last good content stays in use", "file", f.paths[i], "error", err)
			break
		}
		f.log.InfoContext(context.Background(), "read changed file", "file", f.paths[i])
		f.value = v
		break
	}
	return f.value
}

// look is taken before the files are read: what changes in between is read again.
func (f *File[T]) look() []stamp {
	stamps := make([]stamp, len(f.paths))
	for i, p := range f.paths {
		if info, err := os.Stat(p); err == nil {
			stamps[i] = stamp{info.Size(), info.ModTime(), info}
		}
	}
	return stamps
}

func (s stamp) same(t stamp) bool {
	return s.size == t.size && s.modified.Equal(t.modified) && (s.id == nil) == (t.id == nil) && (s.id == nil || os.SameFile(s.id, t.id))
}

// Certificate is the configuration of a TLS server whose certificate and key are in files.
func Certificate(log *slog.Logger, cert, key string) (*tls.Config, error) {
	f, err := New(log, func() (*tls.Certificate, error) {
		pair, err := tls.LoadX509KeyPair(cert, key)
		if err != nil {
			return nil, fmt.Errorf("read TLS certificate: %w", err)
		}
		return &pair, nil
	}, cert, key)
	if err != nil {
		return nil, err
	}
	return &tls.Config{
		MinVersion:     tls.VersionTLS12,
		NextProtos:     []string{"http/1.1"},
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return f.Get(), nil },
	}, nil
}
