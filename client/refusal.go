package client

// Check is a check that a client makes before it trusts a response.
type Check string

// The checks of a client, and the attack that each one stops.
const (
	Malformed        Check = "malformed"         // garbage
	UntrustedKeyring Check = "untrusted keyring" // forged, without a root key
	OldKeyring       Check = "old keyring"       // a revocation is withheld from the device
	ExpiredKeyring   Check = "expired keyring"   // the same, for long
	UnknownKey       Check = "unknown key"       // arbitrary installation
	RevokedKey       Check = "revoked key"       // a stolen key
	WrongSignature   Check = "wrong signature"   // a changed statement
	OtherSelection   Check = "other selection"   // wrong software
	OtherRollout     Check = "other rollout"     // a release for other devices, or one withdrawn from this one
	OtherStep        Check = "other step"        // a floor that has been passed, or a release after one that has not
	ExpiredStatement Check = "expired statement" // indefinite freeze
	OldGeneration    Check = "old generation"    // rollback
	FarGeneration    Check = "far generation"    // fast-forward
	OtherContent     Check = "other content"     // two statements of one generation
	TooLong          Check = "too long"          // endless data
	TooSlow          Check = "too slow"          // slow retrieval
	ExtraFile        Check = "extra file"        // extraneous dependency, mix-and-match
	WrongFile        Check = "wrong file"        // changed content
	MissingFile      Check = "missing file"      // partial bundle
	WrongDetails     Check = "wrong details"     // package_details.json differs from the statement
)

// Refusal is the error of a failed check. Nothing from the refused response is in use.
type Refusal struct {
	Check Check
	Err   error
}

func (r *Refusal) Error() string { return "refused (" + string(r.Check) + "): " + r.Err.Error() }

func (r *Refusal) Unwrap() error { return r.Err }

func refuse(what Check, err error) error { return &Refusal{what, err} }

// check turns an error into a Refusal, unless a test skips this check.
func (c *Client) check(what Check, err error) error {
	if err == nil || c.skip[what] {
		return nil
	}
	return refuse(what, err)
}
