//go:build wasip1 && faults

package main

import "runtime"

// fault dies in one of the ways that a Go program can; only builds for tests have it.
//
//go:wasmexport fault
func fault(kind int32) (result int32) {
	defer recovered(&result)
	switch kind {
	case 0:
		panic("a panic for the test")
	case 1:
		var m map[string]int
		m["x"] = 1
	case 2:
		select {} // deadlock: the runtime exits
	case 3:
		var f func(int) int
		f = func(n int) int { return f(n+1) + 1 }
		return int32(f(0))
	}
	return 0
}

//go:wasmexport heap
func heap() float64 {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return float64(m.HeapAlloc)
}
