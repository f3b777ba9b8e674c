package server

import (
	"context"
	"fmt"
	"io"

	"github.com/precast-ota/precast/builder"
)

// rangeReader makes an object seekable by asking the store for ranges. Seeking costs nothing: only a
// read from where no body is open asks again. (http.ServeContent seeks to the end and back.)
type rangeReader struct {
	ctx     context.Context
	objects builder.Objects
	key     string
	size    int64

	pos    int64         // of the next Read
	body   io.ReadCloser // nil: none is open
	bodyAt int64         // where the body is
}

func (r *rangeReader) Read(p []byte) (int, error) {
	if r.pos >= r.size {
		return 0, io.EOF
	}
	if r.body != nil && r.bodyAt != r.pos {
		r.body.Close()
		r.body = nil
	}
	if r.body == nil {
		body, _, err := r.objects.Get(r.ctx, r.key, r.pos, -1)
		if err != nil {
			return 0, err
		}
		r.body, r.bodyAt = body, r.pos
	}
	n, err := r.body.Read(p)
	r.pos += int64(n)
	r.bodyAt = r.pos
	return n, err
}

func (r *rangeReader) Seek(offset int64, whence int) (int64, error) {
	switch whence {
	case io.SeekCurrent:
		offset += r.pos
	case io.SeekEnd:
		offset += r.size
	}
	if offset < 0 {
		return 0, fmt.Errorf("seek in %s to %d: before the beginning", r.key, offset)
	}
	r.pos = offset
	return offset, nil
}

func (r *rangeReader) Close() error {
	if r.body == nil {
		return nil
	}
	return r.body.Close()
}
