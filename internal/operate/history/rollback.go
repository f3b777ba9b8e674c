package history

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode"

	"github.com/precast-ota/precast/builder"
	"github.com/precast-ota/precast/internal/format/catalog"
	"github.com/precast-ota/precast/internal/format/index"
	"github.com/precast-ota/precast/internal/format/layout"
)

// Keeper changes what is published without building anything.
type Keeper struct {
	Objects builder.Objects
	Ledger  builder.Ledger // numbers what is announced; see Rollback
	Clock   builder.Clock
	// Rebuild makes the piece of an item again, from its binary: sweeps may give up the pieces of older generations, and
	// keep their binaries. nil: it is missing.
	Rebuild func(ctx context.Context, it *index.Item) error
	// SweepWait is how long to wait for a sweep of unused objects to end, to go back further than Near;
	// zero: a minute.
	SweepWait time.Duration
}

// Errors that say that nothing was changed, and why.
var (
	// ErrRefused: what was asked for is not there, or makes no sense.
	ErrRefused = errors.New("refused")
	// ErrRace: somebody else published meanwhile.
	ErrRace = errors.New("somebody else published meanwhile")
)

func refuse(format string, args ...any) error {
	return fmt.Errorf("%w: "+format, append([]any{ErrRefused}, args...)...)
}

// Request says what to go back to.
type Request struct {
	Generation uint64         `json:"generation"`  // 0: the one before the published one
	By         catalog.Author `json:"by,omitzero"` // the message is the reason that the pin names
	Force      bool           `json:"force"`       // even if something that devices can ask for is gone for good
}

// Result is what a rollback did.
type Result struct {
	Generation uint64 `json:"generation"` // published now
	Sequence   uint64 `json:"sequence"`   // of the plan that it stands for: that of Replaced
	Replaced   uint64 `json:"replaced"`   // the generation that was published
	Of         uint64 `json:"of"`         // the generation whose content it has
	Pin        string `json:"pin"`
	// Writes counts the objects written: the index, and what had to be written before it.
	Writes int `json:"writes"`
	// Missing are objects that devices can ask for, that are gone and cannot be composed.
	Missing []string `json:"missing"`
	// Lacking counts bundles and manifests that are not prebuilt now: they are composed when asked for.
	Lacking int `json:"lacking"`
}

// MaxReason bounds what an operator has to say, bytes.
const MaxReason = 300

const tries = 3

// Rollback publishes the content of an earlier generation as a new one, pinned, by one conditional write
// of the index. Two things may have to be written before it: the copy of the replaced generation, if
// its publisher died before making it; and, to go back further than Near, an announcement (see
// builder.Announce), as a sweep that begins now would know nothing of it.
func (k *Keeper) Rollback(ctx context.Context, r Request) (Result, error) {
	if err := checkReason(r.By.Message); err != nil {
		return Result{}, err
	}
	for try := 1; ; try++ {
		res, err := k.rollback(ctx, r)
		if errors.Is(err, ErrRace) && r.Generation != 0 && try < tries {
			continue
		}
		if err != nil {
			return res, fmt.Errorf("roll back: %w", err)
		}
		return res, nil
	}
}

func checkReason(reason string) error {
	if len(reason) > MaxReason {
		return refuse("the reason is longer than %d bytes", MaxReason)
	}
	if strings.ContainsFunc(reason, unicode.IsControl) {
		return refuse("the reason has control characters")
	}
	if builder.IsHeldBack(reason) {
		return refuse("the reason is for builders, which hold back plans with it")
	}
	return nil
}

func (k *Keeper) rollback(ctx context.Context, r Request) (Result, error) {
	current, etag, err := builder.ReadIndex(ctx, k.Objects)
	if err != nil {
		return Result{}, err
	}
	old, err := k.choose(ctx, current, r.Generation)
	if err != nil {
		return Result{}, err
	}
	next := *old
	next.Generation, next.Sequence = current.Generation+1, current.Sequence
	if !current.Params.Copies() { // what was prebuilt then may be gone, and nothing writes it again
		next.Params.MaxBundles = 0
	}
	next.Pin = fmt.Sprintf("rolled back to generation %d", old.Generation)
	if r.By.Message != "" {
		next.Pin += ": " + r.By.Message
	}
	res := Result{
		Generation: next.Generation, Sequence: next.Sequence, Replaced: current.Generation, Of: old.Generation,
		Pin: next.Pin, Missing: []string{},
	}
	// Sweeps give up none of the nearer ones, whatever is published meanwhile: if it is something newer, the
	// write below is refused.
	if current.Generation-old.Generation > Near {
		if err := k.announce(ctx, &next); err != nil {
			return res, err
		}
		res.Writes++
		if err := k.checkKept(ctx, old.Generation); err != nil {
			return res, err
		}
	}
	// Looked at after the announcement: what is there now stays.
	if res.Missing, err = k.missing(ctx, &next); err != nil {
		return res, err
	}
	rebuilt, failed := k.rebuild(ctx, &next, &res)
	res.Writes += rebuilt
	if !r.Force {
		if err := checkComposable(old, res.Missing); err != nil {
			return res, errors.Join(err, failed)
		}
	}
	copied, err := k.remember(ctx, current)
	if err != nil {
		return res, err
	}
	res.Writes += copied
	if err := k.replace(ctx, &next, etag); err != nil {
		return res, err
	}
	res.Writes++
	return res, nil
}

// checkKept refuses a generation that is not in the history any more. A sweep removes a generation from the history
// before anything that it needs: as long as it is there, so is the rest.
func (k *Keeper) checkKept(ctx context.Context, generation uint64) error {
	_, err := k.Objects.Stat(ctx, layout.HistoryKey(generation))
	if errors.Is(err, builder.ErrNotExist) {
		return refuse("generation %d has just been given up", generation)
	}
	return err
}

// checkComposable refuses a generation of which something could not be composed when devices ask for it.
func checkComposable(old *index.Index, missing []string) error {
	if len(missing) > 0 {
		return refuse("generation %d needs what is gone and cannot be composed: %s; --force goes back all the same", old.Generation, some(missing))
	}
	if _, ok := builder.Encoder(old); !ok {
		return refuse("generation %d was made in format %q and this program composes %q: what is not prebuilt could not be composed; --force goes back all the same", old.Generation, old.Format, builder.FormatID)
	}
	return nil
}

// remember copies the published index into the history, unless it is there. It returns how many objects it wrote.
func (k *Keeper) remember(ctx context.Context, current *index.Index) (writes int, err error) {
	_, err = k.Objects.Stat(ctx, layout.HistoryKey(current.Generation))
	if errors.Is(err, builder.ErrNotExist) {
		return 1, builder.Remember(ctx, k.Objects, current)
	}
	return 0, err
}

func (k *Keeper) sweepWait() time.Duration {
	if k.SweepWait == 0 {
		return time.Minute
	}
	return k.SweepWait
}

// choose returns the index to go back to.
func (k *Keeper) choose(ctx context.Context, current *index.Index, generation uint64) (*index.Index, error) {
	if current == nil {
		return nil, refuse("nothing is published")
	}
	kept, err := Kept(ctx, k.Objects)
	if err != nil {
		return nil, err
	}
	kept = slices.DeleteFunc(kept, func(e Entry) bool { return e.Generation >= current.Generation })
	there := fmt.Sprintf("generation %d is published, and there are %s to go back to", current.Generation, numbers(kept))
	switch {
	case len(kept) == 0:
		return nil, refuse("generation %d is published, and there is none to go back to", current.Generation)
	case generation == current.Generation:
		return nil, refuse("that is what is published: %s", there)
	case generation == 0 && current.Pin != "":
		// The one before may be just what was rolled back.
		return nil, refuse("generation %d is pinned (%s): name the generation to go back to; %s", current.Generation, current.Pin, there)
	case generation == 0:
		generation = kept[len(kept)-1].Generation
	case !slices.ContainsFunc(kept, func(e Entry) bool { return e.Generation == generation }):
		return nil, refuse("there is no generation %d: %s", generation, there)
	}
	old, err := builder.ReadGeneration(ctx, k.Objects, generation)
	if errors.Is(err, builder.ErrNotExist) { // given up in this very moment
		return nil, refuse("there is no generation %d any more", generation)
	}
	if err != nil {
		return nil, err
	}
	if old.Generation != generation {
		return nil, refuse("the history has generation %d under the number %d", old.Generation, generation)
	}
	return old, nil
}

// announce keeps what an index needs from being removed.
func (k *Keeper) announce(ctx context.Context, next *index.Index) error {
	sequence, err := k.Ledger.Next(ctx)
	if err != nil {
		return err
	}
	plan := *next
	plan.Sequence, plan.Generation, plan.Pin = sequence, 0, ""
	return builder.Announce(ctx, k.Objects, &plan, k.Clock, k.sweepWait())
}

func some(keys []string) string {
	const most = 10
	if len(keys) <= most {
		return strings.Join(keys, ", ")
	}
	return fmt.Sprintf("%s and %d more", strings.Join(keys[:most], ", "), len(keys)-most)
}

// lookAfter bounds the look at what a failed write has done.
const lookAfter = 5 * time.Second

// replace writes the index over the one with this ETag. An answer that was lost, or that tells of a
// second try of what had been done, is found out by looking, also by a command that is interrupted: it has
// to say what it did.
func (k *Keeper) replace(ctx context.Context, next *index.Index, etag string) error {
	data := next.Encode()
	_, err := k.Objects.Put(ctx, layout.IndexKey, builder.BytesBody(data), builder.PutOptions{IfMatch: etag})
	if err == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), lookAfter)
	defer cancel()
	now, _, lookErr := builder.ReadIndex(ctx, k.Objects)
	switch {
	case lookErr == nil && now != nil && bytes.Equal(now.Encode(), data):
		return nil
	case errors.Is(err, builder.ErrPrecondition) && lookErr == nil && now != nil:
		return fmt.Errorf("%w: generation %d, plan %d is published; see precast history and say what to go back to", ErrRace, now.Generation, now.Sequence)
	}
	return fmt.Errorf("write generation %d of the index: %w", next.Generation, errors.Join(err, lookErr))
}

// Check looks at a rollback once it is published: what it needs and is gone, and how much of what would
// be prebuilt for it is not.
func (k *Keeper) Check(ctx context.Context, generation uint64) (missing []string, lacking int, err error) {
	ix, _, err := builder.ReadIndex(ctx, k.Objects)
	if err != nil || ix == nil || ix.Generation != generation {
		return nil, 0, err
	}
	if missing, err = k.missing(ctx, ix); err != nil {
		return nil, 0, err
	}
	coverage, err := builder.CoverPublished(ctx, k.Objects, ix)
	if err != nil {
		return missing, 0, err
	}
	absent, err := Absent(ctx, k.Objects, coverage.Keys())
	return missing, len(absent), err
}

// Pinned is what is published after Pin or Unpin.
type Pinned struct {
	Generation uint64 `json:"generation"`
	Sequence   uint64 `json:"sequence"`
	Pin        string `json:"pin"` // empty: it is not pinned
}

// Pin keeps whatever is published from being replaced.
func (k *Keeper) Pin(ctx context.Context, reason string) (Pinned, error) {
	if reason == "" {
		reason = "pinned by hand"
	}
	if err := checkReason(reason); err != nil {
		return Pinned{}, fmt.Errorf("pin: %w", err)
	}
	p, err := k.setPin(ctx, reason)
	if err != nil {
		return p, fmt.Errorf("pin: %w", err)
	}
	return p, nil
}

// Unpin lets what is published be replaced again; it asks for no plan. It is refused if nothing is pinned.
func (k *Keeper) Unpin(ctx context.Context) (Pinned, error) {
	p, err := k.setPin(ctx, "")
	if err != nil {
		return p, fmt.Errorf("unpin: %w", err)
	}
	return p, nil
}

func (k *Keeper) setPin(ctx context.Context, pin string) (Pinned, error) {
	for try := 1; ; try++ {
		current, etag, err := builder.ReadIndex(ctx, k.Objects)
		if err != nil {
			return Pinned{}, err
		}
		switch {
		case current == nil:
			return Pinned{}, refuse("nothing is published")
		case pin == "" && current.Pin == "":
			return Pinned{}, refuse("generation %d is not pinned", current.Generation)
		}
		next := *current
		next.Pin = pin
		// Whatever was published meanwhile is what is to be pinned; what was pinned, it is.
		if err := k.replace(ctx, &next, etag); err == nil {
			return Pinned{next.Generation, next.Sequence, pin}, nil
		} else if !errors.Is(err, ErrRace) || try == tries {
			return Pinned{}, err
		}
	}
}
