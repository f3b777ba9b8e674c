// Package storetest holds one contract suite for each port of package builder. Every driver passes
// the suite of each port that it implements; a driver's own tests are for what the port leaves open.
//
// The suites wait on conditions, never for a fixed time: how time passes is the caller's Clock. docs/drivers.md says how
// to run them.
package storetest
