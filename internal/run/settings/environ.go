// Package settings reads a function's settings from environment variables, and says everything that is
// wrong with them at once.
package settings

import (
	"errors"
	"fmt"
	"strconv"
	"time"
)

// Reader reads variables; look is os.LookupEnv, or a test's.
type Reader struct {
	look func(string) (string, bool)
	errs []error
}

// New makes a reader.
func New(look func(string) (string, bool)) *Reader { return &Reader{look: look} }

// Need returns a variable that must be set and not empty.
func (r *Reader) Need(name string) string {
	v, ok := r.look(name)
	if !ok || v == "" {
		r.errs = append(r.errs, fmt.Errorf("%s is not set", name))
	}
	return v
}

// Text returns a variable, or a default.
func (r *Reader) Text(name, otherwise string) string {
	if v, ok := r.look(name); ok && v != "" {
		return v
	}
	return otherwise
}

// Uint returns a variable that is a number, or a default.
func (r *Reader) Uint(name string, otherwise uint64) uint64 {
	return parse(r, name, otherwise, func(s string) (uint64, error) { return strconv.ParseUint(s, 10, 63) })
}

// Bool returns a variable that is true or false, or a default.
func (r *Reader) Bool(name string, otherwise bool) bool {
	return parse(r, name, otherwise, strconv.ParseBool)
}

// Duration returns a variable such as 30s, or a default.
func (r *Reader) Duration(name string, otherwise time.Duration) time.Duration {
	return parse(r, name, otherwise, time.ParseDuration)
}

func parse[T any](r *Reader, name string, otherwise T, f func(string) (T, error)) T {
	s, ok := r.look(name)
	if !ok || s == "" {
		return otherwise
	}
	v, err := f(s)
	if err != nil {
		r.errs = append(r.errs, fmt.Errorf("%s: %q cannot be read: %w", name, s, err))
		return otherwise
	}
	return v
}

// Err joins what is wrong with the variables read so far.
func (r *Reader) Err() error {
	if len(r.errs) == 0 {
		return nil
	}
	return fmt.Errorf("read environment: %w", errors.Join(r.errs...))
}
