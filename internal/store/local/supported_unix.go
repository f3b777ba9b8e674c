//go:build unix

package local

// supported reports why this system cannot keep a data folder; on Unix it can.
func supported() error { return nil }
