package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/precast-ota/precast/client"
	"github.com/precast-ota/precast/internal/files"
	"github.com/precast-ota/precast/internal/trust/keyring"
	"github.com/precast-ota/precast/internal/trust/signing"
)

type verifyCmd struct {
	jsonFlag
	What      string `arg:"" help:"URL that a device asks (.../package?cpuArch=...), or a file: a bundle, a package_details.json or a statement." placeholder:"FILE|URL"`
	Root      string `help:"Public root key in PEM, the one that devices have." type:"path" placeholder:"FILE"`
	Keyring   string `help:"File with the keyring. Without --root it is trusted without verification." type:"path" placeholder:"FILE"`
	Statement string `help:"File with the statement for FILE." type:"path" placeholder:"FILE"`
}

func (*verifyCmd) Help() string {
	return `With a URL it acts as a new device, with the slot of the URL if there is one: it downloads the keyring, the statement
and the bundle, and verifies everything that a device verifies. With a file it works offline: it verifies that the
statement is signed by a key of the keyring, has not expired, and matches every file in the bundle. Exits with 3
if the verification fails.

Examples:
  precast verify 'http://127.0.0.1:8080/package?cpuArch=armv8&attrGamer=prod' --root root-5d2e77aa.pub.pem
  curl -O http://127.0.0.1:8080/keyring -o statement 'http://127.0.0.1:8080/package?cpuArch=armv8&payloadType=statement'
  precast verify ota-package.tar.gz --statement statement --keyring keyring --root root-5d2e77aa.pub.pem
  precast verify statement --keyring keyring --json | jq .expires`
}

// verification is what verify prints as JSON.
type verification struct {
	Verified   bool           `json:"verified"`
	Check      client.Check   `json:"check,omitempty"` // that failed
	Reason     string         `json:"reason,omitempty"`
	Generation uint64         `json:"generation,omitempty"`
	Selection  string         `json:"selection,omitempty"`
	Set        string         `json:"set,omitempty"`
	Expires    time.Time      `json:"expires,omitzero"`
	For        []string       `json:"for,omitempty"` // for which devices of the selection; see docs/trust.md
	Files      []verifiedFile `json:"files,omitempty"`
}

type verifiedFile struct {
	Name   string `json:"name"`
	Size   int64  `json:"size"`
	SHA256 string `json:"sha256"`
	// Here tells whether the file itself was verified, and not only what is said of it.
	Here bool `json:"here"`
}

func (c *verifyCmd) Run(ctx context.Context, std streams) error {
	var v verification
	var err error
	if strings.HasPrefix(c.What, "http://") || strings.HasPrefix(c.What, "https://") {
		v, err = c.device(ctx)
	} else {
		v, err = c.file()
	}
	refused := (*client.Refusal)(nil)
	if err != nil && !errors.As(err, &refused) {
		return err
	}
	if refused != nil {
		v = verification{Check: refused.Check, Reason: refused.Err.Error()}
	}
	if c.JSON {
		if err := printJSON(std.out, v); err != nil {
			return err
		}
	} else {
		v.print(std.out)
	}
	if refused != nil {
		return no("%s: %w", c.What, refused)
	}
	return nil
}

func (v verification) print(w io.Writer) {
	if !v.Verified {
		return // the error tells
	}
	fmt.Fprintf(w, "verified: generation %d for %s, good until %s\n", v.Generation, v.Selection, v.Expires.Format(time.RFC3339))
	for _, line := range v.For {
		fmt.Fprintf(w, "only for devices of: %s\n", line)
	}
	for _, f := range v.Files {
		state := "verified"
		if !f.Here {
			state = "is listed"
		}
		fmt.Fprintf(w, "%s  %s  sha256 %s  %s\n", f.Name, count(f.Size, "byte"), f.SHA256, state)
	}
}

func fileOf(f client.File, here bool) verifiedFile {
	return verifiedFile{Name: f.Name, Size: f.Size, SHA256: f.SHA256, Here: here}
}

// device does what a new device does, in a folder that is thrown away.
func (c *verifyCmd) device(ctx context.Context) (verification, error) {
	u, err := url.Parse(c.What)
	if err != nil {
		return verification{}, err
	}
	base, ok := strings.CutSuffix(u.Path, "/package")
	if !ok {
		return verification{}, fmt.Errorf("%s: devices ask for /package?cpuArch=..., and so does verify", c.What)
	}
	roots, err := c.roots()
	if err != nil {
		return verification{}, err
	}
	dir, err := os.MkdirTemp("", "precast-verify-*")
	if err != nil {
		return verification{}, err
	}
	defer os.RemoveAll(dir)
	device, err := client.New(client.Options{
		NoSlot: true, // but for the URL's
		URL:    (&url.URL{Scheme: u.Scheme, User: u.User, Host: u.Host, Path: base}).String(), Selection: u.RawQuery, Roots: roots, Dir: dir,
		Install: func(context.Context, client.Set) error { return nil }, // that it is called says that all is well
	})
	if err != nil {
		return verification{}, err
	}
	res, err := device.Update(ctx)
	if err != nil {
		return verification{}, err
	}
	v := verification{Verified: true, Generation: res.Generation, Selection: device.Selection(), Set: res.ID, Expires: res.Expires, For: res.For}
	for _, f := range res.Files {
		v.Files = append(v.Files, fileOf(f, true))
	}
	return v, nil
}

// roots are the root keys to begin with: that of --root, or those of --keyring.
func (c *verifyCmd) roots() ([]byte, error) {
	if c.Root != "" {
		return files.Read(c.Root, maxNamed)
	}
	if c.Keyring == "" {
		return nil, errors.New("verify needs --root or --keyring: what a server says of itself proves nothing")
	}
	data, err := files.Read(c.Keyring, maxNamed)
	if err != nil {
		return nil, err
	}
	k, err := keyring.Parse(data)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", c.Keyring, err)
	}
	var roots []byte
	for _, r := range k.Roots {
		roots = append(roots, signing.PublicPEM(r)...)
	}
	return roots, nil
}

// file verifies what is there already.
func (c *verifyCmd) file() (verification, error) {
	f, err := files.Open(c.What)
	if err != nil {
		return verification{}, err
	}
	defer f.Close()
	if c.Keyring == "" {
		return verification{}, errors.New("verify of a file needs --keyring: the keyring that was published with it")
	}
	offline := client.Offline{Now: time.Now()}
	if offline.Keyring, err = files.Read(c.Keyring, maxNamed); err != nil {
		return verification{}, err
	}
	if c.Root != "" {
		if offline.Roots, err = files.Read(c.Root, maxNamed); err != nil {
			return verification{}, err
		}
	}
	in := bufio.NewReader(f)
	begins, _ := in.Peek(len(statementBegins)) // a shorter one is no statement
	statementFile := c.Statement
	if string(begins) == statementBegins && statementFile == "" {
		statementFile = c.What
	}
	if statementFile == "" {
		return verification{}, errors.New("verify of a file needs --statement: the answer to its selection with payloadType=statement")
	}
	said, err := files.Read(statementFile, maxNamed)
	if err != nil {
		return verification{}, err
	}
	st, err := offline.Statement(said)
	if err != nil {
		return verification{}, err
	}
	here := make(map[string]bool)
	switch {
	case statementFile == c.What:
	case bytes.HasPrefix(begins, []byte{0x1f, 0x8b}):
		names, err := st.Bundle(in)
		if err != nil {
			return verification{}, err
		}
		for _, name := range names {
			here[name] = true
		}
	default:
		data, err := io.ReadAll(io.LimitReader(in, maxVerifyManifest))
		if err != nil {
			return verification{}, err
		}
		if err := st.Manifest(data); err != nil {
			return verification{}, err
		}
	}
	v := verification{Verified: true, Generation: st.Generation, Selection: st.Selection, Set: st.ID, Expires: st.Expires, For: st.For}
	for _, f := range st.Files {
		v.Files = append(v.Files, fileOf(f, here[f.Name]))
	}
	return v, nil
}

const (
	statementBegins   = "precast statement "
	maxVerifyManifest = 16 << 20 // bytes
)
