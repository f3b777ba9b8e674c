package local

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/minio/crc64nvme"

	"github.com/precast-ota/precast/builder"
)

// Put implements builder.Objects.
func (o *Objects) Put(ctx context.Context, key string, body builder.Body, opt builder.PutOptions) (builder.ObjectInfo, error) {
	info, err := o.put(ctx, key, body, opt)
	if err != nil {
		return builder.ObjectInfo{}, fmt.Errorf("put object %q: %w", key, err)
	}
	return info, nil
}

func (o *Objects) put(ctx context.Context, key string, body builder.Body, opt builder.PutOptions) (builder.ObjectInfo, error) {
	var none builder.ObjectInfo
	if o.readOnly {
		return none, ErrReadOnly
	}
	p, err := o.paths(key)
	if err != nil {
		return none, err
	}
	if err := opt.Check(); err != nil {
		return none, err
	}
	if opt.IfAbsent || opt.IfMatch != "" {
		if err := o.precheck(p, opt); err != nil {
			return none, err
		}
	}
	t, err := createTemp(o.tmp)
	if err != nil {
		return none, err
	}
	defer t.discard()
	sum, err := o.fill(ctx, t, body)
	if err != nil {
		return none, err
	}
	rec := record{Size: body.Size, CRC: checksum(sum), Meta: opt.Meta}
	unlock, err := o.lock(key)
	if err != nil {
		return none, err
	}
	defer unlock()
	if err := o.commit(p, t, rec, opt); err != nil {
		return none, err
	}
	return rec.info(key), nil
}

// precheck spares the copying of a body that cannot be committed.
func (o *Objects) precheck(p paths, opt builder.PutOptions) error {
	unlock, err := o.lock(p.key)
	if err != nil {
		return err
	}
	defer unlock()
	cur, err := o.current(p)
	if err != nil {
		return err
	}
	return o.refuse(p, cur, opt)
}

// fill writes body to t, verifies and syncs it, and returns its checksum.
func (o *Objects) fill(ctx context.Context, t *tempFile, body builder.Body) (uint64, error) {
	if err := o.did("temp created"); err != nil {
		return 0, err
	}
	if _, err := body.Reader.Seek(0, io.SeekStart); err != nil {
		return 0, fmt.Errorf("read body: %w", err)
	}
	buf, release := o.buffer()
	defer release()
	var sum uint64
	var size int64
	for {
		if err := ctx.Err(); err != nil {
			return 0, err
		}
		n, err := body.Reader.Read(buf)
		size += int64(n)
		if size > body.Size {
			return 0, fmt.Errorf("read body: longer than its size, %d bytes", body.Size)
		}
		sum = crc64nvme.Update(sum, buf[:n])
		if _, err := t.Write(buf[:n]); err != nil {
			return 0, fmt.Errorf("write file: %w", err)
		}
		if err == io.EOF {
			break
		}
		if err != nil {
			return 0, fmt.Errorf("read body: %w", err)
		}
	}
	if size != body.Size {
		return 0, fmt.Errorf("read body: %d bytes, shorter than its size, %d bytes", size, body.Size)
	}
	if body.Checked && sum != body.CRC64NVME {
		return 0, fmt.Errorf("check body: CRC-64/NVME is %016x, not %016x", sum, body.CRC64NVME)
	}
	if err := t.Sync(); err != nil {
		return 0, fmt.Errorf("write file: %w", err)
	}
	return sum, o.did("temp synced")
}

// state is what a key holds, as its lock's holder sees it.
type state struct {
	exists bool
	record
	// broken is the sidecar's list when the file matches none of it, or the sidecar cannot be read: such an object
	// cannot be read, and no condition on it can be judged, but it can be replaced.
	broken []record
}

// current finds out what p's key holds. Its lock is held.
func (o *Objects) current(p paths) (state, error) {
	f, rec, err := o.settle(p)
	switch {
	case errors.Is(err, builder.ErrNotExist):
		return state{}, nil
	case errors.Is(err, builder.ErrDamaged):
		side, err := os.Open(p.meta)
		if err != nil {
			return state{}, fmt.Errorf("open sidecar: %w", err)
		}
		defer side.Close()
		sc, err := readSidecar(side)
		if errors.Is(err, builder.ErrDamaged) {
			return state{exists: true, broken: []record{}}, nil
		}
		return state{exists: true, broken: sc.Candidates}, err
	case err != nil:
		return state{}, err
	}
	f.Close()
	return state{exists: true, record: rec}, nil
}

// settle opens an object and finishes what a writer that died may have begun. Its lock is held.
func (o *Objects) settle(p paths) (*os.File, record, error) {
	side, sc, f, err := p.open()
	if err != nil {
		return nil, record{}, err
	}
	defer side.Close()
	rec, err := o.settleOpen(p, sc, f)
	if err != nil {
		f.Close()
		return nil, record{}, err
	}
	return f, rec, nil
}

func (o *Objects) settleOpen(p paths, sc sidecar, f *os.File) (record, error) {
	buf, release := o.buffer()
	defer release()
	rec, err := choose(sc.Candidates, f, buf)
	if err != nil || len(sc.Candidates) == 1 {
		return rec, err
	}
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return rec, fmt.Errorf("read file: %w", err)
	}
	// What we saw must be what is there after a crash, before the alternative is forgotten.
	if err := o.syncData(p); err != nil {
		return rec, err
	}
	return rec, o.writeSidecar(p, rec)
}

// refuse fails if opt's condition does not hold.
func (o *Objects) refuse(p paths, cur state, opt builder.PutOptions) error {
	switch {
	case !opt.IfAbsent && opt.IfMatch == "":
		return nil
	case cur.broken != nil:
		return errMismatch
	case opt.IfAbsent && cur.exists:
		// The caller may rely on the object that is there as if it had written it: so it must
		// survive a crash, though its writer may have died before making sure of that.
		if err := o.syncData(p); err != nil {
			return err
		}
		return builder.ErrPrecondition
	case opt.IfMatch != "" && (!cur.exists || cur.etag() != opt.IfMatch):
		return builder.ErrPrecondition
	}
	return nil
}

// commit makes the synced file t the content of p's key. The key's lock is held, which makes
// conditions sound across processes.
func (o *Objects) commit(p paths, t *tempFile, rec record, opt builder.PutOptions) error {
	cur, err := o.current(p)
	if err != nil {
		return err
	}
	if err := o.refuse(p, cur, opt); err != nil {
		return err
	}
	before := []record{rec}
	switch {
	case len(cur.broken) > 0:
		before = append(cur.broken, rec)
	case cur.exists:
		before = []record{cur.record, rec}
	default:
		// A file without a readable sidecar may be anybody's. It must not get ours.
		if err := removeDurably(o.data, p.data); err != nil {
			return err
		}
	}
	if err := o.writeSidecar(p, before...); err != nil {
		return err
	}
	if err := moveDurably(t, o.data, p.data, func(s string) error { return o.did("data " + s) }); err != nil {
		return err
	}
	if err := o.did("data synced"); err != nil {
		return err
	}
	if len(before) == 1 {
		return nil
	}
	return o.writeSidecar(p, rec)
}

// writeSidecar replaces p's sidecar.
func (o *Objects) writeSidecar(p paths, records ...record) error {
	did := func(s string) error { return o.did(fmt.Sprintf("sidecar of %d %s", len(records), s)) }
	b, err := json.Marshal(sidecar{records})
	if err != nil {
		return fmt.Errorf("encode sidecar: %w", err)
	}
	t, err := createTemp(o.tmp)
	if err != nil {
		return err
	}
	defer t.discard()
	if _, err := t.Write(b); err != nil {
		return fmt.Errorf("write sidecar: %w", err)
	}
	if err := t.Sync(); err != nil {
		return fmt.Errorf("write sidecar: %w", err)
	}
	if err := did("written"); err != nil {
		return err
	}
	if err := moveDurably(t, o.meta, p.meta, did); err != nil {
		return err
	}
	return did("synced")
}
