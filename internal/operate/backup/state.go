package backup

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"reflect"
	"slices"
	"strings"

	"github.com/precast-ota/precast/builder"
	"github.com/precast-ota/precast/internal/format/catalog"
	"github.com/precast-ota/precast/internal/format/index"
	"github.com/precast-ota/precast/internal/format/layout"
	"github.com/precast-ota/precast/internal/trust/keyring"
)

// state is all of an installation that cannot be built again, but for the binaries, which it names.
type state struct {
	small    map[string][]byte // by the parts' keys
	index    *index.Index      // published; nil: nothing is
	history  []*index.Index    // earlier generations, the oldest first
	items    []catalog.Item
	binaries map[string]bool // keys; whether it must be there
}

// newest is the published index or, if that is lost, the last one in the history; nil if there is none.
func (s *state) newest() *index.Index {
	if s.index == nil && len(s.history) > 0 {
		return s.history[len(s.history)-1]
	}
	return s.index
}

// sequence is the greatest number of a plan that a generation came from.
func (s *state) sequence() uint64 {
	var most uint64
	for _, ix := range append(slices.Clone(s.history), s.index) {
		if ix != nil {
			most = max(most, ix.Sequence)
		}
	}
	return most
}

// parse fills in everything but small from it.
func (s *state) parse() error {
	s.binaries = make(map[string]bool)
	if data, ok := s.small[layout.IndexKey]; ok {
		ix, err := index.Parse(data)
		if err != nil {
			return fmt.Errorf("read %s: %w", layout.IndexKey, err)
		}
		s.index = ix
		s.namedBy(ix)
	}
	for _, key := range s.keys(layout.HistoryPrefix) {
		ix, err := index.Parse(s.small[key])
		if err == nil && layout.HistoryKey(ix.Generation) != key {
			err = fmt.Errorf("it is generation %d", ix.Generation)
		}
		if err != nil {
			return fmt.Errorf("read %s: %w", key, err)
		}
		s.history = append(s.history, ix)
		s.namedBy(ix)
	}
	for _, key := range append(s.keys(layout.KeyringHistoryPrefix), layout.KeyringKey) {
		data, ok := s.small[key]
		if !ok {
			continue
		}
		k, err := keyring.Parse(data)
		if err == nil && key != layout.KeyringKey && layout.KeyringVersionKey(k.Version) != key {
			err = fmt.Errorf("it is version %d", k.Version)
		}
		if err != nil {
			return fmt.Errorf("read %s: %w", key, err)
		}
	}
	items, err := decodeItems(s.small[catalogPart])
	if err != nil {
		return err
	}
	s.items = items
	for _, it := range items {
		s.namedByItem(it)
	}
	return nil
}

// keys returns the keys of the small parts below a prefix, sorted.
func (s *state) keys(prefix string) []string {
	var keys []string
	for key := range s.small {
		if strings.HasPrefix(key, prefix) {
			keys = append(keys, key)
		}
	}
	slices.Sort(keys)
	return keys
}

func (s *state) namedBy(ix *index.Index) {
	for i := range ix.Items {
		s.binaries[builder.BinaryKey(&ix.Items[i])] = true
	}
}

// namedByItem names the binaries of all of an item's releases. Those that devices can get must be there, if they are
// in this store and nowhere else.
func (s *state) namedByItem(it catalog.Item) {
	name := func(r catalog.Item, must bool) {
		key := layout.BinaryKey(r.SHA256, it.App, r.Version)
		if stored, ok := strings.CutPrefix(r.URL, catalog.StorePrefix); ok {
			key = stored
		} else {
			must = false
		}
		if kind, err := layout.KindOf(key); err == nil && kind == layout.Binary {
			s.binaries[key] = s.binaries[key] || must
		}
	}
	for _, step := range it.Steps() {
		name(step.Item, true)
	}
	for release := &it; release != nil; release = release.Previous {
		name(*release, false)
		for _, f := range release.Floors {
			name(f, false)
		}
	}
}

func encodeItems(items []catalog.Item) ([]byte, error) {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	for _, it := range slices.SortedStableFunc(slices.Values(items), catalog.Compare) {
		if err := enc.Encode(it); err != nil {
			return nil, fmt.Errorf("encode item %s: %w", it.Key(), err)
		}
	}
	return b.Bytes(), nil
}

// decodeItems refuses fields that it does not know: they would be lost.
func decodeItems(data []byte) ([]catalog.Item, error) {
	var items []catalog.Item
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.DisallowUnknownFields()
	for {
		var it catalog.Item
		err := dec.Decode(&it)
		if errors.Is(err, io.EOF) {
			return items, nil
		}
		if err != nil {
			return nil, fmt.Errorf("read %s: item %d: %w", catalogPart, len(items)+1, err)
		}
		items = append(items, it)
	}
}

// read reads the state of an installation. The index is read before the catalog, which the builder reads first: so the
// catalog in a backup is never older than what is published in it. It keeps as many generations as keep.
func (in Installation) read(ctx context.Context, keep uint64) (*state, error) {
	s := &state{small: make(map[string][]byte)}
	one := func(key string, most int64) error {
		data, _, err := builder.ReadAll(ctx, in.Objects, key, most)
		if errors.Is(err, builder.ErrNotExist) { // there is none, or gc has removed it since it was listed
			return nil
		}
		s.small[key] = data
		return err
	}
	below := func(prefix string, most int64, wanted func(key string) bool) error {
		var keys []string
		if err := in.Objects.List(ctx, prefix, func(o builder.ObjectInfo) error {
			if wanted(o.Key) {
				keys = append(keys, o.Key)
			}
			return nil
		}); err != nil {
			return fmt.Errorf("list %s: %w", prefix, err)
		}
		for _, key := range keys {
			if err := one(key, most); err != nil {
				return err
			}
		}
		return nil
	}
	if err := one(layout.KeyringKey, keyring.MaxBytes); err != nil {
		return nil, err
	}
	if err := below(layout.KeyringHistoryPrefix, keyring.MaxBytes, func(string) bool { return true }); err != nil {
		return nil, err
	}
	if err := one(layout.IndexKey, index.MaxEncoded); err != nil {
		return nil, err
	}
	first, last, err := in.window(ctx, s.small[layout.IndexKey], keep)
	if err != nil {
		return nil, err
	}
	if err := below(layout.HistoryPrefix, index.MaxEncoded, func(key string) bool {
		g, err := layout.HistoryGeneration(key)
		return err == nil && first <= g && g <= last
	}); err != nil {
		return nil, err
	}
	items, err := in.snapshot(ctx)
	if err != nil {
		return nil, err
	}
	if s.small[catalogPart], err = encodeItems(items); err != nil {
		return nil, err
	}
	if err := s.parse(); err != nil {
		return nil, fmt.Errorf("%w: precast fsck tells more", err)
	}
	return s, nil
}

// window returns the first and the last generation of the history to keep.
func (in Installation) window(ctx context.Context, published []byte, keep uint64) (first, last uint64, err error) {
	if published != nil {
		ix, err := index.Parse(published)
		if err != nil {
			return 0, 0, fmt.Errorf("read %s: %w: precast fsck tells more", layout.IndexKey, err)
		}
		last, keep = ix.Generation, max(keep, ix.Params.Retain)
	} else if err := in.Objects.List(ctx, layout.HistoryPrefix, func(o builder.ObjectInfo) error {
		last, err = layout.HistoryGeneration(o.Key)
		return err
	}); err != nil {
		return 0, 0, fmt.Errorf("list %s: %w", layout.HistoryPrefix, err)
	}
	return last - min(keep, last), last, nil
}

// snapshotTries is how often the catalog is read until it is read twice in the same state.
const snapshotTries = 10

// snapshot reads the catalog as it was at one moment: a driver may read it in pages.
func (in Installation) snapshot(ctx context.Context) ([]catalog.Item, error) {
	var before []catalog.Item
	for try := range snapshotTries {
		items, err := in.Catalog.Snapshot(ctx)
		if err != nil {
			return nil, err
		}
		slices.SortFunc(items, catalog.Compare)
		if try > 0 && reflect.DeepEqual(items, before) {
			return items, nil
		}
		before = items
	}
	return nil, fmt.Errorf("the catalog was changed %d times while it was being read: try again", snapshotTries-1)
}
