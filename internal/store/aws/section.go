package aws

import (
	"errors"
	"io"
)

// section is n bytes of a body from offset off, as a body of its own: exactly n bytes, or an error.
type section struct {
	body   io.ReadSeeker
	off, n int64
	pos    int64
	placed bool // the body is at off+pos
}

func newSection(body io.ReadSeeker, off, n int64) *section {
	return &section{body: body, off: off, n: n}
}

// bodyError is what is wrong with a body; asking again does not mend it.
type bodyError struct{ err error }

func (e bodyError) Error() string      { return "read body: " + e.err.Error() }
func (e bodyError) Unwrap() error      { return e.err }
func (bodyError) RetryableError() bool { return false } // the SDK asks for it

func (s *section) Read(b []byte) (int, error) {
	left := s.n - s.pos
	if left <= 0 {
		return 0, io.EOF
	}
	if !s.placed {
		if _, err := s.body.Seek(s.off+s.pos, io.SeekStart); err != nil {
			return 0, bodyError{err}
		}
		s.placed = true
	}
	n, err := s.body.Read(b[:min(int64(len(b)), left)])
	s.pos += int64(n)
	switch {
	case err == nil, err == io.EOF && s.pos == s.n:
		return n, nil
	case err == io.EOF:
		return n, bodyError{io.ErrUnexpectedEOF}
	}
	return n, bodyError{err}
}

func (s *section) Seek(offset int64, whence int) (int64, error) {
	switch whence {
	case io.SeekCurrent:
		offset += s.pos
	case io.SeekEnd:
		offset += s.n
	}
	if offset < 0 {
		return 0, errors.New("seek in body: before its start")
	}
	if offset != s.pos {
		s.pos, s.placed = offset, false
	}
	return offset, nil
}
