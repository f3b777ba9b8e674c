package backup

import (
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/precast-ota/precast/internal/format/layout"
	"github.com/precast-ota/precast/internal/operate/history"
)

// Names of the parts of a backup that are no objects.
const (
	catalogPart = "catalog.jsonl" // items, one a line
	logPart     = "log.jsonl"     // entries of the catalog's log, one a line
)

// Version is that of the format. A program refuses backups of a later one.
const Version = 1

// Manifest says what is in a backup. It is written last: where there is none, no backup was completed.
type Manifest struct {
	Version    int       `json:"precastBackup"`
	Made       time.Time `json:"made"`
	Generation uint64    `json:"generation"` // published; 0: none
	Sequence   uint64    `json:"sequence"`   // of the plan that it came from
	Pin        string    `json:"pin,omitempty"`
	Items      int       `json:"items"` // of the catalog
	Parts      []Part    `json:"parts"` // sorted by key
	// Missing are binaries that the catalog or a generation names, and that the installation did not have, or only
	// damaged.
	Missing []string `json:"missing,omitempty"`
}

// Part is one thing in a backup: an object by its key, or another part by its name.
type Part struct {
	Key    string `json:"key"`
	Size   int64  `json:"size"`   // bytes
	SHA256 string `json:"sha256"` // names its content; parts of the same content share it
}

// Bytes is the size of all parts.
func (m *Manifest) Bytes() int64 {
	var n int64
	for _, p := range m.Parts {
		n += p.Size
	}
	return n
}

// Errors of backups that cannot be used.
var (
	// ErrNone: there is no backup, or one that was never completed.
	ErrNone = errors.New("there is no complete backup")
	// ErrDamaged: a backup is not what was written.
	ErrDamaged = errors.New("the backup is damaged")
)

// refuse says that nothing went wrong, and that nothing was written.
func refuse(format string, args ...any) error {
	return fmt.Errorf("%w: "+format, append([]any{history.ErrRefused}, args...)...)
}

func encodeManifest(m *Manifest) ([]byte, error) {
	data, err := json.MarshalIndent(m, "", " ")
	if err != nil {
		return nil, fmt.Errorf("encode %s: %w", manifestName, err)
	}
	return append(data, '\n'), nil
}

// maxManifest bounds the manifest, bytes: some 500,000 parts.
const maxManifest = 128 << 20

// parseManifest refuses what no version of this program has written: names in it become names of files.
func parseManifest(data []byte) (*Manifest, error) {
	var m Manifest
	if err := json.Unmarshal(data, &m); err != nil {
		return nil, fmt.Errorf("%w: read %s: %w", ErrDamaged, manifestName, err)
	}
	if m.Version != Version {
		return nil, fmt.Errorf("%s has version %d, this program knows version %d", manifestName, m.Version, Version)
	}
	last := ""
	for _, p := range m.Parts {
		if !p.sound() || p.Key <= last {
			return nil, fmt.Errorf("%w: %s names the part %q", ErrDamaged, manifestName, p.Key)
		}
		last = p.Key
	}
	return &m, nil
}

// maxSmall bounds what is held in memory of a part, bytes.
const maxSmall = 1 << 30

// sound tells whether a part can be one.
func (p Part) sound() bool {
	if sum, err := hex.DecodeString(p.SHA256); err != nil || len(sum) != 32 || strings.ToLower(p.SHA256) != p.SHA256 || p.Size < 0 {
		return false
	}
	if !p.isBinary() && p.Size > maxSmall {
		return false
	}
	if p.Key == catalogPart || p.Key == logPart {
		return true
	}
	switch kind, _ := layout.KindOf(p.Key); kind { // an unknown one is none of these
	case layout.Binary:
		return digestOf(p.Key) == p.SHA256
	case layout.Index, layout.IndexHistory, layout.Keyring, layout.KeyringHistory:
		return true
	}
	return false
}

// isBinary tells whether a part is a binary. All others are small.
func (p Part) isBinary() bool { return strings.HasPrefix(p.Key, layout.BinaryPrefix) }

// digestOf is the SHA-256 in a binary's key.
func digestOf(key string) string {
	digest, _, _ := strings.Cut(strings.TrimPrefix(key, layout.BinaryPrefix), "/")
	return digest
}
