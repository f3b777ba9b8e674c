//go:build !race

package gc_test

// race: the detector makes everything ten times as slow.
const race = false
