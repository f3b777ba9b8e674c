package bundle_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/iotest"

	"pgregory.net/rapid"

	"github.com/precast-ota/precast/internal/format/bundle"
)

// small is a bundle with pieces of several kinds.
func small(t tb) packed {
	return pack(t, []byte(`["manifest"]`),
		binary{"a_1", program(1, 90_000)},
		binary{"empty_1", nil},
		binary{"b_1", noise(2, 70_000)},
		binary{"c_1", []byte("c")},
	)
}

func TestReaderKeepsTheContractsOfIO(t *testing.T) {
	t.Parallel()
	p := small(t)
	whole := p.bytes(t)
	for name, open := range map[string]bundle.OpenPiece{"memory": p.inMemory, "remote": p.remote, "files": p.inFiles(t)} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := p.Open(context.Background(), open)
			if err := iotest.TestReader(r, whole); err != nil {
				t.Error(err)
			}
			if err := r.Close(); err != nil {
				t.Error(err)
			}
		})
	}
	// Streams may deliver as they like.
	for name, wrap := range map[string]func(io.Reader) io.Reader{
		"one byte": iotest.OneByteReader, "half": iotest.HalfReader, "data with EOF": iotest.DataErrReader,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := p.Open(context.Background(), func(_ context.Context, i int, off int64) (io.ReadCloser, error) {
				return io.NopCloser(wrap(bytes.NewReader(p.pieces[i][off:]))), nil
			})
			got, err := io.ReadAll(onlyReader{r})
			if err != nil || !bytes.Equal(got, whole) {
				t.Errorf("%d bytes, error %v; want the %d of the bundle", len(got), err, len(whole))
			}
		})
	}
}

func TestAnyRangeIsTheSliceOfTheWhole(t *testing.T) {
	t.Parallel()
	p := small(t)
	whole := p.bytes(t)
	r := p.Open(context.Background(), p.remote)
	defer r.Close()
	rapid.Check(t, func(t *rapid.T) {
		off := rapid.IntRange(0, len(whole)).Draw(t, "off")
		n := rapid.OneOf(rapid.IntRange(0, 600), rapid.IntRange(0, len(whole))).Draw(t, "len")
		want := whole[off:min(len(whole), off+n)]
		if _, err := r.Seek(int64(off), io.SeekStart); err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(io.LimitReader(r, int64(n)))
		if err != nil || !bytes.Equal(got, want) {
			t.Fatalf("[%d, %d) has %d bytes, error %v; want %d", off, off+n, len(got), err, len(want))
		}
	})
}

// Whatever is done to it, a Reader behaves as a bytes.Reader of the whole bundle does, and leaves no
// stream open that it is not reading.
func TestReaderBehavesAsOneOfTheWhole(t *testing.T) {
	t.Parallel()
	p := small(t)
	whole := p.bytes(t)
	files := p.inFiles(t)
	rapid.Check(t, func(t *rapid.T) {
		model := bytes.NewReader(whole)
		spy := &spy{open: rapid.SampledFrom([]bundle.OpenPiece{p.inMemory, p.remote, files}).Draw(t, "source")}
		r := p.Open(context.Background(), spy.openPiece)
		t.Repeat(map[string]func(*rapid.T){
			"": func(t *rapid.T) {
				if spy.now > 1 {
					t.Fatalf("%d streams are open", spy.now)
				}
			},
			"read": func(t *rapid.T) {
				n := rapid.OneOf(rapid.IntRange(1, 1000), rapid.IntRange(1, 100_000)).Draw(t, "n")
				want, got := make([]byte, n), make([]byte, n)
				wantN, wantErr := io.ReadFull(model, want)
				gotN, gotErr := io.ReadFull(r, got)
				if gotN != wantN || gotErr != wantErr || !bytes.Equal(got, want) {
					t.Fatalf("read %d of %d bytes, error %v; want %d, %v", gotN, n, gotErr, wantN, wantErr)
				}
			},
			"seek": func(t *rapid.T) {
				whence := rapid.SampledFrom([]int{io.SeekStart, io.SeekCurrent, io.SeekEnd, 7}).Draw(t, "whence")
				off := rapid.Int64Range(-200_000, 400_000).Draw(t, "off")
				want, wantErr := model.Seek(off, whence)
				got, gotErr := r.Seek(off, whence)
				if got != want || (gotErr != nil) != (wantErr != nil) {
					t.Fatalf("seek to %d, %v; want %d, %v", got, gotErr, want, wantErr)
				}
			},
			"write": func(t *rapid.T) {
				var want, got bytes.Buffer
				var w io.Writer = &got
				if rapid.Bool().Draw(t, "plain writer") {
					w = onlyWriter{w}
				}
				wantN, _ := model.WriteTo(&want)
				gotN, gotErr := r.WriteTo(w)
				if gotN != wantN || gotErr != nil || !bytes.Equal(got.Bytes(), want.Bytes()) {
					t.Fatalf("wrote %d bytes, error %v; want %d", gotN, gotErr, wantN)
				}
				if spy.now != 0 {
					t.Fatal("a stream is open at the end of the bundle")
				}
			},
		})
		if err := r.Close(); err != nil || spy.now != 0 {
			t.Fatalf("closed with error %v, %d streams open", err, spy.now)
		}
	})
}

// spy counts the streams that are open.
type spy struct {
	open  bundle.OpenPiece
	now   int
	total int
}

func (s *spy) openPiece(ctx context.Context, i int, off int64) (io.ReadCloser, error) {
	stream, err := s.open(ctx, i, off)
	if err != nil {
		return nil, err
	}
	s.now++
	s.total++
	closer := closeFunc(func() error {
		s.now--
		return stream.Close()
	})
	if wt, ok := stream.(io.WriterTo); ok {
		return struct {
			io.Reader
			io.WriterTo
			io.Closer
		}{stream, wt, closer}, nil
	}
	return struct {
		io.Reader
		io.Closer
	}{stream, closer}, nil
}

type closeFunc func() error

func (f closeFunc) Close() error { return f() }

func TestPiecesAreOpenedOnlyWhenRead(t *testing.T) {
	t.Parallel()
	p := small(t)
	spy := &spy{open: p.remote}
	r := p.Open(context.Background(), spy.openPiece)
	// An HTTP client finds out the length, goes back and reads the first bytes.
	for _, step := range []struct {
		off    int64
		whence int
	}{{0, io.SeekEnd}, {0, io.SeekStart}} {
		if _, err := r.Seek(step.off, step.whence); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := io.ReadFull(r, make([]byte, 500)); err != nil {
		t.Fatal(err)
	}
	if spy.total != 0 {
		t.Errorf("%d pieces were opened, none of whose bytes were read", spy.total)
	}
	if _, err := io.ReadAll(onlyReader{r}); err != nil {
		t.Fatal(err)
	}
	if spy.total != len(p.pieces) {
		t.Errorf("pieces were opened %d times, want once each (%d)", spy.total, len(p.pieces))
	}
}

// A server that sends a bundle out of a directory does not touch the bytes: net and os hand an
// io.LimitedReader around a file to the system.
func TestFilesReachTheWriterAsFiles(t *testing.T) {
	t.Parallel()
	p := small(t)
	w := &sendfileSpy{}
	r := p.Open(context.Background(), p.inFiles(t))
	if _, err := io.Copy(w, r); err != nil {
		t.Fatal(err)
	}
	if w.files != len(p.pieces) {
		t.Errorf("%d files could be sent by the system, want %d", w.files, len(p.pieces))
	}
	if !bytes.Equal(w.Bytes(), p.bytes(t)) {
		t.Error("the bytes are not those of the bundle")
	}
}

type sendfileSpy struct {
	bytes.Buffer
	files int
}

func (s *sendfileSpy) ReadFrom(r io.Reader) (int64, error) {
	if limited, ok := r.(*io.LimitedReader); ok {
		if _, ok := limited.R.(*os.File); ok {
			s.files++
		}
	}
	return s.Buffer.ReadFrom(r)
}

// A piece in memory is written where it is: the writer gets the very bytes, in one call.
func TestPiecesInMemoryAreNotCopied(t *testing.T) {
	t.Parallel()
	p := small(t)
	var found int
	w := writeFunc(func(b []byte) (int, error) {
		for _, z := range p.pieces {
			if &b[0] == &z[0] && len(b) == len(z) {
				found++
			}
		}
		return len(b), nil
	})
	if _, err := io.Copy(w, p.Open(context.Background(), p.inMemory)); err != nil {
		t.Fatal(err)
	}
	if found != len(p.pieces) {
		t.Errorf("%d of %d pieces were written in place", found, len(p.pieces))
	}
}

type writeFunc func([]byte) (int, error)

func (f writeFunc) Write(b []byte) (int, error) { return f(b) }

func TestBundleThroughASocketAndIntoAFile(t *testing.T) {
	t.Parallel()
	p := small(t)
	whole := p.bytes(t)
	files := p.inFiles(t)

	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	sent := make(chan error, 1)
	go func() {
		conn, err := listener.Accept()
		if err != nil {
			sent <- err
			return
		}
		_, err = io.Copy(conn, p.Open(context.Background(), files))
		sent <- errors.Join(err, conn.Close())
	}()
	conn, err := net.Dial("tcp", listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	got, err := io.ReadAll(conn)
	if err := errors.Join(err, <-sent); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, whole) {
		t.Error("the socket delivers other bytes")
	}

	name := filepath.Join(t.TempDir(), "bundle")
	f, err := os.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	_, err = io.Copy(f, p.Open(context.Background(), files))
	if err := errors.Join(err, f.Close()); err != nil {
		t.Fatal(err)
	}
	if got, err := os.ReadFile(name); err != nil || !bytes.Equal(got, whole) {
		t.Errorf("the file has other bytes, error %v", err)
	}
}

var errStorage = errors.New("storage is on fire")

// faults are ways in which piece 2 of a bundle can go wrong, and the error each must surface as
// (nil: any).
func faults(p packed) map[string]struct {
	open bundle.OpenPiece
	want error
} {
	z := p.pieces[2]
	instead := func(r func(off int64) io.Reader) bundle.OpenPiece {
		return func(ctx context.Context, i int, off int64) (io.ReadCloser, error) {
			if i != 2 {
				return p.remote(ctx, i, off)
			}
			return io.NopCloser(r(off)), nil
		}
	}
	long := append(bytes.Clone(z), 'x')
	type fault = struct {
		open bundle.OpenPiece
		want error
	}
	return map[string]fault{
		"cannot be opened": {func(ctx context.Context, i int, off int64) (io.ReadCloser, error) {
			if i == 2 {
				return nil, errStorage
			}
			return p.remote(ctx, i, off)
		}, errStorage},
		"fails half-way": {instead(func(off int64) io.Reader {
			return io.MultiReader(bytes.NewReader(z[off:max(off, 5000)]), iotest.ErrReader(errStorage))
		}), errStorage},
		"fails half-way with an EOF of the network": {instead(func(off int64) io.Reader {
			return io.MultiReader(bytes.NewReader(z[off:max(off, 5000)]), iotest.ErrReader(fmt.Errorf("read tcp: %w", io.EOF)))
		}), io.EOF},
		"fails after its last byte": {instead(func(off int64) io.Reader {
			return io.MultiReader(bytes.NewReader(z[off:]), iotest.ErrReader(errStorage))
		}), errStorage},
		"is empty":                      {instead(func(int64) io.Reader { return strings.NewReader("") }), io.ErrUnexpectedEOF},
		"is a byte short":               {instead(func(off int64) io.Reader { return onlyReader{bytes.NewReader(z[off : len(z)-1])} }), io.ErrUnexpectedEOF},
		"is a byte short, in memory":    {instead(func(off int64) io.Reader { return bytes.NewReader(z[off : len(z)-1]) }), io.ErrUnexpectedEOF},
		"is a byte too long":            {instead(func(off int64) io.Reader { return onlyReader{bytes.NewReader(long[off:])} }), nil},
		"is a byte too long, in memory": {instead(func(off int64) io.Reader { return bytes.NewReader(long[off:]) }), nil},
		"writes on beyond its end": {instead(func(off int64) io.Reader {
			return carelessWriterTo{bytes.NewReader(long[off:])}
		}), nil},
		"says it read more than asked": {instead(func(int64) io.Reader {
			return readFunc(func(b []byte) (int, error) { return len(b) + 1, nil })
		}), nil},
		"fails to close": {func(ctx context.Context, i int, off int64) (io.ReadCloser, error) {
			if i != 2 {
				return p.remote(ctx, i, off)
			}
			return struct {
				io.Reader
				io.Closer
			}{bytes.NewReader(z[off:]), closeFunc(func() error { return errStorage })}, nil
		}, errStorage},
	}
}

// carelessWriterTo does not look at what Write returns.
type carelessWriterTo struct{ *bytes.Reader }

func (r carelessWriterTo) WriteTo(w io.Writer) (n int64, err error) {
	b := make([]byte, 1000)
	for {
		m, err := r.Read(b)
		if err == io.EOF {
			return n, nil
		}
		_, _ = w.Write(b[:m])
		n += int64(m)
	}
}

type readFunc func([]byte) (int, error)

func (f readFunc) Read(b []byte) (int, error) { return f(b) }

// A piece that is not what was planned gives an error, and no byte beyond it.
func TestFaultyPiecesSurface(t *testing.T) {
	t.Parallel()
	p := small(t)
	whole := p.bytes(t)
	end := bytes.Index(whole, p.pieces[2]) + len(p.pieces[2])
	for name, fault := range faults(p) {
		for _, way := range []string{"Read", "WriteTo"} {
			if name == "says it read more than asked" && way == "WriteTo" {
				continue // io.Copy panics: such a reader is a bug of its own
			}
			t.Run(name+"/"+way, func(t *testing.T) {
				t.Parallel()
				r := p.Open(context.Background(), fault.open)
				var src io.Reader = r
				if way == "Read" {
					src = onlyReader{r}
				}
				var got bytes.Buffer
				n, err := io.Copy(onlyWriter{&got}, src)
				if err == nil {
					t.Fatal("no error")
				}
				if fault.want != nil && !errors.Is(err, fault.want) {
					t.Errorf("the error is %v, want %v", err, fault.want)
				}
				if !strings.Contains(err.Error(), "file 2") {
					t.Errorf("the error does not tell the file: %v", err)
				}
				if n != int64(got.Len()) {
					t.Errorf("WriteTo counts %d bytes, but wrote %d", n, got.Len())
				}
				if got.Len() > end || !bytes.HasPrefix(whole, got.Bytes()) {
					t.Errorf("%d wrong bytes came before the error", got.Len())
				}
				if _, again := r.Read(make([]byte, 10)); again == nil || again == io.EOF {
					t.Errorf("the next Read goes on with error %v", again)
				}
				if err := r.Close(); err != nil {
					t.Errorf("close: %v", err)
				}
			})
		}
	}
}

// A client that retries seeks back and reads again.
func TestSeekStartsAfreshAfterAnError(t *testing.T) {
	t.Parallel()
	p := small(t)
	broken := true
	r := p.Open(context.Background(), func(ctx context.Context, i int, off int64) (io.ReadCloser, error) {
		if broken {
			return nil, errStorage
		}
		return p.remote(ctx, i, off)
	})
	if _, err := io.Copy(io.Discard, r); !errors.Is(err, errStorage) {
		t.Fatalf("the error is %v, want %v", err, errStorage)
	}
	broken = false
	if _, err := r.Seek(0, io.SeekStart); err != nil {
		t.Fatal(err)
	}
	got, err := io.ReadAll(onlyReader{r})
	if err != nil || !bytes.Equal(got, p.bytes(t)) {
		t.Errorf("the second time gives %d bytes, error %v", len(got), err)
	}
}

func TestFaultyWriterSurfaces(t *testing.T) {
	t.Parallel()
	p := small(t)
	for name, w := range map[string]struct {
		write writeFunc
		want  error
	}{
		"fails":       {func([]byte) (int, error) { return 0, errStorage }, errStorage},
		"is short":    {func(b []byte) (int, error) { return len(b) - 1, nil }, io.ErrShortWrite},
		"over-counts": {func(b []byte) (int, error) { return len(b) + 1, nil }, nil},
	} {
		for kind, open := range map[string]bundle.OpenPiece{"memory": p.inMemory, "remote": p.remote} {
			r := p.Open(context.Background(), open)
			if _, err := r.Seek(3000, io.SeekStart); err != nil { // into a piece
				t.Fatal(err)
			}
			if _, err := r.WriteTo(w.write); err == nil || w.want != nil && !errors.Is(err, w.want) {
				t.Errorf("a writer that %s, pieces in %s: error %v, want %v", name, kind, err, w.want)
			}
		}
	}
}

func TestReaderGivesUpWithItsContext(t *testing.T) {
	t.Parallel()
	p := small(t)
	for name, open := range map[string]bundle.OpenPiece{"memory": p.inMemory, "remote": p.remote} {
		ctx, cancel := context.WithCancel(context.Background())
		r := p.Open(ctx, open)
		if _, err := io.ReadFull(r, make([]byte, 5000)); err != nil {
			t.Fatal(err)
		}
		cancel()
		if _, err := r.Read(make([]byte, 10)); !errors.Is(err, context.Canceled) {
			t.Errorf("%s: Read gives error %v, want %v", name, err, context.Canceled)
		}
		if _, err := p.Open(ctx, open).WriteTo(io.Discard); !errors.Is(err, context.Canceled) {
			t.Errorf("%s: WriteTo gives error %v, want %v", name, err, context.Canceled)
		}
	}
}

func TestReaderGivesUpInTheMiddleOfAPiece(t *testing.T) {
	t.Parallel()
	p := small(t)
	ctx, cancel := context.WithCancel(context.Background())
	inBits := func(_ context.Context, i int, off int64) (io.ReadCloser, error) {
		return io.NopCloser(carelessWriterTo{bytes.NewReader(p.pieces[i][off:])}), nil
	}
	var after int
	w := writeFunc(func(b []byte) (int, error) {
		if ctx.Err() != nil {
			after++
		}
		if len(b) == 1000 {
			cancel()
		}
		return len(b), nil
	})
	if _, err := p.Open(ctx, inBits).WriteTo(w); !errors.Is(err, context.Canceled) || after > 0 {
		t.Errorf("error %v after %d more writes, want %v", err, after, context.Canceled)
	}
}

func TestClosedReaderStaysClosed(t *testing.T) {
	t.Parallel()
	p := small(t)
	spy := &spy{open: p.remote}
	r := p.Open(context.Background(), spy.openPiece)
	if _, err := io.ReadFull(r, make([]byte, 5000)); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(r.Close(), r.Close()); err != nil {
		t.Fatal(err)
	}
	if spy.now != 0 {
		t.Error("a stream is still open")
	}
	if _, err := r.Read(make([]byte, 1)); err == nil || err == io.EOF {
		t.Errorf("Read after Close gives error %v", err)
	}
	if _, err := r.WriteTo(io.Discard); err == nil {
		t.Error("WriteTo after Close gives no error")
	}
	if _, err := r.Seek(0, io.SeekStart); err == nil {
		t.Error("Seek after Close gives no error")
	}
}
