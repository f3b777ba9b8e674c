package storetest

import "time"

// Clock makes the time pass that a driver sees.
type Clock interface {
	// Advance returns when d has passed.
	Advance(d time.Duration)
}

// RealTime is the Clock of a driver whose time cannot be set.
type RealTime struct{}

// Advance sleeps.
func (RealTime) Advance(d time.Duration) { time.Sleep(d) }
