package lambdazip_test

import (
	"archive/zip"
	"bytes"
	"io"
	"io/fs"
	"testing"

	"github.com/precast-ota/precast/internal/run/lambdazip"
)

func TestEncode(t *testing.T) {
	a := lambdazip.File{Name: "bootstrap", Mode: 0o755, Data: bytes.Repeat([]byte("program "), 1000)}
	b := lambdazip.File{Name: "config.json", Mode: 0o644, Data: []byte("{}")}
	one, err := lambdazip.Encode(a, b)
	if err != nil {
		t.Fatal(err)
	}
	two, err := lambdazip.Encode(b, a)
	if err != nil || !bytes.Equal(one, two) {
		t.Fatalf("the order of the files changes the bytes (%v)", err)
	}
	r, err := zip.NewReader(bytes.NewReader(one), int64(len(one)))
	if err != nil {
		t.Fatal(err)
	}
	for i, want := range []lambdazip.File{a, b} {
		f := r.File[i]
		body, err := f.Open()
		if err != nil {
			t.Fatal(err)
		}
		data, err := io.ReadAll(body)
		if err != nil || f.Name != want.Name || f.Mode() != want.Mode || !bytes.Equal(data, want.Data) {
			t.Errorf("%s, %v, %d bytes, error %v", f.Name, f.Mode(), len(data), err)
		}
		if f.Mode()&fs.ModeType != 0 {
			t.Errorf("%s is no plain file", f.Name)
		}
	}
	if len(one) > len(a.Data)/4 {
		t.Errorf("%d bytes: not compressed", len(one))
	}
}
