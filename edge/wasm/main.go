//go:build wasip1

package main

import (
	"unsafe"

	"github.com/precast-ota/precast/edge"
	"github.com/precast-ota/precast/internal/format/index"
)

// The shim writes a request's fields, one after the other, into the memory at buf, and reads the answer
// there: strings cost a tenth of what an event as JSON does.
const bufSize = 160 << 10

var (
	mem    [bufSize]byte
	latest edge.Latest
	// offered is the encoded index that the shim is writing; it may be longer than mem.
	offered []byte
)

func main() {} // never called: -buildmode=c-shared makes a reactor

//go:wasmexport buf
func buf() unsafe.Pointer { return unsafe.Pointer(&mem) }

//go:wasmexport bufsize
func bufsize() int32 { return bufSize }

// decide answers a request, whose query, held tags and cohort have these lengths in bytes. If-None-Match is not asked
// for: a cache that revalidates puts the ETag of its own copy there. epoch is that of statements now. It
// returns the status, or a negative number (see failed), and leaves an answer in mem.
//
//go:wasmexport decide
func decide(nQuery, nHeld, nCohort int32, epoch float64) (status int32) {
	defer recovered(&status)
	total := int64(nQuery) + int64(nHeld) + int64(nCohort)
	if nQuery < 0 || nHeld < 0 || nCohort < 0 || total > bufSize {
		return outOfRange
	}
	all := string(mem[:total])
	query, rest := all[:nQuery], all[nQuery:]
	d := edge.DecideCohort(latest.Index(), query, rest[nHeld:], rest[:nHeld])
	if d.Status != edge.StatusOK {
		return answer("", "", d.CacheResponse())
	}
	d.Epoch = uint64(epoch)
	_, key := d.Object()
	return answer(key, d.Selection.String(), edge.Response{Status: d.Status})
}

// unavailable leaves the answer in mem that is given when no instance works.
//
//go:wasmexport unavailable
func unavailable() int32 {
	return answer("", "", edge.Failure(edge.StatusUnavailable, edge.ErrNotAvailable))
}

// answer writes four lengths of 4 bytes and four texts: object key, canonical selection, headers as
// lines of "name: value", body.
func answer(key, selection string, r edge.Response) int32 {
	var headers []byte
	for _, h := range r.Headers {
		headers = append(headers, h.Name+": "+h.Value+"\n"...)
	}
	texts := [...]string{key, selection, string(headers), r.Body}
	o := 4 * len(texts)
	for i, text := range texts {
		if o+len(text) > bufSize {
			return outOfRange
		}
		n := len(text)
		mem[4*i], mem[4*i+1], mem[4*i+2], mem[4*i+3] = byte(n), byte(n>>8), byte(n>>16), byte(n>>24)
		o += copy(mem[o:], text)
	}
	return int32(r.Status)
}

// indexbuf returns memory for an encoded index of n bytes, or nil if that is too long.
//
//go:wasmexport indexbuf
func indexbuf(n int32) unsafe.Pointer {
	if n < 0 || n > index.MaxEncoded {
		return nil
	}
	offered = make([]byte, max(n, 1))
	return unsafe.Pointer(&offered[0])
}

// What offer returns.
const (
	used = iota
	corrupt
	unknownVersion
	older
)

// offer takes the index of n bytes in indexbuf's memory into use, unless it is not good.
//
//go:wasmexport offer
func offer(n int32) (verdict int32) {
	defer recovered(&verdict)
	if n < 0 || int(n) > len(offered) {
		return outOfRange
	}
	encoded := offered[:n]
	offered = nil
	switch latest.Offer(encoded) {
	case nil:
		return used
	case index.ErrVersion:
		return unknownVersion
	case index.ErrOlder:
		return older
	default:
		return corrupt
	}
}

// generation returns the generation in use, 0 for none.
//
//go:wasmexport generation
func generation() float64 {
	if ix := latest.Index(); ix != nil {
		return float64(ix.Generation)
	}
	return 0
}

// Negative results.
const (
	outOfRange = -1
	failed     = -2 // after it the instance is not to be used again
)

// recovered turns a panic into failed, with its text on stderr.
func recovered(result *int32) {
	r := recover()
	if r == nil {
		return
	}
	switch v := r.(type) {
	case error:
		println("panic:", v.Error())
	case string:
		println("panic:", v)
	default:
		println("panic")
	}
	*result = failed
}
