package admin

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"net/http"
	"os"
	"strconv"
	"strings"

	"github.com/precast-ota/precast/builder"
	"github.com/precast-ota/precast/internal/format/layout"
)

// maxObject bounds what is sent to be stored, in bytes.
const maxObject = 32 << 30

// deleter removes objects; see gc.Deleter.
type deleter interface {
	Delete(ctx context.Context, keys ...string) error
}

func (a *api) readObject(w http.ResponseWriter, r *http.Request) {
	key := r.PathValue("key")
	if r.Method == http.MethodHead {
		info, err := a.pipeline.Objects.Stat(r.Context(), key)
		if err != nil {
			answer(w, nil, err)
			return
		}
		describe(w, info)
		return
	}
	off, err := strconv.ParseInt(r.FormValue("off"), 10, 64)
	n, err2 := strconv.ParseInt(r.FormValue("n"), 10, 64)
	if err := errors.Join(err, err2); err != nil {
		http.Error(w, "read request: "+err.Error(), http.StatusBadRequest)
		return
	}
	body, info, err := a.pipeline.Objects.Get(r.Context(), key, off, n)
	if err != nil {
		answer(w, nil, err)
		return
	}
	defer body.Close()
	describe(w, info)
	length := info.Size - min(off, info.Size)
	if n >= 0 {
		length = min(length, n)
	}
	w.Header().Set("Content-Type", "application/octet-stream")
	w.Header().Set("Content-Length", strconv.FormatInt(length, 10)) // a client sees an answer that is cut short
	_, _ = io.Copy(w, body)
}

func describe(w http.ResponseWriter, info builder.ObjectInfo) {
	if text, err := json.Marshal(info); err == nil { // it always can be
		w.Header().Set(objectHeader, string(text))
	}
}

func (a *api) listObjects(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "application/x-ndjson")
	enc := json.NewEncoder(w)
	last := listed{Done: true}
	err := a.pipeline.Objects.List(r.Context(), r.FormValue("prefix"), func(o builder.ObjectInfo) error { return enc.Encode(listed{Object: &o}) })
	if err != nil {
		last = listed{Error: err.Error()}
	}
	_ = enc.Encode(last) // the client has gone, or everything is well
}

func (a *api) deleteObjects(ctx context.Context, keys []string) (struct{}, error) {
	d, ok := a.pipeline.Objects.(deleter)
	if !ok {
		return struct{}{}, errors.New("these objects cannot be removed")
	}
	return struct{}{}, d.Delete(ctx, keys...)
}

// writeObject stores an object: a binary for a release, anything else for an administrator.
func (a *api) writeObject(w http.ResponseWriter, r *http.Request) {
	key := r.PathValue("key")
	kind, err := layout.KindOf(key)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	if kind != layout.Binary && !allowed(w, r, Admin) {
		return
	}
	var says putting
	if err := json.Unmarshal([]byte(r.Header.Get(putHeader)), &says); err != nil {
		http.Error(w, "read request: "+err.Error(), http.StatusBadRequest)
		return
	}
	if r.ContentLength < 0 || r.ContentLength > maxObject {
		http.Error(w, fmt.Sprintf("an object says its length, at most %d bytes", int64(maxObject)), http.StatusRequestEntityTooLarge)
		return
	}
	if kind == layout.Binary {
		if err := a.pipeline.Room(r.ContentLength); err != nil {
			answer(w, nil, err)
			return
		}
	}
	body := io.Reader(r.Body)
	if identity(r.Context()).Role < Admin { // who may write anything may write this
		sum, _, _ := strings.Cut(strings.TrimPrefix(key, layout.BinaryPrefix), "/")
		body = &verified{r: body, sum: sha256.New(), want: sum}
	}
	seekable, done, err := a.seekable(body)
	if err != nil {
		answer(w, nil, err)
		return
	}
	defer done()
	info, err := a.pipeline.Objects.Put(r.Context(), key,
		builder.Body{Reader: seekable, Size: r.ContentLength, CRC64NVME: says.CRC64NVME, Checked: says.Checked}, says.PutOptions)
	answer(w, info, err)
}

// seekable is what a Put reads. The embedded store reads once, in order; others may read again, from a file.
func (a *api) seekable(body io.Reader) (io.ReadSeeker, func(), error) {
	if !a.pipeline.Remote {
		return &once{Reader: body}, func() {}, nil
	}
	f, err := os.CreateTemp("", "precast-upload-*")
	if err != nil {
		return nil, nil, err
	}
	os.Remove(f.Name()) // it lives as long as it is open
	if _, err := io.Copy(f, body); err != nil {
		f.Close()
		return nil, nil, err
	}
	return f, func() { f.Close() }, nil
}

// once is read once.
type once struct {
	io.Reader
	begun bool
}

func (o *once) Read(p []byte) (int, error) {
	o.begun = true
	return o.Reader.Read(p)
}

func (o *once) Seek(off int64, whence int) (int64, error) {
	if o.begun || off != 0 || whence != io.SeekStart {
		return 0, errors.New("what is sent can be read only once: send it again")
	}
	return 0, nil
}

// verified fails at the end if what was read has not the digest that it should have.
type verified struct {
	r    io.Reader
	sum  hash.Hash
	want string
}

func (v *verified) Read(p []byte) (int, error) {
	n, err := v.r.Read(p)
	v.sum.Write(p[:n])
	if err == io.EOF {
		if got := hex.EncodeToString(v.sum.Sum(nil)); got != v.want {
			return 0, fmt.Errorf("what was sent has the sha256 %s, not %s", got, v.want)
		}
	}
	return n, err
}
