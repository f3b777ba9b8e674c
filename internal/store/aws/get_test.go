package aws

import (
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/precast-ota/precast/builder"
	"github.com/precast-ota/precast/internal/format/layout"
)

// Only what is known not to exist is ErrNotExist.
func TestAbsence(t *testing.T) {
	for _, test := range []struct {
		status    int
		code      string
		stat, get bool // is ErrNotExist
	}{
		{404, "NoSuchKey", true, true},
		{404, "NoSuchBucket", true, false}, // a HEAD has no code
		{403, "AccessDenied", false, false},
		{400, "ExpiredToken", false, false},
		{301, "PermanentRedirect", false, false},
	} {
		o, _ := fakeObjects(t, func(w http.ResponseWriter, r *http.Request) { s3Error(w, test.status, test.code) })
		_, err := o.Stat(t.Context(), layout.IndexKey)
		if err == nil || errors.Is(err, builder.ErrNotExist) != test.stat {
			t.Errorf("%d %s: Stat = %v", test.status, test.code, err)
		}
		for _, r := range [][2]int64{{0, -1}, {5, 5}} {
			_, _, err := o.Get(t.Context(), layout.IndexKey, r[0], r[1])
			if err == nil || errors.Is(err, builder.ErrNotExist) != test.get {
				t.Errorf("%d %s: Get = %v", test.status, test.code, err)
			}
			if test.status == 403 && !strings.Contains(fmt.Sprint(err), "s3:ListBucket") {
				t.Errorf("Get = %v, without advice", err)
			}
		}
	}
}

func TestRangeHeader(t *testing.T) {
	for _, test := range []struct {
		off, n int64
		want   string
	}{
		{0, -1, ""}, {1, -1, "bytes=1-"}, {0, 1, "bytes=0-0"}, {3, 4, "bytes=3-6"}, {0, math.MaxInt64, "bytes=0-9223372036854775806"},
		{1, math.MaxInt64 - 1, "bytes=1-9223372036854775806"},
		{2, math.MaxInt64, "bytes=2-"},
	} {
		got := ""
		if h := rangeHeader(test.off, test.n); h != nil {
			got = *h
		}
		if got != test.want {
			t.Errorf("rangeHeader(%d, %d) = %q, want %q", test.off, test.n, got, test.want)
		}
	}
}

// An object that grows between the refusal of a range and the look at its size.
func TestRangeOfGrowingObject(t *testing.T) {
	s := &script{steps: steps(
		answer(416, "InvalidRange"),
		func(w http.ResponseWriter, _ *http.Request, _ string) { w.Header().Set("Content-Length", "20") },
		func(w http.ResponseWriter, _ *http.Request, _ string) {
			w.Header().Set("Content-Range", "bytes 10-12/20")
			w.WriteHeader(http.StatusPartialContent)
			io.WriteString(w, "new")
		},
	)}
	o, _ := fakeObjects(t, s.ServeHTTP)
	r, info, err := o.Get(t.Context(), layout.IndexKey, 10, 3)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if b, err := io.ReadAll(r); string(b) != "new" || info.Size != 20 || err != nil {
		t.Errorf("Get read %q of %+v, %v", b, info, err)
	}
}

func TestRangeWithoutSize(t *testing.T) {
	for _, header := range []string{"", "bytes 0-2/*", "bytes"} {
		o, _ := fakeObjects(t, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Range", header)
			w.WriteHeader(http.StatusPartialContent)
		})
		if _, info, err := o.Get(t.Context(), layout.IndexKey, 0, 3); err == nil {
			t.Errorf("Content-Range %q: Get = %+v", header, info)
		}
	}
}

// The bytes are checked against S3's checksum.
func TestGetWrongBytes(t *testing.T) {
	o, _ := fakeObjects(t, func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("X-Amz-Checksum-Mode") == "ENABLED" {
			w.Header().Set("X-Amz-Checksum-Crc64nvme", "rosUhgp5mIg=")
		}
		io.WriteString(w, "123456780")
	})
	r, _, err := o.Get(t.Context(), layout.IndexKey, 0, -1)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if b, err := io.ReadAll(r); err == nil {
		t.Errorf("read %q, whose checksum is another", b)
	}
}

func TestListPages(t *testing.T) {
	page := func(token string, keys ...string) func(http.ResponseWriter, *http.Request, string) {
		return func(w http.ResponseWriter, r *http.Request, _ string) {
			fmt.Fprintf(w, "<ListBucketResult><EncodingType>url</EncodingType><IsTruncated>%t</IsTruncated>", token != "")
			if token != "" {
				fmt.Fprintf(w, "<NextContinuationToken>%s</NextContinuationToken>", token)
			}
			for _, key := range keys {
				fmt.Fprintf(w, `<Contents><Key>%s</Key><Size>3</Size><ETag>"e"</ETag></Contents>`, key)
			}
			io.WriteString(w, "</ListBucketResult>")
		}
	}
	s := &script{steps: steps(
		page("t1", "p/binaries/"+sha+"/app_1.0+beta", "p/binaries/"+sha+"/app_%C3%BC%26%2B"),
		page("t2"), // an empty page is not the end
		page("", "p/foreign%00.txt", "p/index", "other/index"),
	)}
	o, _ := fakeObjects(t, s.ServeHTTP)
	o.prefix = "p/"
	var keys []string
	err := o.List(t.Context(), "", func(i builder.ObjectInfo) error {
		keys = append(keys, i.Key)
		if i.Size != 3 || i.ETag != "e" {
			t.Errorf("List has %+v", i)
		}
		return nil
	})
	want := []string{"binaries/" + sha + "/app_1.0 beta", "binaries/" + sha + "/app_ü&+", "index"}
	if err != nil || !slices.Equal(keys, want) {
		t.Errorf("List = %q, %v, want %q", keys, err, want)
	}
	if got := s.requests(); len(got) != 3 || !strings.Contains(got[0], "prefix=p%2F") ||
		!strings.Contains(got[1], "continuation-token=t1") || !strings.Contains(got[2], "continuation-token=t2") {
		t.Errorf("requests %q", got)
	}
}

func TestSourcesForms(t *testing.T) {
	s := &script{steps: steps(func(w http.ResponseWriter, r *http.Request, _ string) { io.WriteString(w, r.URL.Path) })}
	sources := NewSources(NewS3(fakeConfig(t, s)))
	r, err := sources.Open(t.Context(), "s3://bucket/a key?x=1&y=2#3%25")
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if b, err := io.ReadAll(r); string(b) != "/bucket/a key?x=1&y=2#3%25" || err != nil {
		t.Errorf("read %q, %v", b, err)
	}
	for _, url := range []string{"", "s3:", "s3://", "s3://bucket", "s3://bucket/", "s3:///key", "https://bucket/key", "S3://bucket/key"} {
		if _, err := sources.Open(t.Context(), url); err == nil {
			t.Errorf("Open(%q) succeeded", url)
		}
	}
}

func TestSourcesInAnotherRegion(t *testing.T) {
	s := &script{steps: steps(func(w http.ResponseWriter, r *http.Request, _ string) {
		if !strings.Contains(r.Header.Get("Authorization"), "/eu-west-1/s3/") {
			w.Header().Set("X-Amz-Bucket-Region", "eu-west-1")
			s3Error(w, http.StatusMovedPermanently, "PermanentRedirect")
			return
		}
		io.WriteString(w, "from afar")
	})}
	r, err := NewSources(NewS3(fakeConfig(t, s))).Open(t.Context(), "s3://bucket/key")
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if b, err := io.ReadAll(r); string(b) != "from afar" || err != nil {
		t.Errorf("read %q, %v", b, err)
	}
}

func TestSourcesErrors(t *testing.T) {
	for status, want := range map[int]bool{404: true, 403: false} {
		s := &script{steps: steps(answer(status, map[int]string{404: "NoSuchKey", 403: "AccessDenied"}[status]))}
		_, err := NewSources(NewS3(fakeConfig(t, s))).Open(t.Context(), "s3://bucket/key")
		if err == nil || errors.Is(err, builder.ErrNotExist) != want {
			t.Errorf("%d: Open = %v", status, err)
		}
	}
}
