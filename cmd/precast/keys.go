package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/precast-ota/precast/internal/run/signingkey"
	"github.com/precast-ota/precast/internal/trust/keydir"
	"github.com/precast-ota/precast/internal/trust/keyring"
	"github.com/precast-ota/precast/internal/trust/signing"
)

type keysCmd struct {
	Init    keysInitCmd    `cmd:"" help:"Create a root key, a signing key and the first keyring."`
	Show    keysShowCmd    `cmd:"" help:"Show the keyring: its keys, and when it expires."`
	Rotate  keysRotateCmd  `cmd:"" help:"Add a new signing key, or replace the root key."`
	Revoke  keysRevokeCmd  `cmd:"" help:"Revoke a signing key: devices refuse everything that it signed."`
	Renew   keysRenewCmd   `cmd:"" help:"Extend the validity of the keyring."`
	Publish keysPublishCmd `cmd:"" help:"Upload the keyring, so that devices get it."`
}

// keysFlag names the folder of keys.
type keysFlag struct {
	jsonFlag
	Dir string `help:"Folder with the keys and keyrings." env:"PRECAST_KEYS" default:"precast-keys" type:"path"`
}

// rootKeyVariable has a root key, in PEM, where it is in no file.
const rootKeyVariable = "PRECAST_ROOT_KEY"

func (f keysFlag) folder(days int) (*keydir.Folder, error) {
	if days < 1 || days > 36500 {
		return nil, fmt.Errorf("--days: %d is not between 1 and 36500", days)
	}
	folder := &keydir.Folder{Dir: f.Dir, Random: rand.Reader, Now: time.Now, Valid: time.Duration(days) * 24 * time.Hour}
	if os.Getenv(rootKeyVariable) != "" {
		root, err := signingkey.Open(context.Background(), "env:"+rootKeyVariable, os.LookupEnv)
		if err != nil {
			return nil, err
		}
		folder.Root = root
	}
	return folder, nil
}

// changeFlags go with commands that make a new version.
type changeFlags struct {
	keysFlag
	Days int `help:"Validity of the keyring in days. Until it expires, devices cannot notice that somebody withholds newer keyrings from them." default:"365"`
}

// signerFlag names a signing key that exists already.
type signerFlag struct {
	SigningKey string `help:"Use this key instead of creating one: kms:ARN-OR-ALIAS, file:PATH or env:NAME." placeholder:"SOURCE"`
}

func (f signerFlag) open(ctx context.Context) (signing.Signer, error) {
	if f.SigningKey == "" {
		return nil, nil
	}
	return signingkey.Open(ctx, f.SigningKey, os.LookupEnv)
}

// keyringView is what the commands print as JSON.
type keyringView struct {
	Version uint64    `json:"version"`
	Expires time.Time `json:"expires"`
	Roots   []keyView `json:"roots"`
	Signing []keyView `json:"signing"`
	Revoked []string  `json:"revoked"`
}

type keyView struct {
	ID   string `json:"id"`
	Key  string `json:"key"`            // SubjectPublicKeyInfo in base64
	File string `json:"file,omitempty"` // of the private key, if it is in the folder
}

func view(folder *keydir.Folder, k *keyring.Keyring) keyringView {
	v := keyringView{Version: k.Version, Expires: k.Expires, Roots: []keyView{}, Signing: []keyView{}, Revoked: append([]string{}, k.Revoked...)}
	there := func(name string) string {
		if _, err := os.Stat(name); err != nil {
			return ""
		}
		return name
	}
	for _, r := range k.Roots {
		v.Roots = append(v.Roots, keyView{r.ID(), r.String(), there(folder.RootFile(r))})
	}
	for _, s := range k.Signing {
		v.Signing = append(v.Signing, keyView{s.ID(), s.String(), there(folder.SigningFile(s))})
	}
	return v
}

func (f keysFlag) print(std streams, folder *keydir.Folder, k *keyring.Keyring, now time.Time) error {
	v := view(folder, k)
	if f.JSON {
		return printJSON(std.out, v)
	}
	fmt.Fprintf(std.out, "keyring version %d, good until %s", v.Version, v.Expires.Format(time.RFC3339))
	if k.Expired(now) != nil {
		fmt.Fprint(std.out, " (IT HAS EXPIRED: precast keys renew)")
	}
	fmt.Fprintln(std.out)
	show := func(kind string, keys []keyView) {
		for _, key := range keys {
			where := "not in this folder"
			if key.File != "" {
				where = key.File
			}
			fmt.Fprintf(std.out, "%s  %s  %s\n", kind, key.ID, where)
		}
	}
	show("root   ", v.Roots)
	show("signing", v.Signing)
	for _, id := range v.Revoked {
		fmt.Fprintf(std.out, "revoked  %s\n", id)
	}
	return nil
}

// say tells people what to do next.
func (f keysFlag) say(std streams, format string, args ...any) {
	if !f.JSON {
		fmt.Fprintf(std.out, format+"\n", args...)
	}
}

type keysInitCmd struct {
	changeFlags
	signerFlag
}

func (*keysInitCmd) Help() string {
	return `The root key signs keyrings. The signing key signs statements, which tell devices what to install. Only the signing
key is needed where precast serve or the composer runs. Keep the root key offline.

Examples:
  precast keys init --dir keys
  precast keys init --signing-key kms:alias/packages`
}

func (c *keysInitCmd) Run(ctx context.Context, std streams) error {
	folder, err := c.folder(c.Days)
	if err != nil {
		return err
	}
	signer, err := c.signerFlag.open(ctx)
	if err != nil {
		return err
	}
	k, err := folder.Init(ctx, signer)
	if err != nil {
		return err
	}
	if err := c.print(std, folder, k, time.Now()); err != nil {
		return err
	}
	c.say(std, "Keep %s offline, and a copy of it: whoever has it can replace every other key; if it is lost, nobody can.", folder.RootFile(k.Roots[0]))
	c.say(std, "Devices are made with %s.", folder.RootPublicFile(k.Roots[0]))
	source := c.SigningKey
	if source == "" {
		source = "file:" + folder.SigningFile(k.Signing[0])
	}
	c.say(std, "Next: precast keys publish, and precast serve --signing-key %s", source)
	return nil
}

type keysShowCmd struct{ keysFlag }

func (*keysShowCmd) Help() string {
	return `Lists the root keys, the signing keys and the revoked keys. Exits with 3 if the keyring has expired.

Examples:
  precast keys show
  precast keys show --json | jq -r '.signing[].id'`
}

func (c *keysShowCmd) Run(std streams) error {
	folder, err := c.folder(1)
	if err != nil {
		return err
	}
	k, err := folder.Keyring()
	if err != nil {
		return err
	}
	now := time.Now()
	if err := c.print(std, folder, k, now); err != nil {
		return err
	}
	if err := k.Expired(now); err != nil {
		return no("%w", err)
	}
	return nil
}

type keysRotateCmd struct {
	changeFlags
	signerFlag
	Root bool `help:"Replace the root key. Devices with the old one accept the new one."`
}

func (*keysRotateCmd) Help() string {
	return `The earlier signing keys stay valid. Publish the keyring, have the servers sign with the new key, then revoke the
old one. A new root key replaces the old one at once; the current root key must be available to sign it.

Examples:
  precast keys rotate && precast keys publish
  precast keys rotate --signing-key kms:alias/packages-2
  precast keys rotate --root`
}

func (c *keysRotateCmd) Run(ctx context.Context, std streams) error {
	folder, err := c.folder(c.Days)
	if err != nil {
		return err
	}
	if c.Root && c.SigningKey != "" {
		return fmt.Errorf("--root and --signing-key do not go together")
	}
	var k *keyring.Keyring
	if c.Root {
		k, err = folder.RotateRoot(ctx)
	} else {
		var signer signing.Signer
		if signer, err = c.signerFlag.open(ctx); err == nil {
			k, err = folder.Rotate(ctx, signer)
		}
	}
	if err != nil {
		return err
	}
	return c.done(std, folder, k)
}

// done ends commands that have made a new version.
func (f keysFlag) done(std streams, folder *keydir.Folder, k *keyring.Keyring) error {
	if err := f.print(std, folder, k, time.Now()); err != nil {
		return err
	}
	f.say(std, "Next: precast keys publish")
	return nil
}

type keysRevokeCmd struct {
	changeFlags
	KeyID string `arg:"" name:"keyid" help:"ID of the key, or at least its first four digits."`
}

func (*keysRevokeCmd) Help() string {
	return `Devices that receive the new keyring refuse everything that the key signed, and reset the generation numbers that
they accepted from it. First have the servers sign with another key: precast keys rotate.

Examples:
  precast keys revoke 9f2b && precast keys publish`
}

func (c *keysRevokeCmd) Run(ctx context.Context, std streams) error {
	folder, err := c.folder(c.Days)
	if err != nil {
		return err
	}
	k, err := folder.Revoke(ctx, c.KeyID)
	if err != nil {
		return err
	}
	if len(k.Signing) == 0 {
		c.say(std, "No signing key is left: devices will install nothing until there is one.")
	}
	return c.done(std, folder, k)
}

type keysRenewCmd struct{ changeFlags }

func (*keysRenewCmd) Help() string {
	return `Creates a new version of the keyring with the same keys. Do this before the old one expires.

Examples:
  precast keys renew --days 90 && precast keys publish`
}

func (c *keysRenewCmd) Run(ctx context.Context, std streams) error {
	folder, err := c.folder(c.Days)
	if err != nil {
		return err
	}
	k, err := folder.Renew(ctx)
	if err != nil {
		return err
	}
	return c.done(std, folder, k)
}

type keysPublishCmd struct {
	keysFlag
	dataFlag
}

func (*keysPublishCmd) Help() string {
	return `Uploads every version of the keyring to the object store and makes the newest the current one. Exits with 3 if a
newer keyring, or one from another folder, is published already. Needs no private key.

Examples:
  precast keys publish --data /var/lib/precast
  precast keys publish --dir keys --objects s3://packages --catalog dynamodb://catalog --ledger dynamodb://ledger --queue sqs://sqs.eu-west-1.amazonaws.com/123456789012/jobs --dead-letters sqs://sqs.eu-west-1.amazonaws.com/123456789012/dead`
}

func (c *keysPublishCmd) Run(ctx context.Context, std streams) error {
	d, err := c.open(ctx)
	if err != nil {
		return err
	}
	defer d.Close()
	folder := &keydir.Folder{Dir: c.Dir}
	k, changed, err := folder.Publish(ctx, d.objects)
	if errors.Is(err, keydir.ErrConflict) {
		return no("%w", err)
	}
	if err != nil {
		return err
	}
	if c.JSON {
		return printJSON(std.out, struct {
			Version uint64 `json:"version"`
			Changed bool   `json:"changed"`
		}{k.Version, changed})
	}
	state := "is published"
	if !changed {
		state = "was published already"
	}
	fmt.Fprintf(std.out, "keyring version %d %s\n", k.Version, state)
	return nil
}
