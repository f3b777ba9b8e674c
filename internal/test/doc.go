// Package test is the room of what only tests need: fault suites, soak, the plain reference, stand-ins.
// Only tests import it; precast demo and the rig's demo play the story in it.
// It may import: internal/format, internal/operate, seed.
package test
