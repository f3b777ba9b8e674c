package builder

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/precast-ota/precast/internal/format/catalog"
	"github.com/precast-ota/precast/internal/format/layout"
)

// Errors that every driver returns (wrapped) for the cases below, so that the core can tell a
// refusal from a fault.
var (
	// ErrNotExist: no such object, ledger entry or receipt.
	ErrNotExist = errors.New("does not exist")
	// ErrPrecondition: IfAbsent, IfMatch or the base of an edit did not hold; nothing was written.
	ErrPrecondition = errors.New("precondition failed")
	// ErrDamaged: an object is there, and is not what was put. A driver may notice that or not.
	ErrDamaged = errors.New("is damaged")
)

// Objects is where bundles, manifests, pieces, binaries and the index live.
//
// Reads are strongly consistent with completed writes. A key is a slash-separated relative path
// made by package layout, which also decides an object's Content-Type, Cache-Control and
// Content-Disposition from its key.
type Objects interface {
	// Stat describes an object, or fails with ErrNotExist.
	Stat(ctx context.Context, key string) (ObjectInfo, error)

	// Get reads n bytes from offset off; n < 0 means up to the end. A range that starts at or beyond
	// the object's end reads nothing. The caller closes the body. Fails with ErrNotExist.
	// The info describes the whole object, whatever the range.
	Get(ctx context.Context, key string, off, n int64) (io.ReadCloser, ObjectInfo, error)

	// Put writes an object whole or not at all: a reader sees the old object or the new one. When it
	// returns nil, the object survives a crash. Fails with ErrPrecondition, having written nothing,
	// if opt.IfAbsent or opt.IfMatch does not hold. It is also an error, and nothing is written, if
	// opt.Check fails or if the body does not have its Size or its checksum.
	Put(ctx context.Context, key string, body Body, opt PutOptions) (ObjectInfo, error)

	// List calls yield for every object whose key starts with prefix, in ascending byte order of
	// keys, until yield fails; that error is returned as it is. Meta is not filled in.
	List(ctx context.Context, prefix string, yield func(ObjectInfo) error) error
}

// ObjectInfo describes one object.
type ObjectInfo struct {
	Key  string
	Size int64 // bytes
	// ETag is opaque, without quotes: as long as it is the same, so is the content. (Equal content need
	// not have equal ETags: https://docs.aws.amazon.com/AmazonS3/latest/API/API_Object.html.)
	ETag string
	// Meta holds the caller's metadata; PutOptions.Check says what it may be.
	Meta map[string]string
	// Modified is when the object was written, to the second at least. Put need not fill it in.
	Modified time.Time
	// Headers are those kept with the object. Only Stat and Get fill them in.
	Headers layout.Headers
}

// Body is what Put writes. It is seekable, so that a retry costs nothing.
type Body struct {
	Reader io.ReadSeeker // read from offset 0, possibly more than once
	Size   int64         // bytes
	// CRC64NVME is the checksum of all Size bytes when Checked is true. The driver has the store
	// verify it; without it the driver computes one.
	CRC64NVME uint64
	Checked   bool
}

// PutOptions are the conditions and metadata of a write. At most one condition is set.
type PutOptions struct {
	IfAbsent bool              // only if the key does not exist
	IfMatch  string            // only if the key exists with this ETag
	Meta     map[string]string // kept with the object
}

// maxMeta is S3's limit, in bytes, for names and values together
// (https://docs.aws.amazon.com/AmazonS3/latest/userguide/UsingMetadata.html).
const maxMeta = 2048

// Check refuses options that some driver could not honour. Every driver calls it in Put. Names of metadata are
// lower-case HTTP tokens; values are printable ASCII, without a space at either end, because HTTP drops those.
func (opt PutOptions) Check() error {
	if opt.IfAbsent && opt.IfMatch != "" {
		return errors.New("check options: IfAbsent and IfMatch exclude each other")
	}
	total := 0
	for name, value := range opt.Meta {
		total += len(name) + len(value)
		if name == "" {
			return errors.New("check metadata: a name is empty")
		}
		if strings.ContainsFunc(name, notLowerToken) {
			return fmt.Errorf("check metadata: name %q is not a lower-case HTTP token", name)
		}
		if strings.ContainsFunc(value, func(c rune) bool { return c < ' ' || c > '~' }) {
			return fmt.Errorf("check metadata: value of %q is not printable ASCII", name)
		}
		if strings.Trim(value, " ") != value {
			return fmt.Errorf("check metadata: value of %q begins or ends with a space", name)
		}
	}
	if total >= maxMeta {
		return fmt.Errorf("check metadata: %d bytes, must be less than %d", total, maxMeta)
	}
	return nil
}

func notLowerToken(c rune) bool {
	return (c < 'a' || c > 'z') && (c < '0' || c > '9') && !strings.ContainsRune("!#$%&'*+-.^_`|~", c)
}

// Catalog is the source of truth: what the release manager says each device should have.
type Catalog interface {
	// Snapshot returns every item, in any order. It includes every change that was acknowledged
	// before the call began. (It need not be one instant: a change that lands during the call may or
	// may not be in it.)
	Snapshot(ctx context.Context) ([]catalog.Item, error)

	// Head returns where the log of the catalog's changes ends. It includes every edit that was acknowledged before
	// the call began.
	Head(ctx context.Context) (catalog.Head, error)
}

// CatalogWriter changes the catalog and keeps the log of its changes, which only grows.
type CatalogWriter interface {
	// Apply makes all the changes of an edit or none. Each replaces or removes the item of its key;
	// removing what is not there is no error. When it returns nil the changes are durable and will
	// appear in the change stream, and the log has one entry more (catalog.Edit.Entry). An edit that
	// has neither changes nor an act does nothing.
	//
	// It fails with ErrPrecondition, and nothing is written, if the edit has a base and that is not the end
	// of the log any more, or if an item that it changes is not as Change.Was says.
	Apply(ctx context.Context, edit catalog.Edit) error

	// Log calls yield for every entry after number after, in order, until yield fails; that error is
	// returned as it is.
	Log(ctx context.Context, after uint64, yield func(catalog.LogEntry) error) error
}

// Queue hands jobs to workers, at least once, in no particular order. After as many receives as the
// driver was configured with, an undeleted message becomes a dead letter instead of being received
// again.
type Queue interface {
	// Send enqueues messages of at most 1 MiB each. On error some of them may have been sent.
	Send(ctx context.Context, bodies ...[]byte) error

	// Receive returns up to max messages (at most 10), which are invisible to other receivers for the
	// duration visibility (the visibility timeout). With none visible it waits up to wait for one, then
	// returns an empty slice.
	Receive(ctx context.Context, max int, visibility, wait time.Duration) ([]Message, error)

	// Extend sets the visibility timeout of a received message, from now; 0 makes it visible at once.
	// Fails with ErrNotExist if the receipt is no longer valid.
	Extend(ctx context.Context, receipt string, visibility time.Duration) error

	// Delete acknowledges a message. Deleting with a receipt that has expired, while nobody else has
	// received the message, deletes it; a message already gone is no error.
	Delete(ctx context.Context, receipt string) error
}

// Message is one delivery of a queued job.
type Message struct {
	ID       string // the same at every delivery of one message
	Receipt  string // of this delivery
	Body     []byte
	Receives int // how many times it has been delivered, this one included
}

// DeadLetters are the messages that were received too often.
type DeadLetters interface {
	// Dead returns up to max dead letters, oldest first where the driver can tell. Their Receives may be
	// approximate, and their IDs may be other ones after Redrive.
	Dead(ctx context.Context, max int) ([]Message, error)
	// Redrive moves all dead letters back to the queue, their receive counts reset, and returns how
	// many it moved.
	Redrive(ctx context.Context) (int, error)
	// Depth counts messages waiting, in flight and dead. A remote driver may give approximations.
	Depth(ctx context.Context) (waiting, inFlight, dead int, err error)
}

// Ledger is the fan-in of a build that is spread over workers: who finishes last publishes.
type Ledger interface {
	// Next returns a number greater than every number it returned before, to anyone.
	Next(ctx context.Context) (uint64, error)

	// Open starts an entry of parts parts, none done (parts >= 1). Opening an id that is open already
	// changes nothing, whatever has been done of it.
	Open(ctx context.Context, id string, parts int) error

	// Done marks part (0 <= part < parts) done and returns how many are left. Marking a part again
	// changes nothing and returns the same count: a caller that gets 0 continues the build, and
	// gets 0 again if it crashes on the way. Fails with ErrNotExist if id is not open.
	Done(ctx context.Context, id string, part int) (left int, err error)

	// Close forgets an entry; closing what is not open is no error. A driver may also forget
	// entries by itself, not before 24 hours after Open.
	Close(ctx context.Context, id string) error
}

// Sources reads binaries from where the catalog says they are.
type Sources interface {
	// Open starts reading the binary at a catalog item's URL.
	Open(ctx context.Context, url string) (io.ReadCloser, error)
}

// Observer is told of what a builder does, as it happens; it must be quick and safe for concurrent
// use.
type Observer interface {
	// Planned: a plan was made, and its missing objects are about to be built.
	Planned(ctx context.Context, r Report)
	// Stored: one object was written, or found to exist already.
	Stored(ctx context.Context, s Stored)
	// Rejected: an item cannot be published; its previous release stays published.
	Rejected(ctx context.Context, r Rejection)
	// Published: the index was replaced.
	Published(ctx context.Context, p Published)
}

// Stored is one object of a build.
type Stored struct {
	Key     string `json:"key"`
	Size    int64  `json:"size"`    // bytes
	Existed bool   `json:"existed"` // nothing was written
	// Mended: a piece that was missing or damaged was made again.
	Mended bool `json:"mended,omitempty"`
}

// Published is one replacement of the index.
type Published struct {
	Generation uint64 `json:"generation"`
	Sequence   uint64 `json:"sequence"`
	// Changed: it is a new generation. Otherwise a plan found nothing to change.
	Changed bool `json:"changed"`
	// Since is when the oldest change in it was made, zero if nobody knows.
	Since time.Time `json:"since,omitzero"`
}

// Silent is an Observer that does nothing.
type Silent struct{}

func (Silent) Planned(context.Context, Report)      {}
func (Silent) Stored(context.Context, Stored)       {}
func (Silent) Rejected(context.Context, Rejection)  {}
func (Silent) Published(context.Context, Published) {}
