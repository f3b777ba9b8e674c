package main

import (
	"fmt"
	"io"
	"os"
	"sync"
	"unicode"
	"unicode/utf8"

	"golang.org/x/term"
)

// quoted writes what programs and people read, and is where everything is printed that others wrote: names in
// catalogs and archives, answers of servers. What would steer a terminal, or turn the direction of the text, is
// written as JSON would escape it: JSON means the same afterwards.
type quoted struct {
	mu   sync.Mutex
	w    io.Writer
	rest []byte // the beginning of a character whose end has not been written yet
}

func newQuoted(w io.Writer) *quoted {
	if q, ok := w.(*quoted); ok {
		return q
	}
	return &quoted{w: w}
}

func (q *quoted) Write(p []byte) (int, error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	in := append(q.rest, p...)
	out := make([]byte, 0, len(in))
	for len(in) > 0 && utf8.FullRune(in) {
		r, n := utf8.DecodeRune(in)
		out = appendQuoted(out, r, in[:n])
		in = in[n:]
	}
	q.rest = append([]byte(nil), in...)
	if _, err := q.w.Write(out); err != nil {
		return 0, err
	}
	return len(p), nil
}

// end writes what never became a character.
func (q *quoted) end() error {
	q.mu.Lock()
	defer q.mu.Unlock()
	var out []byte
	for i := range q.rest {
		out = appendQuoted(out, utf8.RuneError, q.rest[i:i+1])
	}
	q.rest = nil
	_, err := q.w.Write(out)
	return err
}

// appendQuoted appends the character r, which bytes are the encoding of.
func appendQuoted(out []byte, r rune, bytes []byte) []byte {
	switch {
	case r == utf8.RuneError && len(bytes) == 1:
		return fmt.Appendf(out, `\x%02x`, bytes[0])
	case r == '\n' || r == '\t':
	case unicode.IsControl(r), unicode.Is(unicode.Bidi_Control, r), r == '\u2028', r == '\u2029':
		return fmt.Appendf(out, `\u%04x`, r)
	}
	return append(out, bytes...)
}

// terminalOf returns the terminal that w writes to, or nil.
func terminalOf(w io.Writer) *os.File {
	if q, ok := w.(*quoted); ok {
		w = q.w
	}
	if f, ok := w.(*os.File); ok && term.IsTerminal(int(f.Fd())) {
		return f
	}
	return nil
}
