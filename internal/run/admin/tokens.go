package admin

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/precast-ota/precast/internal/files"
)

// Role is what a token may do: all that the roles before it may, and more.
type Role int

// The roles.
const (
	Read    Role = iota + 1 // look at catalog, status, history and stored objects
	Release                 // and change what devices get
	Admin                   // and everything else
)

func (r Role) String() string {
	return map[Role]string{Read: "read", Release: "release", Admin: "admin"}[r]
}

func parseRole(s string) (Role, error) {
	for r := Read; r <= Admin; r++ {
		if s == r.String() {
			return r, nil
		}
	}
	return 0, fmt.Errorf("%q is no role: use read, release or admin", s)
}

// Identity is who a token stands for. The name is empty for the token in the data folder: it proves that somebody can
// read the folder, and not who.
type Identity struct {
	Name string
	Role Role
}

// Tokens are the tokens that a server accepts, by their SHA-256.
type Tokens map[[sha256.Size]byte]Identity

// only is the set of one token.
func only(token string, who Identity) Tokens { return Tokens{sha256.Sum256([]byte(token)): who} }

// find takes the same time for every token.
func (t Tokens) find(token string) (who Identity, ok bool) {
	sum := sha256.Sum256([]byte(token))
	for known, id := range t {
		if subtle.ConstantTimeCompare(known[:], sum[:]) == 1 {
			who, ok = id, true
		}
	}
	return who, ok
}

const (
	maxTokens    = 1 << 20 // bytes of a file
	minToken     = 20      // characters
	maxTokenName = 64
	digestPrefix = "sha256:"
)

// ReadTokens reads a file of tokens: "name role token" or "name role sha256:DIGEST" a line, comments after #. It tells
// whether others may read tokens in it.
func ReadTokens(path string) (tokens Tokens, exposed bool, err error) {
	f, err := files.Open(path)
	if err != nil {
		return nil, false, fmt.Errorf("read admin tokens: %w", err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err == nil && info.Size() > maxTokens {
		err = fmt.Errorf("it is longer than %d bytes", maxTokens)
	}
	if err != nil {
		return nil, false, fmt.Errorf("read admin tokens: %s: %w", path, err)
	}
	tokens = make(Tokens)
	names := make(map[string]bool)
	plain := false
	lines := bufio.NewScanner(f)
	for n := 1; lines.Scan(); n++ {
		text, _, _ := strings.Cut(lines.Text(), "#")
		fields := strings.Fields(text)
		if len(fields) == 0 {
			continue
		}
		who, sum, err := parseToken(fields)
		if err == nil && names[who.Name] {
			err = errors.New("the name is there twice")
		}
		if _, twice := tokens[sum]; err == nil && twice {
			err = errors.New("the token is there twice")
		}
		if err != nil {
			return nil, false, fmt.Errorf("read admin tokens: %s, line %d: %w", path, n, err)
		}
		names[who.Name], tokens[sum] = true, who
		plain = plain || !strings.HasPrefix(fields[2], digestPrefix)
	}
	if err := lines.Err(); err != nil {
		return nil, false, fmt.Errorf("read admin tokens: %s: %w", path, err)
	}
	if len(tokens) == 0 {
		return nil, false, fmt.Errorf("read admin tokens: %s: there is none", path)
	}
	return tokens, plain && info.Mode().Perm()&0o007 != 0, nil
}

func parseToken(fields []string) (who Identity, sum [sha256.Size]byte, err error) {
	if len(fields) != 3 {
		return who, sum, errors.New("a line is: NAME ROLE TOKEN, or NAME ROLE sha256:DIGEST")
	}
	who.Name = fields[0]
	if len(who.Name) > maxTokenName || strings.ContainsFunc(who.Name, func(c rune) bool { return c <= ' ' || c > '~' }) {
		return who, sum, fmt.Errorf("a name is at most %d printable ASCII characters", maxTokenName)
	}
	if who.Role, err = parseRole(fields[1]); err != nil {
		return who, sum, err
	}
	if digest, ok := strings.CutPrefix(fields[2], digestPrefix); ok {
		if len(digest) != hex.EncodedLen(len(sum)) {
			return who, sum, errors.New("sha256: is followed by 64 hex digits")
		}
		if _, err := hex.Decode(sum[:], []byte(digest)); err != nil {
			return who, sum, errors.New("sha256: is followed by 64 hex digits") // the error may hold a part of it
		}
		return who, sum, nil
	}
	if len(fields[2]) < minToken {
		return who, sum, fmt.Errorf("a token has at least %d characters, such as those of: openssl rand -hex 32", minToken)
	}
	return who, sha256.Sum256([]byte(fields[2])), nil
}

// ReadToken reads the file of one token, as a client has it.
func ReadToken(path string) (string, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return "", fmt.Errorf("read token: %w", err)
	}
	token := string(bytes.TrimSpace(data))
	if token == "" || len(token) > 4096 || strings.ContainsFunc(token, func(c rune) bool { return c <= ' ' || c > '~' }) {
		return "", fmt.Errorf("read token: %s has to hold one token, and nothing else", path)
	}
	return token, nil
}
