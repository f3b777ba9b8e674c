package catalog

// Edit is what one command does to the catalog: all of it, or nothing.
type Edit struct {
	Changes []Change `json:"changes"`
	// Base is the digest of the last entry of the catalog's log (Entry.Digest) at the time when what the changes were
	// worked out from was read: the log is read first, then the catalog. An edit whose base is not the last entry
	// any more is not made. Empty: it is made whatever came before.
	Base string `json:"base,omitempty"`
	By   Author `json:"by,omitzero"`
	// Allow names the guards that this edit may pass, by their flags without the dashes.
	Allow []string `json:"allow,omitempty"`
}

// Author is who made an edit, and why.
type Author struct {
	// Actor is proven: the name of an admin token, or of the caller on AWS. Empty: nothing proves it.
	Actor string `json:"actor,omitempty"`
	// Claim is who the person at the command line says to be.
	Claim   string `json:"claim,omitempty"`
	Message string `json:"message,omitempty"` // why
}
