package catalog

import (
	"errors"
	"fmt"
	"strings"
	"unicode"
)

// Edit is what one command does to the catalog: all of it, or nothing. Each edit becomes one entry of the catalog's
// log.
type Edit struct {
	Changes []Change `json:"changes"`
	// Base is the end of the catalog's log (Head.Digest) at the time when what the changes were worked out from was
	// read: the log is read first, then the catalog; On fills it in. An edit whose base is not the end of the log
	// any more is not made. Empty: it is made whatever came before.
	Base string `json:"base,omitempty"`
	By   Author `json:"by,omitzero"`
	// Act is what was done to what is published, for the log.
	Act *Act `json:"act,omitempty"`
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

// Act is a command that changes what is published and leaves the catalog as it is.
type Act struct {
	What       string `json:"what"`         // rollback, pin or unpin
	Generation uint64 `json:"generation"`   // published afterwards
	Of         uint64 `json:"of,omitempty"` // of a rollback: the generation whose content it has
}

// Limits of what authors say, bytes.
const (
	MaxClaim   = 200
	MaxMessage = 1000
)

// Check refuses an author whose words are too long, or could do something to a terminal.
func (a Author) Check() error {
	var errs []error
	for _, said := range []struct {
		name, text string
		most       int
	}{{"actor", a.Claim, MaxClaim}, {"message", a.Message, MaxMessage}} {
		if len(said.text) > said.most {
			errs = append(errs, fmt.Errorf("the %s is longer than %d bytes", said.name, said.most))
		}
		if strings.ContainsFunc(said.text, unicode.IsControl) {
			errs = append(errs, fmt.Errorf("the %s has control characters", said.name))
		}
	}
	return errors.Join(errs...)
}

// On returns the edit with what it was worked out from: the end of the log, and the items of the catalog that was read
// after it.
func (e Edit) On(head Head, before []Item) Edit {
	e.Base = head.Digest
	was := make(map[Key]*Item, len(before))
	for i := range before {
		was[before[i].Key()] = &before[i]
	}
	changes := make([]Change, len(e.Changes))
	for i, c := range e.Changes {
		c.Was = was[c.Key]
		changes[i] = c
	}
	e.Changes = changes
	return e
}

// Final returns the last change of each key, in the order in which they are made.
func Final(changes []Change) []Change {
	last := make(map[Key]int, len(changes))
	for i, c := range changes {
		last[c.Key] = i
	}
	final := make([]Change, 0, len(last))
	for i, c := range changes {
		if last[c.Key] == i {
			final = append(final, c)
		}
	}
	return final
}
